"""The values that rows point to: separating, reading, counting and collecting them.

Owns which blobs are open, and the ways of rows with pointers: into a flush, to a reader, through a
merge; not a blob's bytes (blob.py), not which blobs are collected (picker.py).

Q1  blobs are opened as the version says that they are, and read while it is held: so their files
    are there (tables.py, G2).
Q2  a reader gets values, never pointers; who needs none reads no blob.
Q3  a table's references are counted row by row as it is written, so they are exact.

Values that were read are not kept: they would push out blocks of some hundred rows each, and the
operating system has the blob's pages anyway.

Threading: OpenBlobs any thread; the others are one thread's.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence

from marram.env.api import Env, File
from marram.errors import Closed, Corruption
from marram.storage.engine import Rows
from marram.storage.entry import Entry, Stored, entry_of, stored
from marram.storage.layout import blob_path
from marram.storage.lsm.blob import (
    POINTER,
    READ_BYTES,
    Blob,
    BlobWriter,
    Pointer,
    is_pointed,
    is_pointer,
    pointer_of,
)
from marram.storage.lsm.version import BlobRef
from marram.storage.sstable.block import TOMBSTONE, VersionRow

# About what an open blob takes in memory.
_BLOB_MEMORY = 1500


class OpenBlobs:
    """Blobs that are open, the one used last last."""

    def __init__(
        self,
        env: Env,
        directory: str,
        store_id: bytes,
        max_open: int,
        wrapped: Callable[[File], File] = lambda file: file,
    ) -> None:
        """max_open: files held open at most, >= 1, beside those somebody is reading from.

        wrapped: a file is used through what it returns.
        """
        self._env = env
        self._directory = directory
        self._store_id = store_id
        self._max_open = max_open
        self._wrapped = wrapped
        self._lock = threading.Lock()
        self._blobs: OrderedDict[int, Blob] = OrderedDict()  # guarded by _lock
        self._closed = False  # guarded by _lock

    @property
    def memory_bytes(self) -> int:
        """About what they take."""
        return len(self._blobs) * _BLOB_MEMORY

    def __len__(self) -> int:
        """How many are open."""
        return len(self._blobs)

    def get(self, ref: BlobRef) -> Blob:
        """The blob, opened where it is not (Q1). Raises Corruption, OSError, Closed."""
        with self._lock:
            blob = self._blobs.get(ref.number)
            if blob is not None:
                self._blobs.move_to_end(ref.number)
                return blob
            if self._closed:
                raise Closed("the blobs were closed")
            blob = self._open(ref)
            while len(self._blobs) >= self._max_open:
                self._blobs.popitem(last=False)  # who reads it still holds it
            self._blobs[ref.number] = blob
            return blob

    def value(self, refs: Mapping[int, BlobRef], data: bytes) -> bytes:
        """The value that a pointer's bytes point to. refs: of a version that is held.

        Raises Corruption, OSError, Closed.
        """
        blob, pointer = self._find(refs, data)
        return blob.value(pointer)

    def stored(self, refs: Mapping[int, BlobRef], held: Stored) -> Stored:
        """What a row holds that points to a value. Raises what value() raises."""
        assert isinstance(held, Entry)
        value = self.value(refs, held.value)
        return stored(value, held.deadline_ms, held.type ^ POINTER)

    def portions(self, refs: Mapping[int, BlobRef], rows: Rows, limit: int) -> Iterator[Rows]:
        """Rows with values in place of pointers, in lists of 1 to `limit`.

        About READ_BYTES of values are read for each list; those that are neighbours in one read.
        """
        if not any(is_pointed(held) for _, held in rows):
            for at in range(0, len(rows), limit):
                yield rows[at : at + limit]
            return
        portion: Rows = []
        size = 0
        for row in rows:
            more = pointer_of(entry_of(row[1]).value).value_bytes if is_pointed(row[1]) else 0
            if portion and (len(portion) == limit or size + more > READ_BYTES):
                yield self._read(refs, portion)
                portion, size = [], 0
            portion.append(row)
            size += more
        if portion:
            yield self._read(refs, portion)

    def _read(self, refs: Mapping[int, BlobRef], rows: Rows) -> Rows:
        """The rows with values in place of pointers; changes them in place."""
        places: list[int] = []  # of rows whose values follow each other in one blob
        pointers: list[Pointer] = []
        blob: Blob | None = None

        def take() -> None:
            for at, value in zip(places, blob.values(pointers) if blob else (), strict=True):
                key, held = rows[at]
                entry = entry_of(held)
                rows[at] = key, stored(value, entry.deadline_ms, entry.type ^ POINTER)
            places.clear()
            pointers.clear()

        for at, (_, held) in enumerate(rows):
            if not is_pointed(held):
                continue
            found, pointer = self._find(refs, entry_of(held).value)
            last = pointers[-1] if pointers else None
            if last is None or found is not blob or pointer.offset != last.stop:
                take()
                blob = found
            places.append(at)
            pointers.append(pointer)
        take()
        return rows

    def drop(self, number: int) -> None:
        """Let go of a blob that is about to be removed."""
        with self._lock:
            self._blobs.pop(number, None)

    def close(self) -> None:
        """Let go of all, and refuse further ones; idempotent."""
        with self._lock:
            self._closed = True
            self._blobs.clear()

    def _open(self, ref: BlobRef) -> Blob:
        path = blob_path(self._directory, ref.number)
        try:
            file = self._wrapped(self._env.open(path))
        except FileNotFoundError:
            raise Corruption("the file is missing", path) from None
        try:
            return Blob(file, ref, self._store_id)
        except BaseException:
            file.close()
            raise

    def _find(self, refs: Mapping[int, BlobRef], data: bytes) -> tuple[Blob, Pointer]:
        pointer = pointer_of(data)
        ref = refs.get(pointer.blob)
        if ref is None:
            path = blob_path(self._directory, pointer.blob)
            raise Corruption("a row points into a blob that is not listed", path)
        return self.get(ref), pointer


def separated(rows: list[VersionRow], blob: BlobWriter, least_bytes: int) -> list[VersionRow]:
    """Rows with pointers in place of values of least_bytes and more, which go to `blob`.

    Raises OSError; ValueError: a type that leaves no room for POINTER.
    """
    if not any(len(row[2]) >= least_bytes for row in rows):
        return rows
    found = []
    for row in rows:
        keyspace, key, value, deadline_ms, type_, sequence = row
        if len(value) < least_bytes:
            found.append(row)
            continue
        if type_ >= POINTER:
            raise ValueError(f"a value of type {type_}")
        found.append((keyspace, key, blob.add(value), deadline_ms, type_ | POINTER, sequence))
    return found


class References:
    """What the rows of one table point to, by blob (Q3)."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[int, list[int]] = {}  # blob -> rows, bytes

    def count(self, rows: Sequence[VersionRow]) -> None:
        """Rows that were written to the table."""
        held = self._held
        for row in rows:
            if row[4] >= POINTER and row[4] != TOMBSTONE:
                pointer = pointer_of(row[2])
                sums = held.setdefault(pointer.blob, [0, 0])
                sums[0] += 1
                sums[1] += pointer.stored_bytes

    def refs(self, blobs: Mapping[int, BlobRef]) -> tuple[BlobRef, ...]:
        """As TableMeta.blobs has them; blobs: what is known of each."""
        return tuple(
            blobs[number]._replace(rows=rows, live_bytes=live_bytes)
            for number, (rows, live_bytes) in sorted(self._held.items())
        )


class Collector:
    """Moves values out of blobs that are mostly garbage, as a merge passes their rows."""

    def __init__(self, source: OpenBlobs, refs: Mapping[int, BlobRef], target: BlobWriter) -> None:
        """refs: the blobs to collect. target: where their values go."""
        self._source = source
        self._refs = refs
        self._target = target

    def rows(self, rows: list[VersionRow]) -> Iterator[list[VersionRow]]:
        """Rows, in portions, that point into `target` where they pointed into a collected blob.

        Raises Corruption, OSError.
        """
        portion: list[VersionRow] = []
        moved = 0
        for row in rows:
            if is_pointer(row[4]) and pointer_of(row[2]).blob in self._refs:
                value = self._source.value(self._refs, row[2])
                moved += len(value)
                portion.append((*row[:2], self._target.add(value), *row[3:]))
            else:
                portion.append(row)
            if moved >= READ_BYTES:
                yield portion
                portion, moved = [], 0
        if portion:
            yield portion
