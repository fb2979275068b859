"""Prometheus: figures in its text format, read from plain counters when somebody asks.

Owns names, units and help; the counters belong to whoever counts. Nothing here is touched on the
way of a command. No name or label carries a key.

Threading: the event loop's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from marram import __version__
from marram.env.api import Env
from marram.node.node import Node
from marram.node.process import usage
from marram.node.replication.figures import stats as replication_stats
from marram.server.connection import Clients
from marram.storage.commit import SyncTimes
from marram.storage.store import Store


class Metrics:
    """Everything there is to scrape. requests: HTTP answers by (route, status)."""

    def __init__(
        self,
        store: Store,
        node: Node,
        clients: Clients,
        requests: Mapping[tuple[str, int], int],
        env: Env,
    ) -> None:
        self._store = store
        self._node = node
        self._clients = clients
        self._requests = requests
        self._env = env
        self._started_ns = env.monotonic_ns()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """prometheus-client's interface."""
        yield from self._about_store()
        yield from self._about_stalls()
        yield from _about_lsm(self._store.engine.stats().get("lsm"))
        yield from self._about_commits()
        yield from self._about_replication()
        yield from self._about_commands()
        yield from self._about_clients()
        yield from self._about_process()

    # -- private -----------------------------------------------------------------------------------

    def _about_store(self) -> Iterator[Metric]:
        store = self._store
        figures = store.stats()
        yield InfoMetricFamily(
            "marram", "Version and mode.",
            {
                "version": __version__,
                "engine": store.engine.name,
                "durability": store.options.durability,
            },
        )  # fmt: skip
        yield _gauge("failed", "1 once a durable write failed and the store must be reopened.",
                     float(store.failure is not None))  # fmt: skip
        keys = GaugeMetricFamily("marram_keys", "Keys held, about.", labels=["keyspace"])
        volatile = GaugeMetricFamily(
            "marram_volatile_keys", "Keys that have a deadline.", labels=["keyspace"]
        )
        data = GaugeMetricFamily(
            "marram_data_bytes", "Keys and values held, without overhead.", labels=["keyspace"]
        )
        for number, space in enumerate(store.engine.spaces):
            if space.about() or number == 0:
                keys.add_metric([str(number)], space.about())
                volatile.add_metric([str(number)], space.volatile)
                data.add_metric([str(number)], space.data_bytes)
        yield from (keys, volatile, data)
        yield _counter("expired_keys", "Keys deleted past their deadline.", store.expired_keys)
        yield _gauge("log_bytes", "Bytes a recovery would replay.", figures["log"]["bytes"])
        yield _gauge("generation", "The active generation.", figures["generation"])
        checkpoint = figures["checkpoint"]
        yield _counter("checkpoints", "Checkpoints made.", checkpoint["count"])
        yield _gauge("checkpoint_running", "1 while one is being made.", checkpoint["running"])
        yield _gauge("checkpoint_failed", "1 where the last one failed.",
                     float(bool(checkpoint["last_error"])))  # fmt: skip
        yield _gauge("last_checkpoint_timestamp_seconds", "When the last one ended; 0 for none.",
                     checkpoint["last_ms"] / 1000)  # fmt: skip

    def _about_stalls(self) -> Iterator[Metric]:
        stalls = self._node.upkeep.stalls
        yield _counter("stalls", "How often writers were held back.", stalls.count)
        yield _counter("stall_seconds", "How long in all.", stalls.total_ms / 1000)
        yield _gauge("stalled", "1 while they are held back.", stalls.is_on)

    def _about_commits(self) -> Iterator[Metric]:
        commit = self._store.commit
        yield _gauge("epoch", "The epoch new batches are written in.", commit.epoch)
        yield _gauge("last_sequence", "The newest batch applied.", commit.last)
        yield _gauge("committed_sequence", "The newest batch committed.", commit.committed)
        first = self._store.recovered.last_sequence
        yield _counter("batches", "Batches committed.", commit.committed - first)
        yield _counter("groups", "Commit groups written; batches per group is their ratio.",
                       commit.groups)  # fmt: skip
        yield _gauge("pending_bytes", "Batches applied and not yet being written.",
                     commit.pending_bytes)  # fmt: skip
        log = commit.log
        yield _gauge("unsynced_bytes", "Bytes written to the log and not yet synced.",
                     max(0, log.end - log.synced))  # fmt: skip
        yield _sync_histogram(commit.sync_times)

    def _about_replication(self) -> Iterator[Metric]:
        part = self._node.replication
        figures = replication_stats(part)
        yield _gauge("is_replica", "1 where the store follows another.", part.is_replica)
        yield _gauge("writes_refused", "1 while the role, or missing replicas, forbid writes.",
                     bool(part.write_refusal))  # fmt: skip
        yield _gauge("reads_refused", "1 while it is not known what may be shown.",
                     bool(part.read_refusal))  # fmt: skip
        yield _gauge("min_acks", "Replicas that every write has to reach.", figures["min_acks"])
        yield _gauge("acknowledging_replicas", "Replicas that are connected and acknowledge.",
                     part.levels.replicas)  # fmt: skip
        yield _gauge("durable_sequence", "The newest batch on this disk.",
                     self._store.commit.durable)  # fmt: skip
        yield _counter("full_syncs_given", "Full copies sent.", figures["full_syncs_given"])
        yield _counter("replicated_batches", "Batches that came from upstream.",
                       figures["received_batches"])  # fmt: skip
        yield _counter("replicated_bytes", "Their bytes.", figures["received_bytes"])
        for name, help in _LAGS.items():
            lags = GaugeMetricFamily(f"marram_replica_{name}", help, labels=["replica"])
            for each in figures["replicas"]:
                lags.add_metric([each["address"]], each[name])
            yield lags
        upstream = figures.get("upstream")
        if upstream is not None:
            yield _gauge("upstream_connected", "1 while its batches come.",
                         upstream["state"] == "connected")  # fmt: skip
            yield _counter("full_syncs_taken", "Full copies taken.", upstream["full_syncs"])
            for name, help in _LAGS.items():
                yield _gauge(f"upstream_{name}", help, upstream[name])

    def _about_commands(self) -> Iterator[Metric]:
        calls = CounterMetricFamily("marram_commands", "Commands run.", labels=["command"])
        failed = CounterMetricFamily(
            "marram_commands_failed", "Commands that answered an error.", labels=["command"]
        )
        for row in self._node.rows.statistics():
            if row.calls or row.failed or row.rejected:
                calls.add_metric([row.name], row.calls)
                failed.add_metric([row.name], row.failed + row.rejected)
        yield from (calls, failed)
        hits, misses = self._node.rows.lookups()
        yield _counter("keyspace_hits", "Look-ups that found their key.", hits)
        yield _counter("keyspace_misses", "Look-ups that did not.", misses)
        requests = CounterMetricFamily(
            "marram_http_requests", "HTTP requests answered.", labels=["route", "status"]
        )
        for (route, status), count in sorted(self._requests.items()):
            requests.add_metric([route, str(status)], count)
        yield requests

    def _about_clients(self) -> Iterator[Metric]:
        clients = self._clients
        traffic = self._node.traffic
        yield _gauge("connected_clients", "RESP and framed connections.", len(clients.connections))
        yield _counter("connections", "Connections accepted.", clients.accepted)
        yield _counter(
            "connections_refused", "... of them refused: too many.", traffic.rejected_connections
        )
        yield _counter("connections_timed_out", "... silent too long.", clients.timed_out)
        yield _counter("connections_cut_off", "... that did not read.", clients.cut_off)
        yield _counter("protocol_errors", "Connections ended for what they sent.",
                       clients.protocol_errors)  # fmt: skip
        yield _counter("received_bytes", "Bytes of requests.", traffic.received_bytes)
        yield _counter("sent_bytes", "Bytes of replies.", traffic.sent_bytes)

    def _about_process(self) -> Iterator[Metric]:
        used = usage(self._env)
        yield _counter("process_cpu_seconds", "Processor time used.", used.user_s + used.system_s)
        yield _gauge("process_resident_bytes", "Memory in use.", used.resident_bytes)
        uptime_s = (self._env.monotonic_ns() - self._started_ns) / 1e9
        yield _gauge("uptime_seconds", "Since the listeners were made.", uptime_s)


