"""storage/lsm/manifest.py: what was acknowledged is loaded again, or its damage is noticed."""

from __future__ import annotations

import errno
import logging
import os
import pathlib
import re
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.coding.checksum import crc32
from marram.env.faulty import Fault, FaultyEnv
from marram.env.memory import MemoryEnv
from marram.errors import Corruption, InvalidArgument, StoreFailed, StoreFull, UnsupportedFormat
from marram.storage.engine import Origin
from marram.storage.layout import checkpoint_path
from marram.storage.log.format import (
    FILE_HEADER_SIZE,
    FRAME_HEADER_SIZE,
    FRAME_MAGIC,
    KIND_BATCHES,
    KIND_MARK,
    LOG,
    FileKind,
    LogHeader,
    pack_header,
)
from marram.storage.log.writer import FrameWriter
from marram.storage.lsm import manifest as module
from marram.storage.lsm.manifest import (
    KIND_EDIT,
    KIND_LISTING,
    MANIFEST,
    Counts,
    Loaded,
    Manifest,
    Record,
    engine_of,
    load,
)
from marram.storage.lsm.version import TableMeta, Version, VersionEdit

EXAMPLES = int(os.environ.get("MARRAM_EXAMPLES", "100"))
ROOT = pathlib.Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "formats" / "manifest.md"
GOLDEN = ROOT / "tests" / "golden" / "manifest-v1.checkpoint"

STORE_ID = bytes(range(16))
ORIGIN = Origin(STORE_ID, epoch=3, sequence=70, time_ms=1_700_000_000_000)
NUMBER = 7
PATH = checkpoint_path("/db", NUMBER)
SPACES = (1, 0, *range(2, 16))
UNKNOWN: tuple[Counts, ...] = (None,) * 16


def table(number: int, start: bytes = b"", stop: bytes = b"", **values: int) -> TableMeta:
    """A table whose range no other number's meets, unless one is given."""
    start = start or b"\0%04d" % number
    values = {"rows": 10, "min_sequence": number, "max_sequence": number, **values}
    return TableMeta(number, values.pop("size_bytes", 100), start, stop or start + b"~", **values)


def counts_of(**known: tuple[int, int]) -> tuple[Counts, ...]:
    """counts_of(s0=(5, 1)): of keyspace 0; the others are not known."""
    return tuple(known.get(f"s{space}") for space in range(16))


LISTING = Record(
    VersionEdit(((0, table(4)), (1, table(2)), (1, table(3)))), 5, counts_of(s0=(20, 0), s9=(7, 3))
)
EDITS = [
    Record(VersionEdit(((1, table(5)),), ((0, 4), (1, 2))), 6, counts_of(s0=(19, 0), s9=(7, 3))),
    Record(VersionEdit(((2, table(3)),), ((1, 3),)), 6, counts_of(s0=(19, 0), s9=(7, 3))),
    Record(VersionEdit(removed=((1, 5),)), 9, UNKNOWN),
]


class State(NamedTuple):
    """What a manifest comes to: what a test compares."""

    listing: VersionEdit
    next_table: int
    counts: tuple[Counts, ...]


def states(records: list[Record]) -> list[State]:
    """The state after each record."""
    version, found = Version(), []
    for record in records:
        version = version.apply(record.edit)
        found.append(State(version.listing(), record.next_table, record.counts))
    return found


STATES = states([LISTING, *EDITS])


def state_of(loaded: Loaded) -> State:
    assert (loaded.origin, loaded.spaces) == (ORIGIN, SPACES)
    loaded.version._check()
    return State(loaded.version.listing(), loaded.next_table, loaded.counts)


def new_env(block_size: int = 512) -> MemoryEnv:
    env = MemoryEnv(block_size=block_size)
    env.make_dir("/db")
    env.sync_dir("/")
    return env


def make(edits: list[Record], env: MemoryEnv | None = None) -> MemoryEnv:
    env = env or new_env()
    manifest = Manifest.create(env, "/db", NUMBER, ORIGIN, SPACES, LISTING)
    for edit in edits:
        manifest.append(edit)
    manifest.close()
    return env


def load_it(env: MemoryEnv | FaultyEnv, **options: int) -> Loaded:
    return load(env, "/db", NUMBER, STORE_ID, **options)


def load_bytes(data: bytes) -> Loaded:
    env = new_env()
    env.put_file(PATH, data)
    return load_it(env)


