"""A primary and two replicas, clients, an operator and bad luck, from one seed; and what must hold.

    W1  a replica's history is at all times one that a primary of its epoch wrote and made durable.
    W2  a write that is acknowledged has reached its ack level: so many other disks have it.
    W3  a reader sees only writes that have reached theirs, on the primary and on replicas.
    W4  with a careful operator and an ack level of one disk or more, no acknowledged write is lost,
        nor one that was read, though one node is lost for ever.
    W5  when all is well again, all nodes come to the same batches, chain and rows, and a primary
        takes writes.
    W6  a node comes back from a power cut with all that was durable, and raised epochs stay raised.

A *careful* operator fails over as docs/protocols/replication.md says; a careless one promotes
anybody at any time, and then W4 does not hold, but all else does.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from marram.coding.batch import delete, encode, put
from marram.env.memory import MemoryEnv
from marram.replication.acks import Level
from marram.replication.messages import Batches, Mark
from marram.replication.primary import Feed
from marram.replication.replica import Follower
from marram.storage.options import Options
from tests.replication.model_store import START, Disk, ModelStore
from tests.replication.network import MS, Loop, Network, Weather
from tests.replication.real_store import RealStore
from tests.replication.shell import Node

NAMES = ("a", "b", "c")
KEYS = [b"k%d" % number for number in range(6)]
TROUBLE_NS = 1_200 * MS  # how long the trouble lasts
CALM_NS = 30_000 * MS  # how long they may take to agree afterwards


@dataclass(eq=False)
class Op:
    """A client's write. level: replicas it needs, and what they have to have done."""

    number: int
    origin: str
    need: int
    level: Level
    mark: Mark = START
    outcome: str = "open"  # acked, unknown
    was_read: bool = False


