"""MULTI, EXEC, DISCARD, WATCH, UNWATCH.

Owns their handlers and rows; queueing, and running a queue as one batch, are the node's
(marram.node.transactions).

Threading: control handlers (spec.py).
"""

from __future__ import annotations

from typing import Final

from marram.commands.context import Context
from marram.commands.grammar import KEYS
from marram.commands.spec import Args, Command, Reply, flags
from marram.protocol.replies import OK


def _multi(context: Context, args: Args) -> Reply:
    """MULTI."""
    context.transactions.begin(context.session)
    return OK


def _exec(context: Context, args: Args) -> Reply:
    """EXEC."""
    return context.transactions.run(context.session)


def _discard(context: Context, args: Args) -> Reply:
    """DISCARD."""
    context.transactions.discard(context.session)
    return OK


def _watch(context: Context, args: Args) -> Reply:
    """WATCH key [key ...]."""
    context.transactions.watch(context.session, args[1:])
    return OK


def _unwatch(context: Context, args: Args) -> Reply:
    """UNWATCH."""
    context.transactions.unwatch(context.session)
    return OK


_WORDS: Final = flags("noscript loading stale fast allow_busy")

ROWS: Final[tuple[Command, ...]] = (
    Command(
        "multi", _multi, 1, _WORDS, "transactions",
        "Starts a transaction: what follows is queued.", since="1.2.0", control=True,
    ),
    Command(
        "exec", _exec, 1, flags("noscript loading stale skip_slowlog"), "transactions",
        "Runs the queue as one: all its changes survive a crash, or none.", since="1.2.0",
        complexity="Depends on commands in the transaction.", control=True,
    ),
    Command(
        "discard", _discard, 1, _WORDS, "transactions",
        "Drops the queue and what is watched.", since="2.0.0", control=True,
    ),
    Command(
        "watch", _watch, -2, _WORDS, "transactions",
        "Makes the next EXEC do nothing if one of the keys is written before it.",
        keys=(1, -1, 1), since="2.2.0", complexity="O(1) for every key.", control=True,
        args=(KEYS,),
    ),
    Command(
        "unwatch", _unwatch, 1, _WORDS, "transactions",
        "Forgets what is watched.", since="2.2.0", control=True,
    ),
)  # fmt: skip