def frame_starts(data: bytes) -> list[int]:
    return [match.start() for match in re.finditer(re.escape(FRAME_MAGIC), data)]


# -- round trips -----------------------------------------------------------------------------------


def test_what_was_appended_is_loaded_and_every_byte_is_accounted_for() -> None:
    for count in range(len(EDITS) + 1):
        env = make(EDITS[:count])

        loaded = load_it(env)

        assert state_of(loaded) == STATES[count]
        assert (loaded.records, loaded.vouched, loaded.cut_bytes) == (count + 1, True, 0)
        assert loaded.end == len(env.contents(PATH))


known_counts = st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)).map(
    lambda pair: (max(pair), min(pair))
)


@st.composite
def histories(draw: st.DrawFn) -> list[Record]:
    """Records that fit one after the other: tables come, go, and move."""
    level_of: dict[int, int] = {}
    records: list[Record] = []
    next_table = 0
    for _ in range(draw(st.integers(1, 6))):
        gone = draw(st.sets(st.sampled_from(sorted(level_of)))) if level_of else set()
        removed = tuple((level_of.pop(number), number) for number in sorted(gone))
        moved = [number for number in sorted(gone) if draw(st.booleans())]
        made = [next_table + n for n in range(draw(st.integers(0, 3)))]
        for number in moved + made:
            level_of[number] = draw(st.integers(0, 6))
        added = tuple((level_of[number], table(number)) for number in moved + made)
        next_table += len(made) + draw(st.integers(0, 2))
        counts = tuple(draw(st.none() | known_counts) for _ in range(16))
        edit = VersionEdit(added, removed if records else ())
        records.append(Record(edit, next_table, counts))
    return records


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories(), st.permutations(range(16)), st.integers(0, 6))
def test_a_history_round_trips_wherever_it_is_resumed(
    history: list[Record], spaces: list[int], resume_after: int
) -> None:
    env = new_env()
    manifest = Manifest.create(env, "/db", NUMBER, ORIGIN, spaces, history[0])
    expected = states(history)
    for at, record in enumerate(history[1:], 1):
        if at == resume_after:
            manifest.close()
            manifest = Manifest.resume(env, "/db", NUMBER, load_it(env))
        manifest.append(record)
        loaded = load_it(env)
        assert loaded.spaces == tuple(spaces)
        assert (loaded.version.listing(), *loaded[3:5]) == expected[at]
        assert loaded.end == manifest.size_bytes


# -- damage ----------------------------------------------------------------------------------------


def outcome(data: bytes) -> int | str:
    """Which state is loaded, or what is raised. Anything else fails the test."""
    try:
        loaded = load_bytes(data)
    except Corruption as error:
        assert error.path == PATH
        assert error.offset is not None
        return "Corruption"
    assert state_of(loaded) in STATES, "a version that never was"
    return STATES.index(state_of(loaded))


