"""The server: open the store, listen, run until told to stop, drain, close.

Owns the order of starting and stopping, signals, and what is printed; everything that happens in
between belongs to the modules it puts together.

S1  the ready line is printed once, when every listener accepts.
S2  stopping: nothing new is accepted, running commands finish, replies leave, the log is synced and
    the store closed; what takes longer than shutdown_timeout_s is cut off. Nothing that was
    acknowledged depends on any of it.
S3  a failure to start is one line on stderr.

Threading: the event loop's; serve() belongs on the main thread, for the signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from marram import __version__
from marram.env import Env, posix_env
from marram.env.arenas import use_huge_pages
from marram.errors import Error, InvalidArgument
from marram.node.node import Node
from marram.node.passwords import hash_password
from marram.node.replication.figures import stats as replication_stats
from marram.node.settings import OutputLimit, ReplicationSettings, Settings
from marram.protocol.resp import RespLimits
from marram.server import logs, screen
from marram.server.commit import Committer
from marram.server.config import AUTO, OFF, ServerConfig
from marram.server.connection import Clients
from marram.server.frames import FrameConnection
from marram.server.logs import event
from marram.server.replication import LinkShell
from marram.server.resp import RespConnection
from marram.storage.engines import LSM
from marram.storage.layout import TABLES
from marram.storage.store import Store

_logger = logging.getLogger("marram.server")

_TICK_S: Final = 0.1
_TICKS_A_SECOND: Final = 10
_FRAME_FIELDS_BYTES: Final = 9  # of a frame, beside key and value
_GC_THRESHOLDS: Final = (10_000, 50, 20)
_SPARE_FILES: Final = 64  # descriptors beyond clients: the store's, the loop's, standard streams

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


class StartFailed(Error):
    """The server cannot start; the message is for the person who started it."""


class Server:
    """One server in a running event loop: start(), wait_stopped() or stop(). Single use."""

    def __init__(self, config: ServerConfig, env: Env | None = None) -> None:
        """env: a stand-in for the operating system's files and clocks."""
        self.env = env or posix_env()
        self._password = config.password
        self._primary_password = config.primary_password or config.password
        self.config = replace(
            config, password="", primary_password=""
        )  # kept as a hash from here on
        self.directory = os.path.abspath(config.dir)
        self.addresses: dict[str, str] = {}
        self.store: Store
        self.node: Node
        self.clients: Clients
        self._committer: Committer
        self._links: LinkShell
        self._listeners: list[asyncio.Server] = []
        self._http: Any = None
        self._tick_timer: asyncio.TimerHandle | None = None
        self._ticks = 0
        self._stopping = asyncio.Event()
        self._closed = False
        self._save_first = False

    # -- a life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the store and listen. Raises Error, OSError: nothing is left open."""
        config = self.config
        replace(config, password=self._password).check_exposure()
        self.store = Store.open(self.directory, self.env, config.store_options())
        sockets: dict[str, socket.socket] = {}
        try:
            for name in ("resp", "http", "frame"):
                port = getattr(config, f"{name}_port")
                if port != OFF:
                    sockets[name] = _listen(config.host, port, config.tcp_backlog, name)
                    self.addresses[name] = _address_of(sockets[name])
            await self._serve_on(sockets)
        except BaseException:
            for sock in sockets.values():
                sock.close()
            if hasattr(self, "node"):
                self.node.replication.stop(lambda: None)
            self.store.close()
            raise
        self.store.set_address(" ".join(f"{name}={at}" for name, at in self.addresses.items()))
        event(
            _logger, logging.INFO, "ready", directory=self.directory, pid=self.env.pid(),
            engine=self.store.engine.name, keys=self.store.stats()["num_keys"], **self.addresses,
        )  # fmt: skip

    def request_stop(self) -> None:
        """Have wait_stopped() return; from the loop's thread."""
        self._stopping.set()

    def _shut_down(self, save: bool) -> None:
        """SHUTDOWN: as a signal would; `save` makes a checkpoint first."""
        self._save_first = save
        self.request_stop()

    async def wait_stopped(self) -> None:
        """Return once somebody asked for the end."""
        await self._stopping.wait()

    async def stop(self) -> None:
        """Drain and close (S2); idempotent."""
        if self._closed:
            return
        self._closed = True
        deadline = asyncio.get_running_loop().time() + self.config.shutdown_timeout_s
        event(_logger, logging.INFO, "stopping", clients=len(self.clients.connections))
        self.clients.closing = True
        for listener in self._listeners:
            listener.close()
        http = asyncio.ensure_future(self._http.stop()) if self._http is not None else None
        await self._drain(deadline)
        if http is not None:
            await http
        await self._end_links()
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        self.node.close()
        self._committer.close()
        if self._save_first and self.store.failure is None:
            self._checkpoint()
        self.store.close()
        event(_logger, logging.INFO, "stopped")

    # -- figures -----------------------------------------------------------------------------------

    def figures(self) -> dict[str, Any]:
        """STATS: the store's figures and the server's, plain values."""
        clients = self.clients
        return {
            **self.store.stats(),
            "replication": replication_stats(self.node.replication),
            "stalls": self.node.upkeep.stalls.figures(),  # the store holds nobody back here
            "server": {
                "version": __version__,
                "pid": self.env.pid(),
                "addresses": self.addresses,
                "connected_clients": len(clients.connections),
                "connections": clients.accepted,
                "connections_refused": self.node.traffic.rejected_connections,
                "commands": self.node.rows.total_calls(),
            },
        }

    def why_not_ready(self) -> str | None:
        """Why requests are not taken now; None where they are. A replica takes reads."""
        if self._closed:
            return "the server is stopping"
        failure = self.store.failure
        if failure is not None:
            return f"the store failed and must be reopened: {failure}"
        return self.node.replication.read_refusal or None

    # -- starting ----------------------------------------------------------------------------------

    async def _serve_on(self, sockets: dict[str, socket.socket]) -> None:
        config = self.config
        loop = asyncio.get_running_loop()
        settings = _settings(config, self._password, self._primary_password, self.env)
        self._password = self._primary_password = ""
        settings.host = config.host
        settings.port = sockets["resp"].getsockname()[1] if "resp" in sockets else 0
        self.node = Node(self.store, settings, self.env, loop)
        self.node.on_shutdown = self._shut_down
        self._committer = Committer(self.store, self.env, loop)
        self.clients = Clients(self.node, self._committer, config, loop)
        self._begin_replication(loop)
        max_frame = config.max_key_bytes + config.max_value_bytes + _FRAME_FIELDS_BYTES
        factories: dict[str, Callable[[], Any]] = {
            "resp": lambda: RespConnection(self.clients, _resp_limits(settings)),
            "frame": lambda: FrameConnection(self.clients, max_frame, self.figures),
        }
        for name, factory in factories.items():
            if name in sockets:
                self._listeners.append(
                    await loop.create_server(
                        factory, sock=sockets[name], backlog=config.tcp_backlog
                    )
                )
        if "http" in sockets:
            await self._start_http(sockets["http"])
        self._tick()

    def _begin_replication(self, loop: asyncio.AbstractEventLoop) -> None:
        replication = self.node.replication
        self._links = LinkShell(self._committer, loop)
        replication.shell = self._links
        replication.address = " ".join(
            f"{name}={self._announced(at)}" for name, at in self.addresses.items()
        )
        self._committer.on_advance = replication.advanced
        replication.open(self.config.replica_of)

    def _announced(self, address: str) -> str:
        """Where others are told that a listener is."""
        announce = self.config.announce
        return f"{announce}:{address.rpartition(':')[2]}" if announce else address

    async def _start_http(self, sock: socket.socket) -> None:
        # Imported here: a server without HTTP needs none of it installed.
        try:
            from marram.server.http import Api
            from marram.server.http_wire import HttpListener
            from marram.server.metrics import Metrics
        except ImportError as error:
            raise StartFailed(
                f"HTTP needs 'pip install marram[server]' ({error}); or say --http-port off"
            ) from None
        api = Api(
            self.node, self.store, self._committer, self.config,
            figures=self.figures, ready=self.why_not_ready,
        )  # fmt: skip
        api.metrics = Metrics(self.store, self.node, self.clients, api.requests, self.env).text
        self._http = HttpListener(api.application(), self.config)
        await self._http.start(sock)

    def _tick(self) -> None:
        self._ticks += 1
        self.node.tick()
        self._committer.wake()
        self.clients.tick()
        if self._http is not None and self._ticks % _TICKS_A_SECOND == 0:
            self._http.tick()
        self._tick_timer = asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    # -- stopping ----------------------------------------------------------------------------------

    async def _end_links(self) -> None:
        over = asyncio.Event()
        self.node.replication.stop(over.set)
        self._links.close()
        with suppress(TimeoutError):  # the store's closing aborts what is still under way
            async with asyncio.timeout(self.config.shutdown_timeout_s):
                await over.wait()

    def _checkpoint(self) -> None:
        try:
            self.store.checkpoint()
        except Error as error:  # everything is in the log all the same
            event(_logger, logging.ERROR, "checkpoint failed", error=str(error))

    async def _drain(self, deadline: float) -> None:
        """Let connections end on their own terms until the deadline, then end them."""
        loop = asyncio.get_running_loop()
        for connection in list(self.clients.connections):
            connection.finish()
        while self.clients.connections and loop.time() < deadline:
            await asyncio.sleep(0.01)
        for connection in list(self.clients.connections):
            connection.abort("the server is stopping")


