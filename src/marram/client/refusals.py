"""Error replies as exceptions: the server's words, this library's tree.

Owns the mapping of codes to classes; not which codes there are (marram.commands, marram.node).

Threading: pure functions.
"""

from __future__ import annotations

import re

from marram.errors import (
    Behind,
    Conflict,
    Corruption,
    Error,
    NoReplicas,
    NotLeader,
    OutcomeUnknown,
    ReadOnly,
    ServerError,
    StoreFailed,
    StoreFull,
)
from marram.protocol.replies import ErrorReply
from marram.storage.entry import WrongType

_PRIMARY = re.compile(r"the primary at (\S+)$")

_CLASSES: dict[str, type[Error]] = {
    "CONFLICT": Conflict,
    "CORRUPTION": Corruption,
    "MISCONF": StoreFailed,
    "NOPOSITION": Behind,
    "NOREPLICAS": NoReplicas,
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
    primary = _PRIMARY.search(reply.text) if kind is ReadOnly else None
    if primary is not None:
        return NotLeader(reply.text.partition(" ")[2], primary[1])
    return kind(reply.text.partition(" ")[2] or reply.text)
