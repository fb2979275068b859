"""A TCP relay on loopback that can be told to misbehave: the link between two servers."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class _Pair:
    """One connection that is passed on. near: of whoever connected; far: of the target."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near = near
        self.far = far

    def close(self) -> None:
        """Both ends; a reader in another thread wakes up."""
        for end in (self.near, self.far):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Relay:
    """Passes connections on to a port of loopback, which may change.

    cut()     ends all connections and refuses new ones
    hold()    passes nothing on, in either direction; nobody is told
    half(w)   closes one direction: "up" to the target, "down" from it. What goes there is lost
    heal()    as at first; what was held goes on, and what was half closed ends
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[_Pair] = []
        self._change = threading.Condition()
        self._is_cut = self._is_held = self._is_over = False  # guarded by _change
        self._deaf = ""  # likewise
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    def cut(self) -> None:
        with self._change:
            self._is_cut = True
        self._end_all()

    def hold(self) -> None:
        with self._change:
            self._is_held = True

    def half(self, way: str) -> None:
        with self._change:
            self._deaf = way
            for pair in self._pairs:
                with contextlib.suppress(OSError):
                    (pair.far if way == "up" else pair.near).shutdown(socket.SHUT_WR)

    def heal(self) -> None:
        with self._change:
            was_deaf, self._deaf = self._deaf, ""
            self._is_cut = self._is_held = False
            self._change.notify_all()
        if was_deaf:
            self._end_all()

    def close(self) -> None:
        """End everything, and wait for the threads."""
        with self._change:
            self._is_over = True
            self._change.notify_all()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._end_all()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    def _run(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _end_all(self) -> None:
        with self._change:
            pairs = list(self._pairs)
        for pair in pairs:
            pair.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                near.close()  # nobody is there: the other end is told as by a closed port, almost
                continue
            far.settimeout(None)
            pair = _Pair(near, far)
            with self._change:
                if self._is_cut or self._is_over:
                    near.close()
                    far.close()
                    continue
                self._pairs.append(pair)
            ends = [threading.Event(), threading.Event()]
            self._run(self._pass, pair, near, far, "up", *ends)
            self._run(self._pass, pair, far, near, "down", *ends[::-1])

    def _pass(
        self,
        pair: _Pair,
        source: socket.socket,
        sink: socket.socket,
        way: str,
        ended: threading.Event,
        other: threading.Event,
    ) -> None:
        """One direction of a connection."""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self._change:
                    self._change.wait_for(lambda: not self._is_held or self._is_over)
                    is_lost = self._deaf == way
                if not is_lost:
                    sink.sendall(data)
        with self._change:
            is_lost = self._deaf != ""
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        if not is_lost:
            pair.close()  # as a closed socket ends both directions
        ended.set()
        with self._change:
            if other.is_set() and pair in self._pairs:
                self._pairs.remove(pair)
                pair.near.close()
                pair.far.close()
