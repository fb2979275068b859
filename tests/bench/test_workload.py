"""What a load asks: mixes, sizes, and records that are where they are said to be."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import pytest

from marram.bench.target import parse_place
from marram.bench.wire import make_wire
from marram.bench.workload import (
    HALF,
    INSERT,
    KINDS,
    MODIFY,
    READ,
    YCSB,
    Drawn,
    Fill,
    Pool,
    Workload,
    key_of,
    make_stream,
)
from marram.errors import InvalidArgument
from marram.protocol.resp import RequestParser

WIRE = make_wire(parse_place("127.0.0.1"))
DRAWS = 20_000


def commands(payload: bytes) -> list[list[bytes]]:
    return RequestParser().feed(payload)


@pytest.mark.parametrize("letter", sorted(YCSB))
def test_a_ycsb_workload_has_its_mix_and_its_commands(letter):
    workload = Workload(records=1000, **YCSB[letter])
    batch = Drawn(WIRE, workload, seed=1).next(DRAWS)
    found = Counter(MODIFY if kind == HALF else kind for kind in batch.kinds)
    for kind, share in enumerate(workload.shares):
        assert found[kind] / DRAWS == pytest.approx(share, abs=0.012)
        assert (found[kind] == 0) == (share == 0)
    sent = Counter(command[0] for command in commands(batch.payload))
    assert sent[b"GET"] == found[READ] + found[MODIFY]
    assert sent[b"SCANRANGE"] == found[KINDS.index("scan")]
    assert sent[b"SET"] == found[KINDS.index("update")] + found[INSERT]


def test_a_read_modify_write_writes_what_it_read():
    workload = Workload(records=1000, **YCSB["f"])
    batch = Drawn(WIRE, workload, seed=2).next(500)
    read = [command[1] for command in commands(batch.payload)]
    halves = [key for key, kind in zip(read, batch.kinds, strict=True) if kind == HALF]
    assert batch.then is not None
    assert [command[1] for command in commands(batch.then.payload)] == halves
    assert set(batch.then.kinds) == {MODIFY}
    assert len(batch.then.kinds) == len(halves) > 200


def test_scans_ask_for_one_to_a_hundred_records():
    batch = Drawn(WIRE, Workload(records=10, **YCSB["e"]), seed=1).next(5000)
    asked = {int(command[4]) for command in commands(batch.payload) if len(command) == 5}
    assert (min(asked), max(asked)) == (1, 100)


def test_s1_processes_insert_records_of_their_own():
    workload = Workload(read=0, update=0, insert=1, records=100)
    batches = [Drawn(WIRE, workload, 1, share, 3).next(50) for share in range(3)]
    inserted = [number for batch in batches for number in batch.inserted]
    assert sorted(inserted) == list(range(100, 250))
    for batch in batches:
        sent = [command[1] for command in commands(batch.payload)]
        assert sent == [key_of(number) for number in batch.inserted]


def test_s1_a_seed_gives_the_same_and_each_process_something_else():
    workload = Workload(records=1000)
    first, again, other = (
        Drawn(WIRE, workload, 1, share, 2).next(100).payload for share in (0, 0, 1)
    )
    assert first == again != other


def test_s2_a_pool_goes_round_and_an_inserting_stream_does_not():
    workload = Workload(records=1000)
    pool = make_stream(Drawn(WIRE, workload, 1), workload, 10, 30)
    assert isinstance(pool, Pool)
    batches = [pool.next(10).payload for _ in range(6)]
    assert batches[:3] == batches[3:]
    assert len(set(batches)) == 3
    assert len(pool.next(7).kinds) == 7
    inserting = Workload(records=1000, **YCSB["d"])
    assert isinstance(make_stream(Drawn(WIRE, inserting, 1), inserting, 10, 30), Drawn)


def test_s2_a_pool_holds_bounded_bytes(monkeypatch):
    monkeypatch.setattr("marram.bench.workload.POOL_BYTES", 5000)
    workload = Workload(read=0, update=1, records=10, size_min=1000, size_max=1000)
    pool = Pool(Drawn(WIRE, workload, 1), 1, 1000)
    assert len({pool.next(1).payload for _ in range(50)}) <= 5


def test_s3_only_acknowledged_records_are_asked_for():
    workload = Workload(read=0.5, update=0, insert=0.5, records=50, distribution="latest")
    stream = Drawn(WIRE, workload, 1)
    known = set(range(50))
    for _ in range(200):
        batch = stream.next(10)
        asked = {int(c[1][4:]) for c in commands(batch.payload) if c[0] == b"GET"}
        assert asked <= known
        known |= set(batch.inserted)
        stream.answered(batch)
    assert max(asked) > 900  # and the new ones are


def test_the_load_phase_puts_every_record_once():
    fill = Fill(WIRE, Workload(records=25, size_min=7, size_max=7), seed=1)
    batches = [fill.next(10) for _ in range(4)]
    assert [len(batch.kinds) for batch in batches] == [10, 10, 5, 0]
    sent = [command for batch in batches for command in commands(batch.payload)]
    assert [command[1] for command in sent] == [key_of(number) for number in range(25)]
    assert {len(command[2]) for command in sent} == {7}


def test_sizes_are_drawn_from_the_whole_range():
    workload = Workload(read=0, update=1, size_min=3, size_max=6)
    batch = Drawn(WIRE, workload, 1).next(400)
    sizes = Counter(len(command[2]) for command in commands(batch.payload))
    assert set(sizes) == {3, 4, 5, 6}
    assert min(sizes.values()) > 60


def test_keys_have_16_bytes_and_ascend():
    assert len(key_of(0)) == len(key_of(10**12 - 1)) == 16
    assert sorted(map(key_of, (5, 12, 100))) == [key_of(5), key_of(12), key_of(100)]


def test_a_workload_survives_json():
    workload = Workload(records=7, **YCSB["e"])
    assert Workload.from_json(asdict(workload)) == workload


@pytest.mark.parametrize(
    "values",
    [{"read": 0.6}, {"read": -0.5, "update": 1.5}, {"records": 0}, {"distribution": "normal"},
     {"size_min": 5, "size_max": 4}, {"size_max": 1 << 30}, {"scan_max": 0}],
)  # fmt: skip
def test_what_is_no_workload_is_refused(values):
    with pytest.raises(InvalidArgument):
        Workload(**values)


def test_a_protocol_without_ranges_takes_no_scans():
    with pytest.raises(InvalidArgument, match="no scans"):
        Drawn(make_wire(parse_place("frame://h")), Workload(**YCSB["e"]), 1)
