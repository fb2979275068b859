"""Node: sessions and the one pipeline through which every command runs, whatever its protocol.

Owns the order of checks, what a reply must wait for, and the composition of the node's parts; not
the parts' business (see the package's docstring), not bytes, sockets or the event loop.

A shell opens a session per client and, once per turn of its loop, calls begin_turn() and then
execute() for each command:

    reply = node.execute(session, args)
    if type(reply) is Deferred: wait for it, and run nothing else of this session until then
    else: send it, in order, once store.committed >= node.waits_for

N1  the checks come in Redis's order: the name exists, the arity fits, logged in, allowed in MULTI,
    the store takes writes, allowed in subscriber mode, keys fit, not paused, not queued.
N2  execute() never raises for what a client sent: it gives an ErrorReply. What is refused changes
    nothing; in MULTI it spoils the transaction.
N3  a reply waits for every position that it reveals: what was written, what was read, and the
    deletion of keys found expired.
N4  an unexpected exception is logged with its traceback, answered "ERR internal error", and harms
    nobody else; nothing of the command is applied.

Threading: one thread, which owns the store's writing side; background work comes back to it by
Loop.call_soon_threadsafe().
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from marram.coding.batch import KEYSPACES, PATCH, PUT, Change, delete
from marram.commands.context import REPLY_OFF, REPLY_ON, REPLY_SKIP, REPLY_SKIP_NEXT
from marram.commands.diagnostics import DEBUG_OFF
from marram.commands.spec import WRONG_TYPE, CommandError, Outcome, Put
from marram.commands.table import TABLE
from marram.commands.values import MAX_STRING_BYTES
from marram.env.api import Env
from marram.errors import Closed, Corruption, Error, ReadOnly, StoreFailed, StoreFull
from marram.node.clients import Clients
from marram.node.context import NodeContext
from marram.node.deferred import Deferred
from marram.node.latency import Latency
from marram.node.logins import Logins
from marram.node.loop import Loop
from marram.node.monitor import Monitors
from marram.node.parameters import Parameters
from marram.node.passwords import SALT_BYTES, hash_password
from marram.node.pubsub import Channels
from marram.node.replication.role import Replication
from marram.node.rows import Row, Rows, unknown_command, unknown_subcommand, wrong_arity
from marram.node.session import Push, Session
from marram.node.settings import Settings
from marram.node.slowlog import SlowLog
from marram.node.snapshots import Snapshots
from marram.node.transactions import Aborted, Transactions, because
from marram.node.upkeep import Upkeep
from marram.protocol.replies import NO_REPLY, ErrorReply, Reply
from marram.storage.entry import WrongType
from marram.storage.store import Store
from marram.storage.view import View

_logger = logging.getLogger("marram.node")

OUT_OF_MEMORY: Final = "OOM command not allowed when used memory > 'maxmemory'."
_NOAUTH: Final = "NOAUTH Authentication required."
_NOT_IN_MULTI: Final = "ERR Command not allowed inside a transaction"
_CLOSED: Final = "ERR the server is shutting down"
_SUBSCRIBED: Final = (
    "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are "
    "allowed in this context"
)
_FROM_BROWSERS: Final = (b"post", b"host:")
"""First words of HTTP requests: whoever sends these was tricked into talking to us."""

_TIMED_BELOW_US: Final = 1000
"""Constant-time commands are timed only where the slow log asks for less than this."""
_RATE_SAMPLES: Final = 16


class Traffic:
    """What shells count for INFO."""

    __slots__ = ("received_bytes", "rejected_connections", "sent_bytes")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start anew."""
        self.received_bytes = 0
        self.sent_bytes = 0
        self.rejected_connections = 0