# -- running one as a process ----------------------------------------------------------------------


def serve(config: ServerConfig) -> int:
    """Run a server until it is told to stop; returns the process's exit code.

    0: stopped as told. 1: it could not start, or the store failed. 2: the configuration is wrong.
    130: interrupted before it was ready.
    """
    with logs.installed(config.log_format, config.log_level):
        try:
            config.check_exposure()
            if config.huge_pages:
                use_huge_pages()
            config = _raise_file_limit(config)
            with asyncio.Runner(loop_factory=_loop_factory(config.loop)) as runner:
                return runner.run(_main(config))
        except InvalidArgument as error:
            return _complain(error, EXIT_USAGE)
        except (Error, OSError) as error:
            return _complain(error, EXIT_FAILED)
        except KeyboardInterrupt:  # while the store was being opened
            return EXIT_INTERRUPTED


async def _main(config: ServerConfig) -> int:
    server = Server(config)
    await server.start()
    _install_signals(server)
    with _collector_tuned():
        print(ready_line(server), flush=True)
        if sys.stdout.isatty():
            screen.show(server.config, server.addresses, server.directory, server.figures())
        await server.wait_stopped()
        await server.stop()
    return EXIT_FAILED if server.store.failure is not None else 0


@contextlib.contextmanager
def _collector_tuned() -> Iterator[None]:
    """Have the garbage collector suit a server with much in memory."""
    # What is there now stays: a full collection need not look at it ever again. With a million keys
    # that is 20 ms instead of 150 (CPython 3.11).
    gc.collect()
    gc.freeze()
    # Strings are nothing to the collector, keys with deadlines are: with the default thresholds it
    # took 12 % of the time of storing 100,000 of those, 65 ms at once; so, 4 % and 25 ms.
    before = gc.get_threshold()
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def ready_line(server: Server) -> str:
    """The one line that says that every listener accepts (S1)."""
    listeners = "".join(f" {name}={at}" for name, at in server.addresses.items())
    uplink = server.node.replication.uplink
    role = "" if uplink is None else f" replica-of={uplink.upstream}"
    return f"marram ready dir={server.directory} engine={server.store.engine.name}{listeners}{role}"


