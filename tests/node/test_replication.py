"""Primary and replicas as nodes see them: roles, refusals, levels, positions (node/replication)."""

from __future__ import annotations

import logging

import pytest

from marram.coding.batch import Change
from marram.errors import Corruption, InvalidArgument
from marram.node.passwords import digest_of, hash_password, secret_of
from marram.node.replication.record import Record, read_record, write_record
from marram.node.settings import ReplicationSettings, Settings
from marram.protocol.replies import NULL_ARRAY, OK, ErrorReply
from tests.node.harness import PENDING, World
from tests.node.replicas import Net, NetShell, port_of, state, told


@pytest.fixture
def net() -> Net:
    return Net()


def rows(world: World) -> dict[bytes, bytes]:
    """All strings of keyspace 0, newest state."""
    space = world.store.engine.spaces[0]
    return {key: space.get(key) for key in space.keys(b"", None, 1000, False)}


def given_up(world: World) -> list[tuple[int, int]]:
    shell = world.node.replication.shell
    assert isinstance(shell, NetShell)
    return shell.given_up


# -- catching up -----------------------------------------------------------------------------------


def test_an_empty_replica_takes_a_copy_and_then_the_tail(net: Net, engine: str) -> None:
    primary = net.world("a")
    client = primary.client()
    for number in range(50):
        client("SET", f"k{number}", number)
    replica = net.world("b", "a")
    net.settle()
    assert state(replica) == "STREAMING"
    assert replica.store.store_id == primary.store.store_id
    client("SET", "after", "x")
    net.settle()
    assert rows(replica) == rows(primary)
    assert replica.store.history.newest() == primary.store.history.newest()
    assert told(replica.client(), "GET", "after") == b"x"
    assert primary.node.replication.full_syncs == 1


def test_a_replica_that_comes_back_goes_on_from_the_log(net: Net) -> None:
    primary = net.world("a")
    client = primary.client()
    client("SET", "k", "1")
    net.world("b", "a")
    net.settle()
    net.stop("b")
    for number in range(100):
        client("SET", "k", number)
    net.settle()
    replica = net.world("b", machine=net.worlds["b"].machine)
    net.settle()
    assert told(replica.client(), "GET", "k") == b"99"
    assert primary.node.replication.full_syncs == 1, "the first one"


def test_a_replica_whose_log_is_gone_takes_a_copy_and_serves_meanwhile(net: Net) -> None:
    primary = net.world("a", options={"replica_log_bytes": 0})
    client = primary.client()
    client("SET", "k", "old")
    net.world("b", "a")
    net.settle()
    net.stop("b")
    client("SET", "k", "new")
    client("CHECKPOINT")
    net.settle()
    replica = net.world("b", machine=net.worlds["b"].machine)
    assert told(replica.client(), "GET", "k") == b"old"
    net.settle()
    assert told(replica.client(), "GET", "k") == b"new"
    assert primary.node.replication.full_syncs == 2


def test_a_copied_directory_needs_no_copy(net: Net) -> None:
    primary = net.world("a")
    primary.client()("SET", "k", "1")
    net.settle()
    machine = primary.machine.crash_clone(1.0, 1)
    primary.client()("SET", "k", "2")
    replica = net.world("b", "a", machine=machine)
    net.settle()
    assert told(replica.client(), "GET", "k") == b"2"
    assert primary.node.replication.full_syncs == 0


def test_chains_work(net: Net) -> None:
    primary = net.world("a")
    net.world("b", "a")
    net.settle()
    primary.client()("SET", "k", "1")
    net.settle()
    last = net.world("c", "b")
    net.settle()
    primary.client()("SET", "k", "2")
    net.settle()
    net.advance(200)
    assert told(last.client(), "GET", "k") == b"2"
    assert "primary at a:7379" in last.client().error("SET", "k", "3")


def follows(net: Net, world: World, upstream: str) -> None:
    """REPLICAOF, and what comes of it."""
    world.client()("REPLICAOF", upstream, port_of(upstream))
    net.settle()
    net.advance(20_000)


def is_in_a_circle(world: World) -> bool:
    return "SELF" in state(world) and "circle" in state(world)


