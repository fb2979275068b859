"""Which job is picked, and why: scenarios/*.txt.

Commands. Keys are letters; a..d is [a, d). Sizes end in K, M or G. A table is a line
`LEVEL NUMBER START..STOP SIZE name=value...`; the names are those of TableMeta, but for
`sequences=FIRST-LAST`, by default the table's number.

    options name=value...         a policy; what is not named is the default
    tables                        the version, from lines of tables
    flush                         more tables of level 0, from lines without their level
    shape                         the base level, and by level: bytes, target, score
    pressure                      what writers are told
    pick now=MS                   the next job; lines `START..STOP @SEQUENCE` are range deletions
    start now=MS                  the same, and it runs from now on, as job 1, 2, ...
    range START..STOP ...         the next step of compacting a range; it is run at once
    finish JOB                    the job ends; lines `NUMBER START..STOP SIZE` are its outputs
    settle now=MS                 pick and run until there is nothing to do
"""

from __future__ import annotations

import pathlib
from dataclasses import fields

import pytest

from marram.errors import InvalidArgument
from marram.storage.lsm.options import GIB, KIB, MIB
from marram.storage.lsm.picker import MERGE, Job, LevelOptions, pick, pick_in_range, pressure
from marram.storage.lsm.shape import shape_of
from marram.storage.lsm.version import TableMeta, Version, VersionEdit
from marram.storage.sstable.ranges import RangeDeletion
from tests.storage.lsm.scenario import Command, run_scenario

