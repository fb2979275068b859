"""storage/log: what is written is read back, and how a log may end (R1, R2, R3)."""

from __future__ import annotations

import os
import pathlib
import re
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.coding.batch import encode, put
from marram.env.faulty import Fault, FaultyEnv
from marram.env.memory import MemoryEnv
from marram.env.posix import PosixEnv
from marram.errors import Corruption, Error, UnsupportedFormat
from marram.storage.layout import log_path
from marram.storage.log.format import (
    FILE_HEADER_SIZE,
    FRAME_HEADER_SIZE,
    FRAME_MAGIC,
    LOG,
    START_SIZE,
    FileKind,
    FrameHeader,
    LogHeader,
    LogStart,
    pack_header,
    pack_start,
    unpack_header,
)
from marram.storage.log.reader import (
    Batch,
    BatchSink,
    FrameReader,
    LogReader,
    ends_before,
    read_header,
    read_log_header,
)
from marram.storage.log.tail import LogScan
from marram.storage.log.writer import FrameWriter, LogWriter

STORE_ID = bytes(range(16))
HEADER = LogHeader(STORE_ID, 7, 0, 10, 3)
PATH = log_path("/db", 7)
ROOT = pathlib.Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "log-v1"
GOLDEN_WITH_HISTORY = ROOT / "tests" / "golden" / "log-v2"
# Of format 2: it says what it goes on from.
WITH_START = HEADER._replace(start=LogStart(3, 0x89AB4523, 1_700_000_000_000))


def batch_of(number: int, size: int = 10) -> bytes:
    return encode([put(0, b"key-%d" % number, b"v" * size)])


def make_log(groups: list[int], *, sync: bool = True, env: MemoryEnv | None = None) -> MemoryEnv:
    """A log with groups of that many batches each, synced after each group where asked."""
    env = env or MemoryEnv()
    env.make_dir("/db")
    log = LogWriter.create(env, "/db", HEADER, 0)
    sequence = HEADER.base_sequence
    for count in groups:
        batches = [batch_of(sequence + 1 + i) for i in range(count)]
        log.write(batches, sequence + 1, 3, 1000 + sequence)
        sequence += count
        if sync:
            log.sync()
    log.close()
    return env


def read_log(env: MemoryEnv, promised: int = 0) -> tuple[list[Batch], LogReader]:
    file = env.open(PATH)
    header = read_log_header(file)
    assert header is not None
    reader = LogReader(file, header, promised)
    return list(reader), reader


def frame_starts(env: MemoryEnv) -> list[int]:
    data = env.contents(PATH)
    starts, at = [], data.find(FRAME_MAGIC)
    while at >= 0:
        starts.append(at)
        at = data.find(FRAME_MAGIC, at + 1)
    return starts


@settings(max_examples=50)
@given(st.lists(st.integers(1, 5), max_size=8))
def test_r1_batches_come_back_in_order(groups: list[int]) -> None:
    batches, reader = read_log(make_log(groups))

    assert [b.sequence for b in batches] == list(range(11, 11 + sum(groups)))
    assert all(b.changes == [put(0, b"key-%d" % b.sequence, b"v" * 10)] for b in batches)
    assert reader.last_sequence == 10 + sum(groups)
    assert reader.tail == 0


def test_w1_a_log_grows_before_it_is_full() -> None:
    env = MemoryEnv()
    env.make_dir("/db")
    log = LogWriter.create(env, "/db", HEADER, 0)
    for sequence in range(11, 211):
        batch = batch_of(sequence, 3000)
        log.reserve(len(batch))
        size = log.file.size()
        log.write([batch], sequence, 3, 0)
        assert log.end <= size, "the frame fits what was reserved"
    log.sync()

    batches, _ = read_log(env)
    assert len(batches) == 200