class Node:
    """One running store with its sessions."""

    session: Session
    """Whose command runs now."""

    on_shutdown: Callable[[bool], None] | None
    """Called as on_shutdown(save) by SHUTDOWN; the server stops then. None: it is refused."""

    waits_for: int
    """After execute(): the position its reply must wait for; 0 for none."""

    now_ms: int
    """The time of this turn, the store's clock; begin_turn() sets it."""

    def __init__(self, store: Store, settings: Settings, env: Env, loop: Loop) -> None:
        self.store = store
        self.settings = settings
        self.env = env
        self.loop = loop
        self.on_shutdown = None
        self.waits_for = 0
        self.now_ms = store.now_ms()
        self.closed = False
        self.rows = Rows(TABLE.values())
        self.clients = Clients(env, loop, self._resume, self._update_guard)
        self.channels = Channels(settings)
        self.transactions = Transactions(self, store)
        self.logins = Logins(settings, env, loop, self.settle)
        self.snapshots = Snapshots(store, settings)
        self.parameters = Parameters(settings, store.options, self._hashed)
        self.parameters.on_change = self._settings_changed
        self.slowlog = SlowLog(settings.slowlog_entries)
        self.latency = Latency(settings.latency_ms)
        self.monitors = Monitors()
        self.upkeep = Upkeep(store, settings, env, loop, self, self.clients)
        store.holds_back = False  # it would block this thread; upkeep.stalls does it instead
        self.traffic = Traffic()
        self.errors: dict[str, int] = {}  # error replies by their first word
        self.run_id = env.random_bytes(20).hex()
        self.peak_bytes = 0
        self.expired_before = 0  # store.expired_keys at the last CONFIG RESETSTAT
        self._started_ns = env.monotonic_ns()
        self._rates: deque[tuple[int, int]] = deque(maxlen=_RATE_SAMPLES)
        self._views = [store.view(keyspace) for keyspace in range(KEYSPACES)]
        # HOT: what execute() reads.
        self._spellings = self.rows.spellings
        self._watched = self.transactions.watches.by_key
        self._max_key_bytes = store.options.max_key_bytes
        self._check_values = store.options.max_value_bytes < MAX_STRING_BYTES
        self._clock = store.clock
        self._append = store.append
        self._appender = store.appender
        self._time_all = False
        self._guarded = False  # every command needs more than the fast path
        self.replication = Replication(self)
        self._context = NodeContext(self)
        self._settings_changed()
        self.roles_changed()

    # -- sessions ----------------------------------------------------------------------------------

    def open_session(
        self, address: str, local_address: str, push: Push, close: Callable[[], None]
    ) -> Session:
        """A client came. address, local_address: "host:port"; push, close: see Session."""
        self.begin_turn()
        session = Session(
            self.clients.next_id(), address, local_address, push, close, self._views[0], self.now_ms
        )
        if not self.logins.required:
            self.logins.accept(session)
        self.clients.add(session)
        return session

    def close_session(self, session: Session) -> None:
        """A client left: everything that was its own ends. Idempotent."""
        if self.clients.remove(session):
            self.transactions.forget(session)
            self.channels.drop(session)
            self.snapshots.close_all(session)
            self.monitors.drop(session)
            self._update_guard()
            session.end()

    def select(self, session: Session, keyspace: int) -> None:
        """Change the keyspace a session works in."""
        session.keyspace = keyspace
        session.view = self._views[keyspace]
        session.view.begin(self.now_ms)

    # -- the turn ----------------------------------------------------------------------------------

    def begin_turn(self) -> None:
        """Take the time; every command up to the next call runs at it."""
        self.now_ms = self._clock.now_ms()

    def execute(self, session: Session, args: list[bytes]) -> Reply | Deferred:
        """Run one command; args[0] is its name. Sets `waits_for`. Never raises (N2, N4)."""
        # HOT: every request. Beyond its handler GET costs 0.18 us here, SET, beyond its handler and
        # the store's append, 0.5 us (CPython 3.11); through _execute_fully() both cost 1 us more.
        row = self._spellings.get(args[0])
        if row is None or not row.plain or session.guarded or self._guarded:
            return self._execute_fully(session, args)
        count = len(args)
        if count < row.least or count > row.most:
            return self._reject(session, row, wrong_arity(row.name))
        key = args[1]
        if not 0 < len(key) <= self._max_key_bytes:
            return self._reject(session, row, self._key_refusal(key))
        row.calls += 1
        session.last_row = row
        session.last_ms = self.now_ms
        view = session.view
        view.now_ms = self.now_ms
        view.reads_at = 0
        try:
            reply: Any = row.run(view, args)
            kind = type(reply)
            if reply is None:
                row.misses += 1
            elif kind is Put:
                put = reply
                if view.expired or self._watched or self._check_values:
                    self.waits_for = 0
                    self._write(view, put.changes)
                else:
                    self.waits_for = self._appender.append_put(put.keyspace, put.key, put.value)
                session.depends_on = self.waits_for
                return put.reply  # type: ignore[no-any-return]
            elif kind is Outcome:
                outcome = reply
                reply = outcome.reply
                changes = outcome.changes
                if changes:
                    if view.expired or self._watched or self._check_values or len(changes) > 1:
                        self.waits_for = 0
                        self._write(view, changes)
                    else:
                        self.waits_for = self._append(changes)
                    session.depends_on = self.waits_for
                    return reply  # type: ignore[no-any-return]
            self.waits_for = position = view.reads_at
            if view.expired:
                self._bury(view)
                position = self.waits_for
            if position > session.depends_on:  # noqa: PLR1730 - max() is a call
                session.depends_on = position
            return reply  # type: ignore[no-any-return]
        except Exception as error:  # N4: whatever it is, the client gets an answer and we go on
            self.waits_for = 0
            return self._refused(row, view, error)

    def tick(self) -> None:
        """Every 100 ms: expiry, due checkpoints, stalls, old snapshots, rates."""
        self.begin_turn()
        replication = self.replication
        replication.tick()
        idle = self.clients.paused or self.closed or bool(replication.write_refusal)
        took_ms = self.upkeep.tick(expire=not idle)
        self._update_guard()
        self.latency.record("expire-cycle", int(took_ms), self.now_ms // 1000)
        self.snapshots.close_old(self.now_ms)
        self._rates.append((self.env.monotonic_ns(), self.rows.total_calls()))

    def close(self) -> None:
        """Run nothing new; what was deferred still ends."""
        self.closed = True
        self.upkeep.stalls.end()
        self.clients.unpause()
        self._update_guard()

    # -- the pipeline ------------------------------------------------------------------------------

    def _execute_fully(self, session: Session, args: list[bytes]) -> Reply | Deferred:
        """execute() without short cuts."""
        self.waits_for = 0
        self.session = session
        if session.acks is None:
            reply = self._check_and_run(session, args)
        else:
            reply = self.replication.run_with_level(session, args)
        if session.reply_mode != REPLY_ON:
            reply = self._suppress(session, reply)
        session.depends_on = max(session.depends_on, self.waits_for)
        return reply

    def _check_and_run(self, session: Session, args: list[bytes]) -> Reply | Deferred:
        row = self.rows.find(args[0])
        if row is None:
            return self._unknown(session, args)
        if row.subs and len(args) > 1:
            sub = row.subs.get(args[1].lower())
            if sub is None:
                return self._reject(session, row, unknown_subcommand(args))
            row = sub
        refusal = self._check(session, row, args)
        if refusal is not None:
            return self._reject(session, row, refusal)
        if self.clients.holds(session, row):
            return self.clients.hold(session, row, args)
        if session.queue is not None and not row.run_in_multi:
            return self.transactions.enqueue(session, row, args)
        return self.run(session, row, args)

    def _check(self, session: Session, row: Row, args: list[bytes]) -> str | None:
        """Why a command may not run, or None: the checks in their order (N1)."""
        if not row.least <= len(args) <= row.most:
            return wrong_arity(row.name)
        if self.closed:
            return _CLOSED
        if row.name == "debug" and not self.settings.debug_commands:
            return DEBUG_OFF
        if not session.authenticated and not row.no_auth:
            return _NOAUTH
        if session.queue is not None and row.no_multi:
            return _NOT_IN_MULTI
        failure = self.store.failure
        if failure is not None and self._writes(session, row):
            return f"MISCONF the store failed and must be reopened: {failure}"
        replication = self.replication
        if replication.write_refusal and self._writes(session, row):
            return replication.write_refusal
        if replication.read_refusal and row.reveals:
            return replication.read_refusal
        if self.upkeep.stalls.refusal and self._writes(session, row):
            return f"MISCONF {self.upkeep.stalls.refusal}"
        if session.in_subscriber_mode and not row.subscriber_mode:
            return _SUBSCRIBED.format(row.name)
        if row.has_keys and self._may_hold_no_key(args):
            for index in row.command.key_indexes(args):
                if not 0 < len(args[index]) <= self._max_key_bytes:
                    return self._key_refusal(args[index])
        return None

    def _may_hold_no_key(self, args: list[bytes]) -> bool:
        """Whether any argument is one that no key can be; it may be a value."""
        for arg in args:
            size = len(arg)
            if size == 0 or size > self._max_key_bytes:
                return True
        return False

    def _writes(self, session: Session, row: Row) -> bool:
        if row.name == "exec":
            return any(queued.writes for queued, _ in session.queue or ())
        return row.writes

    def _key_refusal(self, key: bytes) -> str:
        return f"ERR key is longer than {self._max_key_bytes} bytes" if key else "ERR key is empty"

    def _unknown(self, session: Session, args: list[bytes]) -> Reply:
        if args[0].lower() in _FROM_BROWSERS:
            _logger.warning("%s speaks HTTP to this port; disconnected", session.address)
            session.close()
            return NO_REPLY
        return self._reject(session, None, unknown_command(args))

    def _reject(self, session: Session, row: Row | None, refusal: str) -> ErrorReply:
        """Refuse a command before it ran; in MULTI, the transaction with it (N2)."""
        self.waits_for = 0
        if row is not None:
            row.rejected += 1
        if session.queue is not None:
            if row is not None and row.name == "exec":
                self.transactions.forget(session)
                refusal = because(refusal)
            else:
                session.queue_refused = True
        return self._error(refusal)

    def run(self, session: Session, row: Row, args: list[bytes]) -> Reply | Deferred:
        """Run a command that passed the checks. EXEC runs its queue through this, too."""
        row.calls += 1
        session.last_row = row
        session.last_ms = self.now_ms
        started_ns = self.env.monotonic_ns() if row.timed or self._time_all else 0
        reply = self._call(session, row, args)
        session.last_row = row  # EXEC's queue came in between
        if type(reply) is Deferred:
            self._block(session, row, args, reply, started_ns)
        elif started_ns:
            self._measure(session, row, args, started_ns)
        if self.monitors.sessions and row.shown:
            self.monitors.show(session, args, self.now_ms)
        return reply

    def _call(self, session: Session, row: Row, args: list[bytes]) -> Reply | Deferred:
        """Call the handler and apply what it gives."""
        view = session.view
        view.begin(self.now_ms)
        reply: Any
        try:
            if row.control:
                reply = row.run(self._context, args)
            else:
                reply = row.run(view, args)
                kind = type(reply)
                if kind is Outcome or kind is Put:
                    changes = reply.changes
                    reply = reply.reply
                    if changes:
                        self._write(view, changes)
                if row.lookup:
                    row.count_misses(reply)
            if view.expired:
                self._bury(view)
        except Aborted:
            raise
        except Exception as error:  # N4
            return self._refused(row, view, error)
        self.depend_on(view.reads_at)
        return reply  # type: ignore[no-any-return]

    # -- writing -----------------------------------------------------------------------------------

    def _write(self, view: View, changes: list[Change]) -> None:
        """Log and apply a command's changes, after the deletion of what it found expired."""
        if self._check_values:
            self._check_sizes(changes)
        watches = self.transactions.watches
        spaces = self.store.engine.spaces
        touched = watches.touched_by(changes, spaces, self.now_ms) if self._watched else ()
        if view.expired:
            changes = [*self._burials(view), *changes]
        self._apply(changes)
        execution = self.transactions.execution
        if execution is not None:
            execution.touched.update(touched)
        else:
            for session in touched:
                session.touched = True

    def append(self, session: Session, changes: list[Change]) -> int:
        """Log and apply a batch for a control handler; returns its position."""
        self._write(session.view, changes)
        return self.waits_for

    def _bury(self, view: View) -> None:
        """Delete what a command found expired; where the store takes no writes, it stays hidden."""
        store = self.store
        refused = store.failure is not None or store.read_only or self.replication.write_refusal
        if self.clients.paused or refused:
            view.expired = []
            return
        try:
            self._apply(self._burials(view))
        except StoreFull as error:
            _logger.debug("expired keys stay for now: %s", error)

    def _burials(self, view: View) -> list[Change]:
        found = dict.fromkeys(view.expired)
        view.expired = []
        self.store.expired_keys += len(found)
        return [delete(keyspace, key) for keyspace, key in found]

    def _apply(self, changes: list[Change]) -> None:
        """As a batch of its own, or as part of the transaction under way."""
        execution = self.transactions.execution
        if execution is None:
            self.depend_on(self._append(changes))
            return
        try:
            execution.apply(changes)
        except Exception as error:
            raise Aborted(self.refusal(error)) from error

    def _check_sizes(self, changes: list[Change]) -> None:
        limit = self.store.options.max_value_bytes
        for kind, _, _, value, number, _ in changes:
            size = len(value or b"") + (number if kind == PATCH else 0)
            if kind in (PUT, PATCH) and size > limit:
                raise CommandError(f"ERR value is longer than {limit} bytes")

    # -- replies -----------------------------------------------------------------------------------

    def depend_on(self, position: int) -> None:
        """Hold the present reply until `position` is committed (N3)."""
        self.waits_for = max(self.waits_for, position)

    def refusal(self, error: Exception) -> str:
        """What a client is told of an exception; unexpected ones are logged (N4).

        No room on disk is MISCONF, Redis's word for a disk that takes no writes; OOM means the
        memory limit alone.
        """
        if isinstance(error, CommandError):
            return str(error)
        if isinstance(error, WrongType):
            return WRONG_TYPE
        if isinstance(error, StoreFull):
            return OUT_OF_MEMORY if self.store.over_memory_limit() else f"MISCONF {error}"
        if isinstance(error, StoreFailed):
            return f"MISCONF {error}"
        if isinstance(error, ReadOnly):
            return self.replication.write_refusal or f"READONLY {error}"
        if isinstance(error, Closed):
            return _CLOSED
        if isinstance(error, Corruption):
            _logger.error("damage was read: %s", error)
            return f"CORRUPTION {error}"
        if isinstance(error, OSError):
            _logger.error("a file could not be read: %s", error)
            return f"IOERR {error.strerror or type(error).__name__}"
        if isinstance(error, Error):
            return f"ERR {error}"
        _logger.error("a command failed in a way it must not", exc_info=error)
        return "ERR internal error"

    def _refused(self, row: Row, view: View, error: Exception) -> ErrorReply:
        """A command's refusal, which may reveal what it read (N3)."""
        row.failed += 1
        view.expired = []
        self.depend_on(view.reads_at)
        return self._error(self.refusal(error))

    def _error(self, refusal: str) -> ErrorReply:
        reply = ErrorReply(refusal)
        self.errors[reply.code] = self.errors.get(reply.code, 0) + 1
        return reply

    def _suppress(self, session: Session, reply: Reply | Deferred) -> Reply | Deferred:
        """CLIENT REPLY's modes."""
        if session.reply_mode == REPLY_SKIP_NEXT:
            session.reply_mode = REPLY_SKIP
            return NO_REPLY
        if session.reply_mode == REPLY_SKIP:
            session.reply_mode = REPLY_ON
            session.update()
        else:
            assert session.reply_mode == REPLY_OFF
        if type(reply) is not Deferred:
            return NO_REPLY
        silent = Deferred()
        reply.on_done(lambda _: self.settle(silent, NO_REPLY))
        return silent

    # -- what comes later --------------------------------------------------------------------------

    def _block(
        self, session: Session, row: Row, args: list[bytes], deferred: Deferred, started_ns: int
    ) -> None:
        """Note that a session waits for a deferred reply."""
        session.blocked = deferred

        def over(reply: Any) -> None:
            session.blocked = None
            if type(reply) is ErrorReply:
                row.failed += 1
                self.errors[reply.code] = self.errors.get(reply.code, 0) + 1
            if started_ns and row.measured_to_end:
                self._measure(session, row, args, started_ns)

        deferred.on_done(over)

    def settle(self, deferred: Deferred, reply: Any, waits_for: int = 0) -> None:
        """Resolve a deferred; whoever is told finds the position in `waits_for`, too."""
        self.waits_for = waits_for
        deferred.resolve(reply, waits_for)

    def _resume(self, session: Session, args: list[bytes], deferred: Deferred) -> None:
        """Run a command that a pause held."""
        self.begin_turn()
        reply = self.execute(session, args)
        if isinstance(reply, Deferred):
            later = reply
            later.on_done(lambda value: self.settle(deferred, value, later.waits_for))
        else:
            self.settle(deferred, reply, self.waits_for)

    # -- watching over -----------------------------------------------------------------------------

    def uptime_s(self) -> int:
        """Seconds since the node started."""
        return (self.env.monotonic_ns() - self._started_ns) // 1_000_000_000

    def commands_per_s(self) -> int:
        """Commands a second over the last ticks."""
        if len(self._rates) < 2:
            return 0
        (first_ns, first), (last_ns, last) = self._rates[0], self._rates[-1]
        return round((last - first) * 1e9 / max(1, last_ns - first_ns))

    def reset_statistics(self) -> None:
        """CONFIG RESETSTAT."""
        self.rows.reset()
        self.errors.clear()
        self._rates.clear()
        self.traffic.reset()  # shells hold on to it
        self.clients.opened = 0
        self.peak_bytes = 0
        self.expired_before = self.store.expired_keys
        self.upkeep.stalls.reset()

    def monitor(self, session: Session) -> None:
        """Show a session every command from now on."""
        self.monitors.add(session)
        self._update_guard()

    def stop_monitoring(self, session: Session) -> None:
        """Stop that."""
        self.monitors.drop(session)
        self._update_guard()

    def _measure(self, session: Session, row: Row, args: list[bytes], started_ns: int) -> None:
        elapsed_us = (self.env.monotonic_ns() - started_ns) // 1000
        row.record(elapsed_us)
        time_s = self.now_ms // 1000
        if 0 <= self.settings.slowlog_us <= elapsed_us and row.slow_logged:
            self.slowlog.record(args, elapsed_us, time_s, session.address, session.name)
        event = "fast-command" if row.fast else "command"
        self.latency.record(event, elapsed_us // 1000, time_s)

    def _update_guard(self) -> None:
        self._guarded = (
            self.clients.paused
            or bool(self.upkeep.stalls.refusal)
            or bool(self.monitors.sessions)
            or bool(self.replication.read_refusal)
            or self._time_all
            or self.closed
        )

    # -- for replication/role.py -------------------------------------------------------------------

    def roles_changed(self) -> None:
        """What is refused for the sake of the node's role changed."""
        self.rows.guard_writes(bool(self.replication.write_refusal))
        self._update_guard()

    def run_checked(self, session: Session, args: list[bytes]) -> Reply | Deferred:
        """Check a command and run it; where it is held back, later."""
        return self._check_and_run(session, args)

    def is_write(self, session: Session, row: Row) -> bool:
        """Whether a command of a session may change data."""
        return self._writes(session, row)

    def refuse_command(self, session: Session, row: Row, refusal: str) -> ErrorReply:
        """Refuse a command before it ran."""
        return self._reject(session, row, refusal)

    def _settings_changed(self) -> None:
        settings = self.settings
        self.slowlog.resize(settings.slowlog_entries)
        self.latency.threshold_ms = settings.latency_ms
        self._time_all = 0 <= settings.slowlog_us < _TIMED_BELOW_US or settings.latency_ms > 0
        if not self.logins.required:
            for session in self.clients:
                if not session.authenticated:
                    self.logins.accept(session)
        self._update_guard()

    def _hashed(self, password: bytes) -> str:
        return hash_password(password, self.env.random_bytes(SALT_BYTES))
