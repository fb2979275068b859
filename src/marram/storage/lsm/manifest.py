"""checkpoint.N of the lsm engine: which tables there are, as a listing and the edits after it.

Owns the file's records, when they are durable, and checking them all when they are read back; not
the framing (storage/log/), not the bytes of an edit (edit.py), not the tables themselves, and not
the generation switch. The bytes: docs/formats/manifest.md.

N1  a manifest that a generation names is durable with its listing: without that it is Corruption.
N2  an acknowledged append is durable, and so is a mark behind it which says so. Damage to a record
    that was acknowledged is therefore Corruption; a torn tail was never acknowledged.
N3  what is loaded was checked whole: each edit applies, numbers and counts are in range. What
    load() would refuse is refused before it is written.
N4  load() changes nothing. resume() makes durable what load() saw before anything can be built on
    it: so a caller removes tables that the version does not name only after it.

N2 has one gap, the one that every log has: damage that takes the last record and its mark at once
(both can be in one block), or a file cut short. An older version is loaded then. It must not be
served: the caller has to check that every table a loaded version names is there, and since an
acknowledged edit's inputs are removed, they are found missing. Where they are not missing yet, the
older version is as good: a compaction changes no answer.

Threading: append() by one thread at a time; load() and engine_of() by any.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Sequence
from typing import NamedTuple

from marram.coding.batch import KEYSPACES
from marram.env.api import Env, File
from marram.errors import Corruption, InvalidArgument, StoreFailed, StoreFull, UnsupportedFormat
from marram.storage.engine import SPACE_ERRORS, Origin
from marram.storage.layout import checkpoint_path
from marram.storage.log.format import (
    FILE_HEADER_SIZE,
    FRAME_HEADER_SIZE,
    KIND_MARK,
    FileKind,
    FrameHeader,
    LogHeader,
    pack_header,
)
from marram.storage.log.reader import FrameReader, read_header
from marram.storage.log.writer import FrameWriter
from marram.storage.lsm.edit import decode_edit, encode_edit
from marram.storage.lsm.version import Version, VersionEdit
from marram.storage.sstable.format import MAGIC as TABLE_MAGIC

_logger = logging.getLogger("marram.recovery")

MAGIC = b"marramMF"
KIND_LISTING = 3
KIND_EDIT = 4
MANIFEST = FileKind("manifest", MAGIC, 1, (KIND_MARK, KIND_LISTING, KIND_EDIT), MAGIC)

# next table u64, bits of the keyspaces whose counts are known u16
_FIXED = struct.Struct("<QH")
_COUNT = struct.Struct("<QQ")
_NUMBER_LIMIT = 2**63
_U64_LIMIT = 2**64
_CHECKSUM_MAX = 2**32 - 1

Counts = tuple[int, int] | None
"""(keys, keys with a deadline) of what the tables hold in a keyspace; None: not known."""


class Record(NamedTuple):
    """One change of the tables, and what is so after it.

    next_table: every table made later has at least this number. counts: by physical keyspace.
    """

    edit: VersionEdit
    next_table: int
    counts: tuple[Counts, ...]


class Listing(NamedTuple):
    """What a manifest begins with: the tables of one generation, and what goes with them."""

    origin: Origin
    spaces: tuple[int, ...]
    version: Version
    next_table: int
    counts: tuple[Counts, ...]


class Loaded(NamedTuple):
    """What a manifest says.

    spaces: which physical keyspace each logical one is. end: of the last whole frame, bytes;
    cut_bytes: of a torn tail after it, which resume() cuts. records: how many, the listing
    included; vouched: the last of them is known to have been synced.
    """

    origin: Origin
    spaces: tuple[int, ...]
    version: Version
    next_table: int
    counts: tuple[Counts, ...]
    end: int
    cut_bytes: int
    records: int
    vouched: bool


def engine_of(env: Env, directory: str, generation: int) -> str:
    """Whose checkpoint.N is: "memory" or "lsm". Raises Corruption: neither's, or it is missing."""
    path = checkpoint_path(directory, generation)
    file = _open(env, path)
    try:
        magic = file.read(len(MAGIC), 0)
    finally:
        file.close()
    if magic == MAGIC:
        return "lsm"
    if magic == TABLE_MAGIC:
        return "memory"
    raise Corruption("neither a sorted table nor a manifest", path, 0)