def test_a_circle_of_two_is_refused_and_ends_where_one_of_them_is_told_otherwise(net: Net) -> None:
    one = net.world("a")
    one.client()("SET", "k", "1")
    two = net.world("b", "a")
    net.settle()
    follows(net, one, "b")
    assert is_in_a_circle(one)
    assert rows(one) == {b"k": b"1"}
    one.client()("REPLICAOF", "NO", "ONE")
    net.settle()
    one.client()("SET", "k", "2")
    net.advance(20_000)
    assert state(two) == "STREAMING"
    assert told(two.client(), "GET", "k") == b"2"


def test_a_circle_of_three_is_found_also_where_the_way_to_the_primary_changed_far_away(
    net: Net,
) -> None:
    first = net.world("a")
    first.client()("SET", "k", "1")
    net.world("b", "a")
    net.settle()
    net.world("c", "b")
    net.settle()
    last = net.world("d", "c")
    net.settle()
    net.advance(1000)
    far = net.world("e", machine=first.machine.crash_clone(1.0, 1))  # a copy of the first
    follows(net, first, "e")
    assert state(first) == "STREAMING"
    assert state(last) == "STREAMING"
    # The last of the chain hears of the new end of it, three steps away.
    follows(net, far, "d")
    assert is_in_a_circle(far)


# -- what a replica refuses and does not do --------------------------------------------------------


def test_a_replica_refuses_writes_and_names_the_primary(net: Net) -> None:
    net.world("a").client()("SET", "k", "v")
    client = net.world("b", "a").client()
    net.settle()
    text = "READONLY this is a replica; writes go to the primary at a:7379"
    net.advance(100)
    assert client.error("SET", "k", "w") == text
    assert client.error("DEL", "missing") == text, "also where nothing would change"
    client("MULTI")
    assert client.error("INCR", "n") == text
    assert client.error("EXEC").startswith("EXECABORT")
    assert told(client, "GET", "k") == b"v"


def test_a_transaction_that_was_queued_before_is_refused_at_its_end(net: Net) -> None:
    net.world("a")
    other = net.world("b")
    client = other.client()
    client("MULTI")
    client("SET", "k", "v")
    admin = other.client()
    admin("REPLICAOF", "a", "1000")
    net.settle()
    assert client.error("EXEC").startswith("EXECABORT Transaction discarded because of: READONLY")
    assert other.store.last == 0


def test_a_replica_hides_what_expired_by_the_primarys_clock_and_deletes_nothing(net: Net) -> None:
    primary = net.world("a")
    primary.client()("SET", "k", "v", "PX", "5000")
    replica = net.world("b", "a")
    net.settle()
    primary.node.upkeep.active_expiry = False
    client = replica.client()
    net.advance(4000)
    replica.machine.advance(1_000_000)
    assert told(client, "GET", "k") == b"v", "its own clock counts for nothing"
    net.advance(3000)
    assert client("GET", "k") is None
    assert replica.store.last == primary.store.last == 1
    assert replica.store.engine.spaces[0].get(b"k") is not None, "hidden, not deleted"


def test_the_primary_deletes_what_expired_on_both(net: Net) -> None:
    primary = net.world("a")
    primary.client()("SET", "k", "v", "PX", "500")
    replica = net.world("b", "a")
    net.settle()
    net.advance(1000)
    assert replica.store.engine.spaces[0].get(b"k") is None
    assert replica.store.last == primary.store.last == 2


def test_watch_on_a_replica_sees_what_is_applied(net: Net) -> None:
    primary = net.world("a")
    replica = net.world("b", "a")
    net.settle()
    client = replica.client()
    client("WATCH", "k")
    client("MULTI")
    client("GET", "k")
    primary.client()("SET", "k", "v")
    net.settle()
    assert client("EXEC") == NULL_ARRAY
    client("WATCH", "other")
    client("MULTI")
    client("GET", "k")
    primary.client()("SET", "k", "w")
    net.settle()
    assert client("EXEC") == [b"w"], "another key"


# -- changing roles --------------------------------------------------------------------------------