def flips(data: bytes, start: int, stop: int) -> set[int | str]:
    """The outcomes of all single-bit flips in [start, stop)."""
    found = set()
    for bit in range(start * 8, stop * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        found.add(outcome(bytes(flipped)))
    return found


def test_n2_a_flipped_bit_is_corruption_or_takes_nothing_but_the_last_mark() -> None:
    data = make(EDITS[:2]).contents(PATH)
    *_, last_record, last_mark = frame_starts(data)

    assert flips(data, 0, last_record) == {"Corruption"}
    assert flips(data, last_record, last_mark) == {"Corruption"}
    assert flips(data, last_mark, len(data)) == {2}  # a torn mark: every record is there


def test_n1_a_flipped_bit_in_a_listing_alone_is_corruption() -> None:
    data = make([]).contents(PATH)

    assert flips(data, 0, len(data)) == {"Corruption"}


def test_n2_a_flipped_bit_in_a_record_that_was_not_acknowledged_is_a_torn_tail() -> None:
    data = make(EDITS[:2]).contents(PATH)
    *_, last_record, last_mark = frame_starts(data)
    unmarked = data[:last_mark]  # the power failed between the two syncs

    assert outcome(unmarked) == 2
    assert flips(unmarked, 0, last_record) == {"Corruption"}
    assert flips(unmarked, last_record, last_mark) == {1}


def test_a_truncation_loses_whole_records_from_the_end_or_is_corruption() -> None:
    # This is the gap that N2 names: tables of the version that comes out are missing by then.
    data = make(EDITS).contents(PATH)
    starts = [*frame_starts(data), len(data)]
    ends = [starts[1], starts[2], starts[4], starts[6]]  # of the listing and of each edit

    for size in range(len(data)):
        whole = sum(end <= size for end in ends)
        assert outcome(data[:size]) == (whole - 1 if whole else "Corruption")
        # Zeros in place of what is lost: the length survived a crash and the blocks did not.
        zeroed = data[:size].ljust(len(data), b"\0")
        whole = sum(data[:end] == zeroed[:end] for end in ends)
        assert outcome(zeroed) == (whole - 1 if whole else "Corruption")


def test_a_promise_from_outside_covers_what_the_file_cannot() -> None:
    env = make(EDITS)
    data = env.contents(PATH)
    last_record = frame_starts(data)[-2]
    env.put_file(PATH, data[:last_record])

    assert state_of(load_it(env)) == STATES[2]
    with pytest.raises(Corruption, match="the manifest was synced up to") as caught:
        load_it(env, promised=len(data))
    assert (caught.value.path, caught.value.offset) == (PATH, last_record)


def test_damage_is_reported_where_it_is() -> None:
    env = make(EDITS)
    second = frame_starts(env.contents(PATH))[1]
    env.mutate(PATH, second + FRAME_HEADER_SIZE + 20, b"\xff")

    with pytest.raises(Corruption, match="says the manifest was synced up to") as caught:
        load_it(env)
    assert (caught.value.path, caught.value.offset) == (PATH, second)


def test_n4_load_changes_nothing() -> None:
    env = make(EDITS)
    env.put_file(PATH, env.contents(PATH)[:-20])
    data, calls = env.contents(PATH), env.total_calls

    assert load_it(env).cut_bytes == FRAME_HEADER_SIZE - 20

    assert (env.contents(PATH), env.total_calls) == (data, calls)


# -- crashes ---------------------------------------------------------------------------------------


@dataclass
class Crashes:
    """Clones of a disk at every call: (how far it was, clone)."""

    env: MemoryEnv
    step: int = 0
    clones: list[tuple[int, MemoryEnv]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.env.on_call = lambda _operation, _path: self.take()

    def take(self) -> None:
        for survival, seeds in ((0.0, 1), (0.5, 10), (1.0, 1)):
            for seed in range(seeds):
                clone = self.env.crash_clone(survival, seed + 100 * len(self.clones))
                self.clones.append((self.step, clone))


def test_n2_a_crash_in_an_append_leaves_the_version_before_or_after_it() -> None:
    env = make([], new_env(block_size=64))
    manifest = Manifest.resume(env, "/db", NUMBER, load_it(env))
    crashes = Crashes(env)
    for edit in EDITS:
        manifest.append(edit)
        crashes.step += 1  # acknowledged
    crashes.take()

    found = set()
    for acknowledged, clone in crashes.clones:
        loaded = load_it(clone)
        state = STATES.index(state_of(loaded))
        assert acknowledged <= state <= acknowledged + 1
        assert loaded.vouched or state > acknowledged  # rot from here on would be noticed
        found.add((acknowledged, state))
    assert found == {(n, n) for n in range(4)} | {(n, n + 1) for n in range(3)}


def test_n4_a_crash_in_a_resume_after_a_crash_loses_nothing_that_was_seen() -> None:
    env = make(EDITS[:1], new_env(block_size=64))  # so that a record can be torn
    manifest = Manifest.resume(env, "/db", NUMBER, load_it(env))
    first = Crashes(env)
    manifest.append(EDITS[1])

    kinds = set()
    for _, found in first.clones:
        before = load_it(found)
        kinds.add((before.records, before.vouched, before.cut_bytes > 0))
        crashes = Crashes(found)
        resumed = Manifest.resume(found, "/db", NUMBER, before)
        crashes.step = 1
        if before.records == 2:
            resumed.append(EDITS[1])
        crashes.step = 2
        resumed.append(EDITS[2])
        crashes.step = 3
        crashes.take()
        for step, clone in crashes.clones:
            records = load_it(clone).records
            if step == 0:
                assert records == before.records
            elif step == 1:
                assert records in (before.records, 3)
            else:
                assert records in ((3, 4) if step == 2 else (4,))
            assert state_of(load_it(clone)) == STATES[records - 1]
    assert {(2, True, True), (3, False, False), (3, True, False)} <= kinds


def test_n1_a_crash_in_create_leaves_nothing_half_made_once_it_returned() -> None:
    env = new_env()
    crashes = Crashes(env)
    manifest = Manifest.create(env, "/db", NUMBER, ORIGIN, SPACES, LISTING)
    crashes.step = 1
    crashes.take()
    manifest.close()

    for created, clone in crashes.clones:
        if created:
            assert state_of(load_it(clone)) == STATES[0]
        # Before, no generation names it; and it is in nobody's way.
        clone.on_call = None
        assert state_of(load_it(make([], clone))) == STATES[0]


def test_n4_a_record_of_a_process_that_died_before_its_sync_is_made_durable_by_resume() -> None:
    env = make([], new_env(block_size=64))
    manifest = Manifest.resume(env, "/db", NUMBER, load_it(env))

    def die(operation: str, _path: str) -> None:
        if operation == "sync_data":
            raise KeyboardInterrupt

    env.on_call = die
    with pytest.raises(KeyboardInterrupt):
        manifest.append(EDITS[0])
    env.on_call = None
    loaded = load_it(env)  # no power failed: it is in the page cache
    assert (state_of(loaded), loaded.vouched) == (STATES[1], False)

    crashes = Crashes(env)
    Manifest.resume(env, "/db", NUMBER, loaded).close()

    for _, clone in crashes.clones:
        assert state_of(load_it(clone)) in STATES[:2]  # no mark without the record it vouches for
    after = load_it(env.crash_clone(0, 0))
    assert (state_of(after), after.vouched) == (STATES[1], True)


def test_a_torn_tail_is_cut_and_the_cut_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    env = make(EDITS[:1])
    data = env.contents(PATH)
    env.put_file(PATH, data[:-10] + bytes(500))
    loaded = load_it(env)

    with caplog.at_level(logging.WARNING, "marram.recovery"):
        manifest = Manifest.resume(env, "/db", NUMBER, loaded)

    assert f"{PATH} @ {loaded.end}, {loaded.cut_bytes} bytes" in caplog.text
    assert env.contents(PATH) == data  # the mark was made again
    assert manifest.size_bytes == len(data)


def test_zeros_after_the_end_are_cut_too() -> None:
    # A length that survived a crash whose blocks did not: stale blocks may follow one day.
    env = make(EDITS)
    data = env.contents(PATH)
    env.put_file(PATH, data + bytes(700))

    Manifest.resume(env, "/db", NUMBER, load_it(env)).close()

    assert env.crash_clone(0, 0).contents(PATH) == data


def test_a_whole_manifest_is_resumed_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    env = make(EDITS)
    data = env.contents(PATH)

    Manifest.resume(env, "/db", NUMBER, load_it(env)).close()

    assert env.contents(PATH) == data
    assert caplog.text == ""


# -- failures --------------------------------------------------------------------------------------


def faults() -> list[tuple[str, int, int | None]]:
    """(operation, which call of it fails, bytes that a failing write writes)."""
    found: list[tuple[str, int, int | None]] = [
        ("sync*", 1, None), ("sync*", 2, None), ("sync*", 3, None), ("truncate", 1, None),
        ("open", 1, None), ("size", 1, None), ("exists", 1, None), ("close", 1, None),
    ]  # fmt: skip
    return found + [("write", nth, short) for nth in (1, 2) for short in (None, 1, 56, 90)]


def test_an_append_without_room_changes_nothing_and_can_be_tried_again() -> None:
    env = FaultyEnv(make([]))
    manifest = Manifest.resume(env, "/db", NUMBER, load_it(env))
    env.add(Fault("allocate", "*/checkpoint.*", error=errno.ENOSPC))

    with pytest.raises(StoreFull):
        manifest.append(EDITS[0])
    assert state_of(load_it(env)) == STATES[0]
    manifest.append(EDITS[0])

    assert state_of(load_it(env)) == STATES[1]
    manifest.close()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("fault", faults(), ids=str)
def test_a_failed_append_leaves_a_file_that_loads(
    fault: tuple[str, int, int | None], error: int
) -> None:
    env = FaultyEnv(make(EDITS[:1]))
    manifest = Manifest.resume(env, "/db", NUMBER, load_it(env))
    rule = env.add(Fault(fault[0], nth=fault[1], short=fault[2], error=error))

    acknowledged = False
    try:
        manifest.append(EDITS[1])
        acknowledged = True
    except OSError as caught:
        assert caught.errno == error
    env.clear()

    assert acknowledged == (rule.fired == 0)
    if not acknowledged:
        with pytest.raises(StoreFailed):
            manifest.append(EDITS[1])
    assert isinstance(env.inner, MemoryEnv)
    for disk in (env.inner, env.inner.crash_clone(0, 0), env.inner.crash_clone(0.5, 1)):
        loaded = load_it(disk)
        assert state_of(loaded) in (STATES[2:3] if acknowledged else STATES[1:3])
        again = Manifest.resume(disk, "/db", NUMBER, loaded)
        if loaded.records == 2:
            again.append(EDITS[1])
        again.append(EDITS[2])
        assert state_of(load_it(disk)) == STATES[3]


@pytest.mark.parametrize("fault", faults(), ids=str)
def test_a_failed_create_is_told_and_can_be_tried_again(
    fault: tuple[str, int, int | None],
) -> None:
    inner = new_env()
    env = FaultyEnv(inner, rule := Fault(fault[0], nth=fault[1], short=fault[2]))

    created = False
    try:
        Manifest.create(env, "/db", NUMBER, ORIGIN, SPACES, LISTING)
        created = True
    except OSError:
        pass
    env.clear()

    assert created == (rule.fired == 0)
    if created:
        assert state_of(load_it(inner.crash_clone(0, 0))) == STATES[0]
    assert state_of(load_it(make([], inner))) == STATES[0]


@pytest.mark.parametrize("fault", faults(), ids=str)
def test_a_failed_resume_loses_nothing(fault: tuple[str, int, int | None]) -> None:
    inner = make(EDITS[:1])
    inner.put_file(PATH, inner.contents(PATH)[:-5] + b"torn" * 30)
    loaded = load_it(inner)
    env = FaultyEnv(inner, rule := Fault(fault[0], nth=fault[1], short=fault[2]))

    resumed = False
    try:
        Manifest.resume(env, "/db", NUMBER, loaded)
        resumed = True
    except OSError:
        pass

    assert resumed == (rule.fired == 0)
    for disk in (inner, inner.crash_clone(0, 0), inner.crash_clone(0.5, 1)):
        assert state_of(load_it(disk)) == STATES[1]


# -- what is not taken -----------------------------------------------------------------------------


def test_what_belongs_elsewhere_is_not_loaded() -> None:
    env = make(EDITS)
    other = make(EDITS)
    other.put_file(checkpoint_path("/db", 8), other.contents(PATH))

    with pytest.raises(Corruption, match="belongs to another store"):
        load(env, "/db", NUMBER, bytes(16))
    with pytest.raises(Corruption, match=re.escape("is checkpoint.7 by its header")):
        load(other, "/db", 8, STORE_ID)
    with pytest.raises(Corruption, match="missing"):
        load(env, "/db", 9, STORE_ID)
    for content in (b"", bytes(500)):
        env.put_file(PATH, content)
        with pytest.raises(Corruption, match="header is missing"):
            load_it(env)


def test_a_log_and_a_manifest_cannot_be_taken_for_each_other() -> None:
    header = LogHeader(STORE_ID, NUMBER, 0, ORIGIN.sequence, ORIGIN.epoch)
    data = make([]).contents(PATH)
    assert data[:FILE_HEADER_SIZE] == pack_header(header, MANIFEST)
    env = new_env()
    # The log's frames behind the manifest's header and the other way around: same number, same
    # store, same offsets, and kinds that either may have.
    for kind in (LOG, FileKind("log", LOG.magic, 1, MANIFEST.frames, LOG.scope)):
        frames = FrameWriter(env.open(PATH, write=True, create=True), kind, header, 64)
        frames.write_frame(b"", KIND_MARK, 0, 1, ORIGIN.epoch, ORIGIN.time_ms)
        env.mutate(PATH, 0, pack_header(header, MANIFEST))
        with pytest.raises(Corruption, match="listing is damaged or missing"):
            load_it(env)
    env.put_file(PATH, pack_header(header) + data[FILE_HEADER_SIZE:])
    with pytest.raises(Corruption, match="manifest's header is damaged"):
        load_it(env)


def test_a_checkpoint_tells_its_engine() -> None:
    env = make([])
    assert engine_of(env, "/db", NUMBER) == "lsm"
    env.put_file(PATH, (ROOT / "tests" / "golden" / "sstable-v1.sst").read_bytes())
    assert engine_of(env, "/db", NUMBER) == "memory"
    with pytest.raises(Corruption, match="manifest's header is damaged"):
        load_it(env)
    for content in (
        b"",
        b"marram",
        b"marramMG" + bytes(100),
        pack_header(LogHeader(STORE_ID, *[7] * 4)),
    ):
        env.put_file(PATH, content)
        with pytest.raises(Corruption, match="neither") as caught:
            engine_of(env, "/db", NUMBER)
        assert (caught.value.path, caught.value.offset) == (PATH, 0)
    with pytest.raises(Corruption, match="missing"):
        engine_of(env, "/db", 8)


def test_a_newer_format_is_refused_by_version() -> None:
    data = bytearray(make([]).contents(PATH))
    data[8] = 2
    assert outcome(bytes(data)) == "Corruption"  # a damaged version field is damage
    data[60:64] = crc32(bytes(data[:60]), NUMBER).to_bytes(4, "little")
    with pytest.raises(UnsupportedFormat, match=f"{PATH}: manifest format 2"):
        load_bytes(bytes(data))


def lying(*frames: tuple[bytes, int, int, int, int, int]) -> bytes:
    """A manifest with a listing and then these frames, none synced: all checksums are right."""
    env = make([])
    file = env.open(PATH, write=True)
    header = LogHeader(STORE_ID, NUMBER, 0, ORIGIN.sequence, ORIGIN.epoch)
    writer = FrameWriter(file, MANIFEST, header, file.size())
    for frame in frames:
        writer.write_frame(*frame)
    return env.contents(PATH)


EDIT = module._encode(EDITS[0], None)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ((EDIT, KIND_EDIT, 1, 3, 3, ORIGIN.time_ms), "record 3 follows 1"),
        ((EDIT, KIND_EDIT, 1, 1, 3, ORIGIN.time_ms), "record 1 follows 1"),
        ((EDIT, KIND_EDIT, 2, 2, 3, ORIGIN.time_ms), "a frame of 2 records"),
        ((EDIT, KIND_EDIT, 0, 2, 3, ORIGIN.time_ms), "a frame of 0 records"),
        ((EDIT, KIND_EDIT, 1, 2, 4, ORIGIN.time_ms), "epoch 4 in a manifest of 3"),
        ((EDIT, KIND_EDIT, 1, 2, 3, ORIGIN.time_ms + 1), "time 1700000000001"),
        ((EDIT, KIND_LISTING, 1, 2, 3, ORIGIN.time_ms), "record 2 is of kind 3"),
        ((b"", KIND_MARK, 0, 3, 3, ORIGIN.time_ms), "record 3 follows 1"),
        ((b"", KIND_EDIT, 1, 2, 3, ORIGIN.time_ms), "cut short"),
        ((EDIT[:30], KIND_EDIT, 1, 2, 3, ORIGIN.time_ms), "cut short"),
        ((EDIT + b"x", KIND_EDIT, 1, 2, 3, ORIGIN.time_ms), "1 bytes after an edit"),
    ],
)
def test_n3_a_frame_that_does_not_fit_is_corruption(
    frame: tuple[bytes, int, int, int, int, int], message: str
) -> None:
    data = lying(frame)
    with pytest.raises(Corruption, match=message) as caught:
        load_bytes(data)
    assert caught.value.offset == frame_starts(data)[1]


