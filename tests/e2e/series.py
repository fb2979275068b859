"""Clients that write numbered series, so that what was lost, and what is half there, shows."""

from __future__ import annotations

import threading

from tests.e2e.process import Replies, ServerProcess, command

PIPELINE = 16


class Client:
    """One connection that writes a numbered series, in pipelines, until it is stopped or cut off.

    The series: SET c:<n>, and for every fourth n a MULTI that sets two keys together.
    """

    def __init__(self, number: int) -> None:
        self.name = b"c%d" % number
        self.sent = 0  # numbers below this were sent at some time
        self.acknowledged = 0  # and below this, acknowledged
        self.stopping = threading.Event()
        self.was_cut_off = False

    @property
    def fresh(self) -> int:
        """How many were acknowledged since check()."""
        return self.acknowledged - self._present_upto

    def run(self, server: ServerProcess, enough: threading.Event) -> None:
        """Write on from where the last life ended. enough: is set after some 200."""
        self.sent = self.acknowledged = self._present_upto
        self.stopping.clear()
        self.was_cut_off = False
        try:
            with server.connect() as connection:
                replies = Replies(connection)
                while not self.stopping.is_set():
                    first = self.sent
                    requests = [self._requests(n) for n in range(first, first + PIPELINE)]
                    self.sent = first + PIPELINE
                    connection.sendall(b"".join(data for data, _ in requests))
                    for number, (_, count) in enumerate(requests, first):
                        answers = [replies.read() for _ in range(count)]
                        assert not any(isinstance(a, Exception) for a in answers), answers
                        self.acknowledged = number + 1
                    if self.fresh > 200:
                        enough.set()
        except (OSError, EOFError):
            self.was_cut_off = True
            enough.set()

    _present_upto = 0

    def _requests(self, n: int) -> tuple[bytes, int]:
        value = b"%d" % n
        if n % 4:
            return command(b"SET", self.name + b":%d" % n, value), 1
        pair = [
            command(b"MULTI"),
            command(b"SET", self.name + b":%d" % n, value),
            command(b"SET", self.name + b":twin", value),
            command(b"INCRBY", self.name + b":pairs", b"1"),
            command(b"EXEC"),
        ]
        return b"".join(pair), 5

    def check(self, server: ServerProcess) -> None:
        """After a restart: a prefix of the series that covers all that was acknowledged."""
        with server.connect() as connection:
            replies = Replies(connection)
            numbers = list(range(self._present_upto, self.sent))
            connection.sendall(
                b"".join(command(b"GET", self.name + b":%d" % n) for n in numbers)
                + command(b"MGET", self.name + b":twin", self.name + b":pairs")
            )
            present = [n for n in numbers if self._is_there(n, replies.read())]
            twin, pairs = replies.read()  # type: ignore[misc]
        upto = self._present_upto + len(present)
        assert present == list(range(self._present_upto, upto)), "a hole"
        assert upto >= self.acknowledged, f"lost {self.acknowledged - upto} acknowledged writes"
        last_pair = (upto - 1) // 4 * 4
        assert int(twin or 0) == max(0, last_pair), "half a transaction"
        assert int(pairs or 0) == (last_pair // 4 + 1 if upto else 0), "a transaction ran twice"
        self._present_upto = upto

    def _is_there(self, n: int, reply: object) -> bool:
        assert reply in (None, b"%d" % n), f"wrong value for {n}: {reply!r}"
        return reply is not None
