"""BACKUP and VERIFY: below the operator's directory, in the background, one at a time."""

from __future__ import annotations

import pytest

import marram
from marram.node.deferred import Deferred
from marram.protocol.replies import ErrorReply
from tests.node.harness import Client, World

ROOT = "/backups"


@pytest.fixture
def world() -> World:
    world = World()
    world.node.settings.backup_dir = ROOT
    return world


@pytest.fixture
def client(world: World) -> Client:
    return world.client()


def test_a_backup_is_a_store_of_that_moment(world: World, client: Client) -> None:
    client("SET", "k", "v")
    epoch, sequence = client("BACKUP", "monday.1")
    client("SET", "k", "later")

    assert [epoch, sequence] == [1, 1]
    with marram.open(f"{ROOT}/monday.1", env=world.machine, create=False) as copy:
        assert dict(copy) == {b"k": b"v"}
        assert copy.position == (1, 1)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../up", "x" * 65, "nul\0", "é"])
def test_a_backups_name_is_no_path(client: Client, name: str) -> None:
    assert "a backup's name has" in client.error("BACKUP", name)


def test_a_backup_never_overwrites(client: Client) -> None:
    client("BACKUP", "once")
    assert "not empty" in client.error("BACKUP", "once")


def test_without_a_directory_backups_are_off() -> None:
    assert "--backup-dir" in World().client().error("BACKUP", "name")


def test_verify_tells_what_it_read(client: Client) -> None:
    client("SET", "a", "1")
    client("CHECKPOINT")
    client("SET", "b", "2")

    report = client("VERIFY")

    assert (report[b"ok"], report[b"rows"], report[b"problems"]) == (1, 1, [])
    assert report[b"batches"] >= 1
    assert [name for name, size in report[b"checked"] if size] == [b"checkpoint.1", b"logfile.1"]


def test_verify_finds_damage_under_a_running_store(world: World, client: Client) -> None:
    client("SET", "a", "1")
    client("CHECKPOINT")
    world.machine.mutate(f"{world.store.directory}/checkpoint.1", 60, b"\xff")

    report = client("VERIFY")

    assert report[b"ok"] == 0
    assert any(b"checkpoint.1 @ " in problem for problem in report[b"problems"])


def test_one_check_at_a_time(world: World, client: Client) -> None:
    other = world.client()
    first = world.node.execute(client.session, [b"VERIFY"])
    assert isinstance(first, Deferred)
    assert not first.done

    refused = world.node.execute(other.session, [b"VERIFY"])
    assert isinstance(refused, ErrorReply)
    assert refused.text == "ERR a verify is under way"

    world.settle()
    assert first.reply[b"ok"] == 1
    assert other("VERIFY")[b"ok"] == 1
