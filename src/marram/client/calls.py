"""Each method of the API as commands out and a value in: the part of a client without sockets.

Owns which commands a method sends, how their replies are read and what the caller's arguments must
be; not connections, nor whether a broken call may be sent again: `writes` says what it needs to
know for that.

W1  every write is one command: it happens whole, at one position, or not at all.
W2  a refused argument costs no round trip.
W3  a reply of the wrong shape is a ProtocolError, never a wrong value.

Threading: pure functions over immutable values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from marram.client.figures import STATS_COMMAND, info_sections, store_figures
from marram.client.refusals import refusal
from marram.errors import Error, InvalidArgument, NotFound, ProtocolError
from marram.protocol.replies import ErrorReply, Reply, Verbatim
from marram.storage.arguments import (
    check_key,
    check_seconds,
    check_value,
    checked_count,
    scan_bounds,
    to_bytes,
)
from marram.storage.store import Position
from marram.storage.verify import Report

T = TypeVar("T")

Pair = tuple[bytes, bytes]

MAX_KEY_BYTES = 16 << 20  # the most a server can be told to accept; what it does accept it says
MAX_VALUE_BYTES = 2**32 - (32 << 20)
MAX_ARGUMENTS = 1 << 20
"""Arguments of one command, its name included: a server's limit."""

CHUNK_ROWS = 1000
"""Rows that a scan fetches per round trip, where nothing else is said."""

_MGET_KEYS = 10_000
_MAX_SLICE = 100_000  # rows a server gives at most in one answer
MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """Commands that are sent together, and how their replies become a value.

    read: takes as many replies as there are commands; raises what they mean.
    writes: whether sending it twice may differ from once, so that a broken one is in doubt.
    patient: it may take long; no time limit.
    """

    commands: Sequence[Sequence[bytes]]
    read: Callable[[list[Reply]], T]
    writes: bool = False
    patient: bool = False


# -- points ----------------------------------------------------------------------------------------


def get(key: bytes, default: Any) -> Call[Any]:
    """GET: the value, or `default`."""
    key = to_bytes(key, "key")

    def read(replies: list[Reply]) -> Any:
        value = _optional_bytes(replies[0])
        return default if value is None else value

    return Call([(b"GET", key)], read)


def put(key: bytes, value: bytes, ttl: float | None) -> Call[None]:
    """SET, with PX where there is a ttl."""
    command = [b"SET", checked_key(key), checked_value(value)]
    if ttl is not None:
        command += (b"PX", b"%d" % check_seconds(ttl, "ttl"))
    return Call([command], read_ok, writes=True)


def delete(key: bytes) -> Call[bool]:
    """DEL: whether it was there."""
    return Call([(b"DEL", checked_key(key))], read_bool, writes=True)


def exists(key: bytes) -> Call[bool]:
    """EXISTS."""
    return Call([(b"EXISTS", to_bytes(key, "key"))], read_bool)


def compare_and_set(key: bytes, expected: bytes | None, new: bytes | None) -> Call[bool]:
    """COMMITIF with one check and at most one write."""
    key = checked_key(key)
    command = [b"COMMITIF", b"1", key]
    if expected is None:
        command.append(b"IFNX")
    else:
        command += (b"IFEQ", to_bytes(expected, "expected value"))
    if new is not None:
        command += (b"1", b"PUT", key, checked_value(new), b"0")
    elif expected is None:
        command.append(b"0")
    else:
        command += (b"1", b"DEL", key)
    return Call([command], read_bool, writes=True)


def ttl(key: bytes) -> Call[float | None]:
    """PTTL: seconds, None for no deadline. The reading raises NotFound."""
    key = checked_key(key)

    def read(replies: list[Reply]) -> float | None:
        left_ms = read_int(replies)
        if left_ms == -2:
            raise NotFound(repr(key))
        return None if left_ms == -1 else left_ms / 1000

    return Call([(b"PTTL", key)], read)


def deadlines(keys: Sequence[bytes]) -> Call[list[int]]:
    """PEXPIRETIME of each key: its deadline, ms since 1970; below 0 for none or no such key."""
    commands = [(b"PEXPIRETIME", key) for key in keys]
    return Call(commands, lambda replies: [_int(reply) for reply in replies])