def log_of(sizes: list[int], *, is_mapped: bool) -> tuple[MemoryEnv, LogWriter]:
    """A log of one batch a frame, each of that many bytes and a little more, grown as they come."""
    env = MemoryEnv()
    env.make_dir("/db")
    log = LogWriter.create(env, "/db", HEADER, 0)
    log.is_mapped = is_mapped
    for sequence, size in enumerate(sizes, 11):
        batch = batch_of(sequence, size)
        log.reserve(len(batch))
        log.write([batch], sequence, 3, 1000 + sequence)
        if size % 5 == 0:
            log.sync()
    return env, log


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0, 10, 500, 5_000, 31_000, 33_000, 300_000]), max_size=40))
def test_w4_a_log_written_through_memory_is_the_same_to_the_byte(sizes: list[int]) -> None:
    (called, _), (mapped, log) = log_of(sizes, is_mapped=False), log_of(sizes, is_mapped=True)
    assert log.is_mapped
    assert mapped.contents(PATH) == called.contents(PATH)
    log.trim()  # below its window: a store there would be the end
    assert not log.fits(1)
    log.close()
    assert len(read_log(mapped)[0]) == len(sizes)


def test_w5_a_machines_window_is_stored_into_and_given_up(tmp_path: pathlib.Path) -> None:
    # Compiled code has a view of its own of such a window: release() fails where that is left.
    env = PosixEnv()
    written: list[bytes] = []
    for name in ("called", "mapped"):
        directory = str(tmp_path / name)
        env.make_dir(directory)
        log = LogWriter.create(env, directory, HEADER, 0)
        log.is_mapped = name == "mapped"
        for sequence, size in enumerate([0, 10, 500, 31_000, 33_000, 5_000] * 20, 11):
            batch = batch_of(sequence, size)
            log.reserve(len(batch))
            log.write([batch], sequence, 3, 1000 + sequence)
        log.trim()
        assert not log.fits(1)
        log.close()
        written.append((tmp_path / name / "logfile.7").read_bytes())
    assert written[0] == written[1]


def test_w4_small_frames_need_no_call_while_the_window_has_room() -> None:
    _, log = log_of([10], is_mapped=True)
    assert log.fits(1000)
    assert not log.fits(1 << 20)
    _, log = log_of([10], is_mapped=False)
    assert not log.fits(1)


def test_w3_a_window_that_cannot_be_had_for_an_error_puts_the_log_in_doubt() -> None:
    env = FaultyEnv(MemoryEnv(), Fault("window", "*/logfile.7"))
    env.make_dir("/db")
    log = LogWriter.create(env, "/db", HEADER, 0)
    log.is_mapped = True
    with pytest.raises(OSError):
        log.write([batch_of(11)], 11, 3, 0)


@pytest.mark.parametrize("lost", [1, 20, FRAME_HEADER_SIZE - 1, FRAME_HEADER_SIZE, 60])
def test_a_torn_last_frame_is_a_tail(lost: int) -> None:
    env = make_log([1, 1, 1])
    last = frame_starts(env)[-1]
    env.mutate(PATH, last + lost, bytes(len(env.contents(PATH)) - last - lost))

    batches, reader = read_log(env)

    assert [b.sequence for b in batches] == [11, 12]
    assert reader.end == last
    assert 0 < reader.tail <= lost


def test_r2_damage_before_a_later_promise_is_corruption() -> None:
    env = make_log([1, 1, 1])
    second = frame_starts(env)[1]
    env.mutate(PATH, second + FRAME_HEADER_SIZE + 3, b"\xff")

    # The third frame says everything up to itself was synced.
    with pytest.raises(Corruption) as caught:
        read_log(env)
    assert (caught.value.path, caught.value.offset) == (PATH, second)


def test_r2_a_valid_frame_after_a_bad_one_without_a_promise_is_a_tail() -> None:
    env = make_log([1, 1, 1], sync=False)
    second = frame_starts(env)[1]
    env.mutate(PATH, second + 5, b"\xff")

    batches, reader = read_log(env)

    assert [b.sequence for b in batches] == [11]
    assert reader.end == second


