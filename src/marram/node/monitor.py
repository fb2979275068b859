"""MONITOR: sessions that are shown every command.

Owns the lines and who gets them; passwords are redacted (slowlog.redacted).

Threading: the thread that owns the node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from marram.node.session import Session
from marram.node.slowlog import redacted
from marram.protocol.replies import Simple

_ESCAPES: Final = {
    ord("\\"): "\\\\",
    ord('"'): '\\"',
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    0x07: "\\a",
    0x08: "\\b",
}
_BYTES: Final = [
    _ESCAPES.get(byte, chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}")
    for byte in range(256)
]


def quoted(arg: bytes) -> str:
    """An argument as MONITOR prints it: in quotes, whatever is not printable escaped.

    >>> quoted(b'a"b' + bytes([10, 255]))
    '"a\\\\"b\\\\n\\\\xff"'
    """
    return '"' + "".join([_BYTES[byte] for byte in arg]) + '"'


class Monitors:
    """Who watches."""

    def __init__(self) -> None:
        self.sessions: dict[Session, None] = {}

    def add(self, session: Session) -> None:
        """Show a session what is run from now on."""
        session.monitoring = True
        self.sessions[session] = None

    def drop(self, session: Session) -> None:
        """Stop that."""
        session.monitoring = False
        self.sessions.pop(session, None)

    def show(self, caller: Session, args: Sequence[bytes], time_ms: int) -> None:
        """Show everybody a command."""
        words = " ".join(map(quoted, redacted(args)))
        where = f"[{caller.keyspace} {caller.address}]"
        line = Simple(f"{time_ms // 1000}.{time_ms % 1000 * 1000:06d} {where} {words}")
        for session in list(self.sessions):
            session.push(line, 0)