def test_e1_the_role_survives_a_restart_and_says_so(
    net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    net.world("a").client()("SET", "k", "v")
    net.world("b", "a")
    net.settle()
    with caplog.at_level(logging.WARNING):
        replica = net.restart("b")
    assert "this store followed a:1000, and goes on so" in caplog.text
    assert replica.client().error("SET", "k", "w").startswith("READONLY")
    net.settle()
    assert state(replica) == "STREAMING"


def test_replica_of_none_makes_a_primary_of_a_former_replica_in_a_new_epoch(net: Net) -> None:
    net.world("a").client()("SET", "k", "v")
    net.world("b", "a")
    net.settle()
    former = net.restart("b", "none")
    assert former.store.epoch == 2
    assert former.client()("SET", "k", "w") == OK
    net.settle()
    assert read_record(former.env, former.store.directory) == Record()


def test_e2_promotion_raises_the_epoch_before_the_first_write(net: Net) -> None:
    net.world("a").client()("SET", "k", "v")
    replica = net.world("b", "a")
    net.settle()
    client = replica.client()
    assert client("REPLICAOF", "NO", "ONE") == OK
    assert replica.store.epoch == 2
    crashed = net.world("c", machine=replica.machine.crash_clone(0.0, 1))
    assert crashed.store.epoch == 2, "durable by the time it is told"
    assert crashed.node.replication.uplink is None
    assert client("SET", "k", "w") == OK


def test_promoting_a_primary_changes_nothing(net: Net) -> None:
    primary = net.world("a")
    assert primary.client()("REPLICAOF", "NO", "ONE") == OK
    assert primary.store.epoch == 1


def test_a_deposed_primary_takes_no_writes_sets_its_tail_aside_and_follows(net: Net) -> None:
    old = net.world("a")
    old.client()("SET", "k", "common")
    new = net.world("b", "a")
    net.settle()
    net.cut(old, new)
    old.client()("SET", "k", "lost")
    net.settle()
    new.client()("REPLICAOF", "NO", "ONE")
    net.settle()
    new.client()("SET", "k", "kept")
    net.settle()
    net.heal()
    # A replica of the new primary that is pointed at the old one tells it of the epoch.
    third = net.world("c", "b")
    net.settle()
    third.client()("REPLICAOF", "a", "1000")
    net.settle()
    net.advance(200)
    assert "LOWER_EPOCH" in state(third)
    refusal = old.client().error("SET", "k", "more")
    assert refusal.startswith("READONLY this primary was deposed: there is an epoch 2")
    old = net.restart("a")
    assert old.client().error("SET", "k", "more").startswith("READONLY"), "it remembers"
    old.client()("REPLICAOF", "b", "1001")
    net.settle()
    assert told(old.client(), "GET", "k") == b"kept"
    (aside,) = old.node.replication.set_aside
    assert aside == "/data/diverged-1-2-2.log"
    assert old.env.exists(aside)


def test_a_second_change_of_role_waits_for_the_first(net: Net) -> None:
    world = net.world("a")
    first, second = world.client(), world.client()
    world.node.begin_turn()
    world.node.execute(first.session, [b"REPLICAOF", b"b", b"1001"])
    reply = world.node.execute(second.session, [b"REPLICAOF", b"NO", b"ONE"])
    assert isinstance(reply, ErrorReply)
    assert "being changed already" in reply.text


def test_a_role_that_cannot_be_recorded_is_not_taken(net: Net) -> None:
    world = net.world("a")
    from marram.env.faulty import Fault

    world.env.add(Fault("rename"))
    client = world.client()
    client("REPLICAOF", "b", "1001")
    net.settle()
    assert isinstance(client.result(), ErrorReply)
    assert client("SET", "k", "v") == OK
    assert world.node.replication.uplink is None


@pytest.mark.parametrize("words", [("a b", "1"), ("h", "0"), ("h", "65536"), ("h", "x"), ("", "1")])
def test_an_address_that_is_none_is_refused(net: Net, words: tuple[str, str]) -> None:
    assert net.world("a").client().error("REPLICAOF", *words).startswith("ERR Invalid master")


def test_j2_a_record_that_cannot_be_read_stops_the_start(net: Net) -> None:
    world = net.world("a")
    write_record(world.env, "/data", Record("b:1001"))
    file = world.env.open("/data/role", write=True)
    file.write(b"?", 0)
    file.close()
    with pytest.raises(Corruption, match="no record of a role"):
        world.node.replication.open("")


def test_j1_the_record_is_whole_after_a_crash_at_any_call() -> None:
    from marram.env.memory import MemoryEnv

    before, after = Record("a:1"), Record("b:2", 7)
    seen = set()
    machine = MemoryEnv(seed=1)
    machine.make_dir("/data")
    machine.sync_dir("/")
    write_record(machine, "/data", before)
    disks = [machine]

    def look(operation: str, path: str) -> None:
        disks.extend(machine.crash_clone(survival, 1) for survival in (0.0, 0.5, 1.0))

    machine.on_call = look
    write_record(machine, "/data", after)
    for disk in disks:
        seen.add(read_record(disk, "/data"))
    assert seen == {before, after}


# -- ack levels ------------------------------------------------------------------------------------


def test_e4_without_enough_replicas_a_write_is_refused_and_changes_nothing(net: Net) -> None:
    primary = net.world("a", min_acks=1)
    client = primary.client()
    refusal = "NOREPLICAS Not enough good replicas to write: 0 of 1 are connected"
    assert client.error("SET", "k", "v") == refusal
    assert primary.store.last == 0
    net.world("b", "a")
    net.settle()
    net.advance(100)
    assert client("SET", "k", "v") == OK


def test_a_write_with_min_acks_is_committed_once_the_replicas_disk_has_it(net: Net) -> None:
    primary = net.world("a", min_acks=1)
    replica = net.world("b", "a")
    net.settle()
    net.advance(100)
    client, reader = primary.client(), primary.client()
    net.cut(primary, replica)
    assert client("SET", "k", "v") == OK
    net.settle()
    assert primary.store.commit.durable == 1
    assert primary.store.committed == 0
    reader("GET", "k")
    assert reader.waits_for == 1, "nobody reads what is not committed"
    net.heal()
    primary.node.replication.tick()
    net.advance(3000)
    assert primary.store.committed == 1
    assert told(replica.client(), "GET", "k") == b"v"


def test_a_write_that_waits_too_long_is_given_up(net: Net) -> None:
    primary = net.world("a", min_acks=1, ack_timeout_ms=300)
    replica = net.world("b", "a")
    net.settle()
    net.advance(100)
    net.cut(primary, replica)
    primary.client()("SET", "k", "v")
    net.settle()
    net.advance(200)
    assert not given_up(primary)
    net.advance(400)
    assert given_up(primary) == [(0, 1)]
    assert primary.store.committed == 0, "and yet nobody reads it"


def test_e3_a_primary_that_opens_shows_nothing_before_its_replicas_have_it(net: Net) -> None:
    primary = net.world("a", min_acks=1)
    net.world("b", "a", min_acks=1)
    net.settle()
    net.advance(100)
    primary.client()("SET", "k", "v")
    net.settle()
    net.stop("b")
    primary = net.restart("a", min_acks=1)
    client = primary.client()
    assert client.error("GET", "k").startswith("NOREPLICAS the newest writes of this store")
    assert client.error("SNAPSHOT", "OPEN").startswith("NOREPLICAS")
    assert client("PING") is not None
    net.world("b", machine=net.worlds["b"].machine, min_acks=1)
    net.settle()
    net.advance(100)
    assert told(client, "GET", "k") == b"v"


def test_acks_holds_one_write_until_its_level_is_reached(net: Net) -> None:
    primary = net.world("a")
    replica = net.world("b", "a")
    net.settle()
    client, other = primary.client(), primary.client()
    net.cut(primary, replica)
    assert client("ACKS", "1") == OK
    assert client("GET", "k") is None, "a read does not use it up"
    assert client("SET", "k", "v") == OK
    net.settle()
    assert client.waits_for == 1 and primary.store.committed == 0
    other("GET", "k")
    assert other.waits_for == 1
    net.heal()
    net.advance(3000)
    assert primary.store.committed == 1
    assert not given_up(primary)
    client("SET", "k", "w")
    net.cut(primary, replica)
    net.settle()
    assert primary.store.committed == 2, "the next write asks for nothing"


def test_acks_that_are_not_met_in_time_are_in_doubt_before_anybody_reads_the_write(
    net: Net,
) -> None:
    primary = net.world("a")
    replica = net.world("b", "a")
    net.settle()
    net.cut(primary, replica)
    client = primary.client()
    client("ACKS", "1", "RECEIVED", "TIMEOUT", "250")
    client("SET", "k", "v")
    order: list[str] = []
    shell = primary.node.replication.shell
    assert isinstance(shell, NetShell)
    shell.give_up = lambda first, last: order.append(f"given up {first} {last}")  # type: ignore[method-assign]
    shell.committed = lambda: order.append("committed")  # type: ignore[method-assign]
    net.settle()
    primary.machine.advance(300)
    net.settle()
    assert order == ["given up 1 1", "committed"]
    assert primary.store.committed == 1


def test_l2_a_group_that_is_committed_right_behind_the_write_does_not_take_it_along(
    net: Net,
) -> None:
    primary = net.world("a")
    replica = net.world("b", "a")
    net.settle()
    net.cut(primary, replica)
    store = primary.store

    def append_and_commit(changes: list[Change]) -> int:
        """As if the sync thread ran in between."""
        position = store.append(changes)
        group = store.take_group()
        assert group is not None
        group.write()
        store.complete(group, None)
        return position

    primary.node._append = append_and_commit
    client = primary.client()
    client("ACKS", "1")
    client("SET", "k", "v")
    assert (store.commit.durable, store.committed) == (1, 0)


def test_acks_beyond_the_replicas_there_are_is_refused_up_front(net: Net) -> None:
    primary = net.world("a")
    client = primary.client()
    client("ACKS", "1")
    assert client.error("SET", "k", "v").startswith("NOREPLICAS")
    assert primary.store.last == 0
    assert client("SET", "k", "v") == OK, "the refusal used it up"


def test_acks_waits_for_exec(net: Net) -> None:
    primary = net.world("a")
    net.world("b", "a")
    net.settle()
    client = primary.client()
    client("ACKS", "1")
    client("MULTI")
    client("SET", "k", "v")
    assert client.session.acks is not None
    client("EXEC")
    assert client.session.acks is None
    assert primary.store.committed == 0
    net.settle()
    assert primary.store.committed == 1


@pytest.mark.parametrize(
    "words", [("-1",), ("1001",), ("x",), ("1", "MAYBE"), ("1", "TIMEOUT"), ("1", "TIMEOUT", "-1")]
)
def test_acks_refuses_what_is_no_level(net: Net, words: tuple[str, ...]) -> None:
    client = net.world("a").client()
    assert client.error("ACKS", *words).startswith("ERR")
    assert client.session.acks is None


def test_wait_and_waitaof_count_replicas(net: Net) -> None:
    primary = net.world("a")
    client = primary.client()
    client("SET", "k", "v")
    net.settle()
    assert client("WAIT", "1", "100") is PENDING
    net.advance(200)
    assert client.result() == 0
    replica = net.world("b", "a")
    net.settle()
    assert client("WAIT", "1", "100") == 1
    assert client("WAITAOF", "1", "1", "100") == [1, 1]
    assert client("WAIT", "0", "100") == 1
    net.cut(primary, replica)
    client("SET", "k", "w")
    assert client("WAIT", "1", "100") is PENDING
    net.advance(200)
    assert client.result() == 0
    net.heal()
    net.advance(3000)
    assert client("WAIT", "1", "100") == 1


def test_wait_on_a_replica_is_refused(net: Net) -> None:
    net.world("a")
    client = net.world("b", "a").client()
    net.settle()
    assert client.error("WAIT", "1", "0") == "ERR WAIT cannot be used with replica instances"


def test_a_wait_can_be_unblocked(net: Net) -> None:
    primary = net.world("a")
    client, admin = primary.client(), primary.client()
    client("SET", "k", "v")
    client("WAIT", "1", "0")
    assert admin("CLIENT", "UNBLOCK", str(client.session.id)) == 1
    assert client.result() == 0


# -- positions -------------------------------------------------------------------------------------


def test_p9_a_position_makes_a_replica_wait_until_it_is_as_fresh(net: Net) -> None:
    primary = net.world("a")
    replica = net.world("b", "a")
    net.settle()
    net.cut(primary, replica)
    client = primary.client()
    client("SET", "k", "v")
    net.settle()
    epoch, sequence = client("POSITION")
    reader = replica.client()
    assert reader("WAITPOS", f"{epoch}-{sequence}", "50000") is PENDING
    net.heal()
    net.advance(3000)
    assert reader.result() == 1
    assert told(reader, "GET", "k") == b"v"


def test_a_position_that_does_not_come_in_time_is_0(net: Net) -> None:
    world = net.world("a")
    client = world.client()
    assert client("WAITPOS", "1-1", "100") is PENDING
    net.advance(300)
    assert client.result() == 0
    assert client("WAITPOS", "1-0", "100") == 1


def test_a_position_that_was_lost_with_a_primary_is_refused_by_name(net: Net) -> None:
    old = net.world("a")
    new = net.world("b", "a")
    net.settle()
    old.client()("SET", "k", "common")
    net.settle()
    net.cut(old, new)
    old.client()("SET", "k", "lost")
    net.settle()
    new.client()("REPLICAOF", "NO", "ONE")
    net.settle()
    client = new.client()
    client("SET", "k", "new")
    net.settle()
    client("WAITPOS", "1-1", "100")
    assert client.result() == 1, "what both have"
    client("WAITPOS", "1-2", "100")
    assert client.result().text.startswith("NOPOSITION 1-2 is of a history")
    assert client("WAITPOS", "2-2", "100") == 1


def test_a_position_is_not_taken_for_a_deposed_primarys_of_the_same_number(net: Net) -> None:
    old = net.world("a")
    old.client()("SET", "k", "common")
    new = net.world("b", "a")
    net.settle()
    net.cut(old, new)
    old.client()("SET", "k", "lost")
    net.settle()
    new.client()("REPLICAOF", "NO", "ONE")
    new.client()("SET", "k", "kept")
    net.settle()
    old.client()("REPLICAOF", "b", "1001")
    net.settle()
    reader = old.client()
    assert told(reader, "GET", "k") == b"lost", "the two cannot talk yet"
    assert reader("WAITPOS", "2-2", "60000") is PENDING
    old.store.raise_epoch(2)  # as the new primary asks first of all
    old.node.replication.epoch_changed()
    second = old.client()
    assert second("WAITPOS", "2-2", "60000") is PENDING
    assert reader.result() is PENDING
    net.heal()
    net.advance(12_000)
    assert reader.result() == second.result() == 1
    assert told(reader, "GET", "k") == b"kept"


def test_a_replica_that_hears_of_nobody_tells_of_positions_it_surely_has(net: Net) -> None:
    primary = net.world("a")
    primary.client()("SET", "k", "v")
    net.world("b", "a")
    net.settle()
    net.stop("a")
    replica = net.restart("b")
    net.settle()
    client = replica.client()
    client("WAITPOS", "1-1", "100")
    assert client.result() == 1
    assert told(client, "GET", "k") == b"v"


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "1-x", "1 -1", "99999999999999999999-1"])
def test_what_is_no_position_is_refused(net: Net, text: str) -> None:
    assert net.world("a").client().error("WAITPOS", text, "1").startswith("ERR a position")