def _install_signals(server: Server) -> None:
    loop = asyncio.get_running_loop()
    asked = False

    def stop() -> None:
        nonlocal asked
        if asked:
            os._exit(EXIT_FAILED)  # told twice: at once. What was acknowledged is on disk
        asked = True
        server.request_stop()

    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGINT, stop)
    # There is no log file to reopen; without a handler SIGHUP would end the process.
    loop.add_signal_handler(signal.SIGHUP, lambda: event(_logger, logging.INFO, "SIGHUP ignored"))


def _complain(error: Exception, code: int) -> int:
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    text = logs.one_line(text)
    print(f"marram: {text}", file=sys.stderr, flush=True)
    return code


# -- private ---------------------------------------------------------------------------------------


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError:
        if name == "uvloop":
            raise StartFailed("uvloop is not installed; try 'pip install uvloop'") from None
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _listen(host: str, port: int, backlog: int, name: str) -> socket.socket:
    """A listening socket. Raises StartFailed."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # "localhost" is two addresses; the older one is the one everybody tries.
        family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
        both = host == "::" and socket.has_dualstack_ipv6()
        sock = socket.create_server(
            address[:2], family=family, backlog=backlog, dualstack_ipv6=both
        )
    except OSError as error:
        hint = "; is another server running?" if error.errno == errno.EADDRINUSE else ""
        why = error.strerror or str(error)
        raise StartFailed(f"cannot listen on {host}:{port} for {name}: {why}{hint}") from None
    sock.setblocking(False)
    return sock


def _address_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _settings(config: ServerConfig, password: str, primary_password: str, env: Env) -> Settings:
    kept = hash_password(password.encode(), env.random_bytes(16)) if password else ""
    return Settings(
        password_hash=kept,
        debug_commands=config.debug_commands,
        backup_dir=os.path.abspath(config.backup_dir) if config.backup_dir else "",
        maxclients=config.maxclients,
        timeout_s=config.idle_timeout_s,
        tcp_keepalive_s=config.tcp_keepalive_s,
        slowlog_us=config.slowlog_us,
        slowlog_entries=config.slowlog_entries,
        max_bulk_bytes=max(config.max_value_bytes, config.max_key_bytes),
        max_request_bytes=config.max_request_bytes,
        normal_output=OutputLimit(config.output_limit_bytes),
        replication=ReplicationSettings(
            min_acks=config.min_acks,
            ack_on_disk=config.ack_level == "disk",
            ack_timeout_ms=round(config.ack_timeout_s * 1000),
            max_replicas=config.max_replicas,
            sync_rate=config.sync_rate,
            password=primary_password.encode(),
            max_frame_bytes=config.max_value_bytes + config.max_request_bytes,
        ),
        pubsub_output=OutputLimit(
            config.pubsub_output_limit_bytes,
            config.pubsub_output_soft_bytes,
            config.pubsub_output_soft_s,
        ),
    )


def _resp_limits(settings: Settings) -> RespLimits:
    """As they are now: CONFIG SET changes them for connections to come."""
    return RespLimits(
        max_bulk_bytes=settings.max_bulk_bytes, max_buffer_bytes=settings.max_request_bytes
    )


def _raise_file_limit(config: ServerConfig) -> ServerConfig:
    """Have the system allow descriptors for all clients and tables there may be, or have fewer."""
    tables = config.max_open_tables if _may_have_tables(config) else 0
    wanted = config.maxclients + config.http_max_connections + _SPARE_FILES + tables
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return config
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))
        soft = max(soft, limit)
    if soft >= wanted:
        return config
    room = max(2, soft - _SPARE_FILES)
    tables = min(tables, room // 4)
    room -= tables
    http = max(1, min(config.http_max_connections, room // 4))
    lowered = replace(config, maxclients=max(1, room - http), http_max_connections=http)
    if tables:
        lowered = replace(lowered, max_open_tables=tables)
    event(
        _logger, logging.WARNING, "too few file descriptors", limit=soft,
        maxclients=lowered.maxclients, http_max_connections=http,
        max_open_tables=lowered.max_open_tables,
    )  # fmt: skip
    return lowered


def _may_have_tables(config: ServerConfig) -> bool:
    """Whether the store is, or will be, of the engine that holds tables open."""
    if config.engine == AUTO:
        return os.path.isdir(os.path.join(config.dir, TABLES))
    return config.engine == LSM