def expire(key: bytes, seconds: float) -> Call[bool]:
    """PEXPIRE: whether the key was there."""
    left_ms = check_seconds(seconds, "seconds")
    return Call([(b"PEXPIRE", checked_key(key), b"%d" % left_ms)], read_bool, writes=True)


def persist(key: bytes) -> Call[bool]:
    """PERSIST: whether there was a deadline."""
    return Call([(b"PERSIST", checked_key(key))], read_bool, writes=True)


def pop(key: bytes, default: Any) -> Call[Any]:
    """GETDEL: the value, or `default`; NotFound where that is MISSING."""
    key = checked_key(key)

    def read(replies: list[Reply]) -> Any:
        value = _optional_bytes(replies[0])
        if value is not None:
            return value
        if default is MISSING:
            raise NotFound(repr(key))
        return default

    return Call([(b"GETDEL", key)], read, writes=True)


def setdefault(key: bytes, default: bytes) -> Call[bytes]:
    """SET NX GET: what the key holds afterwards."""
    default = checked_value(default)

    def read(replies: list[Reply]) -> bytes:
        value = _optional_bytes(replies[0])
        return default if value is None else value

    return Call([(b"SET", checked_key(key), default, b"NX", b"GET")], read, writes=True)


# -- many ------------------------------------------------------------------------------------------


def get_many(keys: Iterable[bytes]) -> Call[list[bytes | None]]:
    """MGET, several where there are many keys."""
    wanted = [to_bytes(key, "key") for key in keys]
    commands = [
        [b"MGET", *wanted[at : at + _MGET_KEYS]] for at in range(0, len(wanted), _MGET_KEYS)
    ]

    def read(replies: list[Reply]) -> list[bytes | None]:
        values = [value for reply in replies for value in _list(reply)]
        if len(values) != len(wanted):
            raise ProtocolError(f"asked for {len(wanted)} keys, got {len(values)} values")
        return [_optional_bytes(value) for value in values]

    return Call(commands, read)


def put_many(items: Mapping[bytes, bytes] | Iterable[Pair]) -> Call[None]:
    """MSET; without commands where there is nothing to set."""
    command = [b"MSET"]
    for key, value in items.items() if isinstance(items, Mapping) else items:
        command += (checked_key(key), checked_value(value))
    if len(command) == 1:
        return Call([], lambda replies: None)
    _check_arguments(len(command))
    return Call([command], read_ok, writes=True)


def count() -> Call[int]:
    """DBSIZE."""
    return Call([(b"DBSIZE",)], read_int)


def clear() -> Call[None]:
    """FLUSHDB."""
    return Call([(b"FLUSHDB",)], read_ok, writes=True)


def first_key() -> Call[bytes | None]:
    """SCANRANGE: the first key in order, or None."""

    def read(replies: list[Reply]) -> bytes | None:
        found = _list(replies[0])
        return _bytes(found[0]) if found else None

    return Call([(b"SCANRANGE", b"", b"", b"LIMIT", b"1", b"KEYS")], read)


# -- the server ------------------------------------------------------------------------------------


def ping() -> Call[None]:
    """PING."""
    return Call([(b"PING",)], lambda replies: _refuse(replies[0]))


def promote() -> Call[None]:
    """REPLICAOF NO ONE."""
    return Call([(b"REPLICAOF", b"NO", b"ONE")], read_ok, patient=True)


def follow(host: str, port: int) -> Call[None]:
    """REPLICAOF."""
    return Call([(b"REPLICAOF", host.encode(), b"%d" % port)], read_ok, patient=True)


def checkpoint() -> Call[None]:
    """CHECKPOINT."""
    return Call([(b"CHECKPOINT",)], read_ok, patient=True)


def compact(start: bytes | None, stop: bytes | None) -> Call[None]:
    """COMPACT, COMPACT RANGE; without commands where the range is empty."""
    if start is None and stop is None:
        command = [b"COMPACT"]
    else:
        low = b"" if start is None else to_bytes(start, "start")
        high = b"" if stop is None else to_bytes(stop, "stop")
        # On the wire an empty bound means none, so an empty range must not be asked for.
        if stop is not None and low >= high:
            return Call([], lambda replies: None)
        command = [b"COMPACT", b"RANGE", low, high]
    return Call([command], read_ok, patient=True)