# -- who may connect -------------------------------------------------------------------------------


def test_a_server_pointed_at_itself_says_so_and_stays_as_it_is(net: Net) -> None:
    world = net.world("a")
    world.client()("SET", "k", "v")
    net.settle()
    world.client()("REPLICAOF", "a", "1000")
    net.settle()
    assert state(world).startswith("SELF: a server cannot be its own replica")
    assert told(world.client(), "GET", "k") == b"v"


def test_a_store_of_another_origin_is_refused_and_keeps_its_data(net: Net) -> None:
    net.world("a").client()("SET", "k", "a")
    other = net.world("b")
    other.client()("SET", "k", "b")
    net.settle()
    other.client()("REPLICAOF", "a", "1000")
    net.settle()
    assert state(other).startswith("FOREIGN_STORE")
    assert told(other.client(), "GET", "k") == b"b"
    other.client()("REPLICAOF", "NO", "ONE")
    net.settle()
    assert other.client()("SET", "k", "c") == OK


KEPT = hash_password(b"sesame", bytes(16))


@pytest.mark.parametrize(
    ("own", "given", "trouble"),
    [
        (KEPT, b"sesame", ""),
        (KEPT, b"wrong", "WRONG_PASSWORD"),
        (KEPT, b"", "WRONG_PASSWORD"),
        ("", b"sesame", "WRONG_PASSWORD"),
    ],
)
def test_both_ends_have_to_know_the_password(
    net: Net, own: str, given: bytes, trouble: str
) -> None:
    primary = net.world("a", settings=Settings(password_hash=own))
    session = primary.client()
    primary.node.logins.accept(session.session)
    session("SET", "k", "v")
    settings = Settings(replication=ReplicationSettings(password=given))
    replica = net.world("b", "a", settings=settings)
    net.settle()
    net.advance(1200)
    assert state(replica).partition(":")[0] == (trouble or "STREAMING")
    assert (rows(replica) == rows(primary)) is not bool(trouble)


