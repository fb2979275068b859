"""INFO's text, and MEMORY STATS's figures.

Owns the fields' names and their order by section. Names and meanings are Redis's where Redis has
them; what marram has of its own is in sections Marram and Lsm, with units in the names. Counts of
keys are what the engine knows without looking: exact ones are DBSIZE's.

Threading: the thread that owns the node.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from marram import __version__
from marram.commands.connection import COMPATIBLE_VERSION
from marram.node.process import usage
from marram.node.replication import figures

if TYPE_CHECKING:
    from marram.node.node import Node

Fields = dict[str, Any]


def text(node: Node, wanted: Sequence[bytes]) -> bytes:
    """INFO: the sections asked for, in lower case; none asked means the default ones."""
    names = {name.decode("utf-8", "replace") for name in wanted} or {"default"}
    parts = []
    for title, (build, by_default) in _SECTIONS.items():
        name = title.lower()
        if name in names or names & {"all", "everything"} or ("default" in names and by_default):
            fields = build(node)
            if fields is None:
                continue
            lines = [f"# {title}", *(f"{key}:{value}" for key, value in fields.items())]
            parts.append("\r\n".join(lines) + "\r\n")
    return "\r\n".join(parts).encode("utf-8", "surrogateescape")


def memory(node: Node) -> dict[bytes, int | float]:
    """MEMORY STATS."""
    engine = node.store.engine
    used = engine.memory_bytes()
    dataset = min(engine.data_bytes(), used)
    resident = usage(node.env).resident_bytes
    keys = sum(space.about() for space in engine.spaces)
    return {
        b"peak.allocated": max(node.peak_bytes, used),
        b"total.allocated": used,
        b"startup.allocated": 0,
        b"replication.backlog": 0,
        b"clients.slaves": 0,
        b"clients.normal": _clients_bytes(node),
        b"aof.buffer": 0,
        b"overhead.total": used - dataset,
        b"keys.count": keys,
        b"keys.bytes-per-key": used // keys if keys else 0,
        b"dataset.bytes": dataset,
        b"fragmentation": resident / used if used else 0.0,
        b"fragmentation.bytes": max(0, resident - used),
    }


def _clients_bytes(node: Node) -> int:
    found = 0
    for session in node.clients:
        found += sum(session.buffers()) + session.queue_bytes
    return found


def _human(size: float) -> str:
    """1.50M, as Redis writes it.

    >>> _human(0), _human(1536), _human(1 << 30)
    ('0B', '1.50K', '1.00G')
    """
    if size < 1024:
        return f"{int(size)}B"
    for unit in "KMGT":
        size /= 1024
        if size < 1024 or unit == "T":
            break
    return f"{size:.2f}{unit}"


# -- sections --------------------------------------------------------------------------------------


def _server(node: Node) -> Fields:
    uptime_s = node.uptime_s()
    return {
        "redis_version": COMPATIBLE_VERSION,
        "redis_git_sha1": "00000000",
        "redis_git_dirty": 0,
        "redis_build_id": "0",
        "redis_mode": "standalone",
        "marram_version": __version__,
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "arch_bits": 64 if platform.architecture()[0] == "64bit" else 32,
        "python_version": platform.python_version(),
        "process_id": node.env.pid(),
        "run_id": node.run_id,
        "tcp_port": node.settings.port,
        "server_time_usec": node.now_ms * 1000,
        "uptime_in_seconds": uptime_s,
        "uptime_in_days": uptime_s // 86400,
        "hz": 10,
        "configured_hz": 10,
    }


def _clients(node: Node) -> Fields:
    sessions = list(node.clients)
    buffers = [session.buffers() for session in sessions]
    return {
        "connected_clients": len(sessions),
        "cluster_connections": 0,
        "maxclients": node.settings.maxclients,
        "client_recent_max_input_buffer": max((each.unparsed for each in buffers), default=0),
        "client_recent_max_output_buffer": max((each.unsent for each in buffers), default=0),
        "blocked_clients": sum(session.blocked is not None for session in sessions),
        "tracking_clients": 0,
        "pubsub_clients": sum(session.kind == "pubsub" for session in sessions),
        "watching_clients": sum(bool(session.watched) for session in sessions),
        "total_watched_keys": len(node.transactions.watches.by_key),
        "clients_in_timeout_table": 0,
    }


def _memory(node: Node) -> Fields:
    engine = node.store.engine
    used = engine.memory_bytes()
    node.peak_bytes = max(node.peak_bytes, used)
    resident = usage(node.env).resident_bytes
    limit = node.store.options.memory_limit
    return {
        "used_memory": used,
        "used_memory_human": _human(used),
        "used_memory_rss": resident,
        "used_memory_rss_human": _human(resident),
        "used_memory_peak": node.peak_bytes,
        "used_memory_peak_human": _human(node.peak_bytes),
        "used_memory_dataset": min(engine.data_bytes(), used),
        "maxmemory": limit,
        "maxmemory_human": _human(limit),
        "maxmemory_policy": "noeviction",
        "mem_fragmentation_ratio": f"{resident / used if used else 0:.2f}",
        "mem_clients_normal": _clients_bytes(node),
        "mem_allocator": "python",
    }


def _persistence(node: Node) -> Fields:
    store = node.store
    stats = store.stats()
    checkpoint = stats["checkpoint"]
    failed = store.failure is not None
    return {
        "loading": 0,
        "async_loading": 0,
        "rdb_changes_since_last_save": stats["log"]["batches"],
        "rdb_bgsave_in_progress": int(checkpoint["running"]),
        "rdb_last_save_time": node.upkeep.last_save_s,
        "rdb_last_bgsave_status": "err" if checkpoint["last_error"] else "ok",
        "rdb_saves": checkpoint["count"],
        "aof_enabled": 1,
        "aof_rewrite_in_progress": 0,
        "aof_last_write_status": "err" if failed else "ok",
        "aof_current_size": stats["log"]["bytes"],
    }


def _marram(node: Node) -> Fields:
    store = node.store
    stats = store.stats()
    log, sync, checkpoint = stats["log"], stats["sync"], stats["checkpoint"]
    stalls = node.upkeep.stalls
    return {
        "engine": stats["engine"],
        "durability": stats["durability"],
        "data_bytes": stats["data_bytes"],
        "epoch": store.epoch,
        "last_sequence": store.last,
        "committed_sequence": store.committed,
        "unsettled_batches": stats["unsettled_batches"],
        "generation": stats["generation"],
        "log_number": log["number"],
        "log_bytes": log["bytes"],
        "commit_groups": log["groups"],
        "commit_batches": log["batches"],
        "batches_per_group": f"{log['batches'] / log['groups'] if log['groups'] else 0:.2f}",
        "sync_count": sync["count"],
        "sync_mean_us": sync["mean_us"],
        "sync_max_us": sync["max_us"],
        "checkpoints": checkpoint["count"],
        "checkpoint_running": int(checkpoint["running"]),
        "checkpoint_last_error": str(checkpoint["last_error"]).replace("\n", " "),
        "recovery_replayed_batches": stats["recovery"]["replayed_batches"],
        "recovery_cut_bytes": stats["recovery"]["cut_bytes"],
        "clock_ahead_ms": store.clock.ahead_ms,
        "open_snapshots": node.snapshots.num_open(),
        "stall_count": stalls.count,
        "stall_ms": stalls.total_ms,
        "stalled": int(stalls.is_on),
        "store_failure": str(store.failure or "").replace("\n", " "),
    }


def _lsm(node: Node) -> Fields | None:
    """The nested figures of the lsm engine, flat; None for another engine."""
    figures: Fields | None = node.store.engine.stats().get("lsm")
    if figures is None:
        return None
    fields: Fields = {}
    for name, value in figures.items():
        if name == "levels":
            for level in value:
                parts = [f"{part}={count}" for part, count in level.items() if part != "level"]
                fields[f"level{level['level']}"] = ",".join(parts)
        elif isinstance(value, dict):
            fields |= {f"{name}_{part}": _field(each) for part, each in value.items()}
        else:
            fields[name] = _field(value)
    return fields


def _field(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return f"{value:.4f}"
    return value.replace("\n", " ") if isinstance(value, str) else value


def _stats(node: Node) -> Fields:
    hits, misses = node.rows.lookups()
    return {
        "total_connections_received": node.clients.opened,
        "total_commands_processed": node.rows.total_calls(),
        "instantaneous_ops_per_sec": node.commands_per_s(),
        "total_net_input_bytes": node.traffic.received_bytes,
        "total_net_output_bytes": node.traffic.sent_bytes,
        "rejected_connections": node.traffic.rejected_connections,
        "sync_full": node.replication.full_syncs,
        "sync_partial_ok": 0,
        "sync_partial_err": 0,
        "expired_keys": node.store.expired_keys - node.expired_before,
        "evicted_keys": 0,
        "keyspace_hits": hits,
        "keyspace_misses": misses,
        "pubsub_channels": len(node.channels.names()),
        "pubsub_patterns": node.channels.num_patterns(),
        "pubsubshard_channels": 0,
        "latest_fork_usec": 0,
        "total_forks": 0,
        "total_error_replies": sum(node.errors.values()),
    }


def _replication(node: Node) -> Fields:
    return figures.fields(node.replication)


def _cpu(node: Node) -> Fields:
    used = usage(node.env)
    return {
        "used_cpu_sys": f"{used.system_s:.6f}",
        "used_cpu_user": f"{used.user_s:.6f}",
        "used_cpu_sys_children": "0.000000",
        "used_cpu_user_children": "0.000000",
    }


def _modules(node: Node) -> Fields:
    return {}


def _command_stats(node: Node) -> Fields:
    found = {}
    for row in node.rows.statistics():
        if row.calls or row.rejected:
            mean_us = row.usec / row.timed_calls if row.timed_calls else 0
            found[f"cmdstat_{row.name}"] = (
                f"calls={row.calls},usec={row.usec},usec_per_call={mean_us:.2f},"
                f"rejected_calls={row.rejected},failed_calls={row.failed}"
            )
    return found


def _error_stats(node: Node) -> Fields:
    return {f"errorstat_{code}": f"count={count}" for code, count in sorted(node.errors.items())}


def _cluster(node: Node) -> Fields:
    return {"cluster_enabled": 0}


def _keyspace(node: Node) -> Fields:
    return {
        f"db{number}": f"keys={space.about()},expires={space.volatile},avg_ttl=0"
        for number, space in enumerate(node.store.engine.spaces)
        if space.about()
    }


_SECTIONS: Final[dict[str, tuple[Callable[[Any], Fields | None], bool]]] = {
    "Server": (_server, True),
    "Clients": (_clients, True),
    "Memory": (_memory, True),
    "Persistence": (_persistence, True),
    "Marram": (_marram, True),
    "Lsm": (_lsm, True),
    "Stats": (_stats, True),
    "Replication": (_replication, True),
    "CPU": (_cpu, True),
    "Modules": (_modules, True),
    "Commandstats": (_command_stats, False),
    "Errorstats": (_error_stats, True),
    "Cluster": (_cluster, True),
    "Keyspace": (_keyspace, True),
}