def compaction_status() -> Call[dict[str, Any]]:
    """COMPACT STATUS: what runs, and what is owed."""

    def read(replies: list[Reply]) -> dict[str, Any]:
        fields = replies[0]
        if not isinstance(fields, dict):
            raise _unexpected(fields, "a map")
        return {
            _bytes(name).decode("utf-8", "replace"): (
                value.decode("utf-8", "replace") if isinstance(value, bytes) else _int(value)
            )
            for name, value in fields.items()
        }

    return Call([(b"COMPACT", b"STATUS")], read)


def backup(name: str) -> Call[Position]:
    """BACKUP."""

    def read(replies: list[Reply]) -> Position:
        return _position(replies[0])

    return Call([(b"BACKUP", name.encode())], read, patient=True)


def verify() -> Call[Report]:
    """VERIFY."""

    def read(replies: list[Reply]) -> Report:
        fields = replies[0]
        if not isinstance(fields, dict):
            raise _unexpected(fields, "a map")
        checked = [_fields(file, 2) for file in _list(fields.get(b"checked"))]
        problems = [_bytes(problem) for problem in _list(fields.get(b"problems"))]
        return Report(
            checked=[
                (_bytes(name).decode("utf-8", "replace"), _int(size)) for name, size in checked
            ],
            problems=[problem.decode("utf-8", "replace") for problem in problems],
            rows=_int(fields.get(b"rows")),
            batches=_int(fields.get(b"batches")),
            torn_tail_bytes=_int(fields.get(b"torn_tail_bytes")),
            orphans=[
                _bytes(name).decode("utf-8", "replace")
                for name in _list(fields.get(b"orphans", []))
            ],
        )

    return Call([(b"VERIFY",)], read, patient=True)


def sync() -> Call[None]:
    """WAITAOF for the server's own disk."""

    def read(replies: list[Reply]) -> None:
        if _list(replies[0])[:1] != [1]:
            raise ProtocolError(f"WAITAOF was answered with {replies[0]!r}")

    return Call([(b"WAITAOF", b"1", b"0", b"0")], read, patient=True)


def stats() -> Call[dict[str, Any]]:
    """INFO: the figures that DB.stats() gives, as far as a server tells them."""

    def read(replies: list[Reply]) -> dict[str, Any]:
        reply = replies[0]
        data = reply.data if isinstance(reply, Verbatim) else _bytes(reply)
        return store_figures(info_sections(data))

    return Call([STATS_COMMAND], read)


def time_ms() -> Call[int]:
    """TIME: the store's clock, ms since 1970."""

    def read(replies: list[Reply]) -> int:
        parts = [_bytes(part) for part in _fields(replies[0], 2)]
        if not all(part.isdigit() and len(part) < 20 for part in parts):
            raise ProtocolError(f"the server's time is {parts!r}")
        return int(parts[0]) * 1000 + int(parts[1]) // 1000

    return Call([(b"TIME",)], read)


# -- snapshots: on the one connection that opened them ---------------------------------------------


class Opened(NamedTuple):
    """A snapshot as the server names it."""

    id: bytes
    position: Position


class Slice(NamedTuple):
    """Part of a range, and where the next part starts (in reverse: stops); None at the end."""

    onward: bytes | None
    rows: list[Pair]


def open_snapshot() -> Call[Opened]:
    """SNAPSHOT OPEN."""

    def read(replies: list[Reply]) -> Opened:
        number, place = _fields(replies[0], 2)
        return Opened(b"%d" % _int(number), _position(place))

    return Call([(b"SNAPSHOT", b"OPEN")], read)


def close_snapshot(snapshot: Opened) -> Call[None]:
    """SNAPSHOT CLOSE."""
    return Call([(b"SNAPSHOT", b"CLOSE", snapshot.id)], read_ok)


