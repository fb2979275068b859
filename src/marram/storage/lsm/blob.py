"""Blobs: files of large values that tables point into (docs/formats/blob.md).

Owns the bytes of a blob and of a pointer, writing a blob and reading it; not which values go there
(flush.py), not what of a blob is garbage (version.py), and neither removing blobs nor keeping them
open (blobs.py).

L1  a value is returned only after its checksum was right, which covers its place: file number,
    offset and store id.
L2  a blob is written once, front to back, and is one only after finish(): then it is durable, but
    for its name, which the caller's sync of the folder makes so.
L3  a blob is opened as what the manifest says of it: of that size, with that stamp. So another
    file of the same number, of yesterday or of a copy that went on separately, is Corruption.
L4  a pointer stands in a table row in place of the value, and the row's type has POINTER added to
    it. Nothing but reading a value, collecting it and verifying looks at one.

Threading: a BlobWriter is one thread's; any number of threads may read a Blob.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from marram.coding.checksum import KIND_CRC32, crc32
from marram.env.api import Env, File
from marram.errors import Corruption, UnsupportedFormat
from marram.storage.entry import Stored
from marram.storage.layout import blob_path
from marram.storage.lsm.version import BLOB_FOOTER_SIZE as FOOTER_SIZE
from marram.storage.lsm.version import BlobRef
from marram.storage.sstable.block import TOMBSTONE
from marram.storage.sstable.format import (
    BLOB,
    BLOCK_OVERHEAD,
    HEADER_SIZE,
    Place,
    block_size,
    check_header,
    pack_header,
    seal_block,
    unseal_block,
)
from marram.storage.sstable.writer import Output, TableOptions

MAGIC = b"marramBL"
FOOTER_MAGIC = b"marramBE"
FORMAT_VERSION = 1

POINTER = 0x80
"""Added to the type of a row whose value is a pointer; types of values are below it."""

# blob number u64, offset u64, stored bytes u32 (the whole record), value bytes u32
_POINTER = struct.Struct("<QQII")
POINTER_SIZE = _POINTER.size

# records u64, value bytes u64, stamp u64, file size u64, number u64, format version u16,
# checksum kind u8, zero u8, store id, magic, checksum u32
_FOOTER = struct.Struct("<QQQQQHBB16s8sI")
assert _FOOTER.size == FOOTER_SIZE
_U32 = struct.Struct("<I")
_STAMP_BYTES = 8

READ_BYTES = 1024 * 1024
"""How much of neighbouring records is read at a time, bytes; or one record, if that is more."""


class Pointer(NamedTuple):
    """Where a value is. blob: the file's number; offset, stored_bytes: of its record, the seal
    included; value_bytes: its length."""

    blob: int
    offset: int
    stored_bytes: int
    value_bytes: int

    @property
    def stop(self) -> int:
        """Where the next record starts."""
        return self.offset + self.stored_bytes


def is_pointer(type_: int) -> bool:
    """Whether a row of this type holds a pointer."""
    return type_ >= POINTER and type_ != TOMBSTONE


def is_pointed(held: Stored) -> bool:
    """Whether what a row holds, as look-ups have it, is a pointer."""
    return held.__class__ is not bytes and is_pointer(held.type)  # type: ignore[union-attr]


def pointer_of(data: bytes) -> Pointer:
    """The pointer in the place of a value. Raises Corruption: it cannot be one."""
    if len(data) != POINTER_SIZE:
        raise Corruption(f"a row points to a value with {len(data)} bytes")
    pointer = Pointer(*_POINTER.unpack(data))
    if pointer.offset < HEADER_SIZE or pointer.stored_bytes < BLOCK_OVERHEAD:
        raise Corruption(f"a row points to a value at {pointer.offset} of blob {pointer.blob}")
    return pointer


class BlobWriter:
    """Writes a blob; the file is made when the first value comes.

    size_bytes: of the file so far. ref: what finish() made, pointed into by every value.
    """

    def __init__(
        self,
        env: Env,
        directory: str,
        allot: Callable[[], int],
        store_id: bytes,
        options: TableOptions,
        wrapped: Callable[[File], File] = lambda file: file,
    ) -> None:
        """allot: gives the blob its number when it is made. options: whose compression it uses.

        wrapped: the file is used through what it returns.
        """
        self._env = env
        self._directory = directory
        self._allot = allot
        self._path = ""
        self._place = Place(0, store_id)
        self._compressor = options.compressor()
        self._wrapped = wrapped
        self._file: File | None = None
        self._output: Output | None = None
        self._is_made = False
        self._records = 0
        self._value_bytes = 0

    def add(self, value: bytes) -> bytes:
        """Append a value; returns the pointer to it. Raises OSError."""
        output = self._output
        if output is None:
            output = self._open()
        offset = output.end
        output.append(seal_block(BLOB, [value], self._place, offset, self._compressor))
        self._records += 1
        self._value_bytes += len(value)
        return _POINTER.pack(self._place.number, offset, output.end - offset, len(value))

    def finish(self) -> BlobRef | None:
        """Write what is left, sync and close; None where no value came. Raises OSError."""
        output, file = self._output, self._file
        if output is None or file is None:
            return None
        stamp = self._env.random_bytes(_STAMP_BYTES)
        end, size_bytes = output.end, output.end + FOOTER_SIZE
        fields = _FOOTER.pack(
            self._records, self._value_bytes, int.from_bytes(stamp, "little"), size_bytes,
            self._place.number, FORMAT_VERSION, KIND_CRC32, 0, self._place.store_id, FOOTER_MAGIC,
            0,
        )[: -_U32.size]  # fmt: skip
        output.append([fields, _U32.pack(crc32(fields, self._place.seed(end)))])
        output.flush()
        file.sync()
        self._file = self._output = None
        file.close()
        return BlobRef(
            self._place.number, size_bytes, int.from_bytes(stamp, "little"),
            self._records, end - HEADER_SIZE,
        )  # fmt: skip

    def close(self) -> None:
        """Close a file that finish() did not; idempotent. Raises OSError."""
        file, self._file, self._output = self._file, None, None
        if file is not None:
            file.close()

    def abandon(self) -> None:
        """Close and remove what there is. Never raises: what stays is an orphan."""
        with suppress(OSError):
            self.close()
        if self._is_made:
            with suppress(OSError):
                self._env.remove(self._path)

    def _open(self) -> Output:
        self._place = Place(self._allot(), self._place.store_id)
        self._path = blob_path(self._directory, self._place.number)
        if self._env.exists(self._path):  # left by a flush that failed
            self._env.remove(self._path)
        file = self._env.open(self._path, write=True, create=True, exclusive=True)
        self._is_made = True
        self._file = self._wrapped(file)
        self._output = Output(self._file)
        self._output.append([pack_header(self._place, MAGIC)])
        return self._output


class Blob:
    """An open blob; number: the file's own. Methods raise Corruption with path and offset, OSError;
    the file is closed when the last who uses it lets go of it."""

    __slots__ = ("_file", "_place", "_ref", "number")

    def __init__(self, file: File, ref: BlobRef, store_id: bytes) -> None:
        """Check header and footer against what the manifest says (L3).

        Raises Corruption, UnsupportedFormat, OSError; `file` is then the caller's to close.
        """
        self._file = file
        self._ref = ref
        self._place = Place(ref.number, store_id)
        self.number = ref.number
        header = bytes(file.read(HEADER_SIZE, 0))
        try:
            check_header(header, self._place, MAGIC, "blob")
        except ValueError as error:
            raise Corruption(str(error), file.path, 0) from error
        except UnsupportedFormat as error:
            raise UnsupportedFormat(f"{file.path}: {error}") from error
        self._footer()

    def value(self, pointer: Pointer) -> bytes:
        """The value that a pointer points at."""
        self._check_bounds(pointer)
        data = self._read(pointer.offset, pointer.stored_bytes)
        return self._unsealed(pointer, data)

    def values(self, pointers: Sequence[Pointer]) -> list[bytes]:
        """The values of pointers of which each begins where the one before ends: one read."""
        first, last = pointers[0], pointers[-1]
        self._check_bounds(first)
        self._check_bounds(last)
        data = self._read(first.offset, last.offset + last.stored_bytes - first.offset)
        found = []
        for pointer in pointers:
            at = pointer.offset - first.offset
            found.append(self._unsealed(pointer, data[at : at + pointer.stored_bytes]))
        return found

    def verify(self) -> int:
        """Read every byte and check it; returns how many values there are."""
        records, value_bytes, _ = self._footer()
        at, end = HEADER_SIZE, self._ref.size_bytes - FOOTER_SIZE
        found = found_bytes = 0
        window, start = memoryview(b""), at
        while at < end:
            if end - at < BLOCK_OVERHEAD:
                raise Corruption("bytes that are no value", self._file.path, at)
            if len(window) - (at - start) < BLOCK_OVERHEAD:
                window, start = self._read(at, min(READ_BYTES, end - at)), at
            size = block_size(window[at - start :])
            if at + size > end:
                raise Corruption("a value reaches beyond the blob's end", self._file.path, at)
            if at + size > start + len(window):
                window, start = self._read(at, max(size, min(READ_BYTES, end - at))), at
            data = window[at - start : at - start + size]
            found_bytes += len(self._payload(at, data))
            found += 1
            at += size
        if (found, found_bytes) != (records, value_bytes):
            raise Corruption(
                f"{found} values of {found_bytes} bytes, the footer says {records} of"
                f" {value_bytes}", self._file.path, end,
            )  # fmt: skip
        return found

    def close(self) -> None:
        """Close the file now."""
        self._file.close()

    # -- inside ----------------------------------------------------------------------------------

    def _footer(self) -> tuple[int, int, int]:
        """(records, value bytes, stamp), checked."""
        path, size_bytes, ref = self._file.path, self._file.size(), self._ref
        if size_bytes != ref.size_bytes:
            raise Corruption(f"{size_bytes} bytes, the manifest says {ref.size_bytes}", path)
        at = size_bytes - FOOTER_SIZE
        if at < HEADER_SIZE:
            raise Corruption("too short for a blob", path, 0)
        data = bytes(self._read(at, FOOTER_SIZE))
        records, value_bytes, stamp, end, number, version, kind, zero, store_id, magic, checksum = (
            _FOOTER.unpack(data)
        )
        if magic != FOOTER_MAGIC or crc32(data[: -_U32.size], self._place.seed(at)) != checksum:
            raise Corruption("no intact footer at the end of the blob", path, at)
        if (version, kind, zero, end) != (FORMAT_VERSION, KIND_CRC32, 0, size_bytes) or (
            (number, store_id) != self._place
        ):
            raise Corruption("the footer does not fit its blob", path, at)
        if stamp != ref.stamp:
            raise Corruption(
                f"not the blob {ref.number} that is listed: stamp {stamp}, listed {ref.stamp}",
                path, at,
            )  # fmt: skip
        return records, value_bytes, stamp

    def _check_bounds(self, pointer: Pointer) -> None:
        if pointer.offset + pointer.stored_bytes > self._ref.size_bytes - FOOTER_SIZE:
            raise Corruption("a pointer beyond the blob's end", self._file.path, pointer.offset)

    def _unsealed(self, pointer: Pointer, data: memoryview) -> bytes:
        value = bytes(self._payload(pointer.offset, data))
        if len(value) != pointer.value_bytes:
            raise Corruption(
                f"a value of {len(value)} bytes, its row says {pointer.value_bytes}",
                self._file.path, pointer.offset,
            )  # fmt: skip
        return value

    def _payload(self, offset: int, data: memoryview) -> memoryview:
        """What the record at `offset`, which fills `data`, holds."""
        path = self._file.path
        try:
            return unseal_block(data, BLOB, self._place.seed(offset))
        except ValueError as error:
            raise Corruption(str(error), path, offset) from error
        except UnsupportedFormat as error:
            raise UnsupportedFormat(f"{path} @ {offset}: {error}") from error

    def _read(self, offset: int, size: int) -> memoryview:
        data = self._file.read(size, offset)
        if len(data) != size:
            raise Corruption("the blob is cut short", self._file.path, offset + len(data))
        return memoryview(data)