_LAGS: Final = {
    "lag_positions": "Batches that the replica does not have on disk.",
    "lag_bytes": "Their bytes in the log, about.",
    "lag_seconds": "The age of the oldest of them, about.",
}
_LEVELS: Final = {
    "tables": "Tables of a level.",
    "bytes": "Their files.",
    "rows": "Their rows, tombstones included.",
    "tombstones": "Rows that say a key is gone.",
}
_LSM_GAUGES: Final = {
    "table_bytes": "All tables' files.",
    "obsolete_tables": "Tables kept for those who read an older state.",
    "space_amplification": "Bytes of all tables by those of the deepest level.",
    "write_amplification": "Bytes flushed and compacted by those flushed, since the start.",
    "compaction_debt_bytes": "What compactions owe.",
    "level0_depth": "Tables of level 0 that a key may be in.",
    "throttle": "How much writers should be held back, 0 to 1; from 1 on they are.",
}
_COMPACTION_COUNTERS: Final = {
    "read_bytes": "Bytes of tables that compactions read.",
    "written_bytes": "Bytes of tables that they wrote.",
    "rows_read": "Rows that they read.",
    "rows_written": "Rows that they wrote.",
    "expired_rows": "Expired keys that they dropped.",
    "failures": "Compactions that failed.",
}
_CACHE_COUNTERS: Final = {
    "hits": "Look-ups that found their block or table.",
    "misses": "Look-ups that did not.",
    "evictions": "Entries dropped to make room.",
}