def test_n2_a_frame_that_does_not_vouch_for_all_before_it_is_corruption() -> None:
    edit = (EDIT, KIND_EDIT, 1, 2, 3, ORIGIN.time_ms)
    mark = (b"", KIND_MARK, 0, 3, 3, ORIGIN.time_ms)  # without a sync between them
    assert outcome(lying(edit)) == 1
    with pytest.raises(Corruption, match="bytes synced"):
        load_bytes(lying(edit, mark))


def test_an_unknown_kind_of_frame_is_no_frame() -> None:
    data = lying((EDIT, KIND_BATCHES, 1, 2, 3, ORIGIN.time_ms))
    assert outcome(data) == 0


def test_a_newer_edit_is_unsupported() -> None:
    newer = struct.pack("<QH", 6, 0) + b"\2\0\0\0" + bytes(8)
    with pytest.raises(UnsupportedFormat, match=f"{PATH}: an edit of format 2"):
        load_bytes(lying((newer, KIND_EDIT, 1, 2, 3, ORIGIN.time_ms)))


BAD_RECORDS = [
    (EDITS[0]._replace(edit=VersionEdit(removed=((0, 77),))), "no table 77 to remove"),
    (EDITS[0]._replace(edit=VersionEdit(((1, table(3)),))), "table 3 is added twice"),
    (
        EDITS[0]._replace(edit=VersionEdit(((1, table(5, b"\0000", b"\0001")),))),
        "share keys on an ordered level",
    ),
    (EDITS[0]._replace(next_table=5), "table 5, and the next is 5"),
    (Record(VersionEdit(), 4, UNKNOWN), "the next table is 4 after 5"),
    (EDITS[0]._replace(counts=counts_of(s3=(1, 2))), "counts .1, 2. of keyspace 3"),
    (EDITS[0]._replace(counts=counts_of(s3=(2**63, 0))), "of keyspace 3"),
]


