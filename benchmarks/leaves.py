"""The hot leaves one by one: nanoseconds a unit, interpreted or compiled.

    python benchmarks/leaves.py [--only NAME ...] [--rounds 7] [--output FILE] [--against FILE]

Each leaf does the same work in every round, and the fastest round counts: what is slower was
disturbed. The time is the processor's, so that others on the machine count little. MARRAM_PURE=1
measures the interpreted leaves. --against prints the ratio to an earlier result, of the other kind
or of another commit, such as those in benchmarks/results/. Nothing in the tests asserts a figure.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from itertools import chain
from random import Random
from typing import NamedTuple

from marram.bench.machine import hardware
from marram.bench.wire_resp import RespReplies
from marram.coding import batch
from marram.env import posix_env
from marram.protocol.replies import OK
from marram.protocol.resp import RequestParser, encode
from marram.storage.log.format import LogHeader
from marram.storage.log.reader import LogReader
from marram.storage.log.writer import LogWriter
from marram.storage.lsm.merge import Retention, compact, merge_versions
from marram.storage.memory.order import KeyOrder
from marram.storage.memory.space import Space
from marram.storage.sstable.block import DataBlock, VersionRow, encode_rows
from marram.storage.sstable.filter import Filter, FilterBuilder, probe_of

COUNT = 20_000
BLOCK_ROWS = 135  # about 16 KiB of 16 + 100 bytes
VALUE = b"v" * 100
NO_PIN = -1


class Leaf(NamedTuple):
    """prepare() gives a round's work; units: what the time is divided by."""

    name: str
    unit: str
    units: int
    prepare: Callable[[], Callable[[], object]]


def keys(count: int = COUNT) -> list[bytes]:
    """Distinct keys of 16 bytes, in random order."""
    made = [b"key:%012d" % number for number in range(count)]
    Random(1).shuffle(made)
    return made


def command(*words: bytes) -> bytes:
    """A request in RESP."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)


def in_reads_of(requests: list[bytes], depth: int) -> list[bytes]:
    """What a server reads at once."""
    return [b"".join(requests[at : at + depth]) for at in range(0, len(requests), depth)]


# -- coding, protocol --------------------------------------------------------------------------


def encode_one() -> Callable[[], object]:
    """A batch of one put."""
    some, encode_put = keys(), batch.encode_put
    return lambda: [encode_put(0, key, VALUE) for key in some]


def encode_ten() -> Callable[[], object]:
    """Batches of ten puts."""
    some = keys()
    changes = [
        [batch.put(0, key, VALUE) for key in some[at : at + 10]] for at in range(0, COUNT, 10)
    ]
    return lambda: [batch.encode(one) for one in changes]


def decode_ten() -> Callable[[], object]:
    """Batches of ten puts."""
    some = keys()
    batches = [
        batch.encode([batch.put(0, key, VALUE) for key in some[at : at + 10]])
        for at in range(0, COUNT, 10)
    ]
    return lambda: [batch.decode(one, 0, len(one)) for one in batches]


def parse(name: bytes, depth: int) -> Callable[[], Callable[[], object]]:
    """Requests, `depth` in a read."""

    def prepare() -> Callable[[], object]:
        words = [VALUE] if name == b"SET" else []
        reads = in_reads_of([command(name, key, *words) for key in keys()], depth)
        feed = RequestParser().feed
        return lambda: [feed(read) for read in reads]

    return prepare


def reply(value: object) -> Callable[[], Callable[[], object]]:
    """Encoding one reply again and again."""

    def prepare() -> Callable[[], object]:
        return lambda: [encode(value, 2) for _ in range(COUNT)]  # type: ignore[arg-type]

    return prepare


def count_replies(one: bytes, depth: int) -> Callable[[], Callable[[], object]]:
    """The load generator's counter."""

    def prepare() -> Callable[[], object]:
        reads, feed = in_reads_of([one] * COUNT, depth), RespReplies().feed
        return lambda: [feed(read) for read in reads]

    return prepare


# -- memory ------------------------------------------------------------------------------------


