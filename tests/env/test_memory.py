"""MemoryEnv: the crash model (M1-M6), its clock, its hook and its doors."""

from __future__ import annotations

import errno
import threading
import timeit
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.env import File
from marram.env.memory import MemoryEnv

BLOCK = 512
SEEDS = range(40)


def make(*names: str, content: bytes = b"old", **options: int) -> MemoryEnv:
    """An env with durable files in /d."""
    env = MemoryEnv(**options)  # type: ignore[arg-type]
    for name in names:
        env.put_file(f"/d/{name}", content)
    return env


def create(env: MemoryEnv, path: str, content: bytes = b"new") -> File:
    file = env.open(path, write=True, create=True)
    file.write(content, 0)
    return file


def tree(env: MemoryEnv, path: str = "/") -> dict[str, bytes | None]:
    """Every path with its content, None for a directory."""
    found: dict[str, bytes | None] = {}
    for name in env.list_dir(path):
        below = f"{path.rstrip('/')}/{name}"
        try:
            found[below] = env.contents(below)
        except IsADirectoryError:
            found[below] = None
            found |= tree(env, below)
    return found


def outcomes(
    env: MemoryEnv, path: str, survival: float = 0.5, seeds: range = SEEDS
) -> set[bytes | None]:
    """What `path` holds after each of many crashes; None where it is missing."""
    clones = [env.crash_clone(survival, seed) for seed in seeds]
    return {clone.contents(path) if clone.exists(path) else None for clone in clones}


# -- contents ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sync", ["sync", "sync_data"])
def test_m1_synced_contents_and_length_survive(sync: str) -> None:
    env = make("f")
    file = create(env, "/d/f", b"x" * 5000)
    file.truncate(4000)
    getattr(file, sync)()
    assert outcomes(env, "/d/f") == {b"x" * 4000}


def test_m1_a_sync_covers_what_other_handles_wrote() -> None:
    env = make("f")
    create(env, "/d/f", b"new")
    env.open("/d/f", write=True).sync_data()
    assert outcomes(env, "/d/f", survival=0) == {b"new"}


def test_m1_a_sync_of_one_file_is_not_one_of_another() -> None:
    env = make("f", "g")
    create(env, "/d/f")
    create(env, "/d/g").sync()
    assert outcomes(env, "/d/f", survival=0) == {b"old"}