@pytest.mark.parametrize(("record", "message"), BAD_RECORDS, ids=[m for _, m in BAD_RECORDS])
def test_n3_what_load_would_refuse_is_not_written(record: Record, message: str) -> None:
    payload = module._encode(record, None)
    with pytest.raises(Corruption, match=message):
        load_bytes(lying((payload, KIND_EDIT, 1, 2, 3, ORIGIN.time_ms)))
    env = make([])
    data = env.contents(PATH)
    manifest = Manifest.resume(env, "/db", NUMBER, load_it(env))

    with pytest.raises(InvalidArgument, match=message):
        manifest.append(record)

    assert env.contents(PATH) == data
    manifest.append(EDITS[0])  # and it goes on
    assert state_of(load_it(env)) == STATES[1]


def test_n3_an_append_is_checked_against_those_before_it() -> None:
    env = make([])
    manifest = Manifest.resume(env, "/db", NUMBER, load_it(env))
    for edit in EDITS:
        manifest.append(edit)

    for record in (EDITS[2], Record(VersionEdit(), 8, UNKNOWN)):
        with pytest.raises(InvalidArgument):
            manifest.append(record)
    assert state_of(load_it(env)) == STATES[3]


@pytest.mark.parametrize(
    "record",
    [
        LISTING._replace(counts=(None,) * 15),
        LISTING._replace(counts=counts_of(s0=(-1, -1))),
        LISTING._replace(next_table=2**64),
        LISTING._replace(edit=VersionEdit(removed=((0, 1),))),
    ],
)
def test_n3_a_listing_that_cannot_be_is_not_written(record: Record) -> None:
    env = new_env()
    with pytest.raises(InvalidArgument):
        Manifest.create(env, "/db", NUMBER, ORIGIN, SPACES, record)
    assert env.list_dir("/db") == []