class World:
    """One history. engine: of real stores; None for the model. follower, feed, store_class: what
    tests replace to plant bugs; checks_epochs: look at a raised epoch after a power cut, and not
    only at what follows from it.
    """

    def __init__(
        self,
        seed: int,
        *,
        follower: Callable[..., Follower] = Follower,
        feed: Callable[..., Feed] = Feed,
        store_class: type[ModelStore] = ModelStore,
        engine: str | None = None,
        checks_epochs: bool = True,
    ) -> None:
        self.seed = seed
        self.rng = rng = random.Random(seed)
        self.follower = follower
        self.feed = feed
        self.checks_epochs = checks_epochs
        self.store_class = store_class
        self.loop = Loop()
        self.network = Network(self.loop, rng, through_codec=rng.random() < 0.25)
        self.counts: Counter[str] = Counter()
        self.parent: dict[Mark, Mark] = {}
        self.holders: defaultdict[Mark, set[str]] = defaultdict(set)  # nodes that had it on disk
        self.havers: defaultdict[Mark, set[str]] = defaultdict(set)  # nodes that had applied it
        self.epochs: dict[str, int] = {}  # that were raised durably
        self.ops: list[Op] = []
        self.is_chain = rng.random() < 0.25
        self.need = rng.choice((0, 1, 1) if self.is_chain else (0, 1, 1, 1, 2))
        self.level = rng.choice((Level.ON_DISK, Level.ON_DISK, Level.RECEIVED))
        self.holds = rng.random() < 0.4  # whether writes ask for levels of their own
        self.careful = rng.random() < 0.7
        self.retention = rng.choice((0, 3, 12, 50))  # batches that checkpoints keep
        self.is_throttled = rng.random() < 0.2
        self.lost: str | None = None  # the node that is gone for ever
        self._fresh = 0
        self._epoch = 1
        self._failing_over = False
        self.current = "a"  # who is, or is to be, the primary
        self.nodes = {name: Node(self, name) for name in NAMES}
        self.options = Options(
            engine=engine, checkpoint_log_bytes=0, memtable_bytes=64 << 10,
            replica_log_bytes=rng.choice((0, 400, 2000, 1 << 20)),
        )  # fmt: skip
        for name, node in self.nodes.items():
            if engine is None:
                node.disk = Disk(name.encode().ljust(16, b"*"))
            else:
                node.disk = MemoryEnv(seed=ord(name))
            node.is_primary = name == "a"
            node.upstream = None if name == "a" else "b" if self.is_chain and name == "c" else "a"

    # -- what the shells ask for -------------------------------------------------------------------

    def fresh(self) -> int:
        self._fresh += 1
        return self._fresh

    def nonce(self) -> bytes:
        return b"nonce-%010d" % self.fresh()

    def sync_ns(self) -> int:
        return int(self.rng.random() * 3 * MS) + MS // 10

    def open_store(self, node: Node) -> Any:
        if self.options.engine is None:
            return self.store_class(node.disk, lambda: self.loop.now_ns // MS)
        return RealStore(node.disk, self.options)

    def crash_disk(self, node: Node, survival: float) -> Any:
        return node.store.crash(self.rng, survival, node.group)

    def time_ms(self, store: Any) -> int:
        return self.loop.now_ns // MS if self.options.engine is None else store.store.now_ms()

    def hear_time(self, store: Any, time_ms: int) -> None:
        if self.options.engine is not None:
            store.store.clock.hear(time_ms)

    def note_sent(self, message: Any) -> None:
        if isinstance(message, Batches):
            self.counts["batches"] += 1

    def note_end(self, why: str) -> None:
        self.counts[f"end: {why.partition(':')[0]}"] += 1

    # -- the ledger and the checks -----------------------------------------------------------------

    def appended(self, node: Node, changes: list[Any]) -> Mark:
        """A primary appended a batch: the only way a mark comes into the world."""
        payload = encode(changes)
        tip = node.tip
        mark = Mark(node.store.epoch, tip.sequence + 1, zlib.crc32(payload, tip.chain))
        self.parent.setdefault(mark, tip)
        return mark

    def check_prefix(self, node: Node, tip: Mark) -> None:
        """W1: somebody has it on disk, so a primary wrote it, and synced it before it sent it."""
        assert tip == START or self.holders[tip], f"{node.name} has {tip}, which no disk has"

    def check_recovered(self, node: Node) -> None:
        """W6."""
        newest = node.store.newest()
        assert newest.sequence == node.store.last
        assert newest == START or newest in self.parent, f"{node.name} recovered {newest}"
        if node.safe.sequence <= newest.sequence:
            found = node.store.mark(node.safe.sequence)
            assert found in (None, node.safe), f"{node.name} lost {node.safe}: {found}"
        else:
            raise AssertionError(f"{node.name} lost {node.safe}: it has {newest}")
        assert node.store.epoch >= self.epochs.get(node.name, 0) or not self.checks_epochs
        node.marks = {START.sequence: START}
        node.remember(newest)
        node.made_safe()

    def check_level(self, op: Op, what: str, *, own: bool = True) -> None:
        """W2, W3: the write has reached its ack level. own: also the one it asked for itself."""
        held = self.holders[op.mark] | self.havers[op.mark]
        disks = self.holders[op.mark] - {op.origin}
        assert self.holders[op.mark], f"write {op.number} {what}, and no disk has it"
        for need, level in ((self.need, self.level), (op.need if own else 0, op.level)):
            have = disks if level is Level.ON_DISK else held - {op.origin}
            assert len(have) >= need, f"write {op.number} {what}; {need} {level.name}: {have}"

    def replied(self, op: Op, known: bool) -> None:
        if known:
            self.check_level(op, "was acknowledged")
            self.counts["acked"] += 1
        else:
            op.need = 0  # it is told so: from now on it counts as any other
        op.outcome = "acked" if known else "unknown"

    def was_read(self, node: Node, value: bytes | None) -> None:
        if value is None:
            return
        op = self.ops[int(value.split(b":")[0])]
        # What a write asked for itself, no other primary knows of: it ends with the reign.
        reign = node.name if node.is_primary else node.uplink and node.uplink.follower.primary
        self.check_level(op, f"was read at {node.name}", own=reign == op.origin)
        op.was_read = True
        self.counts["read on a primary" if node.is_primary else "read on a replica"] += 1

    # -- what happens ------------------------------------------------------------------------------

    def run(self) -> None:
        """The whole history, and its end."""
        rng, loop = self.rng, self.loop
        for node in self.nodes.values():
            node.start()
        trouble_from = loop.now_ns
        self.draw_weather()
        until = trouble_from + TROUBLE_NS
        while loop.now_ns < until:
            pause_ns = int(rng.random() * 40 * MS)
            loop.run_until(loop.now_ns + pause_ns)
            if self.options.engine is not None:
                for node in self.live():  # a node's clock stands while it is down
                    node.store.env.advance(pause_ns // MS)
            self.happen()
        self.calm()

    def draw_weather(self) -> None:
        rng = self.rng
        kind = rng.random()
        if kind < 0.4:
            self.network.weather = Weather(rng.choice((1, 5, 20)))
        else:
            self.network.weather = Weather(
                rng.choice((1, 5, 20)),
                rng.choice((0.0, 0.01, 0.05)),
                rng.choice((0.0, 0.01, 0.05)),
                rng.choice((0.0, 0.01, 0.1)),
            )

    def happen(self) -> None:
        name = self.rng.choices(
            ("writes", "reads", "crash", "start", "pause", "cut", "mend", "checkpoint", "operate",
             "lose", "weather", "fill"),
            (30, 14, 4, 8, 3, 4, 6, 6, 3, 0.7, 1, 1),
        )[0]  # fmt: skip
        getattr(self, f"do_{name}")()

    def live(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.alive]

    def do_writes(self) -> None:
        primaries = [node for node in self.live() if node.is_primary and not node.paused]
        for _ in range(self.rng.randrange(1, 6)):
            if primaries:
                self.write(self.rng.choice(primaries))

    def write(self, node: Node) -> Op | None:
        rng = self.rng
        hold = None
        if self.holds and rng.random() < 0.5:
            hold = (rng.choice((1, 1, 2)), rng.choice((Level.ON_DISK, Level.RECEIVED)))
        need, level = hold or (0, Level.ON_DISK)
        op = Op(len(self.ops), node.name, need, level)
        value = b"%d:" % op.number + b"x" * rng.choice((0, 10, 60, 400))
        deadline_ms = rng.choice((0, 0, 0, 1_700_000_000_500, 1 << 50))
        changes = [put(0, rng.choice(KEYS), value, deadline_ms)]
        if rng.random() < 0.2:
            changes.append(delete(0, rng.choice(KEYS)))
        self.ops.append(op)
        mark = node.write(changes, lambda known: self.replied(op, known), hold)
        if mark is None:
            op.outcome = "refused"
            return None
        op.mark = mark
        return op

    def do_reads(self) -> None:
        for node in self.live():
            if not node.paused:
                key = self.rng.choice(KEYS)
                node.read(key, lambda value, node=node: self.was_read(node, value))

    def do_crash(self) -> None:
        nodes = self.live()
        if nodes:
            node = self.rng.choice(nodes)
            node.crash(self.rng.choice((0.0, 0.5, 1.0)))
            self.counts["crash"] += 1
            delay = int(self.rng.random() * 200 * MS)
            self.loop.at(self.loop.now_ns + delay, lambda: self.start(node))

    def start(self, node: Node) -> None:
        if not node.alive and node.name != self.lost:
            node.start()

    def do_start(self) -> None:
        for node in self.nodes.values():
            self.start(node)

    def do_pause(self) -> None:
        for node in self.live():
            if not node.paused and self.rng.random() < 0.4:
                node.paused = True
                life = node.incarnation
                wake = self.loop.now_ns + int(self.rng.random() * 500 * MS)
                self.loop.at(wake, lambda node=node, life=life: self.wake(node, life))
                self.counts["pause"] += 1

    def wake(self, node: Node, life: int) -> None:
        if node.alive and node.paused and node.incarnation == life:
            node.resume()

    def do_cut(self) -> None:
        one, other = self.rng.sample(NAMES, 2)
        self.network.cut.add((one, other))
        if self.rng.random() < 0.6:
            self.network.cut.add((other, one))
        self.counts["cut"] += 1

    def do_mend(self) -> None:
        self.network.cut.clear()

    def do_checkpoint(self) -> None:
        for node in self.live():
            if self.rng.random() < 0.6:
                node.flush()
                node.store.checkpoint(self.retention)

    def do_weather(self) -> None:
        self.draw_weather()

    def do_fill(self) -> None:
        """A disk is full for a while: a replica cannot take anything over."""
        node = self.rng.choice(list(self.nodes.values()))
        node.full_until_ns = self.loop.now_ns + int(self.rng.random() * 200 * MS)

    def do_lose(self) -> None:
        """A node is lost for ever, once a history."""
        if self.lost is None and self.rng.random() < 0.5:
            node = self.rng.choice(list(self.nodes.values()))
            self.lost = node.name
            if node.alive:
                node.crash(0.0)
            self.counts["lost for ever"] += 1

    # -- the operator ------------------------------------------------------------------------------

    def next_epoch(self) -> int:
        self._epoch += 1
        return self._epoch

    def do_operate(self) -> None:
        if not self.careful:
            nodes = [node for node in self.live() if not node.paused and node.store.last]
            if nodes and self.rng.random() < 0.7:
                node = self.rng.choice(nodes)
                node.promote(node.store.epoch + 1)
                self.current = node.name
            else:
                self.point_at_current()
        elif self.rng.random() < 0.6:
            self.fail_over(until_ns=self.loop.now_ns + 400 * MS)
        else:
            self.point_at_current()

    def point_at_current(self) -> None:
        """All others follow the primary, in a star or a chain."""
        current = self.nodes[self.current]
        others = [n for n in self.nodes.values() if n is not current and n.name != self.lost]
        if self._failing_over or not current.is_primary:
            return
        for index, node in enumerate(others):
            in_chain = self.is_chain and index == 1
            node.follow(others[0].name if in_chain else self.current)

    def fail_over(self, until_ns: int) -> None:
        """Have all but one listen to the primary no more, see what they have, promote the best.

        They are told an epoch above its own, or to follow each other.

        The one that is left out is the primary, which may be alive, and go on; or it is the node
        that is lost. One more missing might be the only one that has some acknowledged write.
        """
        if self._failing_over:
            return
        missing = self.lost or (self.current if self.rng.random() < 0.7 else "")
        fenced = [node for node in self.nodes.values() if node.name != missing]
        if any(not node.alive or node.paused for node in fenced):
            return
        self._failing_over = True
        self.counts["failover"] += 1
        epoch = self.next_epoch()
        points_around = self.rng.random() < 0.4
        for index, node in enumerate(fenced):
            if points_around:
                node.follow(fenced[index - 1].name)
            else:
                # Not a change of its configuration: after a crash it follows whom it followed.
                configured = self.current if node.is_primary else node.upstream
                node.follow(None)
                node.upstream = configured
                node.raise_epoch(epoch)
            if self.rng.random() < 0.3:
                node.crash(self.rng.choice((0.0, 1.0)))
                later = self.loop.now_ns + int(self.rng.random() * 20 * MS)
                self.loop.at(later, lambda node=node: self.start(node))
        self.loop.at(self.loop.now_ns + 30 * MS, lambda: self.choose(fenced, epoch, until_ns))

    def choose(self, fenced: list[Node], epoch: int, until_ns: int) -> None:
        """Promote the best of the fenced, once all of them are there and nothing is on its way."""
        if not self._failing_over:
            return
        if any(not n.alive or n.paused or n.store.durable < n.store.last for n in fenced):
            if self.loop.now_ns > until_ns:
                self._failing_over = False
                return
            for node in fenced:
                if node.alive and not node.paused:
                    node.kick()
            later = self.loop.now_ns + 10 * MS
            self.loop.at(later, lambda: self.choose(fenced, epoch, until_ns))
            return
        best = max(fenced, key=lambda node: (node.safe.epoch, node.safe.sequence))
        self._failing_over = False
        if not best.store.last:
            return  # an empty store: it never heard of the primary, and is none of it
        self.current = best.name
        best.promote(epoch)
        if self.rng.random() < 0.5:
            self.point_at_current()

    # -- the end -----------------------------------------------------------------------------------

    def calm(self) -> None:
        """All is well again; whoever is the primary, all come to agree (W5)."""
        self.network.cut.clear()
        self.network.weather = Weather(2)
        for node in self.nodes.values():
            self.start(node)
            node.full_until_ns = 0
            if node.paused:
                node.resume()
        self.loop.run_until(self.loop.now_ns + 50 * MS)
        self._failing_over = False
        current = self.settle_primary()
        self.point_at_current()
        final = None
        for _ in range(30):  # it may have to hear of its replicas before it takes a write
            final = self.write(current)
            until = self.loop.now_ns + CALM_NS // 30
            if self.loop.run_until(until, lambda final=final: self.is_settled(final)):
                break
        self.check_end(current, final)

    def settle_primary(self) -> Node:
        """One primary, with an epoch above all others'."""
        live = self.live()
        current = self.nodes[self.current]
        if not current.alive or not current.is_primary:
            current = max(live, key=lambda node: (node.safe.epoch, node.safe.sequence))
        if not current.store.last:
            current = max(live, key=lambda node: node.store.last)
        self.current = current.name
        highest = max(node.store.epoch for node in live)
        if not current.is_primary or current.fenced or current.store.epoch < highest:
            for node in live:
                if node is not current:
                    node.follow(None)
            current.promote(max(highest, self._epoch) + 1)
        return current

    def is_settled(self, final: Op | None) -> bool:
        tips = {node.tip for node in self.live()}
        if len(tips) > 1 or any(n.store.durable < n.store.last for n in self.live()):
            return False
        others = len(self.live()) - 1
        reachable = others if not self.is_chain else min(others, 1)
        if reachable < self.need:
            return True  # an ack level that nobody can meet any more: writes wait for ever
        return final is not None and final.outcome != "open"

    def check_end(self, current: Node, final: Op | None) -> None:
        live = self.live()
        state = {
            n.name: (
                n.tip,
                n.safe,
                n.uplink and (n.uplink.follower.state, n.uplink.follower.trouble),
            )
            for n in live
        }
        assert self.is_settled(final), f"they do not come to agree: {state}"
        now_ms = self.time_ms(current.store)  # a checkpoint leaves out what is past its deadline
        for node in live:
            assert node.store.newest() == current.store.newest(), state
            assert node.store.rows_now(now_ms) == current.store.rows_now(now_ms), "rows differ"
            self.check_same_batches(node, current)
        lineage = set()
        mark: Mark | None = current.tip
        while mark is not None:
            lineage.add(mark)
            mark = self.parent.get(mark)
        if self.careful:
            for op in self.ops:
                need = max(self.need if self.level is Level.ON_DISK else 0, 0)
                if op.outcome == "acked" and op.level is Level.ON_DISK:
                    need = max(need, op.need)
                if need and (op.outcome == "acked" or (op.was_read and self.need)):
                    assert op.mark in lineage, f"write {op.number} ({op.outcome}) is lost"
                    self.counts["kept"] += 1

    def check_same_batches(self, node: Node, other: Node) -> None:
        after = max(node.store.oldest, other.store.oldest)
        assert batches_of(node.store, after) == batches_of(other.store, after)


def batches_of(store: Any, after: int) -> list[tuple[int, bytes]]:
    """(epoch, bytes) of every batch after a position, as the log has them."""
    tail = store.tail(after)
    found: list[tuple[int, bytes]] = []
    while frames := tail.read(1 << 20):
        for frame in frames:
            at = 0
            while at < len(frame.payload):
                size = int.from_bytes(frame.payload[at : at + 4], "little") + 4
                found.append((frame.epoch, frame.payload[at : at + size]))
                at += size
    tail.close()
    return found
