"""Blocks of zstd: read back exactly or refused, within bounds, and named where they cannot be."""

from __future__ import annotations

import importlib
import random
import struct
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from marram.errors import InvalidArgument, UnsupportedFormat
from marram.storage.options import Options
from marram.storage.sstable.format import DATA, load_zstd, unseal_block
from marram.storage.sstable.writer import TableOptions
from tests.storage.sstable.tables import (
    PATH,
    have_zstd,
    make_table,
    needs_zstd,
    open_table,
    read_all,
    sealed,
)

ROWS = [(0, b"%05d" % n, b"the same again " * 8, 0, 0) for n in range(1000)]
MODULES = ("compression.zstd", "backports.zstd")


@pytest.fixture
def no_zstd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Python whose imports of zstd fail."""
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    load_zstd.cache_clear()
    yield
    load_zstd.cache_clear()


@needs_zstd
@pytest.mark.parametrize("level", [1, 3, 19])
def test_t3_what_any_level_makes_is_read(level: int) -> None:
    # Larger than the window, and as dense as zstd gets.
    rows = [*ROWS, (1, b"k", bytes(30_000_000), 0, 0)]

    data, _ = make_table(rows, compression="zstd", compression_level=level)

    assert len(data) < 40_000
    assert [row for row, _ in read_all(open_table(data, verify=True))] == rows


@needs_zstd
def test_higher_levels_of_zstd_make_smaller_tables() -> None:
    generator = random.Random(1)
    words = [generator.randbytes(4).hex().encode() for _ in range(300)]
    rows = [(0, b"%06d" % n, b" ".join(generator.choices(words, k=12)), 0, 0) for n in range(2000)]
    sizes = [
        len(make_table(rows, compression="zstd", compression_level=level)[0]) for level in (1, 19)
    ]

    assert sizes[1] < 0.97 * sizes[0]


@needs_zstd
def test_one_writer_makes_the_bytes_that_many_would() -> None:
    # Its compressor is one for all blocks: none may depend on the block before.
    first = make_table(ROWS, compression="zstd", block_bytes=4096)[0]
    compress = load_zstd().compress
    at = 40
    table = open_table(first)
    blocks = 0
    while first[at] == DATA:
        stored, raw = struct.unpack_from("<II", first, at + 2)
        body = first[at + 10 : at + 10 + stored]
        assert first[at + 1] == 2
        plain = load_zstd().decompress(body)
        assert len(plain) == raw
        assert compress(plain, 1) == body
        at += stored + 14
        blocks += 1
    assert blocks > 20
    assert table.row_count == 1000


@needs_zstd
def test_many_threads_read_one_table_of_zstd() -> None:
    table = open_table(make_table(ROWS, compression="zstd", block_bytes=2048)[0])
    wrong: list[object] = []

    def read(seed: int) -> None:
        for row in random.Random(seed).choices(ROWS, k=200):
            if table.get(*row[:2]) != row:
                wrong.append(row)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong


def frame(size: int, stated: int | None = None, **options: int) -> bytes:
    """A frame of `size` zeros, which says that it makes `stated`.

    options: of the compressor, by name.
    """
    zstd = load_zstd()
    named = {getattr(zstd.CompressionParameter, name): value for name, value in options.items()}
    made: bytes = zstd.compress(bytes(size), options=named)
    if stated is not None:
        # Four bytes of content size come in the first of the header, where it is not small.
        at = made.index(struct.pack("<I", size), 4, 14)
        made = made[:at] + struct.pack("<I", stated) + made[at + 4 :]
    return made


MANY = 10_000_000
SKIPPABLE = struct.pack("<II", 0x184D2A50, 3) + b"abc"

FORGERIES: dict[str, tuple[int, Callable[[], bytes]]] = {
    "says more than any frame of its size makes": (2**32 - 1, lambda: frame(100)),
    "says more": (MANY + 1, lambda: frame(MANY)),
    "says less": (MANY - 1, lambda: frame(MANY)),
    "says nothing": (0, lambda: frame(MANY)),
    "frame and block say less than there is": (200_000, lambda: frame(MANY, 200_000)),
    "frame and block say more than there is": (MANY + 1, lambda: frame(MANY, MANY + 1)),
    "frame does not say": (MANY, lambda: frame(MANY, content_size_flag=0)),
    "a window beyond 8 MiB": (40 << 20, lambda: frame(40 << 20, window_log=24)),
    "a byte more": (100, lambda: frame(100) + b"!"),
    "a frame more": (100, lambda: frame(100) + frame(100)),
    "an empty frame more": (100, lambda: frame(100) + frame(0)),
    "a frame to skip first": (100, lambda: SKIPPABLE + frame(100)),
    "a frame to skip after": (100, lambda: frame(100) + SKIPPABLE),
    "nothing but a frame to skip": (0, lambda: SKIPPABLE),
    "a byte less": (100, lambda: frame(100)[:-1]),
    "wrong checksum": (100, lambda: frame(100, checksum_flag=1)[:-1] + b"!"),
    "no checksum": (100, lambda: frame(100, checksum_flag=1)[:-4]),
    "half a header": (100, lambda: frame(100)[:5]),
    "another format": (100, lambda: b"not zstd"),
    "no bytes": (0, lambda: b""),
}


@needs_zstd
@pytest.mark.parametrize("name", FORGERIES)
def test_t3_a_frame_makes_what_its_block_says_or_nothing(name: str) -> None:
    raw_size, make = FORGERIES[name]
    block = sealed(DATA, 2, raw_size, make())
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="inflate"):
            unseal_block(block, DATA, 5)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # Where the frame owns up, nothing is made of it.
    lies = {"frame and block say less than there is": 200_000}
    lies |= {"frame and block say more than there is": MANY}
    assert peak < 2 * lies.get(name, 0) + 200_000


@needs_zstd
def test_a_frame_of_no_bytes_is_an_empty_payload() -> None:
    assert bytes(unseal_block(sealed(DATA, 2, 0, frame(0)), DATA, 5)) == b""
    assert bytes(unseal_block(sealed(DATA, 2, MANY, frame(MANY)), DATA, 5)) == bytes(MANY)


@needs_zstd
def test_t3_mutated_frames_with_right_checksums_are_refused_or_as_long_as_they_say() -> None:
    generator = random.Random(7)
    plain = b"".join(b"user:%06d:name=%d;" % (n, n * n) for n in range(400))
    body = load_zstd().compress(plain, 1)
    refused = 0
    for _ in range(5000):
        mutated = bytearray(body)
        for _ in range(generator.randint(1, 3)):
            # Half of them in the headers of the frame and of its first block.
            most = 20 if generator.random() < 0.5 else len(body)
            mutated[generator.randrange(most)] = generator.randrange(256)
        if generator.random() < 0.2:
            del mutated[generator.randrange(len(mutated)) :]
        try:
            raw = unseal_block(sealed(DATA, 2, len(plain), bytes(mutated)), DATA, 5)
        except ValueError:
            refused += 1
        else:
            assert len(raw) == len(plain)

    assert refused > 2500


@needs_zstd
def test_a_table_of_zstd_is_called_unsupported_where_there_is_none(
    request: pytest.FixtureRequest,
) -> None:
    data, _ = make_table(ROWS, compression="zstd")
    plain, _ = make_table(ROWS)
    packed, _ = make_table(ROWS, compression="zlib")
    request.getfixturevalue("no_zstd")

    with pytest.raises(UnsupportedFormat, match=rf"{PATH} @ \d+: .*pip install 'marram\[zstd\]'"):
        read_all(open_table(data))
    with pytest.raises(UnsupportedFormat, match=r"backports\.zstd"):
        open_table(data, verify=True)
    assert len(read_all(open_table(plain, verify=True))) == 1000
    assert len(read_all(open_table(packed, verify=True))) == 1000


@pytest.mark.usefixtures("no_zstd")
def test_zstd_is_refused_with_what_to_install_before_anything_is_written() -> None:
    with pytest.raises(InvalidArgument, match=r"'zstd'.*pip install 'marram\[zstd\]'"):
        TableOptions(compression="zstd")
    with pytest.raises(InvalidArgument, match=r"compression 'zstd'.*marram\[zstd\]"):
        Options(compression="zstd")
    assert TableOptions(compression="zlib").compressor() is not None
    assert Options(compression="zlib").compression == "zlib"


@needs_zstd
def test_a_store_can_be_told_to_use_zstd_where_there_is_one() -> None:
    assert Options(compression="zstd").compression == "zstd"
    with pytest.raises(InvalidArgument, match="did you mean 'zstd'"):
        Options(compression="zst")


def test_zstd_is_looked_for_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = importlib.import_module

    def import_module(name: str) -> Any:
        asked.append(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    load_zstd.cache_clear()
    for compression in ("none", "zlib"):
        read_all(open_table(make_table(ROWS, compression=compression)[0], verify=True))
    assert asked == []

    if have_zstd():
        assert asked[0] == MODULES[0]  # Python's own comes first
        asked.clear()
        read_all(open_table(make_table(ROWS, compression="zstd")[0], verify=True))
        assert asked == []  # found once