def test_the_secret_of_a_password_is_derived_with_our_costs_only() -> None:
    parameters, digest = secret_of(KEPT)
    assert digest_of(b"sesame", parameters) == digest
    for strange in (b"", b"scrypt$20$8$1$AAAA", parameters + b"$", parameters.replace(b"14", b"4")):
        with pytest.raises(InvalidArgument):
            digest_of(b"sesame", strange)


def test_more_replicas_than_are_taken_are_refused(net: Net) -> None:
    net.world("a", max_replicas=1).client()("SET", "k", "v")
    net.world("b", "a")
    net.settle()
    late = net.world("c", "a")
    net.settle()
    assert state(late).startswith("BUSY: 1 replicas are connected, as many as are taken")


def test_a_replica_has_one_link(net: Net) -> None:
    primary = net.world("a")
    primary.client()("SET", "k", "v")
    replica = net.world("b", "a")
    net.settle()
    (first,) = primary.node.replication.downlinks
    for wire in net.wires:  # the replica has lost its connection and the primary does not know
        if wire.host is replica:
            wire.lost()
            wire.is_open = False
    net.advance(500)
    assert state(replica) == "STREAMING"
    (second,) = primary.node.replication.downlinks
    assert second is not first
    assert primary.node.replication.levels.replicas == 1
    assert list(primary.store.history.stats()["followers"]) == [second.name]


