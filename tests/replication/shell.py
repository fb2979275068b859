"""A node of the simulation: a store, and the machines with a shell around them.

What a server does with threads and sockets is done here with events. `later` drops what was meant
for an earlier life of the node, and keeps what comes while it is paused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from marram.errors import LogGone
from marram.replication import effects as fx
from marram.replication.acks import AckRules, Level, Verdict
from marram.replication.credentials import Secret
from marram.replication.lag import Timeline
from marram.replication.messages import NO_STORE, Code, Hello, Mark
from marram.replication.primary import FeedOptions, Host, Standing
from marram.replication.replica import FollowerOptions, Own, State
from tests.replication.model_store import Frame
from tests.replication.network import MS, End, connect

TICK_NS = 8 * MS
SECRET = Secret(b"scrypt$14$8$1$c2FsdA==", b"digest of a password")
FEED = FeedOptions(
    window_bytes=600, chunk_bytes=150, heartbeat_ns=40 * MS, silence_ns=250 * MS,
    wrong_password_ns=10 * MS,
)  # fmt: skip
THROTTLED = replace(FEED, sync_rate=4000)
FOLLOWER = FollowerOptions(
    window_bytes=500, ack_bytes=100, heartbeat_ns=40 * MS, silence_ns=250 * MS, retry_ns=5 * MS,
    retry_max_ns=80 * MS,
)  # fmt: skip


@dataclass(eq=False)
class Reply:
    """An answer that waits for its position. ticket: of an ack level that it waits for, too."""

    sequence: int
    done: Callable[[bool], None]  # done(known): False: nobody knows
    ticket: int = 0


class Downlink:
    """A replica's connection, at its upstream."""

    def __init__(self, node: Node, end: End) -> None:
        self.node = node
        self.end = end
        options = THROTTLED if node.world.is_throttled else FEED
        self.feed = node.world.feed(node.host(), options, SECRET, node.timeline, node.now)
        self.hold = f"link-{node.world.fresh()}"
        self.tail: Any = None
        self.pin: Any = None
        self.pin_wanted = False
        self.rows: Iterator[list[fx.Row]] = iter(())
        end.on_message = self.receive
        end.on_lost = lambda: self.do(self.feed.lost())

    def receive(self, message: Any) -> None:
        now = self.node.now
        if isinstance(message, Hello):
            self.do(self.feed.hello(message, self.node.world.nonce(), now))
        else:
            self.do(self.feed.receive(message, now))

    def do(self, todo: list[fx.Effect]) -> None:
        """The effects, in order; what they lead to comes after them."""
        for effect in todo:
            self.step(effect)

    def report(self, outcome: Callable[[], list[fx.Effect]]) -> None:
        """Report an outcome: at once, or later, unless the link is closed by then."""
        self.node.soon(lambda: self.do(outcome()) if self in self.node.downlinks else None)

    def step(self, effect: fx.Effect) -> None:
        node, feed, store = self.node, self.feed, self.node.store
        match effect:
            case fx.Send(message):
                node.world.note_sent(message)
                self.end.send(message)
            case fx.Close(why):
                self.close(why)
            case fx.FindMarks(sequences):

                def find() -> list[fx.Effect]:
                    marks = [store.mark(sequence) for sequence in sequences]
                    oldest = store.mark(store.oldest)
                    return feed.found(marks, oldest, store.newest(), node.now)

                self.report(find)
            case fx.Admit(node_id, _):
                for other in list(node.downlinks):
                    if other is not self and other.feed.node_id == node_id:
                        other.do(other.feed.stop(Code.DISPLACED, "the replica is back"))
            case fx.Acked(received, durable):
                node.acked(feed.node_id, received, durable)
            case fx.Hold(after):
                store.hold(self.hold, after)
            case fx.OpenTail(after):
                try:
                    self.tail = store.tail(after)
                except LogGone:
                    self.report(feed.log_gone)
                else:
                    self.report(lambda: feed.tail_opened(node.standing(), node.now))
            case fx.ReadTail(max_bytes):
                self.report(lambda: self.read_tail(max_bytes))
            case fx.PinState():
                self.pin = store.snapshot()
                self.pin_wanted = True
                self.offer_pin()
            case fx.ReadRows(max_bytes):
                self.report(lambda: self.read_rows(max_bytes))
            case fx.ReleaseState():
                self.release()
            case fx.HigherEpoch(epoch):
                node.hears_epoch(epoch)
            case _:
                raise AssertionError(effect)

    def read_tail(self, max_bytes: int) -> list[fx.Effect]:
        try:
            frames = self.tail.read(max_bytes)
        except LogGone:
            return self.feed.log_gone()
        return self.feed.frames(frames, self.node.standing(), self.node.now)

    def offer_pin(self) -> None:
        """Once the pinned position is durable, say so."""
        node, store = self.node, self.node.store
        if not self.pin_wanted or store.durable < self.pin.position:
            return
        self.pin_wanted = False
        mark = store.mark(self.pin.position)
        self.rows = store.rows(self.pin)
        if mark is None:
            self.report(lambda: self.feed.failed("a checkpoint came between"))
        else:
            self.report(lambda: self.feed.pinned(mark, len(self.pin), node.standing(), node.now))

    def read_rows(self, max_bytes: int) -> list[fx.Effect]:
        rows: list[fx.Row] = []
        while sum(len(row[2]) + 20 for row in rows) < max_bytes:
            more = next(self.rows, None)
            if more is None:
                break
            rows += more
        return self.feed.rows(rows, self.node.now)

    def release(self) -> None:
        if self.pin is not None:
            self.node.store.release(self.pin)
            self.pin = None
            self.pin_wanted = False

    def close(self, why: str) -> None:
        self.node.world.note_end(why)
        self.release()
        if self.tail is not None:
            self.tail.close()
        self.node.store.unhold(self.hold)
        self.end.close()
        self.node.gone(self)