def load(
    env: Env,
    directory: str,
    number: int,
    store_id: bytes,
    *,
    promised: int = 0,
    limit: int | None = None,
) -> Loaded:
    """Read and check checkpoint.N (N3); changes nothing. O(tables) an edit.

    promised: the offset some promise from outside says was synced; limit: read no further, of a
    manifest still being appended to (its size_bytes); both bytes.
    Raises Corruption (file, offset), UnsupportedFormat, OSError.
    """
    path = checkpoint_path(directory, number)
    file = _open(env, path)
    try:
        header = read_header(file, MANIFEST)
        if header is None:
            raise Corruption("the manifest's header is missing", path, 0)
        if header.number != number:
            raise Corruption(f"the file is checkpoint.{header.number} by its header", path, 0)
        if header.store_id != store_id:
            raise Corruption("the file belongs to another store", path, 0)
        reader = FrameReader(file, MANIFEST, header, promised, limit)
        try:
            return _Replay(header).run(reader)
        except UnsupportedFormat as error:
            raise UnsupportedFormat(f"{path}: {error}") from None
        except ValueError as error:
            raise Corruption(str(error), path, reader.end) from None
    finally:
        file.close()


class Manifest:
    """The manifest of the generation that goes on, open for appending."""

    def __init__(
        self, frames: FrameWriter, origin: Origin, version: Version, next_table: int, records: int
    ) -> None:
        """Go on behind `records` records, which come to `version`; for create() and resume()."""
        self._frames = frames
        self._origin = origin
        self._version = version
        self._next_table = next_table
        self._records = records
        self._failed = False  # an append began and did not end: what it left is unknown

    @classmethod
    def create(
        cls,
        env: Env,
        directory: str,
        number: int,
        origin: Origin,
        spaces: Sequence[int],
        record: Record,
    ) -> Manifest:
        """Make checkpoint.N with its listing: durable with its name when this returns (N1).

        Raises InvalidArgument: nothing was done; OSError: the file is left for the caller, or the
        next recovery, to remove.
        """
        _check_origin(origin)
        _check_spaces(spaces)
        version = _applied(Version(), 0, record)
        payload = _encode(record, spaces)
        path = checkpoint_path(directory, number)
        if env.exists(path):  # left by a switch that failed or that a crash cut short
            env.remove(path)
        file = env.open(path, write=True, create=True, exclusive=True)
        try:
            header = _header_of(number, origin)
            file.write(pack_header(header, MANIFEST), 0)
            frames = FrameWriter(file, MANIFEST, header, FILE_HEADER_SIZE)
            frames.synced = 0  # the header is synced with the listing
            manifest = cls(frames, origin, version, record.next_table, 0)
            manifest._write(KIND_LISTING, payload)
            frames.sync()
            env.sync_dir(directory)
        except BaseException:
            file.close()
            raise
        manifest._records = 1
        return manifest

    @classmethod
    def resume(cls, env: Env, directory: str, number: int, loaded: Loaded) -> Manifest:
        """Go on with what load() read: its torn tail is cut, durably, before anything else (N4).

        Raises OSError: whatever was done, load() still gives the same.
        """
        path = checkpoint_path(directory, number)
        if loaded.cut_bytes:
            _logger.warning(
                "cut a torn tail: %s @ %d, %d bytes that were never acknowledged as durable",
                path, loaded.end, loaded.cut_bytes,
            )  # fmt: skip
        file = env.open(path, write=True)
        try:
            if file.size() != loaded.end:
                file.truncate(loaded.end)
            # Without a cut as well: a record can be whole in the page cache of a process that
            # died before its sync, and the tables it removes are about to go.
            file.sync()
            header = _header_of(number, loaded.origin)
            frames = FrameWriter(file, MANIFEST, header, loaded.end)
            manifest = cls(frames, loaded.origin, loaded.version, loaded.next_table, loaded.records)
            if not loaded.vouched:
                manifest._mark()
        except BaseException:
            file.close()
            raise
        return manifest

    @property
    def size_bytes(self) -> int:
        """Where the next record goes: load() with this limit sees every acknowledged one."""
        return self._frames.end

    def append(self, record: Record) -> None:
        """Add a record: durable, and vouched for, when this returns (N2). Two syncs.

        Raises InvalidArgument: it does not fit what there is; StoreFull: there is no room for it;
        either way nothing was written. OSError: the record may or may not be found by load(), and
        this manifest is done for; StoreFailed: it was before.
        """
        if self._failed:
            raise StoreFailed(f"{self._frames.file.path}: an earlier append failed")
        version = _applied(self._version, self._next_table, record)
        payload = _encode(record, None)
        self._reserve(2 * FRAME_HEADER_SIZE + len(payload))
        self._failed = True
        self._write(KIND_EDIT, payload)
        self._frames.sync()
        self._records += 1
        # Only now, and synced: a mark promises that what is before it is durable, and the caller
        # removes the edit's inputs as soon as this returns.
        self._mark()
        self._failed = False
        self._version = version
        self._next_table = record.next_table

    def close(self) -> None:
        """Close the file. Everything acknowledged is durable already."""
        self._frames.close()

    def _write(self, kind: int, payload: bytes) -> None:
        count = 0 if kind == KIND_MARK else 1
        origin = self._origin
        self._frames.write_frame(
            payload, kind, count, self._records + 1, origin.epoch, origin.time_ms
        )

    def _reserve(self, size_bytes: int) -> None:
        """Make room for an append, so that a full disk refuses it and never tears it."""
        try:
            self._frames.file.allocate(self._frames.end, size_bytes)
        except OSError as error:
            if error.errno not in SPACE_ERRORS:
                raise
            raise StoreFull(f"no room for {size_bytes} bytes in the manifest: {error}") from error

    def _mark(self) -> None:
        self._write(KIND_MARK, b"")
        self._frames.sync()