# -- what it tells ---------------------------------------------------------------------------------


def info(world: World) -> dict[str, str]:
    text = world.client()("INFO", "replication").data.decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def test_role_and_info_tell_who_is_who(net: Net) -> None:
    primary = net.world("a")
    primary.client()("SET", "k", "v")
    replica = net.world("b", "a")
    net.settle()
    net.advance(100)
    assert primary.client()("ROLE") == [b"master", 1, [[b"b", b"7379", b"1"]]]
    assert replica.client()("ROLE") == [b"slave", b"a", 1000, b"connected", 1]
    found = info(primary)
    assert (found["role"], found["connected_slaves"]) == ("master", "1")
    assert found["slave0"].startswith("ip=b,port=7379,state=online,offset=1,lag=0,")
    found = info(replica)
    assert (found["role"], found["master_link_status"]) == ("slave", "up")
    assert (found["master_host"], found["master_port"]) == ("a", "1000")
    assert found["primary_address"] == "resp=a:7379 http=a:7380"


def test_lag_is_told_in_positions_bytes_and_seconds(net: Net) -> None:
    primary = net.world("a")
    replica = net.world("b", "a")
    net.settle()
    primary.client()("SET", "k", "v")
    net.settle()
    net.cut(primary, replica)
    for number in range(5):
        primary.client()("SET", f"k{number}", "x" * 100)
    net.settle()
    net.advance(2000)
    fields = dict(part.split("=") for part in info(primary)["slave0"].split(","))
    assert fields["lag_positions"] == "5"
    assert int(fields["lag_bytes"]) >= 500
    assert 1.9 <= float(fields["lag_seconds"]) < 5.0


def test_a_link_that_is_down_says_why(net: Net) -> None:
    replica = net.world("b", "z")
    net.settle()
    found = info(replica)
    assert found["master_link_status"] == "down"
    assert found["link_trouble"] == "cannot connect: Connection refused"


def test_config_tells_min_acks_and_does_not_change_it(net: Net) -> None:
    client = net.world("a", min_acks=2).client()
    assert client("CONFIG", "GET", "min-replicas-to-write") == {b"min-replicas-to-write": b"2"}
    assert "set --min-acks" in client.error("CONFIG", "SET", "min-replicas-to-write", "0")