@pytest.mark.parametrize("kind", ["damaged", "zeroed", "missing"])
def test_r2_a_promise_from_outside_covers_the_last_frame(kind: str) -> None:
    env = make_log([1, 1])
    last = frame_starts(env)[-1]
    data = env.contents(PATH)
    if kind == "damaged":
        env.mutate(PATH, last + 60, b"\xff")
    elif kind == "zeroed":
        env.mutate(PATH, last, bytes(len(data) - last))
    else:
        env.put_file(PATH, data[:last])

    with pytest.raises(Corruption, match="synced up to"):
        read_log(env, promised=last + 1)
    assert len(read_log(env)[0]) == 1  # and without the promise it is a tail


def test_a_frame_moved_to_another_place_is_not_read() -> None:
    env = make_log([1, 1])
    first, second = frame_starts(env)
    data = env.contents(PATH)
    end = second + (second - first)
    env.mutate(PATH, end, data[first:second])  # a replayed copy right behind the last frame

    batches, reader = read_log(env)

    assert [b.sequence for b in batches] == [11, 12]
    assert reader.tail > 0


@pytest.mark.parametrize(
    "other", [LogHeader(bytes(16), 7, 0, 10, 3), LogHeader(STORE_ID, 8, 0, 10, 3)]
)
def test_frames_of_another_store_or_log_are_not_read(other: LogHeader) -> None:
    env = make_log([1])
    env.mutate(PATH, 0, pack_header(other))

    assert read_log(env)[0] == []


def test_a_log_without_header_or_frames_was_never_finished() -> None:
    env = MemoryEnv()
    env.make_dir("/db")
    for content in (b"", b"\0" * 10, b"\0" * 5000):
        env.put_file(PATH, content)
        assert read_log_header(env.open(PATH)) is None


def test_a_damaged_header_over_frames_is_corruption() -> None:
    env = make_log([1])
    env.mutate(PATH, 30, b"\xff")

    with pytest.raises(Corruption, match="header"):
        read_log_header(env.open(PATH))


def test_a_newer_format_is_refused_by_version() -> None:
    env = MemoryEnv()
    env.make_dir("/db")
    env.put_file(PATH, newer_header(3))

    with pytest.raises(UnsupportedFormat, match="log format 3"):
        read_log_header(env.open(PATH))


def newer_header(version: int) -> bytes:
    from marram.coding.checksum import crc32

    fields = bytearray(pack_header(HEADER)[:-4])
    fields[8] = version
    return bytes(fields) + crc32(bytes(fields), HEADER.number).to_bytes(4, "little")


def test_header_round_trip() -> None:
    assert unpack_header(pack_header(HEADER)) == (HEADER, 1)


def test_every_flipped_byte_is_noticed_or_cuts_the_tail() -> None:
    whole = make_log([2, 1, 3])
    data = whole.contents(PATH).rstrip(b"\0")
    expected = read_log(whole)[0]
    last = frame_starts(whole)[-1]

    for at in range(len(data)):
        env = MemoryEnv()
        env.make_dir("/db")
        flipped = bytearray(data)
        flipped[at] ^= 1 << (at % 8)
        env.put_file(PATH, bytes(flipped))
        try:
            batches, reader = read_log(env)
        except Corruption as error:
            assert error.path == PATH
        else:
            assert at >= last, f"byte {at} was flipped and nobody noticed"
            assert batches == expected[:3]
            assert reader.tail > 0


def test_r3_a_frame_may_not_declare_more_than_the_file_has() -> None:
    env = make_log([1])
    data = bytearray(env.contents(PATH))
    start = frame_starts(env)[0]
    # A header whose checksum is right and whose length lies: only a writer's bug could make it.
    from marram.storage.log import format as fmt

    lying = fmt.pack_frame(b"", 1, 1, 11, 3, 0, 0, start, (7, STORE_ID))[:-4]
    fields = bytearray(lying[: fmt.FRAME_HEADER_SIZE - 4])
    fields[4:8] = (2**32 - 1).to_bytes(4, "little")
    seed = fmt.place_seed(7, start, STORE_ID)
    data[start : start + len(fields)] = fields
    data[start + len(fields) : start + len(fields) + 4] = fmt.crc32(bytes(fields), seed).to_bytes(
        4, "little"
    )
    env.put_file(PATH, bytes(data))

    tracemalloc.start()
    batches, _ = read_log(env)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert batches == []
    assert peak < 8 * 1024 * 1024


