"""Several sessions at once against a small model: MULTI, WATCH, SELECT, pub/sub, expiry, crashes.

The model holds plain dicts and recomputes everything; the node has fast paths, shared views,
batches and registries. More examples: MARRAM_EXAMPLES=1000.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from marram.protocol.replies import NULL_ARRAY, OK, QUEUED, ErrorReply
from marram.storage.entry import entry_of, is_expired
from marram.storage.options import Options
from marram.storage.store import Store
from tests.node.harness import ENGINES, Client, World

SESSIONS = 3
KEYS = ["a", "b", "c"]
CHANNELS = ["one", "two"]

who = st.integers(0, SESSIONS - 1)
keys = st.sampled_from(KEYS)
values = st.sampled_from(["1", "5", "text"])
commands = st.one_of(
    st.tuples(st.just("GET"), keys),
    st.tuples(st.just("SET"), keys, values),
    st.tuples(st.just("SETEX"), keys, st.sampled_from(["1", "100"]), values),
    st.tuples(st.just("DEL"), keys),
    st.tuples(st.just("INCR"), keys),
    st.tuples(st.just("APPEND"), keys, values),
    st.tuples(st.just("PERSIST"), keys),
    st.tuples(st.just("MGET"), keys, keys),
    st.tuples(st.just("SELECT"), st.sampled_from(["0", "1"])),
    st.tuples(st.just("SWAPDB"), st.just("0"), st.just("1")),
    st.tuples(st.just("FLUSHDB")),
    st.tuples(st.just("PUBLISH"), st.sampled_from(CHANNELS), values),
)


@dataclass
class Held:
    value: bytes
    deadline_ms: int = 0


@dataclass
class ModelSession:
    database: int = 0
    queue: list[tuple[str, ...]] | None = None
    watched: dict[tuple[int, str], int] = field(default_factory=dict)  # with the deadline seen
    touched: bool = False
    channels: set[str] = field(default_factory=set)
    messages: list[list[bytes]] = field(default_factory=list)


ERROR = object()


class Model:
    """What marram should do, at its plainest."""

    def __init__(self) -> None:
        self.databases: list[dict[str, Held]] = [{}, {}]
        self.sessions = [ModelSession() for _ in range(SESSIONS)]
        self.now_ms = 0

    def live(self, database: int, key: str) -> Held | None:
        held = self.databases[database].get(key)
        return None if held is None or 0 < held.deadline_ms <= self.now_ms else held

    def touch(self, database: int, key: str) -> None:
        for session in self.sessions:
            if (database, key) in session.watched:
                session.touched = True

    def put(self, database: int, key: str, value: bytes, deadline_ms: int) -> None:
        self.databases[database][key] = Held(value, deadline_ms)
        self.touch(database, key)

    def run(self, session: ModelSession, command: tuple[str, ...]) -> Any:
        name, *args = command
        return getattr(self, "do_" + name.lower())(session, *args)

    def do_get(self, session: ModelSession, key: str) -> Any:
        held = self.live(session.database, key)
        return None if held is None else held.value

    def do_mget(self, session: ModelSession, *names: str) -> Any:
        return [self.do_get(session, key) for key in names]

    def do_set(self, session: ModelSession, key: str, value: str) -> Any:
        self.put(session.database, key, value.encode(), 0)
        return OK

    def do_setex(self, session: ModelSession, key: str, seconds: str, value: str) -> Any:
        self.put(session.database, key, value.encode(), self.now_ms + 1000 * int(seconds))
        return OK

    def do_del(self, session: ModelSession, key: str) -> Any:
        if self.live(session.database, key) is None:
            return 0
        del self.databases[session.database][key]
        self.touch(session.database, key)
        return 1

    def do_incr(self, session: ModelSession, key: str) -> Any:
        held = self.live(session.database, key) or Held(b"0")
        if not held.value.isdigit() or held.value != str(int(held.value)).encode():
            return ERROR
        number = int(held.value) + 1
        self.put(session.database, key, str(number).encode(), held.deadline_ms)
        return number

    def do_append(self, session: ModelSession, key: str, value: str) -> Any:
        held = self.live(session.database, key) or Held(b"")
        self.put(session.database, key, held.value + value.encode(), held.deadline_ms)
        return len(held.value) + len(value)

    def do_persist(self, session: ModelSession, key: str) -> Any:
        held = self.live(session.database, key)
        if held is None or not held.deadline_ms:
            return 0
        self.put(session.database, key, held.value, 0)
        return 1

    def do_select(self, session: ModelSession, database: str) -> Any:
        session.database = int(database)
        return OK

    def do_swapdb(self, session: ModelSession, *_: str) -> Any:
        for database in (0, 1):
            for key in KEYS:
                if self.live(0, key) is not None or self.live(1, key) is not None:
                    self.touch(database, key)
        self.databases.reverse()
        return OK

    def do_flushdb(self, session: ModelSession) -> Any:
        for key in KEYS:
            if self.live(session.database, key) is not None:
                self.touch(session.database, key)
        self.databases[session.database] = {}
        return OK

    def do_publish(self, session: ModelSession, channel: str, message: str) -> Any:
        listeners = [other for other in self.sessions if channel in other.channels]
        for other in listeners:
            other.messages.append([b"message", channel.encode(), message.encode()])
        return len(listeners)

    def end(self, session: ModelSession) -> None:
        session.queue = None
        session.watched = {}
        session.touched = False


class Sessions(RuleBasedStateMachine):
    engine = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.world = World(**ENGINES[self.engine])
        self.model = Model()
        self.clients = [self.world.client(protocol=3) for _ in range(SESSIONS)]
        self.model.now_ms = self.world.store.now_ms()
        self.revealed = 0  # the newest position that a reply let through

    def pair(self, index: int) -> tuple[Client, ModelSession]:
        return self.clients[index], self.model.sessions[index]

    def compare(self, client: Client, reply: Any, expected: Any) -> None:
        if expected is ERROR:
            assert isinstance(reply, ErrorReply)
        elif isinstance(expected, list):
            assert isinstance(reply, list)
            assert len(reply) == len(expected)
            for one, other in zip(reply, expected, strict=True):
                self.compare(client, one, other)
        else:
            assert reply == expected

    @rule(index=who, command=commands)
    def run_a_command(self, index: int, command: tuple[str, ...]) -> None:
        command = (command,) if isinstance(command, str) else command
        client, session = self.pair(index)
        reply = client(*command)
        if session.queue is not None:
            assert reply is QUEUED
            session.queue.append(command)
        else:
            last = self.world.store.last
            self.compare(client, reply, self.model.run(session, command))
            assert client.waits_for <= last

    @rule(index=who)
    def multi(self, index: int) -> None:
        client, session = self.pair(index)
        if session.queue is None:
            assert client("MULTI") is OK
            session.queue = []
        else:
            assert client.error("MULTI") == "ERR MULTI calls can not be nested"

    @precondition(lambda self: any(s.queue is not None for s in self.model.sessions))
    @rule(index=who)
    def exec_(self, index: int) -> None:
        client, session = self.pair(index)
        before = self.world.store.last
        if session.queue is None:
            assert client.error("EXEC") == "ERR EXEC without MULTI"
            return
        reply = client("EXEC")
        assert self.world.store.last <= before + 1, "one batch"
        queue = session.queue
        expired = any(0 < at <= self.model.now_ms for at in session.watched.values())
        spoiled = session.touched or expired
        self.model.end(session)
        if spoiled:
            assert reply is NULL_ARRAY
        else:
            self.compare(client, reply, [self.model.run(session, command) for command in queue])

    @rule(index=who)
    def discard(self, index: int) -> None:
        client, session = self.pair(index)
        if session.queue is not None:
            assert client("DISCARD") is OK
            self.model.end(session)

    @rule(index=who, watched=st.sets(keys, min_size=1))
    def watch(self, index: int, watched: set[str]) -> None:
        client, session = self.pair(index)
        if session.queue is not None:
            return
        assert client("WATCH", *sorted(watched)) is OK
        for key in watched:
            held = self.model.live(session.database, key)
            deadline_ms = 0 if held is None else held.deadline_ms
            session.watched.setdefault((session.database, key), deadline_ms)

    @rule(index=who)
    def unwatch(self, index: int) -> None:
        client, session = self.pair(index)
        if session.queue is None:
            assert client("UNWATCH") is OK
            self.model.end(session)

    @rule(index=who, channel=st.sampled_from(CHANNELS), join=st.booleans())
    def subscribe(self, index: int, channel: str, join: bool) -> None:
        client, session = self.pair(index)
        if session.queue is not None:
            return
        client("SUBSCRIBE" if join else "UNSUBSCRIBE", channel)
        (session.channels.add if join else session.channels.discard)(channel)

    @rule(index=who)
    def reset(self, index: int) -> None:
        client, session = self.pair(index)
        client("RESET")
        client("HELLO", "3")
        self.model.end(session)
        session.database = 0
        session.channels = set()

    @rule(index=who)
    def reconnect(self, index: int) -> None:
        client, session = self.pair(index)
        self.take_messages(client, session)
        client.close()
        self.clients[index] = self.world.client(protocol=3)
        self.model.sessions[index] = ModelSession()

    @rule(ms=st.sampled_from([1, 500, 1001]), tick=st.booleans())
    def time_passes(self, ms: int, tick: bool) -> None:
        self.world.machine.advance(ms)
        self.model.now_ms = self.world.store.now_ms()
        if tick:
            self.world.node.tick()

    @rule()
    def commit(self) -> None:
        self.world.settle()

    @rule(survival=st.sampled_from([0.0, 0.5, 1.0]), seed=st.integers(0, 1000))
    def what_a_crash_would_leave_is_what_was_committed(self, survival: float, seed: int) -> None:
        if self.world.store.unsettled:
            return
        clone = self.world.machine.crash_clone(survival, seed)
        store = Store.open("/data", clone, Options())
        now_ms = self.world.store.now_ms()
        for database in (0, 1):
            space = store.engine.spaces[database]
            for key in KEYS:
                held = space.get(key.encode())
                value = None if held is None or is_expired(held, now_ms) else entry_of(held).value
                wanted = self.model.live(database, key)
                assert value == (None if wanted is None else wanted.value)
        store.close()

    @invariant()
    def messages_arrive(self) -> None:
        for client, session in zip(self.clients, self.model.sessions, strict=True):
            self.take_messages(client, session)

    @invariant()
    def registries_agree(self) -> None:
        node = self.world.node
        node.channels._check()
        watched = {place for client in self.clients for place in client.session.watched}
        assert set(node.transactions.watches.by_key) == watched
        assert node.transactions.execution is None
        assert not self.world.store.lock.locked()
        for space in self.world.store.engine.spaces[:2]:
            if self.engine == "memory":
                space._check()

    def take_messages(self, client: Client, session: ModelSession) -> None:
        items = [message.items for message in client.messages]
        client.messages.clear()
        assert [one for one in items if one[0] == b"message"] == session.messages
        session.messages.clear()

    def teardown(self) -> None:
        self.world.close()


Sessions.TestCase.settings = settings(
    max_examples=int(os.environ.get("MARRAM_EXAMPLES", "80")),
    stateful_step_count=50,
    deadline=None,
)
TestSessions = Sessions.TestCase


class SessionsOnLsm(Sessions):
    engine = "lsm"


SessionsOnLsm.TestCase.settings = settings(
    max_examples=int(os.environ.get("MARRAM_EXAMPLES", "30")),
    stateful_step_count=50,
    deadline=None,
)
TestSessionsOnLsm = SessionsOnLsm.TestCase