def write_manifest(env: Env, directory: str, number: int, listing: Listing) -> Manifest:
    """Make checkpoint.N of a listing, durable; open for appending. Raises OSError."""
    record = Record(listing.version.listing(), listing.next_table, listing.counts)
    return Manifest.create(env, directory, number, listing.origin, listing.spaces, record)


class _Replay:
    """What the frames read so far come to."""

    def __init__(self, header: LogHeader) -> None:
        if header.previous_end > _CHECKSUM_MAX:
            raise ValueError(f"a history checksum of {header.previous_end}")
        self._header = header
        self._origin = Origin(
            header.store_id, header.epoch, header.base_sequence, 0, header.previous_end
        )
        self._spaces: tuple[int, ...] = ()
        self._version = Version()
        self._next_table = 0
        self._counts: tuple[Counts, ...] = ()
        self._records = 0
        self._vouched = False

    def run(self, reader: FrameReader) -> Loaded:
        """Take all frames. Raises Corruption, UnsupportedFormat; ValueError: the frame at `end`."""
        for frame, payload in reader.frames():
            self._check_frame(frame, reader.end)
            if frame.kind == KIND_MARK:
                self._vouched = True
            else:
                self._take(frame, payload)
        if not self._records:
            raise ValueError("the listing is damaged or missing")
        return Loaded(
            self._origin,
            self._spaces,
            self._version,
            self._next_table,
            self._counts,
            reader.end,
            reader.tail,
            self._records,
            self._vouched,
        )

    def _check_frame(self, frame: FrameHeader, offset: int) -> None:
        """Check where a frame stands in the order, and that it vouches for all before it (N2)."""
        if frame.first_sequence != self._records + 1:
            raise ValueError(f"record {frame.first_sequence} follows {self._records}")
        if (frame.kind == KIND_LISTING) != (self._records == 0):
            raise ValueError(f"record {frame.first_sequence} is of kind {frame.kind}")
        if frame.batch_count != (0 if frame.kind == KIND_MARK else 1):
            raise ValueError(f"a frame of {frame.batch_count} records")
        if frame.epoch != self._header.epoch:
            raise ValueError(f"epoch {frame.epoch} in a manifest of {self._header.epoch}")
        if self._records and frame.time_ms != self._origin.time_ms:
            raise ValueError(f"time {frame.time_ms} in a manifest of {self._origin.time_ms}")
        if frame.synced != (offset if self._records else 0):
            raise ValueError(f"a frame that was written with {frame.synced} bytes synced")

    def _take(self, frame: FrameHeader, payload: bytes) -> None:
        if frame.kind == KIND_LISTING:
            self._origin = self._origin._replace(time_ms=frame.time_ms)
            _check_origin(self._origin)
        record, spaces = _decode(payload, with_spaces=frame.kind == KIND_LISTING)
        self._version = _applied(self._version, self._next_table, record)
        self._spaces = spaces or self._spaces
        self._next_table = record.next_table
        self._counts = record.counts
        self._records += 1
        # The listing was synced before any generation named the file (N1).
        self._vouched = frame.kind == KIND_LISTING