def space_put_new() -> Callable[[], object]:
    """Keys that were not there."""
    some, space = keys(), Space()

    def run() -> None:
        put = space.put
        for key in some:
            put(key, VALUE, 1, NO_PIN)

    return run


def space_put_again() -> Callable[[], object]:
    """Keys that were there."""
    run = space_put_new()
    run()
    return run


def space_get() -> Callable[[], object]:
    """Keys that are there."""
    some, space = keys(), Space()
    for key in some:
        space.put(key, VALUE, 1, NO_PIN)
    get = space.get
    return lambda: [get(key) for key in some]


def order_add() -> Callable[[], object]:
    """New keys in random order."""
    some, order = keys(), KeyOrder()

    def run() -> None:
        add = order.add
        for key in some:
            add(key)

    return run


def order_chunk() -> Callable[[], object]:
    """A hundred keys from somewhere on."""
    some = keys()
    order = KeyOrder(sorted(some))
    return lambda: [order.chunk(key, None, 100) for key in some[: COUNT // 100]]


# -- tables ------------------------------------------------------------------------------------


def block_payload(some: list[bytes]) -> memoryview:
    """A data block of plain rows."""
    zeros = [0] * len(some)
    parts = encode_rows(0, sorted(some), [VALUE] * len(some), zeros, zeros, zeros)
    return memoryview(b"".join(parts))


def block_look() -> Callable[[], object]:
    """Look-ups in a block whose keys are listed."""
    some = keys(BLOCK_ROWS)
    block = DataBlock(block_payload(some))
    block.list_keys()
    look, wanted = block.look, [some[at % BLOCK_ROWS] for at in range(COUNT)]
    return lambda: [look(key) for key in wanted]


def block_decode() -> Callable[[], object]:
    """All rows of a block that was just read."""
    payload = block_payload(keys(BLOCK_ROWS))
    return lambda: [DataBlock(payload).rows(0, BLOCK_ROWS) for _ in range(COUNT // BLOCK_ROWS)]


def bloom_probe() -> Callable[[], object]:
    """Keys that are not there, mostly."""
    builder = FilterBuilder()
    builder.add(0, keys(), distinct=True)
    ask = Filter(memoryview(builder.encode(10, 1 << 30))).may_contain
    absent = [b"not:%012d" % number for number in range(COUNT)]
    return lambda: [ask(probe_of(0, key)) for key in absent]


def sources(count: int) -> list[list[list[VersionRow]]]:
    """Rows of `count` tables whose keys interleave, in lists as blocks give them."""
    some = sorted(keys())
    made: list[list[list[VersionRow]]] = []
    for number in range(count):
        rows: list[VersionRow] = [(0, key, VALUE, 0, 0, number + 1) for key in some[number::count]]
        made.append([rows[at : at + BLOCK_ROWS] for at in range(0, len(rows), BLOCK_ROWS)])
    return made


def rows_of(merged: Iterator[list[VersionRow]]) -> int:
    """How many come out."""
    return sum(1 for _ in chain.from_iterable(merged))


def merge_read() -> Callable[[], object]:
    """A scan over four tables."""
    tables = sources(4)
    return lambda: rows_of(merge_versions([iter(one) for one in tables], 1))


def merge_compact() -> Callable[[], object]:
    """A compaction of four tables."""
    tables = sources(4)
    return lambda: rows_of(compact([iter(one) for one in tables], Retention(below=())))


# -- the log -----------------------------------------------------------------------------------


def log_scan(group: int) -> Callable[[], Callable[[], object]]:
    """Reading frames of `group` batches of one put each, with their changes."""

    def prepare() -> Callable[[], object]:
        env, header = posix_env(), LogHeader(b"s" * 16, 1, 0, 0, 1)
        batches = [batch.encode_put(0, key, VALUE) for key in keys()]
        with tempfile.TemporaryDirectory(prefix="marram-bench-") as directory:
            log = LogWriter.create(env, directory, header, COUNT * 200)
            for at in range(0, COUNT, group):
                log.write(batches[at : at + group], at + 1, 1, 1)
            log.trim()
            log.close()
            file = env.open(log.file.path)  # it can be read when its name is gone

        def run() -> int:
            found = sum(len(one.changes) for one in LogReader(file, header))
            file.close()
            return found

        return run

    return prepare


LEAVES = (
    Leaf("batch encode, 1 put", "put", COUNT, encode_one),
    Leaf("batch encode, 10 puts", "put", COUNT, encode_ten),
    Leaf("batch decode, 10 puts", "put", COUNT, decode_ten),
    Leaf("RESP parse, GET, 1 a read", "request", COUNT, parse(b"GET", 1)),
    Leaf("RESP parse, GET, 16 a read", "request", COUNT, parse(b"GET", 16)),
    Leaf("RESP parse, SET, 16 a read", "request", COUNT, parse(b"SET", 16)),
    Leaf("reply encode, OK", "reply", COUNT, reply(OK)),
    Leaf("reply encode, 100 bytes", "reply", COUNT, reply(VALUE)),
    Leaf("reply encode, integer", "reply", COUNT, reply(12345)),
    Leaf("count replies, OK, 16 a read", "reply", COUNT, count_replies(b"+OK\r\n", 16)),
    Leaf("count replies, 100 bytes, 1 a read", "reply", COUNT,
         count_replies(b"$100\r\n%b\r\n" % VALUE, 1)),
    Leaf("count replies, 100 bytes, 16 a read", "reply", COUNT,
         count_replies(b"$100\r\n%b\r\n" % VALUE, 16)),
    Leaf("memory space put, new key", "put", COUNT, space_put_new),
    Leaf("memory space put, known key", "put", COUNT, space_put_again),
    Leaf("memory space get", "get", COUNT, space_get),
    Leaf("key order add", "key", COUNT, order_add),
    Leaf("key order chunk of 100", "key", COUNT, order_chunk),
    Leaf("block search", "look-up", COUNT, block_look),
    Leaf("block decode", "row", COUNT // BLOCK_ROWS * BLOCK_ROWS, block_decode),
    Leaf("bloom probe", "key", COUNT, bloom_probe),
    Leaf("merge, reading", "row", COUNT, merge_read),
    Leaf("merge, compacting", "row", COUNT, merge_compact),
    Leaf("log scan, groups of 1", "record", COUNT, log_scan(1)),
    Leaf("log scan, groups of 100", "record", COUNT, log_scan(100)),
)  # fmt: skip


def measure(leaf: Leaf, rounds: int) -> list[float]:
    """Nanoseconds a unit, round by round."""
    taken = []
    for _ in range(rounds):
        run = leaf.prepare()
        gc.collect()
        gc.disable()
        started = time.thread_time_ns()
        run()
        taken.append((time.thread_time_ns() - started) / leaf.units)
        gc.enable()
    return taken


def main() -> None:
    """Measure, print, and keep what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", default=[], help="a pattern, such as 'log*'")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", metavar="FILE")
    parser.add_argument("--against", metavar="FILE")
    chosen = parser.parse_args()
    if not 1 <= chosen.rounds <= 1000:
        parser.error("1 to 1000 rounds")
    before = {}
    if chosen.against:
        with open(chosen.against, encoding="utf-8") as file:
            before = json.load(file)["leaves"]
    about = hardware(".")
    for name in ("cpu", "load_average", "python", "marram", "commit"):
        print(f"{name}: {about[name]}")
    found = {}
    for leaf in LEAVES:
        if chosen.only and not any(fnmatch(leaf.name, pattern) for pattern in chosen.only):
            continue
        taken = sorted(measure(leaf, chosen.rounds))
        best, middle = taken[0], taken[len(taken) // 2]
        found[leaf.name] = {"ns": round(best, 1), "median_ns": round(middle, 1), "unit": leaf.unit}
        ratio = f"{best / before[leaf.name]['ns']:8.2f} x" if leaf.name in before else ""
        print(
            f"{leaf.name:38}{best:10.1f} ns a {leaf.unit:9}{1e3 / best:8.2f} M/s{ratio}", flush=True
        )
    if chosen.output:
        with open(chosen.output, "w", encoding="utf-8") as file:
            file.write(json.dumps({"about": about, "leaves": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
