"""How far replicas are behind while a load runs: as the primary reports it, and as clients see it.

Owns the sampling: two ways to look at one thing, which have to agree.

    reported   the primary's own figure: the age of the oldest batch that a replica lacks on disk
    seen       a marker is set on the primary, and a replica asked for it until it is there: from
               the primary's reply to the replica's

G1  the markers go to the replicas in turn; what is reported is the worst of them at that moment.
G2  a replica is asked again POLL_S after it answered: what is seen is no finer than that and a
    round trip, and never less than the truth.

Threading: a thread of its own, from `with` to its end; the load runs in other processes
(run_load's `apart`), so that it and the sampling do not wait for one interpreter.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Final, Self

from marram.bench.histogram import Histogram
from marram.bench.replica_set import CATCH_UP_S, Inquiry, ReplicaSet
from marram.errors import Error

SAMPLE_S: Final = 0.02
POLL_S: Final = 0.0005
_KEY: Final = b"marram-bench:marker"


class LagWatch:
    """Samples every SAMPLE_S while it is open."""

    def __init__(self, servers: ReplicaSet) -> None:
        """Connects; sampling starts with `with`. Raises ConnectionLost."""
        self.reported = Histogram()
        self.seen = Histogram()
        self.bytes = Histogram()
        self.error: Exception | None = None
        """What ended the sampling too early."""
        self._primary = Inquiry(servers.primary.running)
        self._replicas = [Inquiry(one.running) for one in servers.replicas]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()
        for one in (self._primary, *self._replicas):
            one.__exit__()

    def _run(self) -> None:
        number = 0
        due = time.perf_counter()
        try:
            while not self._over.wait(max(0.0, due - time.perf_counter())):
                due = max(due + SAMPLE_S, time.perf_counter())
                number += 1
                self._look(self._primary.replication()["replicas"])
                self._mark(number, self._replicas[number % len(self._replicas)])
        except (Error, OSError) as error:  # whoever opened it asks
            self.error = error

    def _look(self, replicas: list[dict[str, Any]]) -> None:
        """What the primary says (G1). Raises Error: no replica is there to be behind."""
        if not replicas:
            raise Error("no replica is connected")
        self.reported.record(max(round(one["lag_seconds"] * 1e9) for one in replicas))
        self.bytes.record(max(one["lag_bytes"] for one in replicas))

    def _mark(self, number: int, replica: Inquiry) -> None:
        """What a client sees (G2)."""
        value = b"%d" % number
        self._primary.ask(b"SET", _KEY, value)
        since_ns = time.perf_counter_ns()
        while replica.ask(b"GET", _KEY) != value:
            if time.perf_counter_ns() - since_ns > CATCH_UP_S * 1e9:
                raise Error(f"a replica lacks what was written {CATCH_UP_S:g} s ago")
            time.sleep(POLL_S)
        self.seen.record(time.perf_counter_ns() - since_ns)