# -- records ---------------------------------------------------------------------------------------


def _encode(record: Record, spaces: Sequence[int] | None) -> bytes:
    """A record's payload; `spaces` are for the listing alone."""
    known = sum(1 << space for space, counts in enumerate(record.counts) if counts is not None)
    parts = [_FIXED.pack(record.next_table, known)]
    if spaces is not None:
        parts.append(bytes(spaces))
    parts += [_COUNT.pack(*counts) for counts in record.counts if counts is not None]
    parts.append(encode_edit(record.edit))
    return b"".join(parts)


def _decode(payload: bytes, *, with_spaces: bool) -> tuple[Record, tuple[int, ...]]:
    """(record, its keyspaces: none but in a listing). Raises ValueError, UnsupportedFormat."""
    at = _FIXED.size + (KEYSPACES if with_spaces else 0)
    if len(payload) < at:
        raise ValueError("a record is cut short")
    next_table, known = _FIXED.unpack_from(payload)
    spaces = tuple(payload[_FIXED.size : at])
    if with_spaces:
        _check_spaces(spaces)
    if len(payload) < at + known.bit_count() * _COUNT.size:
        raise ValueError("a record is cut short")
    counts: list[Counts] = []
    for space in range(KEYSPACES):
        if known & 1 << space:
            keys, expirable = _COUNT.unpack_from(payload, at)
            counts.append((keys, expirable))
            at += _COUNT.size
        else:
            counts.append(None)
    return Record(decode_edit(payload[at:]), next_table, tuple(counts)), spaces


def _applied(version: Version, next_table: int, record: Record) -> Version:
    """The version after a record. Raises InvalidArgument: it cannot follow what was before (N3)."""
    if not next_table <= record.next_table < _U64_LIMIT:
        raise InvalidArgument(f"the next table is {record.next_table} after {next_table}")
    for _, table in record.edit.added:
        if table.number >= record.next_table:
            raise InvalidArgument(f"table {table.number}, and the next is {record.next_table}")
        if table.blobs and table.blobs[-1].number >= record.next_table:
            raise InvalidArgument(
                f"blob {table.blobs[-1].number}, and the next number is {record.next_table}"
            )
    if len(record.counts) != KEYSPACES:
        raise InvalidArgument(f"counts of {len(record.counts)} keyspaces")
    for space, counts in enumerate(record.counts):
        if counts is not None and not 0 <= counts[1] <= counts[0] < _NUMBER_LIMIT:
            raise InvalidArgument(f"counts {counts} of keyspace {space}")
    return version.apply(record.edit)


def _check_spaces(spaces: Sequence[int]) -> None:
    if sorted(spaces) != list(range(KEYSPACES)):
        raise InvalidArgument(f"keyspaces {tuple(spaces)} are no permutation")


def _check_origin(origin: Origin) -> None:
    if len(origin.store_id) != 16:
        raise InvalidArgument(f"a store id of {len(origin.store_id)} bytes")
    if origin.chain > _CHECKSUM_MAX or not all(0 <= n < _NUMBER_LIMIT for n in origin[1:]):
        raise InvalidArgument(f"the origin {tuple(origin[1:])} is out of range")


def _header_of(number: int, origin: Origin) -> LogHeader:
    # A manifest follows no other file: where a log says how long that is, the history checksum is.
    return LogHeader(origin.store_id, number, origin.chain, origin.sequence, origin.epoch)


def _open(env: Env, path: str) -> File:
    try:
        return env.open(path)
    except FileNotFoundError:
        raise Corruption("the file is missing", path) from None
