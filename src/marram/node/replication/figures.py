"""What a node tells about its replication: ROLE, INFO's section, stats, what metrics are made of.

Owns names and units. Redis's names where it has them: an offset is a sequence number here. Bytes
are of the log, seconds the age of the oldest batch that is missing.

Threading: the thread that owns the node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marram.replication.replica import State

if TYPE_CHECKING:
    from marram.node.replication.downlink import Downlink
    from marram.node.replication.role import Replication
    from marram.node.replication.uplink import Uplink

_LINK_STATES = {
    State.WAITING: "connect",
    State.CONNECTING: "connecting",
    State.GREETING: "handshake",
    State.DERIVING: "handshake",
    State.LOGIN: "handshake",
    State.PREPARING: "handshake",
    State.EXPECTING: "sync",
    State.SYNCING: "sync",
    State.FINISHING: "sync",
    State.STREAMING: "connected",
    State.STOPPED: "none",
}


def role(part: Replication) -> list[Any]:
    """ROLE's answer."""
    store, uplink = part.node.store, part.uplink
    if part.is_replica:
        host, port = (uplink.host, uplink.port) if uplink is not None else ("", 0)
        state = "none" if uplink is None else link_state(uplink)
        return [b"slave", host.encode(), port, state.encode(), store.commit.durable]
    replicas = []
    for link in part.downlinks:
        if link.state == "online":
            host, port_text = _address(link)
            replicas.append([host.encode(), port_text.encode(), b"%d" % link.feed.durable])
    return [b"master", store.committed, replicas]


def link_state(uplink: Uplink) -> str:
    """How far the link to the upstream is, in Redis's words."""
    return _LINK_STATES[uplink.follower.state]


def fields(part: Replication) -> dict[str, Any]:
    """INFO's section, flat."""
    store = part.node.store
    told = stats(part)
    found: dict[str, Any] = {"role": "slave" if part.is_replica else "master"}
    upstream = told.get("upstream")
    if upstream is not None:
        found |= {
            "master_host": upstream["host"],
            "master_port": upstream["port"],
            "master_link_status": "up" if upstream["state"] == "connected" else "down",
            "master_last_io_seconds_ago": round(upstream["heard_s"]),
            "master_sync_in_progress": int(upstream["state"] == "sync"),
            "slave_repl_offset": store.commit.durable,
            "slave_read_only": 1,
            "primary_address": " ".join(f"{n}={at}" for n, at in part.primary.items()),
            "link_state": upstream["state"],
            "link_trouble": _line(upstream["trouble"]),
            "lag_positions": upstream["lag_positions"],
            "lag_bytes": upstream["lag_bytes"],
            "lag_seconds": f"{upstream['lag_seconds']:.3f}",
            "full_syncs_taken": upstream["full_syncs"],
        }
    replicas = told["replicas"]
    found["connected_slaves"] = sum(each["state"] == "online" for each in replicas)
    for number, each in enumerate(replicas):
        host, _, port = each["address"].rpartition(":")
        found[f"slave{number}"] = (
            f"ip={host.strip('[]')},port={port},state={each['state']},offset={each['durable']},"
            f"lag={round(each['lag_seconds'])},received={each['received']},"
            f"lag_positions={each['lag_positions']},lag_bytes={each['lag_bytes']},"
            f"lag_seconds={each['lag_seconds']:.3f}"
        )
    history = store.history.stats()
    found |= {
        "master_failover_state": "no-failover",
        "master_replid": store.store_id.hex() + "0" * 8,
        "master_replid2": "0" * 40,
        "master_repl_offset": store.committed,
        "second_repl_offset": -1,
        "repl_backlog_active": 1,
        "repl_backlog_size": history["limit_bytes"],
        "repl_backlog_first_byte_offset": history["oldest_sequence"],
        "repl_backlog_histlen": store.commit.durable - history["oldest_sequence"],
        "history_mark": told["history_mark"],
        "epoch": store.epoch,
        "deposed_by_epoch": part.deposed_by,
        "min_acks": told["min_acks"],
        "min_acks_good_replicas": part.levels.replicas,
        "full_syncs_given": part.full_syncs,
        "writes_refused": _line(part.write_refusal),
        "reads_refused": _line(part.read_refusal),
    }
    return found


def stats(part: Replication) -> dict[str, Any]:
    """The same, nested, for stats."""
    found: dict[str, Any] = {
        "role": "replica" if part.is_replica else "primary",
        "history_mark": "{}-{}-{:08x}".format(*part.node.store.history.newest()),
        "deposed_by": part.deposed_by,
        "min_acks": part.node.settings.replication.min_acks,
        "full_syncs_given": part.full_syncs,
        "received_batches": part.received_batches,
        "received_bytes": part.received_bytes,
        "set_aside": list(part.set_aside),
        "replicas": [_replica(link) for link in part.downlinks if link.feed.node_id],
    }
    if part.uplink is not None:
        found["upstream"] = _upstream(part, part.uplink)
    return found


def _replica(link: Downlink) -> dict[str, Any]:
    host, port = _address(link)
    lag = link.lag()
    return {
        "address": f"{host}:{port}",
        "node_id": link.feed.node_id.hex(),
        "state": link.state,
        "received": link.feed.received,
        "durable": link.feed.durable,
        "lag_positions": lag.positions,
        "lag_bytes": lag.bytes,
        "lag_seconds": round(lag.seconds, 6),
    }


def _upstream(part: Replication, uplink: Uplink) -> dict[str, Any]:
    follower, store = uplink.follower, part.node.store
    positions = max(0, follower.upstream_newest - store.commit.durable)
    heard_s = max(0, part.node.env.monotonic_ns() - follower.heard_ns) / 1e9
    return {
        "host": uplink.host,
        "port": uplink.port,
        "state": link_state(uplink),
        "trouble": follower.trouble,
        "heard_s": round(heard_s, 3) if follower.links else 0.0,
        "primary": dict(part.primary),
        "lag_positions": positions,
        "lag_bytes": follower.behind.bytes if positions else 0,
        "lag_seconds": uplink.lag_seconds(),
        "full_syncs": follower.full_syncs,
    }


def _address(link: Downlink) -> tuple[str, str]:
    """Host and port by which a replica is known: where it serves RESP, or whence it came."""
    came_from = link.peer.rpartition(":")[0]
    told = dict(word.partition("=")[::2] for word in link.feed.address.split() if "=" in word)
    host, _, port = told.get("resp", link.peer).rpartition(":")
    return (came_from if host in ("", "0.0.0.0", "[::]") else host), port


def _line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")