def test_n3_an_origin_or_keyspaces_that_cannot_be_are_not_written() -> None:
    env = new_env()
    for origin in (
        ORIGIN._replace(store_id=b"short"),
        ORIGIN._replace(time_ms=-1),
        ORIGIN._replace(sequence=2**63),
        ORIGIN._replace(epoch=-1),
    ):
        with pytest.raises(InvalidArgument):
            Manifest.create(env, "/db", NUMBER, origin, SPACES, LISTING)
    for spaces in ((0,) * 16, tuple(range(15)), tuple(range(1, 17))):
        with pytest.raises(InvalidArgument):
            Manifest.create(env, "/db", NUMBER, ORIGIN, spaces, LISTING)
    assert env.list_dir("/db") == []


def test_n3_a_listing_that_lies_is_corruption() -> None:
    def listing(payload: bytes, header: LogHeader, time_ms: int) -> bytes:
        env = new_env()
        env.put_file(PATH, pack_header(header, MANIFEST))
        frames = FrameWriter(env.open(PATH, write=True), MANIFEST, header, FILE_HEADER_SIZE)
        frames.synced = 0
        frames.write_frame(payload, KIND_LISTING, 1, 1, header.epoch, time_ms)
        return env.contents(PATH)

    good = LogHeader(STORE_ID, NUMBER, 0, 70, 3)
    payload = module._encode(LISTING, SPACES)
    assert listing(payload, good, ORIGIN.time_ms) == make([]).contents(PATH)
    twice = payload[:10] + bytes(16) + payload[26:]
    beyond = payload[:10] + bytes(range(1, 17)) + payload[26:]
    for data, message in (
        (listing(twice, good, 0), "no permutation"),
        (listing(beyond, good, 0), "no permutation"),
        (listing(payload[:20], good, 0), "cut short"),
        (listing(payload, good, 2**63), "origin .* out of range"),
        (listing(payload, good._replace(base_sequence=2**63), 0), "origin .* out of range"),
        (listing(payload, good._replace(epoch=2**64 - 1), 0), "origin .* out of range"),
        (listing(payload, good._replace(previous_end=2**32), 0), "a history checksum of"),
    ):
        with pytest.raises(Corruption, match=message):
            load_bytes(data)