@pytest.mark.parametrize("mangle", ["count", "trailing", "sequence"])
def test_a_frame_that_lies_about_its_batches_is_corruption(mangle: str) -> None:
    env = MemoryEnv()
    env.make_dir("/db")
    log = LogWriter.create(env, "/db", HEADER, 0)
    payload = batch_of(11)
    if mangle == "count":
        log.write_frame(payload, 1, 2, 11, 3, 0)
    elif mangle == "trailing":
        log.write_frame(payload + b"junk", 1, 1, 11, 3, 0)
    else:
        log.write_frame(payload, 1, 1, 13, 3, 0)
    log.close()

    with pytest.raises(Corruption):
        read_log(env)


def test_fuzz_200_000_mangled_logs_never_crash_the_reader() -> None:
    import random

    seed = int(os.environ.get("MARRAM_FUZZ_SEED", "1"))
    rng = random.Random(seed)
    env = make_log([1, 2])
    good = env.contents(PATH).rstrip(b"\0")
    expected = read_log(env)[0]
    outcomes = {"same": 0, "shorter": 0, "refused": 0}
    for _ in range(200_000):
        data = bytearray(good)
        for _ in range(rng.choice((1, 1, 2, 5))):
            kind = rng.randrange(4)
            at = rng.randrange(len(data))
            if kind == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                data[at : at + 4] = rng.choice((b"\xff" * 4, bytes(4), FRAME_MAGIC))
            elif kind == 2:
                del data[at:]
                data += b"\0"
            else:
                data[at:at] = rng.randbytes(3)
        file = _Bytes(bytes(data))
        try:
            header = read_log_header(file)
            batches = [] if header is None else list(LogReader(file, header))
        except Error:
            outcomes["refused"] += 1
            continue
        assert batches == expected[: len(batches)], f"seed {seed}: a wrong batch got through"
        outcomes["same" if len(batches) == len(expected) else "shorter"] += 1
    assert min(outcomes["shorter"], outcomes["refused"]) > 1000, outcomes


class _Bytes:
    """The reading half of env.api.File over bytes: two hundred thousand envs would be slow."""

    path = PATH

    def __init__(self, data: bytes) -> None:
        self._data = data

    def size(self) -> int:
        return len(self._data)

    def read(self, size: int, offset: int) -> bytes:
        return self._data[offset : offset + size]


