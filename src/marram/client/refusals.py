"""Error replies as exceptions: the server's words, this library's tree.

Owns the mapping of codes to classes; not which codes there are (marram.commands, marram.node).

Threading: pure functions.
"""

from __future__ import annotations

from marram.errors import (
    Conflict,
    Corruption,
    Error,
    NotLeader,
    OutcomeUnknown,
    ReadOnly,
    ServerError,
    StoreFailed,
    StoreFull,
)
from marram.protocol.replies import ErrorReply
from marram.storage.entry import WrongType

_CLASSES: dict[str, type[Error]] = {
    "CONFLICT": Conflict,
    "CORRUPTION": Corruption,
    "MISCONF": StoreFailed,
    "NOTLEADER": NotLeader,
    "OOM": StoreFull,
    "OUTCOMEUNKNOWN": OutcomeUnknown,
    "READONLY": ReadOnly,
    "WRONGTYPE": WrongType,
}


def refusal(reply: ErrorReply) -> Error:
    """The exception that an error reply means; ServerError where its code means nothing special."""
    kind = _CLASSES.get(reply.code)
    if kind is None:
        return ServerError(reply.text)
    return kind(reply.text.partition(" ")[2] or reply.text)