# -- the rest --------------------------------------------------------------------------------------


def test_a_manifest_is_read_up_to_its_limit_while_it_is_appended_to() -> None:
    env = make(EDITS[:1])
    manifest = Manifest.resume(env, "/db", NUMBER, load_it(env))
    limit = manifest.size_bytes
    manifest.append(EDITS[1])

    loaded = load_it(env, limit=limit)

    assert (state_of(loaded), loaded.end, loaded.cut_bytes) == (STATES[1], limit, 0)


def test_create_replaces_what_an_earlier_try_left() -> None:
    env = new_env()
    env.put_file(PATH, b"x" * 10_000)
    make([], env)
    assert state_of(load_it(env.crash_clone(0, 0))) == STATES[0]


def golden_records() -> list[Record]:
    """Every kind of table and of record."""
    first = table(
        2**40, b"\0apple", b"\0pear", rows=10, tombstones=2, min_sequence=5, max_sequence=60,
        expirable_rows=3, expirable_bytes=300, earliest_deadline_ms=1_700_000_000_000,
        latest_deadline_ms=1_800_000_000_000, size_bytes=2**33, stamp=2**64 - 2,
    )  # fmt: skip
    ranges = table(4, b"\1", b"\2", rows=0, range_deletions=2, covered_bytes=5000)
    every = tuple((2**62 - n, n) for n in range(16))
    return [
        Record(VersionEdit(((6, first), (0, ranges))), 2**40 + 1, every),
        Record(VersionEdit(((1, ranges),), ((0, 4),)), 2**40 + 1, counts_of(s0=(9, 2))),
        Record(VersionEdit(removed=((1, 4), (6, 2**40))), 2**40 + 9, UNKNOWN),
    ]