SCENARIOS = sorted((pathlib.Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_scenario_goes_as_written(path: pathlib.Path) -> None:
    run_scenario(path, Tree().answer)


class Tree:
    """What the commands of one file work on."""

    def __init__(self) -> None:
        self.options = LevelOptions()
        self.version = Version()
        self.running: dict[int, Job] = {}
        self.jobs = 0

    def answer(self, command: Command) -> str:
        try:
            return str(getattr(self, f"do_{command.name}")(command))
        except (InvalidArgument, KeyError) as error:
            return f"error: {error}"

    def do_options(self, command: Command) -> str:
        types = {field.name: field.type for field in fields(LevelOptions)}
        chosen = {
            name: float(text) if types[name] == "float" else to_bytes(text)
            for name, text in command.settings.items()
        }
        self.options = LevelOptions(**chosen)  # type: ignore[arg-type]
        return ""

    def do_tables(self, command: Command) -> str:
        added = []
        for line in command.lines:
            level, *rest = line.split()
            added.append((int(level), table_of(rest)))
        self.version = Version().apply(VersionEdit(tuple(added)))
        self.version._check()
        self.running.clear()
        self.jobs = 0
        return ""

    def do_flush(self, command: Command) -> str:
        edit = VersionEdit(tuple((0, table_of(line.split())) for line in command.lines))
        self.version = self.version.apply(edit)
        return ""

    def do_shape(self, command: Command) -> str:
        shape = shape_of(self.version, self.options, list(self.running.values()), now_of(command))
        lines = [f"base level {shape.base_level}"]
        for n, level in enumerate(self.version.levels):
            if level.tables or n >= shape.base_level:
                held, target = size(level.size_bytes), size(shape.target_bytes[n])
                lines.append(f"{n}: {held} of {target}, score {shape.scores[n]:.2f}")
        return "\n".join(lines)

    def do_pressure(self, command: Command) -> str:
        found = pressure(self.version, self.options, now_of(command))
        debt = size(found.debt_bytes)
        return f"depth {found.level0_depth}, debt {debt}, throttle {found.throttle:.2f}"

    def do_pick(self, command: Command) -> str:
        job = self.picked(command)
        return described(job) if job else "none"

    def do_start(self, command: Command) -> str:
        job = self.picked(command)
        if job is None:
            return "none"
        self.jobs += 1
        self.running[self.jobs] = job
        return f"job {self.jobs}: {described(job)}"

    def do_range(self, command: Command) -> str:
        start, stop = range_of(command.arguments[0])
        upto = command.settings.get("upto")
        step = pick_in_range(
            self.version, self.options, start, stop, list(self.running.values()),
            now_ms=now_of(command),
            upto_sequence=int(upto) if upto else None,
        )  # fmt: skip
        if step.job is None:
            return "done" if step.done else "wait"
        self.end(step.job, now_of(command))
        return described(step.job)

    def do_finish(self, command: Command) -> str:
        job = self.running.pop(int(command.arguments[0]))
        self.version = self.version.apply(
            job.edit(table_of(line.split()) for line in command.lines)
        )
        self.version._check()
        return self.listing()

    def do_settle(self, command: Command) -> str:
        lines = []
        while (job := self.picked(command)) is not None:
            lines.append(described(job).split("\n")[0])
            self.end(job, now_of(command))
        return "\n".join([*lines, self.listing()])

    def picked(self, command: Command) -> Job | None:
        deletions = []
        for line in command.lines:
            keys, sequence = line.split(" @")
            start, stop = range_of(keys)
            assert stop is not None
            deletions.append(RangeDeletion(0, start[1:], stop[1:], int(sequence)))
        return pick(
            self.version, self.options, list(self.running.values()),
            now_ms=now_of(command), deletions=deletions,
        )  # fmt: skip

    def end(self, job: Job, now_ms: int) -> None:
        """Run a job: a merge makes one table of what is left, which keeps the lowest number."""
        outputs = []
        if job.kind == MERGE:
            rows = sum(table.rows for table in job.tables)
            garbage = 0
            if not job.below:
                for t in job.tables:
                    garbage += t.tombstones + t.expired_rows(now_ms)
            outputs.append(
                TableMeta(
                    number=min(table.number for table in job.tables),
                    size_bytes=job.input_bytes * (rows - garbage) // rows,
                    start=job.start,
                    stop=job.stop,
                    rows=rows - garbage,
                    tombstones=sum(table.tombstones for table in job.tables if job.below),
                    min_sequence=min(table.min_sequence for table in job.tables),
                    max_sequence=max(table.max_sequence for table in job.tables),
                )
            )
        self.version = self.version.apply(job.edit(outputs))
        self.version._check()

    def listing(self) -> str:
        return "\n".join(
            f"{n}: " + " ".join(f"{t.number}[{keys(t.start, t.stop)}]" for t in level.tables)
            for n, level in enumerate(self.version.levels)
            if level.tables
        )


# -- reading --------------------------------------------------------------------------------------


def now_of(command: Command) -> int:
    return int(command.settings.get("now", "0"))


def to_bytes(text: str) -> int:
    units = {"K": KIB, "M": MIB, "G": GIB}
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)


def range_of(text: str) -> tuple[bytes, bytes | None]:
    start, stop = text.split("..")
    return b"\0" + start.encode(), b"\0" + stop.encode() if stop else None


def table_of(words: list[str]) -> TableMeta:
    number, keys_, size_, *settings = words
    start, stop = range_of(keys_)
    assert stop is not None
    values = dict(setting.split("=", 1) for setting in settings)
    first, _, last = values.pop("sequences", number).partition("-")
    return TableMeta(
        number=int(number), size_bytes=to_bytes(size_), start=start, stop=stop,
        rows=int(values.pop("rows", "100")), min_sequence=int(first),
        max_sequence=int(last or first), **{name: to_bytes(text) for name, text in values.items()},
    )  # fmt: skip


# -- writing --------------------------------------------------------------------------------------


def keys(start: bytes, stop: bytes) -> str:
    return f"{start[1:].decode()}..{stop[1:].decode()}"


def size(size_bytes: int) -> str:
    if size_bytes < MIB:
        return f"{size_bytes / KIB:.0f}K" if size_bytes >= KIB else str(size_bytes)
    return f"{size_bytes / MIB:.0f}M" if size_bytes < GIB else f"{size_bytes / GIB:.1f}G"


def described(job: Job) -> str:
    lines = [f"{job.kind} ({job.reason}) to {job.output_level}"]
    if job.kind == MERGE:
        lines[0] += f", {size(job.target_bytes)} each" if job.target_bytes else ", in one"
    for level, tables in job.inputs:
        lines.append(f"  {level}: {' '.join(str(table.number) for table in tables)}")
    if job.boundaries:
        lines.append("  cuts: " + " ".join(b.key[1:].decode() for b in job.boundaries))
    if job.below:
        lines.append("  below: " + " ".join(keys(*below) for below in job.below))
    return "\n".join(lines)
