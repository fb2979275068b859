"""One contract, two machines: what api.py promises, asked of PosixEnv and MemoryEnv alike."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from marram.env import Env, PosixEnv
from marram.env.faulty import FaultyEnv
from marram.env.memory import MemoryEnv


@pytest.fixture(params=["posix", "memory", "faulty without faults"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Env, str]:
    """An env and an empty directory in it."""
    if request.param == "posix":
        return PosixEnv(), str(tmp_path)
    env = MemoryEnv(threads=True)
    env.make_dir("/root/data")
    return (FaultyEnv(env) if request.param.startswith("faulty") else env), "/root/data"


@pytest.fixture
def env(machine: tuple[Env, str]) -> Env:
    return machine[0]


@pytest.fixture
def root(machine: tuple[Env, str]) -> str:
    return machine[1]


def put(env: Env, path: str, data: bytes = b"") -> str:
    file = env.open(path, write=True, create=True)
    file.write(data, 0)
    file.close()
    return path


def content(env: Env, path: str) -> bytes:
    file = env.open(path)
    data = file.read(file.size(), 0)
    file.close()
    return data


# -- contents -----------------------------------------------------------------------------------


def test_read_gives_what_was_written_and_less_only_at_the_end(env: Env, root: str) -> None:
    file = env.open(f"{root}/f", write=True, create=True)
    assert file.path == f"{root}/f"
    file.write(b"hello", 0)
    file.write(bytearray(b"world"), 5)
    file.write(memoryview(b"[!]")[1:2], 10)
    assert file.size() == 11
    assert file.read(11, 0) == b"helloworld!"
    assert file.read(100, 5) == b"world!"
    assert file.read(0, 3) == b""
    assert file.read(5, 11) == file.read(5, 4000) == b""
    assert isinstance(file.read(3, 1), bytes)


def test_write_past_the_end_leaves_zeros_between(env: Env, root: str) -> None:
    file = env.open(f"{root}/f", write=True, create=True)
    file.write(b"x", 1000)
    assert file.read(2000, 0) == bytes(1000) + b"x"


def test_empty_write_changes_nothing(env: Env, root: str) -> None:
    file = env.open(f"{root}/f", write=True, create=True)
    file.write(b"", 1000)
    assert file.size() == 0


def test_allocate_grows_with_zeros_and_keeps_what_is_there(env: Env, root: str) -> None:
    file = env.open(f"{root}/f", write=True, create=True)
    file.write(b"kept", 0)
    file.allocate(2, 5000)
    assert file.read(6000, 0) == b"kept" + bytes(4998)
    file.allocate(0, 100)
    assert file.size() == 5002


def test_what_is_stored_in_a_window_is_written(env: Env, root: str) -> None:
    file = env.open(f"{root}/f", write=True, create=True)
    file.write(b"head", 0)
    file.allocate(4, 60_000)
    window = file.window(5_001, 20_000)
    if window is None:
        pytest.skip("the file system is none that writes in place")
    window[0:5] = b"first"
    window[19_996:20_000] = bytearray(b"last")
    expected = bytearray(60_004)
    expected[:4] = b"head"
    expected[5_001:5_006] = b"first"
    expected[24_997:25_001] = b"last"
    assert file.read(70_000, 0) == expected
    with pytest.raises(ValueError):
        window[0:3] = b"four"
    file.sync_data()
    file.close()
    window[7:8] = b"x"  # it outlives the file's closing
    window.release()
    expected[5_008:5_009] = b"x"
    assert content(env, f"{root}/f") == expected


def test_truncate_cuts_and_what_comes_back_is_zeros(env: Env, root: str) -> None:
    file = env.open(f"{root}/f", write=True, create=True)
    file.write(b"abcdef", 0)
    file.truncate(2)
    assert file.read(10, 0) == b"ab"
    file.truncate(4)
    assert file.read(10, 0) == b"ab\0\0"


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda file: file.read(1, -1), errno.EINVAL),
        (lambda file: file.read(-1, 0), errno.EINVAL),
        (lambda file: file.write(b"x", -1), errno.EINVAL),
        (lambda file: file.allocate(-1, 5), errno.EINVAL),
        (lambda file: file.allocate(0, 0), errno.EINVAL),
        (lambda file: file.truncate(-1), errno.EINVAL),
    ],
)
def test_impossible_ranges_are_refused(env: Env, root: str, call, code: int) -> None:  # type: ignore[no-untyped-def]
    file = env.open(f"{root}/f", write=True, create=True)
    with pytest.raises(OSError) as caught:
        call(file)
    assert caught.value.errno == code
    assert file.size() == 0


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda file: file.write(b"x", 0), errno.EBADF),
        (lambda file: file.allocate(0, 5), errno.EBADF),
        (lambda file: file.truncate(0), errno.EINVAL),
    ],
)
def test_a_file_opened_for_reading_does_not_change(env: Env, root: str, call, code: int) -> None:  # type: ignore[no-untyped-def]
    file = env.open(put(env, f"{root}/f", b"kept"))
    with pytest.raises(OSError) as caught:
        call(file)
    assert caught.value.errno == code
    assert file.read(10, 0) == b"kept"


@pytest.mark.parametrize(
    "call",
    [
        lambda file: file.read(1, 0),
        lambda file: file.size(),
        lambda file: file.write(b"x", 0),
        lambda file: file.allocate(0, 1),
        lambda file: file.sync_data(),
        lambda file: file.sync(),
    ],
)
def test_a_closed_file_answers_nothing_and_closes_twice(env: Env, root: str, call) -> None:  # type: ignore[no-untyped-def]
    file = env.open(f"{root}/f", write=True, create=True)
    file.close()
    file.close()
    with pytest.raises(OSError) as caught:
        call(file)
    assert caught.value.errno == errno.EBADF


def test_syncs_return_and_keep_the_content(env: Env, root: str) -> None:
    file = env.open(f"{root}/f", write=True, create=True)
    file.write(b"x", 0)
    file.sync_data()
    file.sync()
    env.sync_dir(root)
    assert content(env, f"{root}/f") == b"x"


# -- opening ------------------------------------------------------------------------------------


def test_open_makes_a_file_only_when_asked_to(env: Env, root: str) -> None:
    with pytest.raises(FileNotFoundError):
        env.open(f"{root}/f", write=True)
    assert not env.exists(f"{root}/f")
    env.open(f"{root}/f", create=True).close()
    assert content(env, f"{root}/f") == b""


def test_open_with_create_keeps_the_content(env: Env, root: str) -> None:
    put(env, f"{root}/f", b"kept")
    assert env.open(f"{root}/f", write=True, create=True).read(10, 0) == b"kept"


def test_exclusive_makes_the_file_or_fails(env: Env, root: str) -> None:
    env.open(f"{root}/f", write=True, create=True, exclusive=True).write(b"kept", 0)
    with pytest.raises(FileExistsError):
        env.open(f"{root}/f", write=True, create=True, exclusive=True)
    with pytest.raises(FileExistsError):
        env.open(root, write=True, create=True, exclusive=True)
    assert content(env, f"{root}/f") == b"kept"


@pytest.mark.parametrize("options", [{}, {"write": True}, {"write": True, "create": True}])
def test_open_of_a_directory_fails(env: Env, root: str, options: dict[str, bool]) -> None:
    with pytest.raises(IsADirectoryError):
        env.open(root, **options)


def test_open_below_a_file_or_a_missing_directory_fails(env: Env, root: str) -> None:
    put(env, f"{root}/f")
    with pytest.raises(NotADirectoryError):
        env.open(f"{root}/f/g", write=True, create=True)
    with pytest.raises(FileNotFoundError):
        env.open(f"{root}/none/g", write=True, create=True)


def test_an_open_file_outlives_its_name(env: Env, root: str) -> None:
    file = env.open(put(env, f"{root}/f", b"kept"), write=True)
    env.remove(f"{root}/f")
    put(env, f"{root}/f", b"another")
    file.write(b"!", 4)
    assert file.read(10, 0) == b"kept!"


# -- names --------------------------------------------------------------------------------------


def test_list_dir_is_sorted_and_exists_knows_files_and_directories(env: Env, root: str) -> None:
    put(env, f"{root}/b")
    env.make_dir(f"{root}/a")
    put(env, f"{root}/a/inner")
    assert env.list_dir(root) == ["a", "b"]
    assert env.exists(f"{root}/a")
    assert env.exists(f"{root}/b")
    assert not env.exists(f"{root}/c")
    assert not env.exists(f"{root}/c/d")
    assert not env.exists(f"{root}/b/below-a-file")


def test_a_path_may_have_doubled_and_final_slashes(env: Env, root: str) -> None:
    env.make_dir(f"{root}//a/b/")
    put(env, f"{root}//a//b/./f", b"x")
    assert content(env, f"{root}/a/b/f") == b"x"
    assert env.list_dir(f"{root}/a/") == ["b"]


def test_list_dir_and_sync_dir_want_a_directory(env: Env, root: str) -> None:
    put(env, f"{root}/f")
    for call in (env.list_dir, env.sync_dir):
        with pytest.raises(FileNotFoundError):
            call(f"{root}/none")
        with pytest.raises(NotADirectoryError):
            call(f"{root}/f")


def test_make_dir_makes_parents_and_is_fine_where_it_exists(env: Env, root: str) -> None:
    env.make_dir(f"{root}/a/b/c")
    env.make_dir(f"{root}/a/b/c")
    env.make_dir(root)
    assert env.list_dir(f"{root}/a/b") == ["c"]


def test_make_dir_does_not_replace_a_file(env: Env, root: str) -> None:
    put(env, f"{root}/f", b"kept")
    with pytest.raises(FileExistsError):
        env.make_dir(f"{root}/f")
    with pytest.raises(FileExistsError):
        env.make_dir(f"{root}/f/below")
    assert content(env, f"{root}/f") == b"kept"


def test_rename_moves_and_replaces(env: Env, root: str) -> None:
    env.make_dir(f"{root}/a")
    put(env, f"{root}/new", b"new")
    put(env, f"{root}/a/old", b"old")
    env.rename(f"{root}/new", f"{root}/a/old")
    assert env.list_dir(root) == ["a"]
    assert content(env, f"{root}/a/old") == b"new"


def test_rename_of_a_directory_takes_its_files_along(env: Env, root: str) -> None:
    env.make_dir(f"{root}/a")
    env.make_dir(f"{root}/empty")
    put(env, f"{root}/a/f", b"x")
    env.rename(f"{root}/a", f"{root}/empty")
    assert env.list_dir(root) == ["empty"]
    assert content(env, f"{root}/empty/f") == b"x"


def test_rename_that_cannot_be_changes_nothing(env: Env, root: str) -> None:
    env.make_dir(f"{root}/full/inner")
    env.make_dir(f"{root}/d")
    put(env, f"{root}/f")
    for source, target, code in [
        ("none", "f", errno.ENOENT),
        ("f", "none/f", errno.ENOENT),
        ("f", "d", errno.EISDIR),
        ("d", "f", errno.ENOTDIR),
        ("d", "full", errno.ENOTEMPTY),
        ("full", "full/inner/deep", errno.EINVAL),
    ]:
        with pytest.raises(OSError) as caught:
            env.rename(f"{root}/{source}", f"{root}/{target}")
        assert caught.value.errno == code, (source, target)
    assert env.list_dir(root) == ["d", "f", "full"]


def test_rename_between_two_links_of_one_file_keeps_both(env: Env, root: str) -> None:
    put(env, f"{root}/f")
    env.link(f"{root}/f", f"{root}/g")
    env.rename(f"{root}/f", f"{root}/g")
    assert env.list_dir(root) == ["f", "g"]


def test_remove_takes_files_only(env: Env, root: str) -> None:
    put(env, f"{root}/f")
    env.make_dir(f"{root}/d")
    env.remove(f"{root}/f")
    with pytest.raises(FileNotFoundError):
        env.remove(f"{root}/f")
    with pytest.raises(IsADirectoryError):
        env.remove(f"{root}/d")
    assert env.list_dir(root) == ["d"]


def test_link_is_a_second_name_of_one_file(env: Env, root: str) -> None:
    put(env, f"{root}/f", b"x")
    env.link(f"{root}/f", f"{root}/g")
    env.open(f"{root}/f", write=True).write(b"y", 1)
    env.remove(f"{root}/f")
    assert content(env, f"{root}/g") == b"xy"


def test_link_replaces_nothing_and_wants_a_file(env: Env, root: str) -> None:
    put(env, f"{root}/f", b"f")
    put(env, f"{root}/g", b"g")
    with pytest.raises(FileExistsError):
        env.link(f"{root}/f", f"{root}/g")
    with pytest.raises(FileNotFoundError):
        env.link(f"{root}/none", f"{root}/h")
    with pytest.raises(PermissionError):
        env.link(root, f"{root}/h")
    assert content(env, f"{root}/g") == b"g"
    assert not env.exists(f"{root}/h")


def test_free_bytes_is_a_size(env: Env, root: str) -> None:
    assert env.free_bytes(root) > 0
    with pytest.raises(FileNotFoundError):
        env.free_bytes(f"{root}/none")


# -- locks --------------------------------------------------------------------------------------


def test_lock_is_refused_while_held_by_any_name_and_given_again(env: Env, root: str) -> None:
    lock = env.lock(f"{root}/LOCK")
    env.link(f"{root}/LOCK", f"{root}/alias")
    for name in ("LOCK", "alias", "./LOCK"):
        with pytest.raises(BlockingIOError):
            env.lock(f"{root}/{name}")
    lock.release()
    env.lock(f"{root}/LOCK").release()


def test_lock_file_can_be_written_by_its_holder_and_read_by_all(env: Env, root: str) -> None:
    lock = env.lock(f"{root}/LOCK")
    lock.file.write(b"owner", 0)
    assert content(env, f"{root}/LOCK") == b"owner"
    with pytest.raises(BlockingIOError):
        env.lock(f"{root}/LOCK")
    lock.release()
    assert content(env, f"{root}/LOCK") == b"owner"


def test_release_twice_does_not_take_the_next_holders_lock(env: Env, root: str) -> None:
    first = env.lock(f"{root}/LOCK")
    first.release()
    second = env.lock(f"{root}/LOCK")
    first.release()
    with pytest.raises(BlockingIOError):
        env.lock(f"{root}/LOCK")
    second.release()


def test_locks_of_different_files_do_not_meet(env: Env, root: str) -> None:
    locks = [env.lock(f"{root}/{name}") for name in "ab"]
    locks[0].release()
    env.lock(f"{root}/a").release()
    with pytest.raises(BlockingIOError):
        env.lock(f"{root}/b")
    locks[1].release()


def test_lock_wants_a_directory_to_be_in(env: Env, root: str) -> None:
    with pytest.raises(FileNotFoundError):
        env.lock(f"{root}/none/LOCK")
    with pytest.raises(IsADirectoryError):
        env.lock(root)


# -- the rest -----------------------------------------------------------------------------------


def test_clocks_identity_randomness(env: Env, root: str) -> None:
    assert env.wall_ms() > 1_600_000_000_000
    assert env.monotonic_ns() <= env.monotonic_ns()
    assert env.pid() > 0
    assert env.hostname()
    first, second = env.random_bytes(16), env.random_bytes(16)
    assert len(first) == 16
    assert first != second


def test_start_runs_work_beside_the_caller(env: Env, root: str) -> None:
    go, names = threading.Event(), []

    def work() -> None:
        go.wait(10)
        names.append(threading.current_thread().name)

    task = env.start("marram-test", work)
    assert not task.join(0.0)
    go.set()
    env.pause()
    assert task.join(10)
    assert task.join()
    assert names == ["marram-test"]


def test_wait_returns(env: Env, root: str) -> None:
    start = env.monotonic_ns()
    env.wait(0.02)
    assert env.monotonic_ns() - start >= 20_000_000 or not isinstance(env, PosixEnv)


def test_spawn_gives_a_process_or_none(env: Env, root: str) -> None:
    child = env.spawn("marram.errors")  # it has no main(), and so ends with an error
    assert (child is not None) == isinstance(env, PosixEnv)
    if child is not None:
        assert child.pid != env.pid()
        with pytest.raises(EOFError):
            child.receive(1)
        child.kill()