def _about_lsm(figures: dict[str, Any] | None) -> Iterator[Metric]:
    """The lsm engine's figures (Store.stats()["lsm"]); nothing for another engine."""
    if figures is None:
        return
    for name, help in _LEVELS.items():
        levels = GaugeMetricFamily(f"marram_lsm_level_{name}", help, labels=["level"])
        for level in figures["levels"]:
            levels.add_metric([str(level["level"])], level[name])
        yield levels
    for name, help in _LSM_GAUGES.items():
        if name in figures:
            yield _gauge(f"lsm_{name}", help, figures[name])
    memtable, memory = figures["memtable"], figures["memory"]
    yield _gauge("lsm_memtable_bytes", "What waits in memory to be flushed.", memtable["bytes"])
    yield _gauge("lsm_memtables_frozen", "Memtables being flushed.", memtable["frozen"])
    yield _gauge("lsm_memory_bytes", "Memtables, block cache, open tables.", memory["bytes"])
    yield _gauge("lsm_memory_limit_bytes", "What they share.", memory["limit_bytes"])
    blobs = figures["blobs"]
    yield _gauge("lsm_blobs", "Files of large values.", blobs["files"])
    yield _gauge("lsm_blob_bytes", "Their size.", blobs["bytes"])
    yield _gauge("lsm_blob_live_bytes", "What of it is in use.", blobs["live_bytes"])
    yield _counter("lsm_flushed_bytes", "Bytes of tables and blobs that flushes wrote.",
                   figures["flushed_bytes"])  # fmt: skip
    caches = {"block": figures["block_cache"], "table": figures["table_cache"]}
    for name, help in _CACHE_COUNTERS.items():
        counter = CounterMetricFamily(f"marram_lsm_cache_{name}", help, labels=["cache"])
        for cache, held in caches.items():
            counter.add_metric([cache], held[name])
        yield counter
    held_bytes = GaugeMetricFamily("marram_lsm_cache_bytes", "What it holds.", labels=["cache"])
    for cache, held in caches.items():
        held_bytes.add_metric([cache], held["bytes"])
    yield held_bytes
    yield from _about_compactions(figures.get("compaction"))


def _about_compactions(figures: dict[str, Any] | None) -> Iterator[Metric]:
    if figures is None:
        return
    done = CounterMetricFamily("marram_lsm_compactions", "Compactions done.", labels=["kind"])
    for kind in ("merge", "move", "drop"):
        done.add_metric([kind], figures[f"{kind}s"])
    yield done
    yield _gauge("lsm_compaction_running", "1 while one runs.", bool(figures["running"]))
    yield _gauge("lsm_compaction_paused", "1 after COMPACT PAUSE.", figures["paused"])
    for name, help in _COMPACTION_COUNTERS.items():
        yield _counter(f"lsm_compaction_{name}", help, figures[name])


def _sync_histogram(times: SyncTimes) -> HistogramMetricFamily:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound_us, count in zip(times.BOUNDS_US, times.counts, strict=False):
        total += count
        buckets.append((repr(bound_us / 1e6), total))
    buckets.append(("+Inf", times.total))
    return HistogramMetricFamily(
        "marram_log_sync_duration_seconds",
        "Writing a commit group and syncing it.",
        buckets=buckets,
        sum_value=times.sum_ns / 1e9,
    )


def _gauge(name: str, help: str, value: Any) -> Metric:
    return GaugeMetricFamily(f"marram_{name}", help, value=float(value))


def _counter(name: str, help: str, value: Any) -> Metric:
    return CounterMetricFamily(f"marram_{name}", help, value=float(value))
