"""Replication: a node's place among primary and replicas.

Owns the role and its changes, the links, what is refused because of either, and the figures; what a
link does is downlink.py's and uplink.py's, ack levels are levels.py's.

A node is the primary, which takes writes, or a replica, whose store changes only by what its
upstream sends. A primary that hears of an epoch above its own was deposed: it takes no writes.

E1  a change of role is written to the store's directory before it shows; one at a time.
E2  a promotion raises the epoch durably before the first write is taken.
E3  where replicas have to acknowledge (min_acks), nothing that they might not have is shown: a node
    that was just opened, or took over a copy, answers readers once all it holds is known to be
    committed. A replica with no such option, whose upstream alone asks for levels, shows what it
    opens with; a copy it took over waits all the same.
E4  a write that cannot reach its level, for too few replicas are connected, is refused before it is
    made; one that does not reach it in time is in doubt, and says so.

Threading: the thread that owns the node.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from marram.commands.spec import CommandError
from marram.errors import ProtocolError
from marram.node.deferred import Deferred
from marram.node.passwords import secret_of
from marram.node.replication import figures
from marram.node.replication.address import join_address, split_address
from marram.node.replication.downlink import Downlink
from marram.node.replication.levels import Levels
from marram.node.replication.record import Record, read_record, write_record
from marram.node.replication.uplink import Uplink
from marram.node.replication.wire import Wire
from marram.node.replication.work import Work
from marram.node.session import AckWish
from marram.protocol.replies import OK, ErrorReply, Simple
from marram.replication.acks import Level, Verdict
from marram.replication.codec import decode_hello, refusal_line
from marram.replication.credentials import Secret
from marram.replication.lag import Timeline
from marram.replication.messages import Code, Mark, Refusal
from marram.replication.primary import Feed, FeedOptions, Host, Standing
from marram.replication.replica import FollowerOptions
from marram.storage.store import Store

if TYPE_CHECKING:
    from marram.node.node import Node
    from marram.node.session import Session

_logger = logging.getLogger("marram.node")

PUSH_S: Final = 0.005
"""How often, where nobody waits for them, replicas are sent what has become durable meanwhile."""
_PUSH_NS: Final = int(PUSH_S * 1e9)
_HANDSHAKES_MAX: Final = 32  # links that have not logged in
NO_ONE: Final = "none"
"""As an upstream: be the primary, whatever the record says."""

_CHANGING: Final = "READONLY the role of this server is being changed"


class Shell(Protocol):
    """What is asked of the server around the node."""

    def connect(self, host: str, port: int, uplink: Uplink) -> None:
        """Connect, and tell the uplink: connected(), or lost(), for its present link."""
        ...

    def appended(self) -> None:
        """Batches of a primary were appended: have them written, beside what else there is."""
        ...

    def committed(self) -> None:
        """`committed` moved: what waited for it may go."""
        ...

    def give_up(self, first: int, last: int) -> None:
        """Whoever waits for one of these positions is told that its outcome is unknown."""
        ...


class _Alone:
    """The shell of a node that has none."""

    def connect(self, host: str, port: int, uplink: Uplink) -> None:
        uplink.lost(uplink.link, "there is no network here")

    def appended(self) -> None:
        """Whoever plays the server writes groups himself."""

    def committed(self) -> None:
        """Likewise."""

    def give_up(self, first: int, last: int) -> None:
        """Likewise."""


class Replication:
    """The node's part."""

    def __init__(self, node: Node) -> None:
        store = node.store
        self.node = node
        self.shell: Shell = _Alone()
        self.address = ""
        """Where this server is reached: "resp=host:port http=host:port ..."."""
        self.run_id = node.env.random_bytes(16)
        # Made of where the store is, not kept with it: a copied directory is another replica.
        where = f"{node.env.hostname()}\0{store.directory}".encode("utf-8", "surrogateescape")
        self.node_id = hashlib.sha256(where).digest()[:16]
        self.downlinks: list[Downlink] = []
        self.uplink: Uplink | None = None
        self.levels = Levels(store, node.env, node.loop, self._committed_moved)
        self.timeline = Timeline(store.last, node.env.monotonic_ns())
        self.read_refusal = ""
        """Why readers are not answered (E3); "" where they are."""
        self.write_refusal = ""
        """Why writes are not taken; "" where they are."""
        self.full_syncs = 0  # as upstream
        self.received_bytes = 0
        self.received_batches = 0
        self.set_aside: list[str] = []
        self.deposed_by = 0
        self._store: Store = store
        self._work = Work(node.env, node.loop, "marram-role")
        self._is_changing = False
        self._is_stopping = False
        self._route: tuple[bytes, ...] = ()  # that replicas were told of
        self._links = 0  # made so far, for their names
        self._opened_at = store.last
        self._must_reach = node.settings.replication.min_acks > 0
        self._known_from = store.last  # what is older the timeline knows nothing of
        self._told_ms = store.now_ms()  # to those who follow us
        self._noted = store.commit.point[:2]
        self._pushed_ns = 0
        self._is_push_due = False
        self._late: deque[tuple[int, int]] = deque()  # (when, position): who still waits, gives up
        self._reign()

    # -- starting ----------------------------------------------------------------------------------

    def open(self, upstream: str) -> None:
        """Take the role that the options and the record say. Blocks: before anybody is served.

        upstream: "host:port"; "" for what the record says; NO_ONE. Raises Error, OSError.
        """
        store, env = self._store, self.node.env
        record = read_record(env, store.directory)
        if upstream == NO_ONE:
            if record != Record():
                epoch = max(store.epoch, record.deposed_by) + 1
                store.raise_epoch(epoch)
                write_record(env, store.directory, Record())
                _logger.warning("promoted at the start: epoch %d; before, %s", epoch, _told(record))
            self._settle()
            return
        if upstream:
            wanted = Record(upstream)
            if wanted != record:
                write_record(env, store.directory, wanted)
            record = wanted
        elif record != Record():
            _logger.warning("%s, and goes on so; --replica-of none makes it a primary",
                            _told(record))  # fmt: skip
        self.deposed_by = record.deposed_by
        if record.upstream:
            self._begin_following(*split_address(record.upstream), 0)
        else:
            self._settle()

    def stop(self, then: Callable[[], None]) -> None:
        """End all links: the server stops. then() once nothing of them runs any more."""
        self._is_stopping = True
        for link in list(self.downlinks):
            link.stop(Code.RESTART, "the server stops")
        uplink, self.uplink = self.uplink, None
        if uplink is None:
            then()
        else:
            uplink.stop(then)

    def role(self) -> Any:
        """What ROLE answers, in Redis's shape."""
        return figures.role(self)

    # -- what it is --------------------------------------------------------------------------------

    @property
    def is_replica(self) -> bool:
        """Whether the store follows another."""
        return bool(self._store.read_only)

    @property
    def primary(self) -> dict[str, str]:
        """Where the primary serves clients, by protocol; empty where that is not known."""
        if not self.is_replica:
            return {}
        uplink = self.uplink
        told = "" if uplink is None else uplink.follower.primary
        found = dict(word.partition("=")[::2] for word in told.split() if "=" in word)
        if uplink is not None:
            for name, at in found.items():
                host, _, port = at.rpartition(":")
                if host in ("", "0.0.0.0", "[::]"):  # every address: that which we came by
                    found[name] = f"{uplink.upstream.rpartition(':')[0]}:{port}"
        return found

    @property
    def _is_verified(self) -> bool:
        """Whether what is here is of the history of the store's epoch.

        An epoch is taken over from the upstream before it is known what of the own history is the
        upstream's, too.
        """
        uplink = self.uplink
        return not self.is_replica or (uplink is not None and uplink.follower.is_verified)

    def standing(self) -> Standing:
        """How far this node is."""
        store = self._store
        if self.is_replica:
            bound = 0 if self.uplink is None else self.uplink.follower.committed
            committed = min(store.committed, bound)
        else:
            rule = self.levels.rules.bound
            committed = store.committed if rule is None else min(store.committed, rule)
        # Not past what is on its way: what takes a deadline away arrives before that is past.
        if store.commit.durable == store.commit.last:
            self._told_ms = store.now_ms()
        return Standing(store.commit.durable, committed, self._told_ms)

    def behind_bytes(self, sequence: int) -> int:
        """About how many bytes of the log are after a position."""
        if sequence < self._known_from:
            return 1 << 62
        return self.timeline.behind(sequence, 0).bytes

    # -- changing the role -------------------------------------------------------------------------

    def follow(self, host: str, port: int) -> Any:
        """REPLICAOF host port. Raises CommandError."""
        self._check_change()
        uplink = self.uplink
        if uplink is not None and (uplink.host, uplink.port) == (host, port):
            return Simple("OK Already connected to specified master")
        deferred = Deferred()
        store, env = self._store, self.node.env
        upstream = join_address(host, port)
        known = 0

        def recorded(outcome: Any) -> None:
            nonlocal known
            known = self.standing().committed
            if isinstance(outcome, Exception):
                self._changed(deferred, ErrorReply(self.node.refusal(outcome)))
            elif self.uplink is not None:
                self.uplink.stop(stopped)
                self.uplink = None
            else:
                stopped()

        def stopped() -> None:
            self._begin_following(host, port, known)
            self._changed(deferred, OK)

        self._is_changing = True
        self._settle()
        self._work.do(lambda: write_record(env, store.directory, Record(upstream)), recorded)
        return deferred

    def promote(self) -> Any:
        """REPLICAOF NO ONE: take the writes, in a new epoch (E2). Raises CommandError."""
        self._check_change()
        if not self.is_replica and not self.deposed_by:
            return OK
        deferred = Deferred()
        store, env = self._store, self.node.env
        uplink, self.uplink = self.uplink, None
        before = Record(uplink.upstream if uplink else "", self.deposed_by)
        known = 0 if uplink is None else uplink.follower.committed

        def stopped() -> None:
            epoch = max(store.epoch, self.deposed_by) + 1

            def reign() -> None:
                store.wait_durable(store.last)
                store.raise_epoch(epoch)
                write_record(env, store.directory, Record())

            self._work.do(reign, raised)

        def raised(outcome: Any) -> None:
            if isinstance(outcome, Exception):
                if before.upstream:
                    self._begin_following(*split_address(before.upstream), known)
                self._changed(deferred, ErrorReply(self.node.refusal(outcome)))
                return
            self.deposed_by = 0
            if store.read_only:
                store.lead()
            self._opened_at = store.last
            self._must_reach = self.node.settings.replication.min_acks > 0
            self._reign()
            self._restart_links("another role")
            _logger.warning("promoted: epoch %d from position %d on", store.epoch, store.last)
            self._changed(deferred, OK)

        self._is_changing = True
        self._settle()
        if uplink is not None:
            uplink.stop(stopped)
        else:
            stopped()
        return deferred

    def _check_change(self) -> None:
        if self._is_changing:
            raise CommandError("ERR the role of this server is being changed already")
        if self._is_stopping:
            raise CommandError("ERR the server is shutting down")

    def _changed(self, deferred: Deferred, reply: Any) -> None:
        self._is_changing = False
        self._settle()
        self.node.settle(deferred, reply)

    def _begin_following(self, host: str, port: int, known: int) -> None:
        """known: up to where the history here is known to be committed."""
        store = self._store
        settings = self.node.settings.replication
        was_primary = not store.read_only
        store.follow()
        if was_primary:
            self._opened_at = store.last
            self._must_reach = settings.min_acks > 0 and known < store.last
            self.levels.end()
            # Those who wait for replicas of a reign that is over wait for nothing.
            self.shell.give_up(0, store.last)
        store.commit.set_bound(known)
        self.deposed_by = 0
        self._restart_links("another role")
        options = FollowerOptions(max_frame_bytes=settings.max_frame_bytes)
        self.uplink = Uplink(self, host, port, options, settings.password, known)
        _logger.info("follows %s", self.uplink.upstream)
        self._settle()
        self.uplink.start()

    def _reign(self) -> None:
        settings = self.node.settings.replication
        level = Level.ON_DISK if settings.ack_on_disk else Level.RECEIVED
        self.levels.begin(settings.min_acks, level)

    def hears_epoch(self, epoch: int) -> None:
        """Somebody knows of an epoch above ours."""
        if self.is_replica or self._is_changing or epoch <= max(self._store.epoch, self.deposed_by):
            return
        self.deposed_by = epoch
        _logger.error(
            "deposed: a replica knows of epoch %d, this primary is at %d; it takes no more writes. "
            "REPLICAOF host port makes it follow the new primary", epoch, self._store.epoch,
        )  # fmt: skip
        self._settle()
        store, env, record = self._store, self.node.env, Record("", epoch)
        self._work.do(lambda: write_record(env, store.directory, record), self._recorded)

    def _recorded(self, outcome: Any) -> None:
        if isinstance(outcome, Exception):
            _logger.error("the record of the role could not be written: %s", outcome)

    def epoch_changed(self) -> None:
        """The store's epoch was raised for the upstream's sake."""
        self._restart_links("another epoch")

    # -- links to replicas -------------------------------------------------------------------------

    def accept(self, value: bytes, wire: Wire, peer: str) -> Downlink:
        """A connection that asked for replication; value: of the request. hello() comes next.

        Raises CommandError: it is refused.
        """
        try:
            decode_hello(value)
        except ProtocolError as error:
            raise CommandError(f"ERR {error}") from None
        settings = self.node.settings.replication
        refusal = None
        if self._is_changing or self._is_stopping:
            refusal = Refusal(Code.RESTART, self._store.epoch, "the role is being changed")
        elif self.is_replica and not self._store.last:
            refusal = Refusal(Code.BEHIND, self._store.epoch, "this replica holds nothing yet")
        else:
            known = sum(bool(link.feed.node_id) for link in self.downlinks)
            if known >= settings.max_replicas or len(self.downlinks) - known >= _HANDSHAKES_MAX:
                text = f"{known} replicas are connected, as many as are taken (--max-replicas)"
                refusal = Refusal(Code.BUSY, self._store.epoch, text)
        if refusal is not None:
            raise CommandError(refusal_line(refusal))
        kept = self.node.settings.password_hash
        secret = Secret(*secret_of(kept)) if kept else None
        options = replace(FeedOptions(), sync_rate=settings.sync_rate)
        feed = Feed(self._host(), options, secret, self.timeline, self.node.env.monotonic_ns())
        self._links += 1
        link = Downlink(self, wire, feed, f"{peer} #{self._links}", peer)
        self.downlinks.append(link)
        return link

    def _host(self) -> Host:
        store = self._store
        primary = self.address
        route: tuple[bytes, ...] = ()
        if self.uplink is not None:
            primary = " ".join(f"{name}={at}" for name, at in self.primary.items())
            route = self.uplink.follower.route
        return Host(
            store.store_id, self.run_id, store.epoch, not self.is_replica, self._is_verified,
            primary, route,
        )  # fmt: skip

    def admit(self, link: Downlink) -> None:
        """A replica logged in: it has one link."""
        for other in list(self.downlinks):
            if other is not link and other.feed.node_id == link.feed.node_id:
                other.stop(Code.DISPLACED, "the replica has connected once more")
        _logger.info("replica %s logged in", link.peer)

    def acked(self, link: Downlink, received: int, durable: int) -> None:
        """A replica has come so far."""
        self.levels.acked(link.feed.node_id, received, durable)
        if self.write_refusal or self.read_refusal:
            self._settle()

    def gone(self, link: Downlink, why: str) -> None:
        """A link ended."""
        self.downlinks.remove(link)
        node_id = link.feed.node_id
        if node_id:
            _logger.info("replica %s left: %s", link.peer, why)
        if node_id and all(other.feed.node_id != node_id for other in self.downlinks):
            self.levels.left(node_id)
            self._settle()

    def note_trouble(self, link: Downlink, error: Exception) -> None:
        """Our own files could not be read for a replica."""
        _logger.error("cannot feed replica %s: %s", link.peer, error)

    def _restart_links(self, why: str) -> None:
        for link in list(self.downlinks):
            link.stop(Code.RESTART, why)

    # -- what the upstream says --------------------------------------------------------------------

    def committed_upstream(self, sequence: int) -> None:
        """The upstream's committed position; told by links whose histories agree."""
        uplink = self.uplink
        if uplink is not None and uplink.follower.route != self._route:
            # Replicas of ours know another one: by the new one they may be in a circle.
            self._route = uplink.follower.route
            self._restart_links("another way to the primary")
        if self._store.commit.set_bound(sequence):
            self._committed_moved()
        if self._must_reach and sequence >= self._opened_at:
            self._must_reach = False
            self._settle()

    def installed(self, mark: Mark) -> None:
        """A copy of the upstream's state took the place of ours."""
        store = self._store
        _logger.info("took over a full copy, as of position %d", mark.sequence)
        self._must_reach = False  # what it holds is held back by the store until it is committed
        self.shell.give_up(0, 1 << 63)  # they wait for positions of another history
        self._late.clear()
        for session in self.node.clients:
            session.touched = session.touched or bool(session.watched)
        self.timeline = Timeline(mark.sequence, self.node.env.monotonic_ns())
        self._known_from = mark.sequence
        self._noted = store.commit.point[:2]
        self._restart_links("another history")
        self._settle()

    def note_set_aside(self, path: str | None) -> None:
        """Batches that the upstream does not have were written to that file."""
        if path is not None:
            self.set_aside.append(path)

    # -- positions ---------------------------------------------------------------------------------

    def advanced(self) -> None:
        """More may be durable, or committed: tell the links, not too often (PUSH_S)."""
        # HOT: after every commit group. Without a link it is two look-ups.
        if self.uplink is not None:
            self.uplink.synced()
        if not self.downlinks:
            return
        now_ns = self.node.env.monotonic_ns()
        if self.levels.is_urgent or now_ns - self._pushed_ns >= _PUSH_NS:
            self._push(now_ns)
        else:
            self._push_later()

    def _push_later(self) -> None:
        if not self._is_push_due:
            self._is_push_due = True
            self.node.loop.call_later(PUSH_S, self._push_due)

    def _push_due(self) -> None:
        self._is_push_due = False
        self._push(self.node.env.monotonic_ns())

    def _push(self, now_ns: int) -> None:
        self._pushed_ns = now_ns
        self._note(now_ns)
        for link in list(self.downlinks):
            link.advanced()

    def _note(self, now_ns: int) -> None:
        """Note how far the log is, for lags."""
        number, end, sequence, *_ = self._store.commit.point
        if sequence > self.timeline.newest:
            before = self._noted[1] if self._noted[0] == number else 0
            self.timeline.note(sequence, max(0, end - before), now_ns)
            self._noted = (number, end)

    def _committed_moved(self) -> None:
        self.shell.committed()
        if self.downlinks:  # their readers wait for it, too; mostly the next batches tell them
            self._push_later()

    def tick(self) -> None:
        """Every 100 ms."""
        now_ns = self.node.env.monotonic_ns()
        self._push(now_ns)
        for link in list(self.downlinks):
            link.tick(now_ns)
        if self.uplink is not None:
            self.uplink.synced()
            self.uplink.tick(now_ns)
        self._give_up(now_ns)
        if self.read_refusal or self.write_refusal:
            self._settle()

    def _give_up(self, now_ns: int) -> None:
        """Tell those who waited too long for replicas that they will not be told (E4)."""
        store, late = self._store, self._late
        if store.commit.durable > store.committed and (not late or late[-1][1] < store.last):
            timeout_ns = self.node.settings.replication.ack_timeout_ms * 1_000_000
            late.append((now_ns + timeout_ns, store.commit.durable))
        position = 0
        while late and (late[0][0] <= now_ns or late[0][1] <= store.committed):
            position = late.popleft()[1]
        if position > store.committed:
            self.shell.give_up(0, position)

    # -- who waits ---------------------------------------------------------------------------------

    def wait_replicas(
        self,
        position: int,
        replicas: int,
        timeout_ms: int,
        answer: Callable[[int], Any],
        *,
        on_disk: bool,
    ) -> Any:
        """answer(how many have the position) once so many do, or the time is over; WAIT's way.

        timeout_ms: 0 for as long as it takes. Raises CommandError: this is a replica.
        """
        if self.is_replica:
            raise CommandError("ERR WAIT cannot be used with replica instances")
        level = Level.ON_DISK if on_disk else Level.RECEIVED
        wanted = min(replicas, self.node.settings.replication.max_replicas + 1)
        deferred = Deferred()

        def told(verdict: Verdict) -> None:
            self.node.settle(deferred, answer(verdict.replicas))

        end = self.levels.wait(position, wanted, level, timeout_ms, told)
        if not deferred.done:
            self._push(self.node.env.monotonic_ns())  # what is durable is not held back for it

        def cancel(with_error: bool) -> None:
            if with_error:
                text = "UNBLOCKED client unblocked via CLIENT UNBLOCK"
                self.node.settle(deferred, ErrorReply(text))
            end()

        deferred.on_cancel = cancel
        return deferred.reply if deferred.done else deferred

    def count(self, position: int, *, on_disk: bool) -> int:
        """How many replicas have a position: applied, or on disk."""
        return self.levels.rules.count(position, Level.ON_DISK if on_disk else Level.RECEIVED)

    def ask_level(self, replicas: int, timeout_ms: int, *, on_disk: bool) -> None:
        """Have the next write of the session that asks wait for replicas; ACKS."""
        session = self.node.session
        session.acks = AckWish(replicas, on_disk, timeout_ms) if replicas else None
        session.update()

    def run_with_level(self, session: Session, args: list[bytes]) -> Any:
        """Run a command of a session that asked for an ack level: of its next write, this or not.

        What is held back is not committed, so the reply waits for it like any other, and so does
        who reads what was written. Where the level is not reached in time both are told so (E4).
        """
        node, wish = self.node, session.acks
        row = node.rows.find(args[0])
        assert wish is not None
        if (
            row is None
            or not node.is_write(session, row)
            or (session.queue is not None and row.name != "exec")
            or node.clients.holds(session, row)  # it will run later, and then with its level
        ):
            return node.run_checked(session, args)
        session.acks = None
        session.update()
        if not self.write_refusal and self.levels.replicas < wish.replicas:
            return node.refuse_command(session, row, self._too_few(wish.replicas))
        store = self._store
        before = store.last
        self.levels.hold_after(before)
        reply = node.run_checked(session, args)
        if store.last == before:
            self.levels.release()
            return reply
        position = store.last

        def told(verdict: Verdict) -> None:
            if not verdict.met:
                self.shell.give_up(position, position)

        timeout_ms = wish.timeout_ms or node.settings.replication.ack_timeout_ms
        level = Level.ON_DISK if wish.on_disk else Level.RECEIVED
        self.levels.hold(position, wish.replicas, level, timeout_ms, told)
        node.depend_on(position)
        return reply

    def wait_position(
        self, epoch: int, sequence: int, timeout_ms: int, answer: Callable[[bool], Any]
    ) -> Any:
        """answer(whether the store came to a position in time); an error where it is not ours.

        A position of an earlier epoch is looked up: what its primary had written may be lost.
        """
        store = self._store
        if epoch > store.epoch or sequence > store.committed:
            # What comes by then may be of another history.
            return self.node.upkeep.wait_until(
                lambda: epoch <= store.epoch and sequence <= store.committed,
                timeout_ms,
                lambda met: (
                    self._look_up(epoch, sequence, timeout_ms, answer) if met else answer(False)
                ),
            )
        return self._look_up(epoch, sequence, timeout_ms, answer)

    def _look_up(
        self, epoch: int, sequence: int, timeout_ms: int, answer: Callable[[bool], Any]
    ) -> Any:
        """wait_position(), of one that is committed here."""
        node, store = self.node, self._store
        history = store.history
        if epoch == store.epoch and self._is_verified:
            return answer(True)
        deferred = Deferred()

        def told(reply: Any) -> None:
            if isinstance(reply, Deferred):
                reply.on_done(lambda value: node.settle(deferred, value))
            else:
                node.settle(deferred, reply)

        def found(mark: Any) -> None:
            if isinstance(mark, Exception):
                told(ErrorReply(node.refusal(mark)))
            elif mark is not None and mark.epoch > epoch:
                text = f"NOPOSITION {epoch}-{sequence} is of a history that was not gone on with"
                told(ErrorReply(text))
            elif epoch < store.epoch or (mark is not None and mark.epoch == epoch):
                told(answer(True))
            else:
                # Of an earlier reign, and it is not known yet whether this one went on from it.
                told(
                    node.upkeep.wait_until(
                        lambda: self._is_verified and sequence <= store.committed,
                        timeout_ms,
                        answer,
                    )
                )

        self._work.do(lambda: history.mark(sequence), found)
        return deferred

    # -- refusals ----------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Work out what is refused, and tell the node."""
        reads, writes = self._refusals()
        if (reads, writes) != (self.read_refusal, self.write_refusal):
            self.read_refusal, self.write_refusal = reads, writes
            self.node.roles_changed()

    def _refusals(self) -> tuple[str, str]:
        if self.is_replica:
            at = self.primary.get("resp", "")
            where = f"; writes go to the primary at {at}" if at else ""
            writes = f"READONLY this is a replica{where}"
            if self._is_changing:
                writes = _CHANGING
            if self._must_reach:
                return "MASTERDOWN this replica waits to hear what of it is committed", writes
            return "", writes
        if self._is_changing:
            return "", _CHANGING
        if self.deposed_by:
            return "", (
                f"READONLY this primary was deposed: there is an epoch {self.deposed_by}; "
                "REPLICAOF makes it follow the new primary"
            )
        rules = self.levels.rules
        if self._must_reach:
            if not rules.has_reached(self._opened_at):
                text = (
                    f"NOREPLICAS the newest writes of this store are not known to have reached "
                    f"{rules.need} replicas; they are not shown before"
                )
                return text, text
            self._must_reach = False
        if rules.need > self.levels.replicas:
            return "", self._too_few(rules.need)
        return "", ""

    def _too_few(self, wanted: int) -> str:
        have = self.levels.replicas
        return f"NOREPLICAS Not enough good replicas to write: {have} of {wanted} are connected"


def _told(record: Record) -> str:
    if record.upstream:
        return f"this store followed {record.upstream}"
    return f"this primary was deposed by epoch {record.deposed_by}"