class _Heard(BatchSink):
    """Keeps what replay() hands over."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, bytes]] = []

    def take(self, buffer: bytes, start: int, stop: int, sequence: int) -> None:
        self.heard.append((sequence, buffer[start:stop]))


@pytest.mark.parametrize("after", [0, 10, 12, 15, 16, 99])
def test_replay_hands_over_what_comes_after_a_sequence_number(after: int) -> None:
    env = make_log([1, 3, 2])
    sink = _Heard()
    reader = LogReader(env.open(PATH), HEADER)

    count = reader.replay(sink, after)

    assert sink.heard == [(n, batch_of(n)) for n in range(max(after, 10) + 1, 17)]
    assert count == len(sink.heard)
    assert (reader.last_sequence, reader.epoch, reader.time_ms) == (16, 3, 1014)


def test_a_batch_that_the_sink_refuses_is_corruption_at_its_place() -> None:
    class Refuses(BatchSink):
        def take(self, buffer: bytes, start: int, stop: int, sequence: int) -> None:
            if sequence == 13:
                raise ValueError("not this one")

    env = make_log([1, 3])
    start = frame_starts(env)[1] + FRAME_HEADER_SIZE + len(batch_of(12))

    with pytest.raises(Corruption, match="not this one") as caught:
        LogReader(env.open(PATH), HEADER).replay(Refuses(), 0)
    assert caught.value.offset == start


def test_a_sequence_number_beyond_all_is_refused() -> None:
    env = make_log([])
    with pytest.raises(Corruption, match="sequence number"):
        LogReader(env.open(PATH), HEADER._replace(base_sequence=2**63))


@pytest.mark.parametrize("size", [1, 2**20 - 300, 2**20, 3 * 2**20 + 5])
def test_frames_are_read_across_the_windows_of_the_file(size: int) -> None:
    env = MemoryEnv()
    env.make_dir("/db")
    log = LogWriter.create(env, "/db", HEADER, 8 * 2**20)
    batches = [batch_of(11, 100), batch_of(12, size), *(batch_of(n, 200) for n in range(13, 8000))]
    for number, batch in enumerate(batches, 11):
        log.write([batch], number, 3, 0)
    log.close()
    sink = _Heard()

    LogReader(env.open(PATH), HEADER).replay(sink, 0)

    assert sink.heard == list(enumerate(batches, 11))


def test_a_header_read_in_place_is_what_unpack_says() -> None:
    """20,000 headers, their checksum right, one number in each strange: what FrameReader takes."""
    import random
    import struct

    from marram.storage.log import format as fmt

    rng = random.Random(3)
    taken = 0
    for _ in range(20_000):
        fields = bytearray(fmt.pack_frame(b"", 1, 0, 11, 3, 5, 0, 64, (7, STORE_ID)))[:-4]
        at = rng.choice((0, 4, 8, 8, 9, 10, 12, 16, 24, 32, 40, 48))
        if rng.random() < 0.9:
            fields[at] = rng.choice((0, 1, 2, 3, 32, 33, 34, 64, 65, 255))
        seed = fmt.place_seed(7, 64, STORE_ID)
        checksum = fmt.crc32(bytes(fields), seed) ^ rng.choice((0, 0, 0, 1))
        # The payload would be empty: its checksum is its seed where the header says nothing else.
        data = bytes(64) + fields + struct.pack("<I", checksum) + bytes(300)
        expected = fmt.unpack_frame_header(data, 64, 64, seed)
        found = list(_taken_headers(data))
        if expected is None or expected.payload_size > 300:
            assert found == []
        elif fmt.crc32(bytes(expected.payload_size), seed) == expected.payload_checksum:
            assert found == [expected]
            taken += 1
    assert taken > 3000


def _taken_headers(data: bytes) -> Iterator[FrameHeader]:
    """Headers of the frames that a reader finds at 64, until one is not whole or lies."""
    try:
        for header, _ in FrameReader(_Bytes(data), LOG, HEADER).frames():
            yield header
    except Corruption:
        return


def test_the_golden_log_is_readable_for_ever() -> None:
    if os.environ.get("MARRAM_WRITE_GOLDEN"):
        data = make_log([1, 3, 2]).contents(PATH)
        GOLDEN.write_bytes(data.rstrip(b"\0") + bytes(100))
    file = _Bytes(GOLDEN.read_bytes())
    header = read_log_header(file)
    assert header == HEADER
    batches = list(LogReader(file, header))
    assert [b.sequence for b in batches] == [11, 12, 13, 14, 15, 16]
    assert batches[0].changes == [put(0, b"key-11", b"v" * 10)]
    assert batches[-1].time_ms == 1014


# -- history ---------------------------------------------------------------------------------------


def log_with_history(env: MemoryEnv | None = None) -> tuple[MemoryEnv, int, list[bytes]]:
    """A log of format 2 with three groups and its last mark: (env, its end, all batches)."""
    env = env or MemoryEnv()
    env.make_dir("/db")
    log = LogWriter.create(env, "/db", WITH_START, 0)
    batches = []
    for count in (1, 3, 2):
        group = [batch_of(11 + len(batches) + index) for index in range(count)]
        log.write(group, 11 + len(batches), 3 + count, 1000 + count)
        log.sync()
        batches += group
    log.mark(16, 9, 2000)
    log.sync()
    log.trim()
    log.close()
    return env, log.end, batches


def test_r4_the_checksum_of_the_history_is_the_crc_of_all_its_bytes() -> None:
    env, end, batches = log_with_history()
    header = read_log_header(env.open(PATH))
    assert header == WITH_START
    for at in (9, 10, 11, 13, 16, 17):
        reader = LogReader(env.open(PATH), WITH_START, end, chain_at=at)
        assert len(list(reader)) == 6
        folded = zlib.crc32(b"".join(batches[: at - 10]), WITH_START.start.chain)  # type: ignore[union-attr]
        assert reader.noted_chain == (folded if 10 <= at <= 16 else None)
    assert reader.chain == zlib.crc32(b"".join(batches), 0x89AB4523)
    assert (reader.batch_epoch, reader.epoch, reader.end) == (5, 9, end)


def test_r4_a_log_whose_history_is_not_what_it_says_is_corruption() -> None:
    env = MemoryEnv()
    env.make_dir("/db")
    log = LogWriter.create(env, "/db", WITH_START, 0)
    log.write([batch_of(11)], 11, 3, 0)
    at = log.end
    log.chain ^= 1  # as of a writer's bug, or bytes that went bad before their checksum was taken
    log.mark(11, 3, 0)
    log.close()
    with pytest.raises(Corruption, match="history up to batch 11") as caught:
        list(LogReader(env.open(PATH), WITH_START))
    assert caught.value.offset == at
    scan = LogScan(env.open(PATH), WITH_START)
    assert scan.next(log.end) is not None
    with pytest.raises(Corruption, match="history up to batch 11") as caught:
        scan.next(log.end)
    assert caught.value.offset == at


def test_l1_a_scan_refuses_what_a_reader_would_take_for_the_end() -> None:
    """Below its limit everything was promised: nothing there can be a torn tail."""
    env, end, batches = log_with_history()
    starts = frame_starts(env)
    for at in range(FILE_HEADER_SIZE, end):
        damaged = _Bytes(flipped_at(env.contents(PATH), at))
        scan = LogScan(damaged, WITH_START)
        given: list[bytes] = []
        with pytest.raises(Corruption) as caught:
            while (frame := scan.next(end)) is not None:
                given.append(frame.payload)
        assert caught.value.offset == max(start for start in starts if start <= at)
        assert b"".join(batches).startswith(b"".join(given))
    scan = LogScan(env.open(PATH), WITH_START)
    with pytest.raises(Corruption, match="damaged"):
        while scan.next(end - 1):
            pass
    with pytest.raises(Corruption, match="cut short"):
        scan.next(starts[-1] + 1)


def flipped_at(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]


def test_a_log_of_format_1_is_continued_as_such() -> None:
    env = make_log([1])
    file = env.open(PATH, write=True)
    end = frame_starts(env)[0] + FRAME_HEADER_SIZE + len(batch_of(11))
    log = LogWriter(file, HEADER, end, file.size())
    log.mark(11, 3, 0)
    batches, reader = read_log(env)
    assert len(batches) == 1
    assert reader.end == end + FRAME_HEADER_SIZE, "a mark that every marram reads"
    assert HEADER.history == (3, 0)
    assert HEADER._replace(base_sequence=0).history == (0, 0)


def test_every_flipped_byte_of_a_log_with_history_is_noticed() -> None:
    env, end, _ = log_with_history()
    data = env.contents(PATH)
    last = frame_starts(env)[-1]
    assert len(data) == end
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << (at % 8)
        file = _Bytes(bytes(flipped))
        try:
            header = read_log_header(file)
            assert header is not None
            found = len(list(LogReader(file, header)))
        except Corruption as error:
            assert error.path == PATH
        else:
            assert at >= last, f"byte {at} was flipped and nobody noticed"
            assert found == 6
        with pytest.raises(Corruption):
            header = read_log_header(file)
            assert header is not None
            list(LogReader(file, header, promised=end))


def test_a_log_whose_first_frame_was_torn_was_never_finished() -> None:
    start = pack_start(WITH_START)
    assert len(start) == START_SIZE
    for size in (START_SIZE - 1, FILE_HEADER_SIZE + 1, FILE_HEADER_SIZE):
        torn = _Bytes(start[:size] + bytes(1000))
        if size == FILE_HEADER_SIZE:
            assert read_log_header(torn) is None
        else:
            with pytest.raises(Corruption, match="first frame"):
                read_log_header(torn)


def test_which_log_a_log_leads_up_to_is_seen_from_its_end() -> None:
    env, end, _ = log_with_history()
    file = env.open(PATH)
    reader = LogReader(file, WITH_START)
    list(reader)
    good = LogHeader(STORE_ID, 8, end, 16, 9, LogStart(5, reader.chain, 2000))
    assert ends_before(file, WITH_START, good)
    for wrong in (
        good._replace(previous_end=end - 1),
        good._replace(previous_end=end + 60),
        good._replace(previous_end=0),
        good._replace(base_sequence=15),
        good._replace(store_id=bytes(16)),
        good._replace(start=LogStart(4, reader.chain, 2000)),
        good._replace(start=LogStart(5, reader.chain ^ 1, 2000)),
    ):
        assert not ends_before(file, WITH_START, wrong)


def test_the_golden_log_with_history_is_readable_for_ever() -> None:
    if os.environ.get("MARRAM_WRITE_GOLDEN"):
        GOLDEN_WITH_HISTORY.write_bytes(log_with_history()[0].contents(PATH) + bytes(100))
    file = _Bytes(GOLDEN_WITH_HISTORY.read_bytes())
    header = read_log_header(file)
    assert header == WITH_START
    reader = LogReader(file, header)
    assert [b.sequence for b in reader] == [11, 12, 13, 14, 15, 16]
    assert (reader.epoch, reader.batch_epoch, reader.time_ms) == (9, 5, 1_700_000_000_000)


def test_the_document_s_example_is_what_is_written() -> None:
    text = (ROOT / "docs" / "formats" / "log.md").read_text().partition("## Example")[2]
    shown = re.findall(r"^    [0-9a-f]{4}  ((?:[0-9a-f]{2} )+)", text, re.MULTILINE)
    assert bytes.fromhex("".join(shown)) == pack_start(WITH_START)[FILE_HEADER_SIZE:]


def test_a_reader_stops_at_its_limit() -> None:
    env = make_log([1, 1, 1])
    limit = frame_starts(env)[2]
    file = env.open(PATH)

    batches = list(LogReader(file, HEADER, 0, limit))
    within = list(LogReader(file, HEADER, 0, limit - 1))

    assert [b.sequence for b in batches] == [11, 12]
    assert [b.sequence for b in within] == [11]


def test_f1_a_frame_of_another_kind_of_file_is_not_read() -> None:
    # Same number, store and offset, and a kind of frame that both may have.
    for kind in (FileKind("other", LOG.magic, 1, LOG.frames, b"scope"), LOG):
        env = MemoryEnv()
        env.put_file(PATH, pack_header(HEADER))
        file = env.open(PATH, write=True)
        frames = FrameWriter(file, kind, HEADER, FILE_HEADER_SIZE)
        frames.write_frame(batch_of(11), 1, 1, 11, 3, 0)

        own, other = list(LogReader(file, HEADER)), FrameReader(file, kind, HEADER)

        assert len(own) == (kind is LOG)
        assert len(list(other.frames())) == 1
        assert other.end == file.size()


def test_a_header_of_another_kind_of_file_is_damage() -> None:
    env = make_log([1])
    with pytest.raises(Corruption, match="the other's header is damaged"):
        read_header(env.open(PATH), LOG._replace(name="other", magic=b"marramXX"))


def test_a_kind_of_frame_that_the_file_cannot_have_is_no_frame() -> None:
    env = make_log([1])
    reader = FrameReader(env.open(PATH), LOG._replace(frames=(2,)), HEADER)
    assert list(reader.frames()) == []
    assert reader.tail > 0
