"""The socket side of HTTP: uvicorn inside our event loop, with limits it does not have.

Owns connections, header limits and timeouts; not requests (http.py). The parser is llhttp (by
httptools), which refuses a request with both framings, odd lengths and bare line ends.

L1  a connection holds at most one request's headers, of bounded size and number.
L2  a request that does not arrive whole in time ends its connection, whatever its pace.

Threading: the event loop's.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from marram.server.config import ServerConfig

MAX_HEADERS: Final = 100
MAX_HEADER_BYTES: Final = 32 << 10
_PACE_BYTES: Final = 16 << 10  # this much progress earns a request its time anew


class HttpListener(uvicorn.Server):
    """uvicorn as a part of our server: our sockets, our signals, our loop."""

    def __init__(self, app: Any, config: ServerConfig) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_protocol_class(config),
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=True,
                timeout_keep_alive=config.http_keepalive_s,
                timeout_graceful_shutdown=max(1, int(config.shutdown_timeout_s)),
                backlog=config.tcp_backlog,
            )
        )

    async def start(self, sock: socket.socket) -> None:
        """Accept connections on a listening socket."""
        # What uvicorn's serve() does, without its hold on signals: those are app.py's.
        self._sock = sock
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=[sock])
        self._running = asyncio.create_task(self.main_loop())

    async def stop(self) -> None:
        """Accept no more; return once running requests are answered, or took too long."""
        self.should_exit = True
        await self._running
        await self.shutdown(sockets=[self._sock])

    def tick(self) -> None:
        """Every second: the requests that do not arrive."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, _Connection):
                connection.tick()


class _Connection(HttpToolsProtocol):
    """uvicorn's connection, with L1 and L2. Subclassed with the limits of a configuration."""

    max_connections = 1000
    max_url_bytes = 256 << 10
    request_timeout_s = 30

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came; it may be one too many."""
        super().connection_made(transport)
        self._refusal = (400, "bad_request", "this is not an HTTP request")
        self._waited_s = 0
        self._received = 0
        self._headers_seen = 0
        self._header_bytes = 0
        if len(self.connections) > self.max_connections:
            self._refusal = (503, "too_many_connections", "too many HTTP connections; retry later")
            self.send_400_response("")

    def data_received(self, data: bytes) -> None:
        """Bytes, parsed by uvicorn, which calls the methods below."""
        if self.transport.is_closing():
            return
        self._received += len(data)
        if self._received >= _PACE_BYTES:
            self._received = self._waited_s = 0
        super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more. One that waits for its answer still gets it."""
        return self.cycle is not None and not self.cycle.response_complete

    def on_message_begin(self) -> None:
        """A request begins."""
        self._headers_seen = self._header_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        super().on_url(url)
        if len(self.url) > self.max_url_bytes:
            self._refuse(414, "url_too_long", f"a URL has at most {self.max_url_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header (or a trailer, which counts as one)."""
        self._headers_seen += 1
        self._header_bytes += len(name) + len(value)
        if self._headers_seen > MAX_HEADERS or self._header_bytes > MAX_HEADER_BYTES:
            limits = f"{MAX_HEADERS} headers and {MAX_HEADER_BYTES} bytes of them"
            self._refuse(431, "headers_too_large", f"a request has at most {limits}")
        super().on_header(name, value)

    def on_message_complete(self) -> None:
        """The request is here, whole."""
        self._waited_s = self._received = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser could not read, and close."""
        cycle = self.cycle
        answering = cycle is not None and not cycle.response_complete
        if answering and (cycle.response_started or not cycle.more_body):
            # A whole request is being answered; bytes of ours would pass for its answer.
            cycle.keep_alive = False
            self.transport.pause_reading()
            return
        status, code, message = self._refusal
        body = json.dumps({"error": {"code": code, "message": message}}).encode()
        head = (
            b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            % len(body)
        )
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()

    def tick(self) -> None:
        """Every second: is a request on its way that does not get here? (L2)"""
        if self.cycle is not None and self.cycle.response_complete:
            arriving = self.timeout_keep_alive_task is None  # else uvicorn's own timer runs
        else:
            arriving = self.cycle is None or self.cycle.more_body
        self._waited_s = self._waited_s + 1 if arriving else 0
        if self._waited_s > self.request_timeout_s:
            self._refusal = (408, "timeout", "the request did not arrive in time")
            self.send_400_response("")
            self.transport.close()

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._refusal = (status, code, message)
        raise ValueError(message)  # through the parser, back to data_received()


def _protocol_class(config: ServerConfig) -> type[_Connection]:
    limits = {
        "max_connections": config.http_max_connections,
        # A key's byte takes three in a URL; the rest is path and query.
        "max_url_bytes": 3 * config.max_key_bytes + (64 << 10),
        "request_timeout_s": config.http_request_timeout_s,
    }
    return type("HttpConnection", (_Connection,), limits)