def test_the_golden_manifest_is_readable_for_ever() -> None:
    records = golden_records()
    env = new_env()
    if os.environ.get("MARRAM_WRITE_GOLDEN"):
        manifest = Manifest.create(env, "/db", NUMBER, ORIGIN, SPACES, records[0])
        for record in records[1:]:
            manifest.append(record)
        GOLDEN.write_bytes(env.contents(PATH))
    data = GOLDEN.read_bytes()

    starts = [*frame_starts(data), len(data)]
    for count, end in enumerate([starts[1], starts[3], starts[5]]):
        assert state_of(load_bytes(data[:end])) == states(records)[count]


_HEX_LINE = re.compile(r"    ([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+)(?: |$)", re.MULTILINE)


def test_the_documents_example_is_what_the_code_writes() -> None:
    example = b""
    for offset, part in _HEX_LINE.findall(DOCUMENT.read_text()):
        assert int(offset, 16) == len(example)
        example += bytes.fromhex(part)
    pear = table(
        4, b"\0apple", b"\0pear\0", rows=2, size_bytes=583, min_sequence=70, max_sequence=70,
        stamp=0x9B3D5E7F21C4A608,
    )  # fmt: skip
    env = new_env()
    listing = Record(VersionEdit(((0, pear),)), 5, counts_of(s0=(2, 0)))
    spaces = (1, 0, *range(2, 16))
    manifest = Manifest.create(env, "/db", NUMBER, ORIGIN, spaces, listing)
    manifest.append(Record(VersionEdit(((6, pear),), ((0, 4),)), 5, counts_of(s0=(2, 0))))

    assert env.contents(PATH) == example
