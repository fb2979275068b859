"""SUBSCRIBE, PUBLISH and their kin.

Owns their handlers and rows; who is subscribed and how messages travel is the node's.

A subscription is acknowledged by one message a channel, not by a reply: pushed beside the replies,
in order with them, or, where EXEC runs the command, as the command's element of EXEC's array.

Threading: control handlers (spec.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from marram.commands.containers import container, subcommand
from marram.commands.context import Context, Session
from marram.commands.glob import Glob
from marram.commands.spec import Arg, Args, Command, Reply, Support, flags
from marram.protocol.replies import NO_REPLY, Push


def _subscribe(context: Context, args: Args) -> Reply:
    """SUBSCRIBE channel [channel ...]."""
    return _change(context, b"subscribe", args[1:], context.channels.subscribe)


def _psubscribe(context: Context, args: Args) -> Reply:
    """PSUBSCRIBE pattern [pattern ...]."""
    return _change(context, b"psubscribe", args[1:], context.channels.psubscribe)


def _unsubscribe(context: Context, args: Args) -> Reply:
    """UNSUBSCRIBE [channel ...]: without channels, from all."""
    names = args[1:] or list(context.session.channels)
    return _change(context, b"unsubscribe", names, context.channels.unsubscribe)


def _punsubscribe(context: Context, args: Args) -> Reply:
    """PUNSUBSCRIBE [pattern ...]: without patterns, from all."""
    names = args[1:] or list(context.session.patterns)
    return _change(context, b"punsubscribe", names, context.channels.punsubscribe)


def _change(
    context: Context, verb: bytes, names: Sequence[bytes], change: Callable[[Session, bytes], None]
) -> Reply:
    """Change the subscriptions one by one, each with its acknowledgement."""
    session = context.session
    messages = []
    for name in names:
        change(session, name)
        messages.append(Push([verb, name, session.subscriptions]))
    if not names:  # nothing to leave is acknowledged all the same, once
        messages.append(Push([verb, None, session.subscriptions]))
    if context.in_transaction:
        return messages[0] if len(messages) == 1 else messages
    for message in messages:
        context.push(message)
    return NO_REPLY


def _publish(context: Context, args: Args) -> Reply:
    """PUBLISH channel message: how many got it."""
    return context.publish(args[1], args[2])


def _channels(context: Context, args: Args) -> Reply:
    if len(args) == 2:
        return list(context.channels.names())
    matches = Glob(args[2]).matches
    return [name for name in context.channels.names() if matches(name)]


def _numsub(context: Context, args: Args) -> Reply:
    found: list[Reply] = []
    for name in args[2:]:
        found += (name, context.channels.count(name))
    return found


def _numpat(context: Context, args: Args) -> Reply:
    return context.channels.num_patterns()


def _shard_channels(context: Context, args: Args) -> Reply:
    return []


def _shard_numsub(context: Context, args: Args) -> Reply:
    found: list[Reply] = []
    for name in args[2:]:
        found += (name, 0)
    return found


# -- the table -------------------------------------------------------------------------------------

_WORDS: Final = flags("pubsub noscript loading stale")
_ASK: Final = "pubsub loading stale"
_row: Final = partial(subcommand, group="pubsub")
_PATTERN: Final = Arg("pattern", "pattern", optional=True)
_SOME: Final = Arg("channel", optional=True, multiple=True)
_NONE: Final = "There are no sharded channels."

ROWS: Final[tuple[Command, ...]] = (
    Command(
        "subscribe", _subscribe, -2, _WORDS, "pubsub", "Listens to channels.", since="2.0.0",
        complexity="O(N) for N channels", control=True, args=(Arg("channel", multiple=True),),
    ),
    Command(
        "unsubscribe", _unsubscribe, -1, _WORDS, "pubsub",
        "Stops listening to channels, or to all.", since="2.0.0",
        complexity="O(N) for N channels", control=True, args=(_SOME,),
    ),
    Command(
        "psubscribe", _psubscribe, -2, _WORDS, "pubsub",
        "Listens to the channels that match patterns.", since="2.0.0",
        complexity="O(N) for N patterns", control=True,
        args=(Arg("pattern", "pattern", multiple=True),),
    ),
    Command(
        "punsubscribe", _punsubscribe, -1, _WORDS, "pubsub",
        "Stops listening to patterns, or to all.", since="2.0.0",
        complexity="O(N) for N patterns", control=True,
        args=(Arg("pattern", "pattern", optional=True, multiple=True),),
    ),
    Command(
        "publish", _publish, 3, flags("pubsub loading stale fast"), "pubsub",
        "Sends a message to a channel and counts who gets it.", since="2.0.0",
        complexity="O(N+M) for N subscribers and M patterns", control=True,
        args=(Arg("channel"), Arg("message")),
    ),
    container(
        "pubsub", "pubsub", "Who listens to what.",
        (
            _row("pubsub|channels", _channels, -2, _ASK, since="2.8.0",
                 summary="Names the channels somebody listens to.",
                 complexity="O(N) for N channels", args=(_PATTERN,)),
            _row("pubsub|numsub", _numsub, -2, _ASK, since="2.8.0",
                 summary="Counts the subscribers of channels, patterns aside.",
                 complexity="O(N) for N channels", args=(_SOME,)),
            _row("pubsub|numpat", _numpat, 2, _ASK, since="2.8.0",
                 summary="Counts the different patterns."),
            _row("pubsub|shardchannels", _shard_channels, -2, _ASK, since="7.0.0",
                 summary="Gives an empty list.", support=Support.PARTIAL, note=_NONE,
                 args=(_PATTERN,)),
            _row("pubsub|shardnumsub", _shard_numsub, -2, _ASK, since="7.0.0",
                 summary="Counts nobody.", support=Support.PARTIAL, note=_NONE, args=(_SOME,)),
        ),
        since="2.8.0",
    ),
)  # fmt: skip