def snapshot_get(snapshot: Opened, keys: Sequence[bytes]) -> Call[list[bytes | None]]:
    """SNAPSHOT GET."""
    commands = [
        [b"SNAPSHOT", b"GET", snapshot.id, *keys[at : at + _MGET_KEYS]]
        for at in range(0, len(keys), _MGET_KEYS)
    ]

    def read(replies: list[Reply]) -> list[bytes | None]:
        values = [value for reply in replies for value in _list(reply)]
        if len(values) != len(keys):
            raise ProtocolError(f"asked for {len(keys)} keys, got {len(values)} values")
        return [_optional_bytes(value) for value in values]

    return Call(commands, read)


def snapshot_scan(
    snapshot: Opened, start: bytes, stop: bytes | None, limit: int, *, reverse: bool
) -> Call[Slice]:
    """SNAPSHOT SCAN: one slice of at most `limit` rows, >= 1; stop None: no bound, never b""."""
    command = [b"SNAPSHOT", b"SCAN", snapshot.id, start, stop or b"", b"LIMIT", b"%d" % limit]
    if reverse:
        command.append(b"REV")

    def read(replies: list[Reply]) -> Slice:
        onward, flat = _fields(replies[0], 2)
        items = [_bytes(item) for item in _list(flat)]
        if len(items) % 2:
            raise ProtocolError("a slice ends with a key that has no value")
        rows = list(zip(items[::2], items[1::2], strict=True))
        return Slice(_optional_bytes(onward), rows)

    return Call([command], read)


class Slices:
    """A scan's way through its range, a slice at a time.

    Arguments as DB.scan_chunks() takes them. Raises InvalidType, InvalidArgument.
    """

    __slots__ = ("_chunk", "_high", "_left", "_low", "_reverse", "done")

    def __init__(
        self,
        prefix: bytes,
        start: bytes | None,
        stop: bytes | None,
        reverse: bool,
        limit: int | None,
        chunk: int,
    ) -> None:
        self._low, self._high = scan_bounds(prefix, start, stop)
        self._left = checked_count(limit, "limit")
        self._chunk = min(checked_count(chunk, "chunk") or 1, _MAX_SLICE)
        self._reverse = reverse
        # On the wire an empty bound means none, so an empty range must not be asked for.
        self.done = self._left == 0 or (self._high is not None and self._low >= self._high)

    def call(self, snapshot: Opened) -> Call[Slice]:
        """What asks for the next slice; not when done."""
        wanted = self._chunk if self._left is None else min(self._chunk, self._left)
        return snapshot_scan(snapshot, self._low, self._high, wanted, reverse=self._reverse)

    def taken(self, found: Slice) -> list[Pair]:
        """Go on behind a slice; its rows."""
        if self._left is not None:
            self._left -= len(found.rows)
        if found.onward is None or self._left == 0:
            self.done = True
        elif self._reverse:
            self._high = found.onward
        else:
            self._low = found.onward
        return found.rows


# -- arguments -------------------------------------------------------------------------------------


def checked_key(key: bytes) -> bytes:
    """A key that a server may accept. Raises InvalidType, InvalidArgument."""
    return check_key(key, MAX_KEY_BYTES)


def checked_value(value: bytes) -> bytes:
    """A value that a server may accept. Raises InvalidType, InvalidArgument."""
    return check_value(value, MAX_VALUE_BYTES)


def _check_arguments(size: int) -> None:
    if size > MAX_ARGUMENTS:
        raise InvalidArgument(f"one batch has at most {MAX_ARGUMENTS} arguments; split it")