class Uplink:
    """The connection to the upstream, at the replica."""

    def __init__(self, node: Node, upstream: str, known: int) -> None:
        self.node = node
        self.upstream = upstream
        self.end: End | None = None
        self.follower = node.world.follower(
            node.node_id, node.run_id, FOLLOWER, has_password=True, address=node.name,
            committed=known,
        )  # fmt: skip
        self.installation: Any = None
        self.install_mark = Mark(0, 0, 0)
        self.link = 0

    def do(self, todo: list[fx.Effect]) -> None:
        for effect in todo:
            self.step(effect)

    def report(self, outcome: Callable[[], list[fx.Effect]]) -> None:
        link = self.link
        self.node.soon(
            lambda: self.do(outcome()) if self.link == link and self is self.node.uplink else None
        )

    def step(self, effect: fx.Effect) -> None:
        node, follower, store = self.node, self.follower, self.node.store
        match effect:
            case fx.Connect():
                node.later(node.now + node.world.network.delay_ns(), self.connect)
            case fx.Send(message):
                assert self.end is not None
                self.end.send(message)
            case fx.Close(why):
                node.world.note_end(why)
                self.link += 1
                if self.end is not None:
                    self.end.close()
                    self.end = None
            case fx.FindMarks(sequences):
                self.report(lambda: follower.found([store.mark(s) for s in sequences], node.now))
            case fx.Derive(parameters):
                assert parameters == SECRET.parameters
                self.report(lambda: follower.derived(SECRET.digest, node.now))
            case fx.RaiseEpoch(epoch):
                node.raise_epoch(epoch)
                self.report(lambda: follower.epoch_raised(epoch, node.now))
            case fx.SetAside(after):
                node.flush()
                if store.set_aside(after) is not None:
                    node.world.counts["set aside"] += 1
                self.report(lambda: follower.was_set_aside(after, node.now))
            case fx.Append(batches) if not node.is_full():
                for one in batches:
                    store.append_frame(
                        Frame(one.first, one.count, one.epoch, one.time_ms, one.payload, one.chain)
                    )
                    node.took_over(Mark(one.epoch, one.first + one.count - 1, one.chain))
                self.report(lambda: follower.appended(store.last, node.now))
                node.kick()
            case fx.Committed(sequence):
                store.set_bound(sequence)
                node.committed_moved()
            case fx.FollowTime(time_ms):
                node.world.hear_time(store, time_ms)
            case fx.BeginInstall(store_id, epoch, mark, time_ms):
                node.world.counts["full sync begun"] += 1
                self.install_mark = mark
                self.installation = store.install(store_id, epoch, mark, time_ms)
            case fx.Append() | fx.InstallRows() if node.is_full():
                self.do(follower.failed("the disk is full", node.now, is_hopeless=True))
            case fx.InstallRows(rows):
                self.installation.add(list(rows))
                self.report(lambda: follower.rows_added(node.now))
            case fx.FinishInstall():
                self.report(self.finish)
            case fx.AbortInstall():
                self.installation.abort()
                node.world.counts["full sync cut short"] += 1
            case _:
                raise AssertionError(effect)

    def finish(self) -> list[fx.Effect]:
        self.node.flush()
        self.installation.finish()
        self.node.installed(self.install_mark)
        return self.follower.installed(self.node.now)

    def connect(self) -> None:
        if self is not self.node.uplink or self.follower.state is not State.CONNECTING:
            return
        node = self.node
        if node.store.durable < node.store.last:  # Own has to be whole
            node.kick()
            node.later(node.now + MS, self.connect)
            return
        server = node.world.nodes[self.upstream]
        end = connect(node.world.network, node, server)
        if end is None:
            self.do(self.follower.lost("no connection", node.now))
            return
        self.end = end
        end.frame_limit = lambda: self.follower.frame_limit_bytes
        end.on_message = lambda message: self.do(self.follower.receive(message, node.now))
        end.on_lost = lambda: self.do(self.follower.lost("the connection is gone", node.now))
        server.later(server.now, lambda: server.accept(end.peer), end.peer.incarnation)
        self.do(self.follower.connected(node.own(), node.world.nonce(), node.now))