@pytest.mark.parametrize("block", [512, 4096])
def test_m2_blocks_survive_whole_and_on_their_own(block: int) -> None:
    env = make("f", content=b"a" * 3 * block, block_size=block)
    env.open("/d/f", write=True).write(b"b" * (2 * block), block // 2)
    old, new, half = b"a" * block, b"b" * block, b"a" * (block // 2) + b"b" * (block // 2)
    tail = half[::-1]
    assert outcomes(env, "/d/f") == {
        first + second + third for first in (old, half) for second in (old, new)
        for third in (old, tail)
    }  # fmt: skip


def test_m2_a_block_written_twice_comes_back_new_or_durable() -> None:
    env = make("f", content=b"durable")
    for content in (b"between", b"current"):
        env.open("/d/f", write=True).write(content, 0)
    assert outcomes(env, "/d/f") == {b"durable", b"current"}


def test_m2_what_is_stored_in_a_window_survives_by_blocks() -> None:
    env = make("f", content=bytes(4 * BLOCK))
    window = env.open("/d/f", write=True).window(BLOCK, 2 * BLOCK)
    assert window is not None
    window[BLOCK - 3 : BLOCK + 3] = b"torned"
    torn = [b"\0\0\0\0\0\0", b"tor\0\0\0", b"\0\0\0ned", b"torned"]
    at = 2 * BLOCK - 3
    assert {(data or b"")[at : at + 6] for data in outcomes(env, "/d/f")} == set(torn)


def test_a_store_beyond_the_end_of_a_file_that_was_cut_is_told() -> None:
    env = make("f", content=bytes(100))
    file = env.open("/d/f", write=True)
    window = file.window(0, 100)
    assert window is not None
    file.truncate(50)
    with pytest.raises(AssertionError, match="SIGBUS"):
        window[48:52] = b"text"


def test_m3_a_lost_append_leaves_the_old_length_or_zeros_before_a_surviving_block() -> None:
    env = make("f", content=b"")
    env.open("/d/f", write=True).write(b"x" * (2 * BLOCK + 10), 0)
    x, zero, end = b"x" * BLOCK, bytes(BLOCK), b"x" * 10
    assert outcomes(env, "/d/f", seeds=range(600)) == {
        b"", x, x + x, zero + x,  # the length was lost, and so was the last block
        *(a + b + c for a in (x, zero) for b in (x, zero) for c in (end, bytes(10))),
    }  # fmt: skip


def test_m3_an_unsynced_truncate_survives_or_not() -> None:
    env = make("f", content=b"x" * 3 * BLOCK)
    env.open("/d/f", write=True).truncate(BLOCK)
    assert outcomes(env, "/d/f") == {b"x" * BLOCK, b"x" * 3 * BLOCK}


def test_m3_a_cut_within_a_block_may_leave_zeros_in_its_place() -> None:
    env = make("f", content=b"x" * 2 * BLOCK)
    env.open("/d/f", write=True).truncate(BLOCK + 12)
    head = b"x" * (BLOCK + 12)
    assert outcomes(env, "/d/f") == {head, b"x" * 2 * BLOCK, head + bytes(BLOCK - 12)}


def test_m3_an_unsynced_allocate_leaves_zeros_or_nothing() -> None:
    env = make("f", content=b"old")
    env.open("/d/f", write=True).allocate(0, 2000)
    assert outcomes(env, "/d/f") == {b"old", b"old".ljust(2000, b"\0")}


def test_m3_synced_writes_into_allocated_space_need_no_length() -> None:
    env = make("f", content=b"")
    file = env.open("/d/f", write=True)
    file.allocate(0, 4096)
    file.sync()
    file.write(b"x" * BLOCK, BLOCK)
    rest = bytes(4096 - 2 * BLOCK)
    assert outcomes(env, "/d/f") == {bytes(4096), bytes(BLOCK) + b"x" * BLOCK + rest}


# -- names ---------------------------------------------------------------------------------------


def test_m1_a_name_survives_once_its_directory_is_synced() -> None:
    env = make("old")
    create(env, "/d/new").sync()
    assert outcomes(env, "/d/new") == {b"new", None}
    env.sync_dir("/")
    assert outcomes(env, "/d/new") == {b"new", None}
    env.sync_dir("/d")
    assert outcomes(env, "/d/new") == {b"new"}


def test_m1_a_directory_and_all_in_it_is_lost_without_its_own_name() -> None:
    env = MemoryEnv()
    env.make_dir("/a/b")
    create(env, "/a/b/f").sync()
    env.sync_dir("/a/b")
    env.sync_dir("/a")
    assert {tuple(tree(env.crash_clone(0.5, seed))) for seed in SEEDS} == {
        (),
        ("/a", "/a/b", "/a/b/f"),
    }
    env.sync_dir("/")
    assert tree(env.crash_clone(0, 0)) == {"/a": None, "/a/b": None, "/a/b/f": b"new"}


def test_m4_a_rename_is_one_change() -> None:
    env = make("version")
    create(env, "/d/newVersion").sync()
    env.sync_dir("/d")
    env.rename("/d/newVersion", "/d/version")
    found = [tree(env.crash_clone(0.5, seed)) for seed in SEEDS]
    before = {"/d": None, "/d/version": b"old", "/d/newVersion": b"new"}
    after = {"/d": None, "/d/version": b"new"}
    assert all(state in (before, after) for state in found)
    assert before in found
    assert after in found


def test_m4_a_rename_between_directories_is_durable_with_either() -> None:
    for synced in ("/d", "/e"):
        env = make("f")
        env.put_file("/e/g", b"")
        env.rename("/d/f", "/e/f")
        env.sync_dir(synced)
        assert tree(env.crash_clone(0, 0)) == {"/d": None, "/e": None, "/e/f": b"old", "/e/g": b""}


def test_m4_changes_of_different_names_are_independent() -> None:
    env = make("a")
    create(env, "/d/b", b"").sync()
    env.remove("/d/a")
    assert {tuple(env.crash_clone(0.5, seed).list_dir("/d")) for seed in SEEDS} == {
        ("a",), ("a", "b"), (), ("b",),
    }  # fmt: skip


def test_m4_changes_of_one_name_keep_their_order() -> None:
    env = make("f", content=b"1")
    env.remove("/d/f")
    create(env, "/d/f", b"2").sync()
    env.remove("/d/f")
    create(env, "/d/f", b"3").sync()
    assert outcomes(env, "/d/f") == {b"1", b"2", b"3", None}
    env.sync_dir("/d")
    assert outcomes(env, "/d/f") == {b"3"}


def test_m4_the_order_outlasts_a_sync_of_another_directory() -> None:
    env = make("f", content=b"1")
    env.put_file("/e/x", b"")
    for content in (b"2", b"3"):
        env.remove("/d/f")
        create(env, "/d/f", content).sync()
    env.sync_dir("/e")
    assert outcomes(env, "/d/f", survival=1) == {b"3"}


def test_m4_an_older_change_does_not_come_back_over_a_durable_one() -> None:
    env = make("moved", content=b"moved")
    env.put_file("/e/x", b"")
    create(env, "/e/f", b"older").sync()
    env.rename("/d/moved", "/e/f")
    env.sync_dir("/d")  # /e itself is never synced
    assert outcomes(env, "/e/f") == {b"moved"}


def test_m4_a_file_lives_while_a_lost_change_could_bring_it_back() -> None:
    env = make("f", content=b"kept")
    env.remove("/d/f")
    create(env, "/d/f", b"another").sync()
    assert env.contents("/d/f") == b"another"
    assert outcomes(env, "/d/f", survival=0) == {b"kept"}


def test_m4_links_of_one_file_are_still_one_after_a_crash() -> None:
    env = make("f")
    env.link("/d/f", "/d/g")
    env.sync_dir("/d")
    clone = env.crash_clone(0.5, 1)
    clone.open("/d/f", write=True).write(b"!", 0)
    assert clone.contents("/d/g") == b"!ld"


def test_m4_a_directory_renamed_into_a_renamed_parent_cannot_trap_a_clone() -> None:
    env = make("f")
    env.put_file("/p/g", b"")
    for source, target in [("/d", "/b"), ("/b", "/p/c"), ("/p/c", "/q"), ("/p", "/q/p")]:
        env.rename(source, target)
    for seed in range(200):
        clone = env.crash_clone(0.5, seed)
        assert set(clone.list_dir("/")) <= {"b", "d", "p", "q"}


# -- survival and clones -------------------------------------------------------------------------


def test_m6_a_clone_is_free_of_locks_tasks_and_hook_and_keeps_the_time() -> None:
    env = make("LOCK", "f", wall_ms=5000)
    env.advance(250)
    env.lock("/d/LOCK")
    env.start("never", lambda: pytest.fail("ran in the clone"))
    env.on_call = lambda operation, path: None
    clone = env.crash_clone(1, 0)
    clone.lock("/d/LOCK").release()
    assert clone.run_background() == 0
    assert clone.on_call is None
    assert clone.total_calls == 0
    assert (clone.wall_ms(), clone.monotonic_ns()) == (5250, env.monotonic_ns())
    assert clone.pid() != env.pid()
    clone.advance(1)
    assert env.wall_ms() == 5250


def test_m6_clones_and_their_origin_change_apart() -> None:
    env = make("f", "g", content=b"....")
    file = env.open("/d/f", write=True)
    file.write(b"0000", 0)
    file.sync()
    first, second = env.crash_clone(1, 0), env.crash_clone(1, 0)
    file.write(b"1", 0)
    first.open("/d/f", write=True).write(b"2", 1)
    second.remove("/d/g")
    assert [each.contents("/d/f") for each in (env, first, second)] == [b"1000", b"0200", b"0000"]
    assert env.list_dir("/d") == first.list_dir("/d") == ["f", "g"]
    assert env.crash_clone(0, 0).contents("/d/f") == b"0000"


def test_m6_everything_in_a_clone_is_durable() -> None:
    env = make("f")
    create(env, "/d/g", b"x" * 5000)
    clone = env.crash_clone(0.5, 3)
    found = tree(clone)
    assert tree(clone.crash_clone(0, 0)) == found
    create(clone, "/d/h")
    clone.open("/d/f", write=True).write(b"!", 0)
    assert tree(clone.crash_clone(0, 0)) == found


def test_the_same_seed_gives_the_same_crash() -> None:
    env = make("f", content=b"")
    env.open("/d/f", write=True).write(b"x" * 10_000, 0)
    assert env.crash_clone(0.5, 7).contents("/d/f") == env.crash_clone(0.5, 7).contents("/d/f")
    assert env.crash_clone(0.5, 7).random_bytes(8) != env.crash_clone(0.5, 8).random_bytes(8)
    assert MemoryEnv(seed=1).random_bytes(8) == MemoryEnv(seed=1).random_bytes(8)


@dataclass
class Twin:
    """The model: files of one directory, as plain dicts of what is there and what is durable."""

    inode: dict[str, int] = field(default_factory=dict)
    durable: dict[str, int] = field(default_factory=dict)
    content: dict[int, bytes] = field(default_factory=dict)
    synced: dict[int, bytes] = field(default_factory=dict)

    def start(self, env: MemoryEnv, name: str, content: bytes) -> None:
        """A durable file on both."""
        env.put_file(f"/d/{name}", content)
        number = self.inode[name] = self.durable[name] = len(self.content)
        self.content[number] = self.synced[number] = content

    def state(self) -> dict[str, bytes]:
        return {name: self.content[number] for name, number in self.inode.items()}

    def durable_state(self) -> dict[str, bytes]:
        return {name: self.synced[number] for name, number in self.durable.items()}

    def step(self, env: MemoryEnv, operation: str, name: str, other: str, place: int) -> None:
        """Do one operation on both, where it makes sense."""
        path = f"/d/{name}"
        if operation == "sync_dir":
            env.sync_dir("/d")
            self.durable = dict(self.inode)
        elif operation == "create" and name not in self.inode:
            env.open(path, create=True)
            number = self.inode[name] = len(self.content)
            self.content[number] = self.synced[number] = b""
        elif name in self.inode and operation == "remove":
            env.remove(path)
            del self.inode[name]
        elif name in self.inode and operation == "rename" and name != other:
            env.rename(path, f"/d/{other}")
            self.inode[other] = self.inode.pop(name)
        elif name in self.inode:
            self.change(env.open(path, write=True), operation, self.inode[name], place)

    def change(self, file: File, operation: str, number: int, place: int) -> None:
        old = self.content[number]
        if operation == "write":
            data = bytes([place % 251 + 1]) * (place % 1300 + 1)
            file.write(data, place)
            tail = old[place + len(data) :]
            self.content[number] = old[:place].ljust(place, b"\0") + data + tail
        elif operation == "truncate":
            file.truncate(place)
            self.content[number] = old[:place].ljust(place, b"\0")
        elif operation == "allocate":
            file.allocate(0, place + 1)
            self.content[number] = old.ljust(place + 1, b"\0")
        elif operation == "sync":
            file.sync_data()
            self.synced[number] = old


OPERATIONS = ["create", "truncate", "allocate", "sync", "sync_dir", "remove", "rename"]
STEP = st.tuples(
    st.sampled_from([*OPERATIONS, "create", *["write"] * 3]),
    st.sampled_from("abc"),
    st.sampled_from("abc"),
    st.integers(0, 3000),
)


@settings(deadline=None)
@given(st.lists(STEP, max_size=30), st.integers(0, 1000))
def test_m5_survival_0_is_the_durable_state_and_1_the_current(
    steps: list[tuple[str, str, str, int]], seed: int
) -> None:
    env, twin = MemoryEnv(), Twin()
    twin.start(env, "a", b"a" * 1300)
    twin.start(env, "b", b"")
    for step in steps:
        twin.step(env, *step)
    assert files(env) == twin.state()
    assert files(env.crash_clone(0, seed)) == twin.durable_state()
    assert files(env.crash_clone(1, seed)) == twin.state()
    for name, data in files(env.crash_clone(0.5, seed)).items():
        assert any(
            could_be(data, twin.content[number], twin.synced[number]) for number in twin.content
        ), name
    assert files(env) == twin.state()


def files(env: MemoryEnv) -> dict[str, bytes]:
    return {name: env.contents(f"/d/{name}") for name in env.list_dir("/d")}


def could_be(found: bytes, current: bytes, durable: bytes) -> bool:
    """Whether a crash may leave `found` of a file (M2 and M3, said the other way round)."""
    ends = {len(current), len(durable)}
    blocks = range(0, len(current), BLOCK)
    ends |= {min(at + BLOCK, len(current)) for at in blocks if at + BLOCK > len(durable)}
    room = max(len(found), len(current), len(durable)) + BLOCK
    new, old = current.ljust(room, b"\0"), durable.ljust(room, b"\0")
    return len(found) in ends and all(
        found[at : at + BLOCK] in (new[at : at + BLOCK][: len(found) - at],
                                   old[at : at + BLOCK][: len(found) - at])
        for at in range(0, len(found), BLOCK)
    )  # fmt: skip


def test_a_clone_of_a_small_store_costs_microseconds() -> None:
    env = MemoryEnv()
    for number in range(10):
        env.put_file(f"/d/tables/{number}", b"x" * 6000)
    create(env, "/d/logfile.1", b"y" * 4000)
    seconds = min(timeit.repeat(lambda: env.crash_clone(0.5, 1), number=20, repeat=5)) / 20
    assert seconds < 0.001  # 15 us on an idle machine; suites take tens of thousands


# -- hook, clock, background, doors --------------------------------------------------------------


def test_on_call_is_told_before_each_change_and_durable_call() -> None:
    env = MemoryEnv()
    seen: list[tuple[str, str, list[str]]] = []
    env.on_call = lambda operation, path: seen.append((operation, path, sorted(tree(env))))
    env.make_dir("/d/e")
    env.make_dir("/d/e")
    file = env.open("/d/f", write=True, create=True)
    env.open("/d/f", write=True, create=True).read(1, file.size())
    file.write(b"x", 0)
    file.allocate(1, 10)
    window = file.window(1, 9)
    assert window is not None
    window[0:1] = b"y"
    file.truncate(5)
    file.sync_data()
    file.sync()
    env.rename("/d/f", "/d/g")
    env.link("/d/g", "/d/h")
    env.remove("/d/g")
    env.sync_dir("/d")
    assert [(operation, path) for operation, path, _ in seen] == [
        ("make_dir", "/d"),
        ("make_dir", "/d/e"),
        ("create", "/d/f"),
        ("write", "/d/f"),
        ("allocate", "/d/f"),
        ("write", "/d/f"),
        ("truncate", "/d/f"),
        ("sync_data", "/d/f"),
        ("sync", "/d/f"),
        ("rename", "/d/f"),
        ("link", "/d/g"),
        ("remove", "/d/g"),
        ("sync_dir", "/d"),
    ]
    assert env.total_calls == len(seen)
    assert seen[0][2] == []
    assert seen[2][2] == ["/d", "/d/e"]
    assert seen[9][2] == ["/d", "/d/e", "/d/f"]


def test_on_call_can_stop_a_call_and_take_clones() -> None:
    env = make("f")
    file = env.open("/d/f", write=True)
    clones: list[MemoryEnv] = []

    def cut_power(operation: str, path: str) -> None:
        clones.append(env.crash_clone(1, 0))
        if operation == "sync_data":
            raise OSError(errno.EIO, "the power is gone")

    env.on_call = cut_power
    file.write(b"new", 0)
    with pytest.raises(OSError):
        file.sync_data()
    assert [clone.contents("/d/f") for clone in clones] == [b"old", b"new"]
    assert env.crash_clone(0, 0).contents("/d/f") == b"old"


def test_on_call_may_wait_for_another_threads_calls() -> None:
    env = make("f", "g", threads=True)
    written = threading.Event()

    def hold_syncs(operation: str, path: str) -> None:
        if operation == "sync_data":
            assert written.wait(10)

    env.on_call = hold_syncs
    task = env.start("sync", env.open("/d/f", write=True).sync_data)
    env.open("/d/g", write=True).write(b"new", 0)
    written.set()
    assert task.join(10)


def test_the_clock_moves_only_when_told() -> None:
    env = MemoryEnv(wall_ms=1000)
    start = env.monotonic_ns()
    env.advance(1500)
    assert (env.wall_ms(), env.monotonic_ns() - start) == (2500, 1_500_000_000)
    env.set_wall_ms(10)
    assert (env.wall_ms(), env.monotonic_ns() - start) == (10, 1_500_000_000)


def test_background_work_waits_for_its_turn() -> None:
    env, ran = MemoryEnv(), []

    def first() -> None:
        ran.append("first")
        env.start("third", lambda: ran.append("third"))

    env.start("first", first)
    second = env.start("second", lambda: ran.append("second"))
    assert ran == []
    assert second.join(0)
    assert ran == ["second"]
    assert env.run_background() == 2
    assert ran == ["second", "first", "third"]
    assert second.join()
    assert env.run_background() == 0


def test_what_background_work_raises_comes_out() -> None:
    env = MemoryEnv()
    env.start("fails", lambda: 1 // 0)  # type: ignore[arg-type,return-value]
    with pytest.raises(ZeroDivisionError):
        env.run_background()
    assert env.run_background() == 0


def test_mutate_and_put_file_are_durable_at_once_and_unannounced() -> None:
    env = MemoryEnv()
    env.put_file("/a/b/f", b"0123456789")
    env.mutate("/a/b/f", 3, b"!!")
    env.put_file("/a/b/g", b"first")
    env.put_file("/a/b/g", b"again")
    assert tree(env.crash_clone(0, 0)) == {
        "/a": None, "/a/b": None, "/a/b/f": b"012!!56789", "/a/b/g": b"again",
    }  # fmt: skip
    assert env.total_calls == 0


@pytest.mark.parametrize(("offset", "data"), [(-1, b"x"), (10, b"x"), (9, b"xy")])
def test_mutate_stays_within_the_file(offset: int, data: bytes) -> None:
    env = make("f", content=b"0123456789")
    with pytest.raises(ValueError, match="bytes at"):
        env.mutate("/d/f", offset, data)
    assert env.contents("/d/f") == b"0123456789"


def test_threads_share_the_disk() -> None:
    env = make("f", content=b"", threads=True)

    def append(number: int) -> None:
        file = env.open("/d/f", write=True)
        for turn in range(50):
            file.write(bytes([number]) * 10, (number * 50 + turn) * 10)
            file.sync_data()
            env.open(f"/d/{number}.{turn}", create=True)

    tasks = [env.start("append", lambda number=number: append(number)) for number in range(4)]  # type: ignore[misc]
    assert all(task.join(30) for task in tasks)
    assert env.contents("/d/f") == b"".join(bytes([number]) * 500 for number in range(4))
    assert len(env.list_dir("/d")) == 201
    assert env.total_calls == 4 * 50 * 3