class Writes:
    """The changes of a batch or transaction, as COMMITIF and COMMITAT take them."""

    __slots__ = ("_operands", "_ttls", "count", "has_ranges")

    def __init__(self) -> None:
        self.count = 0
        self.has_ranges = False
        self._operands: list[bytes] = []
        self._ttls: list[tuple[int, int]] = []  # (index of a deadline, ttl in ms)

    @property
    def needs_time(self) -> bool:
        """Whether deadlines have to be worked out, from the server's time."""
        return bool(self._ttls)

    def put(self, key: bytes, value: bytes, ttl: float | None) -> None:
        """Add a PUT; its ttl counts from the commit."""
        key, value = checked_key(key), checked_value(value)
        if ttl is not None:
            self._ttls.append((len(self._operands) + 3, check_seconds(ttl, "ttl")))
        self._add(b"PUT", key, value, b"0")

    def put_until(self, key: bytes, value: bytes, deadline_ms: int) -> None:
        """Add a PUT with an absolute deadline, ms since 1970, or 0 for none."""
        self._add(b"PUT", checked_key(key), checked_value(value), b"%d" % deadline_ms)

    def delete(self, key: bytes) -> None:
        """Add a DEL."""
        self._add(b"DEL", checked_key(key))

    def delete_range(self, start: bytes, stop: bytes | None) -> None:
        """Add a DELRANGE, unless it is empty: on the wire an empty bound means none."""
        start = to_bytes(start, "start")
        stop = None if stop is None else to_bytes(stop, "stop")
        if stop is None or start < stop:
            self.has_ranges = True
            self._add(b"DELRANGE", start, stop or b"")

    def commit_if(self, now_ms: int) -> Call[None]:
        """The changes alone, as one batch; none of them is a range. now_ms: the server's time."""
        command = [b"COMMITIF", b"0", b"%d" % self.count, *self._timed(now_ms)]
        _check_arguments(len(command))
        return Call([command], _read_committed, writes=True)

    def commit_at(
        self,
        snapshot: Opened,
        keys: Sequence[bytes],
        ranges: Sequence[tuple[bytes, bytes | None]],
        now_ms: int,
    ) -> Call[None]:
        """The changes, if nothing of what was read has changed since the snapshot."""
        command = [b"COMMITAT", snapshot.id]
        if keys:
            command += (b"READS", b"%d" % len(keys), *keys)
        if ranges:
            command += (b"RANGES", b"%d" % len(ranges))
            for start, stop in ranges:
                command += (start, stop or b"")
        command += (b"WRITES", b"%d" % self.count, *self._timed(now_ms))
        _check_arguments(len(command))
        return Call([command], lambda replies: _discard(_list(replies[0])), writes=True)

    def _add(self, *operands: bytes) -> None:
        self.count += 1
        self._operands += operands

    def _timed(self, now_ms: int) -> list[bytes]:
        operands = list(self._operands)
        for index, ttl_ms in self._ttls:
            operands[index] = b"%d" % (now_ms + ttl_ms)
        return operands


# -- replies ---------------------------------------------------------------------------------------


def read_ok(replies: list[Reply]) -> None:
    """Any status will do."""
    _refuse(replies[0])


def read_int(replies: list[Reply]) -> int:
    """An integer."""
    return _int(replies[0])


def read_bool(replies: list[Reply]) -> bool:
    """An integer as yes or no."""
    return _int(replies[0]) != 0


def _read_committed(replies: list[Reply]) -> None:
    if _int(replies[0]) != 1:
        raise ProtocolError("a batch without conditions was not committed")


def _discard(value: object) -> None:
    """Only its shape mattered."""


def _refuse(reply: Reply) -> None:
    if isinstance(reply, ErrorReply):
        raise refusal(reply)


def _int(reply: Reply) -> int:
    if isinstance(reply, int) and not isinstance(reply, bool):
        return reply
    raise _unexpected(reply, "an integer")


def _bytes(reply: Reply) -> bytes:
    if isinstance(reply, bytes):
        return reply
    raise _unexpected(reply, "a string")


def _optional_bytes(reply: Reply) -> bytes | None:
    if reply is None or isinstance(reply, bytes):
        return reply
    raise _unexpected(reply, "a string")


def _list(reply: Reply) -> list[Any]:
    if isinstance(reply, list):
        return reply
    raise _unexpected(reply, "a list")


def _fields(reply: Reply, count: int) -> list[Any]:
    fields = _list(reply)
    if len(fields) != count:
        raise ProtocolError(f"the server sent {len(fields)} fields where {count} belong")
    return fields


def _position(reply: Reply) -> Position:
    epoch, sequence = _fields(reply, 2)
    return Position(_int(epoch), _int(sequence))


def _unexpected(reply: Reply, wanted: str) -> Error:
    if isinstance(reply, ErrorReply):
        return refusal(reply)
    return ProtocolError(f"the server sent {type(reply).__name__} where {wanted} belongs")