class Node:
    """One server. It lives until crash(), and again from start() on."""

    def __init__(self, world: Any, name: str) -> None:
        self.world = world
        self.name = name
        self.node_id = name.encode().ljust(16, b".")
        self.incarnation = 0
        self.alive = False
        self.paused = False
        self.backlog: list[Callable[[], None]] = []
        self.is_primary = False  # role and upstream are its configuration: they survive
        self.upstream: str | None = None
        self.disk: Any = None
        self.store: Any = None
        self.tip = Mark(0, 0, 0)  # the last batch of its history, and
        self.marks: dict[int, Mark] = {}  # the way there, as the world saw it
        self.safe = Mark(0, 0, 0)  # its last durable batch
        self.downlinks: list[Downlink] = []
        self.uplink: Uplink | None = None
        self.rules = AckRules()
        self.timeline = Timeline(0, 0)
        self.replies: list[Reply] = []
        self.group: Any = None
        self.fenced = False
        self.full_until_ns = 0  # its disk has no room before
        self.opened_at = 0
        self.slow_ns = 0
        self.told: int | None = None
        self.run_id = b""

    # -- life --------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        now_ns: int = self.world.loop.now_ns
        return now_ns

    def start(self) -> None:
        self.alive = True
        self.incarnation += 1
        self.run_id = b"%s-%d" % (self.name.encode(), self.incarnation)
        self.run_id = self.run_id.ljust(16, b"-")
        self.store = self.world.open_store(self)
        self.world.check_recovered(self)
        self.opened_at = self.store.last
        self.fenced = False
        self.slow_ns = 0
        self.timeline = Timeline(self.store.last, self.now)
        self.settle_role()
        self.tick()

    def crash(self, survival: float) -> None:
        """The power fails."""
        self.alive = False
        self.disk = self.world.crash_disk(self, survival)
        self.incarnation += 1
        ends = [link.end for link in self.downlinks]
        if self.uplink is not None and self.uplink.end is not None:
            ends.append(self.uplink.end)
        for end in ends:
            end.is_open = False
            if self.world.rng.random() < 0.7:  # else the peer has to find out
                end.tell_peer()
        self.downlinks = []
        self.uplink = None
        self.group = None
        self.paused = False
        self.backlog = []
        self.end_replies()
        self.rules = AckRules()

    def resume(self) -> None:
        self.paused = False
        backlog, self.backlog = self.backlog, []
        for event in backlog:
            event()

    def later(
        self, time_ns: int, event: Callable[[], None], incarnation: int | None = None
    ) -> None:
        life = self.incarnation if incarnation is None else incarnation

        def run() -> None:
            if self.incarnation == life and self.alive:
                if self.paused:
                    self.backlog.append(run)
                else:
                    event()

        self.world.loop.at(time_ns, run)

    def soon(self, event: Callable[[], None]) -> None:
        """As something that is done elsewhere: soon, and sometimes later; never before others."""
        delay = 0 if self.world.rng.random() < 0.8 else int(self.world.rng.random() * 3 * MS)
        self.slow_ns = max(self.slow_ns, self.now + delay)
        self.later(self.slow_ns, event)

    def tick(self) -> None:
        for link in list(self.downlinks):
            if link.feed.deadline_ns <= self.now:
                link.do(link.feed.tick(self.standing(), self.now))
        uplink = self.uplink
        if uplink is not None and (uplink.follower.deadline_ns or self.now + 1) <= self.now:
            uplink.do(uplink.follower.tick(self.now))
        late = self.rules.tick(self.now)
        if late:
            self.verdicts(late)
        self.later(self.now + TICK_NS, self.tick)

    # -- roles -------------------------------------------------------------------------------------

    def host(self) -> Host:
        uplink = self.uplink
        verified = self.is_primary or (uplink is not None and uplink.follower.is_verified)
        primary = self.name if self.is_primary or uplink is None else uplink.follower.primary
        return Host(
            self.store.store_id, self.run_id, self.store.epoch, self.is_primary, verified, primary,
            () if uplink is None else uplink.follower.route,
        )  # fmt: skip

    def own(self) -> Own:
        store = self.store
        store_id = store.store_id if store.last else NO_STORE
        return Own(store_id, store.epoch, store.newest(), store.oldest)

    def standing(self) -> Standing:
        store = self.store
        bound = self.rules.bound
        if not self.is_primary:
            bound = 0 if self.uplink is None else self.uplink.follower.committed
        committed = store.committed if bound is None else min(store.committed, bound)
        return Standing(store.durable, committed, self.world.time_ms(store))

    def settle_role(self) -> None:
        """Begin what the configuration says."""
        known = self.standing().committed
        if self.uplink is not None:
            self.uplink.do(self.uplink.follower.stop())
            self.uplink = None
        self.restart_links("another role")
        self.end_replies()
        self.rules = AckRules(self.world.need, self.world.level) if self.is_primary else AckRules()
        self.flush()
        if self.is_primary:
            self.store.lead()
            self.fenced = False
            self.store.set_bound(self.rules.bound)
        else:
            self.store.follow()
        if not self.is_primary and self.upstream is not None:
            self.store.set_bound(0)
            self.uplink = Uplink(self, self.upstream, known)
            self.uplink.do(self.uplink.follower.start(self.now))
        self.kick()

    def follow(self, upstream: str | None) -> None:
        """What an operator says: follow that one, or nobody yet."""
        if (self.is_primary, self.upstream) != (False, upstream) or self.uplink is None:
            self.is_primary, self.upstream = False, upstream
            if self.alive:
                self.settle_role()

    def promote(self, epoch: int) -> None:
        """What an operator says: take the writes, in that epoch."""
        if epoch > self.store.epoch:
            self.raise_epoch(epoch)
        self.is_primary, self.upstream = True, None
        self.opened_at = self.store.last
        self.settle_role()
        self.world.counts["promotion"] += 1

    def raise_epoch(self, epoch: int) -> None:
        if epoch > self.store.epoch:
            self.flush()
            self.store.raise_epoch(epoch)
            self.world.epochs[self.name] = epoch
            self.restart_links("another epoch")

    def hears_epoch(self, epoch: int) -> None:
        if self.is_primary and epoch > self.store.epoch and not self.fenced:
            self.fenced = True  # deposed
            self.world.counts["deposed"] += 1

    def restart_links(self, why: str) -> None:
        for link in list(self.downlinks):
            link.do(link.feed.stop(Code.RESTART, why))

    def accept(self, end: End) -> None:
        if not end.is_open:
            return
        link = Downlink(self, end)
        self.downlinks.append(link)

    def gone(self, link: Downlink) -> None:
        if link in self.downlinks:
            self.downlinks.remove(link)
        if not any(other.feed.node_id == link.feed.node_id for other in self.downlinks):
            self.rules.left(link.feed.node_id)

    # -- positions ---------------------------------------------------------------------------------

    def took_over(self, tip: Mark) -> None:
        """The history goes up to `tip` now."""
        self.world.check_prefix(self, tip)
        self.remember(tip)

    def remember(self, tip: Mark) -> None:
        mark: Mark | None = tip
        while mark is not None and self.marks.get(mark.sequence) != mark:
            self.marks[mark.sequence] = mark
            self.world.havers[mark].add(self.name)
            mark = self.world.parent.get(mark)
        self.tip = tip

    def made_safe(self) -> None:
        """Note what is durable now, for the checks."""
        safe = self.marks.get(self.store.durable)
        assert safe is not None and safe == self.store.newest(), f"{self.name}: an unknown history"
        self.safe = safe
        mark: Mark | None = safe
        while mark is not None and self.name not in self.world.holders[mark]:
            self.world.holders[mark].add(self.name)
            mark = self.world.parent.get(mark)

    def installed(self, mark: Mark) -> None:
        """Another history took the place of the old one."""
        self.world.counts["full sync"] += 1
        self.end_replies()
        self.marks = {}
        self.group = None
        self.took_over(mark)
        assert self.store.newest() == mark and self.store.last == mark.sequence
        self.made_safe()
        self.opened_at = mark.sequence  # it may hold batches that are not committed yet
        self.timeline = Timeline(mark.sequence, self.now)
        self.restart_links("another history")

    def kick(self) -> None:
        """Write the open group, if none is being written."""
        if self.group is not None:
            return
        group = self.store.take_group()
        if group is None:
            return
        self.group = group
        self.later(self.now + self.world.sync_ns(), lambda: self.synced(group))

    def flush(self) -> None:
        """Write all there is, now: what changes the log as a whole would wait for that."""
        while self.group is not None:
            self.synced(self.group)
            self.kick()

    def synced(self, group: Any) -> None:
        if self.group is not group:
            return
        group.write()
        self.store.complete(group)
        self.group = None
        self.made_safe()
        self.timeline.note(self.store.durable, 100, self.now)
        if self.uplink is not None:
            self.uplink.do(self.uplink.follower.synced(self.store.durable, self.now))
        for link in list(self.downlinks):
            link.offer_pin()
        self.committed_moved()
        self.kick()

    def committed_moved(self) -> None:
        standing = self.standing()
        for link in list(self.downlinks):
            link.do(link.feed.advanced(standing, self.now))
        committed = self.store.committed
        if not self.replies:
            return
        ready = [r for r in self.replies if r.sequence <= committed and not r.ticket]
        for reply in ready:
            self.replies.remove(reply)
            reply.done(True)

    def acked(self, replica: bytes, received: int, durable: int) -> None:
        if self.is_primary:
            self.verdicts(self.rules.acked(replica, received, durable))

    def verdicts(self, verdicts: list[Verdict]) -> None:
        for verdict in verdicts:
            for reply in [r for r in self.replies if r.ticket == verdict.ticket]:
                reply.ticket = 0
                if not verdict.met:
                    self.replies.remove(reply)
                    reply.done(False)
        if self.is_primary:
            before = self.store.committed
            self.store.set_bound(self.rules.bound)
            if self.store.committed != before or self.rules.bound != self.told:
                self.told = self.rules.bound
                self.committed_moved()

    # -- clients -----------------------------------------------------------------------------------

    def serves(self) -> bool:
        """Whether readers are answered: not while a tail may be short of its ack level."""
        if self.is_primary:
            return self.rules.has_reached(self.opened_at)
        if self.world.need == 0 and not self.world.holds:
            return True
        return self.uplink is not None and self.uplink.follower.committed >= self.opened_at

    def is_full(self) -> bool:
        return self.now < self.full_until_ns

    def end_replies(self) -> None:
        """Nobody will know."""
        replies, self.replies = self.replies, []
        self.rules.end()
        for reply in replies:
            reply.done(False)

    def write(
        self, changes: list[Any], done: Callable[[bool], None], hold: tuple[int, Level] | None
    ) -> Mark | None:
        """A client's write; hold: the ack level it asks for. None: not here."""
        if not self.is_primary or self.fenced or not self.serves():
            return None
        sequence = self.store.append(changes)
        mark = self.world.appended(self, changes)
        self.remember(mark)
        reply = Reply(sequence, done)
        if hold is not None:
            deadline = self.now + 120 * MS
            ticket = self.rules.wait(sequence, *hold, deadline, holds=True)
            if isinstance(ticket, int):
                reply.ticket = ticket
                self.store.set_bound(self.rules.bound)
        self.replies.append(reply)
        self.later(self.now + 200 * MS, lambda: self.give_up(reply))
        self.kick()
        return mark

    def give_up(self, reply: Reply) -> None:
        if reply in self.replies:
            self.replies.remove(reply)
            reply.done(False)
            self.rules.forget(reply.ticket)
            self.verdicts([])

    def read(self, key: bytes, done: Callable[[bytes | None], None]) -> None:
        if not self.serves():
            return
        value = self.store.get(key)
        sequence = self.store.settles_at(key)
        if sequence:
            self.replies.append(Reply(sequence, lambda known: done(value) if known else None))
        else:
            done(value)
