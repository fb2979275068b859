"""Commands on keys whatever they hold: DEL, EXISTS, RENAME, COPY, KEYS, OBJECT, FLUSHDB, ...

Owns their handlers and rows; expiry.py has EXPIRE and TTL, scan.py SCAN. Replies and refusals are
Redis 7.0's.

K1  a handler never sees its own changes: a key named twice (DEL k k, RENAME k k) is settled here.

Threading: pure handlers (spec.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from marram.coding.batch import (
    KEYSPACES,
    TYPE_STRING,
    Change,
    delete,
    delete_range,
    put,
    swap,
)
from marram.commands.containers import container
from marram.commands.glob import Glob
from marram.commands.grammar import KEY, KEYS, one_of, optional, word
from marram.commands.spec import (
    NO_SUCH_KEY,
    SYNTAX,
    Arg,
    Args,
    Command,
    CommandError,
    Outcome,
    Reply,
    Support,
    flags,
    integer,
)
from marram.protocol.replies import OK, Simple
from marram.storage.entry import Entry
from marram.storage.view import View

SAME_OBJECT: Final = "ERR source and destination objects are the same"
BAD_KEYSPACE: Final = "ERR DB index is out of range"
_NOT_AN_INT: Final = "ERR value is out of range, value must between -2147483648 and 2147483647"

TYPE_NAMES: Final = {TYPE_STRING: "string"}
"""What TYPE says, and SCAN's TYPE takes."""


def prefix_stop(prefix: bytes) -> bytes | None:
    """The first key after all that start with `prefix`, or None where none can follow."""
    short = prefix.rstrip(b"\xff")
    return short[:-1] + bytes((short[-1] + 1,)) if short else None


# -- removing and looking --------------------------------------------------------------------------


def delete_keys(view: View, args: Args) -> Reply:
    """DEL and UNLINK key ...: gives how many there were."""
    keyspace = view.keyspace
    if len(args) == 2:
        if not view.exists(args[1]):
            return 0
        return Outcome(1, [delete(keyspace, args[1])])
    found = [key for key in dict.fromkeys(args[1:]) if view.exists(key)]
    return Outcome(len(found), [delete(keyspace, key) for key in found]) if found else 0


def exists(view: View, args: Args) -> Reply:
    """EXISTS and TOUCH key ...: a key named twice counts twice."""
    entry = view.entry
    count = 0
    for key in args[1:]:
        if entry(key) is not None:
            count += 1
    return count


def type_(view: View, args: Args) -> Reply:
    """TYPE key."""
    entry = view.entry(args[1])
    return Simple("none" if entry is None else TYPE_NAMES[entry.type])


def keys(view: View, args: Args) -> Reply:
    """KEYS pattern: in key order."""
    pattern = Glob(args[1])
    if pattern.literal is not None:
        return [pattern.literal] if view.exists(pattern.literal) else []
    all_ = args[1] == b"*"
    found: list[bytes] = []
    start: bytes | None = pattern.prefix
    stop = prefix_stop(pattern.prefix)
    while start is not None:
        slice_, start = view.keys(start, stop)
        found += slice_ if all_ else filter(pattern.matches, slice_)
    return found


def dbsize(view: View, args: Args) -> Reply:
    """DBSIZE."""
    return view.count()


# -- moving and copying ----------------------------------------------------------------------------


def rename(view: View, args: Args) -> Reply:
    """RENAME key newkey: replaces what newkey held."""
    source, target = args[1], args[2]
    entry = view.entry(source)
    if entry is None:
        raise CommandError(NO_SUCH_KEY)
    return OK if source == target else Outcome(OK, _moved(view, source, entry, view, target))


def renamenx(view: View, args: Args) -> Reply:
    """RENAMENX key newkey: only where newkey does not exist."""
    source, target = args[1], args[2]
    entry = view.entry(source)
    if entry is None:
        raise CommandError(NO_SUCH_KEY)
    if view.entry(target) is not None:
        return 0
    return Outcome(1, _moved(view, source, entry, view, target))


def move(view: View, args: Args) -> Reply:
    """MOVE key db: only where the key does not exist there."""
    key = args[1]
    keyspace = _keyspace(args[2])
    if keyspace == view.keyspace:
        raise CommandError(SAME_OBJECT)
    entry = view.entry(key)
    target = view.at(keyspace)
    if entry is None or target.entry(key) is not None:
        return 0
    return Outcome(1, _moved(view, key, entry, target, key))


def copy(view: View, args: Args) -> Reply:
    """COPY source destination [DB db] [REPLACE]: the copy has the same deadline."""
    keyspace = view.keyspace
    replace = False
    words = iter(args[3:])
    for given in words:
        option = given.upper()
        if option == b"REPLACE":
            replace = True
        elif option == b"DB" and (number := next(words, None)) is not None:
            keyspace = _keyspace(number)
        else:
            raise CommandError(SYNTAX)
    source, target = args[1], args[2]
    if source == target and keyspace == view.keyspace:
        raise CommandError(SAME_OBJECT)
    entry = view.entry(source)
    if entry is None or (view.at(keyspace).entry(target) is not None and not replace):
        return 0
    return Outcome(1, [_stored(keyspace, target, entry)])


def _keyspace(text: bytes) -> int:
    """A keyspace's number. Raises CommandError."""
    number = integer(text)
    if not -(2**31) <= number < 2**31:
        raise CommandError(_NOT_AN_INT)
    if not 0 <= number < KEYSPACES:
        raise CommandError(BAD_KEYSPACE)
    return number


def _stored(keyspace: int, key: bytes, entry: Entry) -> Change:
    """The change that stores an entry as it is."""
    change = put(keyspace, key, entry.value, entry.deadline_ms)
    return (*change[:5], entry.type)


def _moved(view: View, key: bytes, entry: Entry, target: View, new_key: bytes) -> list[Change]:
    return [_stored(target.keyspace, new_key, entry), delete(view.keyspace, key)]


# -- whole keyspaces -------------------------------------------------------------------------------


def flushdb(view: View, args: Args) -> Reply:
    """FLUSHDB [ASYNC | SYNC]: both are immediate."""
    _check_flush(args)
    return Outcome(OK, _flushed(view, view.keyspace))


def flushall(view: View, args: Args) -> Reply:
    """FLUSHALL [ASYNC | SYNC]: both are immediate."""
    _check_flush(args)
    changes = [change for number in range(KEYSPACES) for change in _flushed(view, number)]
    return Outcome(OK, changes)


def _check_flush(args: Args) -> None:
    if len(args) > 2 or (len(args) == 2 and args[1].upper() not in (b"ASYNC", b"SYNC")):
        raise CommandError(SYNTAX)


def _flushed(view: View, keyspace: int) -> list[Change]:
    """What empties a keyspace: nothing where it is empty."""
    return [delete_range(keyspace, b"", None)] if view.at(keyspace).count() else []


def swapdb(view: View, args: Args) -> Reply:
    """SWAPDB db db."""
    numbers = []
    for text, place in ((args[1], "first"), (args[2], "second")):
        refusal = f"ERR invalid {place} DB index"
        number = integer(text, refusal)
        if not -(2**31) <= number < 2**31:
            raise CommandError(refusal)
        numbers.append(number)
    first, second = numbers
    if not (0 <= first < KEYSPACES and 0 <= second < KEYSPACES):
        raise CommandError(BAD_KEYSPACE)
    return OK if first == second else Outcome(OK, [swap(first, second)])


# -- OBJECT ----------------------------------------------------------------------------------------

_EMBEDDED_MAX: Final = 44  # bytes of a string that Redis keeps beside its header
_INT_TEXT_MAX: Final = 20
_NO_FREQUENCY: Final = (
    "ERR An LFU maxmemory policy is not selected, access frequency not tracked. "
    "Please note that when switching between policies at runtime LRU and LFU data "
    "will take some time to adjust."
)


def object_encoding(view: View, args: Args) -> Reply:
    """OBJECT ENCODING key: from the value alone, whichever command made it."""
    entry = view.entry(args[2])
    if entry is None:
        return None
    value = entry.value
    try:
        if len(value) <= _INT_TEXT_MAX:
            integer(value)
            return b"int"
    except CommandError:
        pass
    return b"embstr" if len(value) <= _EMBEDDED_MAX else b"raw"


def object_freq(view: View, args: Args) -> Reply:
    """OBJECT FREQ key."""
    if view.entry(args[2]) is None:
        return None
    raise CommandError(_NO_FREQUENCY)


def object_idletime(view: View, args: Args) -> Reply:
    """OBJECT IDLETIME key."""
    return None if view.entry(args[2]) is None else 0


def object_refcount(view: View, args: Args) -> Reply:
    """OBJECT REFCOUNT key."""
    return None if view.entry(args[2]) is None else 1


# -- rows ------------------------------------------------------------------------------------------

_ONE: Final = (1, 1, 1)
_TWO: Final = (1, 2, 1)
_ALL: Final = (1, -1, 1)
_READ: Final = flags("readonly fast")
_WRITE: Final = flags("write fast")
_PER_KEY: Final = "O(N) for N keys"
_FLUSH: Final = (optional(one_of("flush-type", word("ASYNC"), word("SYNC"))),)
_DB: Final = Arg("db", "integer")
_NEW_KEY: Final = Arg("newkey", "key")


def _of_object(
    name: str,
    run: Callable[[View, Args], Reply],
    summary: str,
    note: str = "",
    support: Support = Support.FULL,
) -> Command:
    """The row of a subcommand of OBJECT that asks about a key."""
    return Command(
        f"object|{name}",
        run,
        3,
        flags("readonly"),
        "generic",
        summary,
        keys=(2, 2, 1),
        since="2.2.3",
        args=(KEY,),
        support=support,
        note=note,
    )


_OBJECT: Final = (
    _of_object(
        "encoding",
        object_encoding,
        "Names the way Redis would hold a value.",
        "Computed from the value alone: a number made by APPEND is int here, raw in Redis.",
        Support.PARTIAL,
    ),
    _of_object(
        "freq",
        object_freq,
        "Gives how often a key is read.",
        "Not kept: the refusal is that of a Redis without an LFU policy.",
        Support.PARTIAL,
    ),
    _of_object(
        "idletime",
        object_idletime,
        "Gives how long a key was not read, seconds.",
        "Not kept: always 0.",
        Support.PARTIAL,
    ),
    _of_object("refcount", object_refcount, "Gives how often a value is shared: once."),
)

ROWS: Final = (
    Command(
        "del",
        delete_keys,
        -2,
        flags("write"),
        "generic",
        "Removes keys.",
        keys=_ALL,
        complexity=_PER_KEY,
        args=(KEYS,),
    ),
    Command(
        "unlink",
        delete_keys,
        -2,
        _WRITE,
        "generic",
        "Removes keys; the same as DEL.",
        keys=_ALL,
        since="4.0.0",
        complexity=_PER_KEY,
        args=(KEYS,),
    ),
    Command(
        "exists",
        exists,
        -2,
        _READ,
        "generic",
        "Counts how many of the keys exist.",
        keys=_ALL,
        complexity=_PER_KEY,
        args=(KEYS,),
    ),
    Command(
        "touch",
        exists,
        -2,
        _READ,
        "generic",
        "Counts how many of the keys exist; access times are not kept.",
        keys=_ALL,
        since="3.2.1",
        complexity=_PER_KEY,
        args=(KEYS,),
    ),
    Command(
        "type",
        type_,
        2,
        _READ,
        "generic",
        "Names the type of the value at a key.",
        keys=_ONE,
        args=(KEY,),
    ),
    Command(
        "keys",
        keys,
        2,
        flags("readonly"),
        "generic",
        "Lists the keys that match a pattern, in key order.",
        complexity="O(N) for N keys that start as the pattern does",
        args=(Arg("pattern", "pattern"),),
    ),
    Command(
        "rename",
        rename,
        3,
        flags("write"),
        "generic",
        "Gives a key another name, replacing what had it.",
        keys=_TWO,
        args=(KEY, _NEW_KEY),
    ),
    Command(
        "renamenx",
        renamenx,
        3,
        _WRITE,
        "generic",
        "Gives a key another name, if nothing has it.",
        keys=_TWO,
        args=(KEY, _NEW_KEY),
    ),
    Command(
        "copy",
        copy,
        -3,
        flags("write denyoom"),
        "generic",
        "Copies a key with its deadline.",
        keys=_TWO,
        since="6.2.0",
        args=(
            Arg("source", "key"),
            Arg("destination", "key"),
            optional(Arg("destination-db", "integer", "DB")),
            optional(word("REPLACE")),
        ),
    ),
    Command(
        "move",
        move,
        3,
        _WRITE,
        "generic",
        "Moves a key to another keyspace, if it does not exist there.",
        keys=_ONE,
        args=(KEY, _DB),
    ),
    container(
        "object",
        "generic",
        "Groups the commands that ask how a value is held.",
        _OBJECT,
        since="2.2.3",
    ),
    Command("dbsize", dbsize, 1, _READ, "server", "Counts the keys of a keyspace."),
    Command(
        "flushdb",
        flushdb,
        -1,
        flags("write"),
        "server",
        "Removes all keys of a keyspace.",
        args=_FLUSH,
    ),
    Command(
        "flushall",
        flushall,
        -1,
        flags("write"),
        "server",
        "Removes all keys of all keyspaces.",
        args=_FLUSH,
    ),
    Command(
        "swapdb",
        swapdb,
        3,
        _WRITE,
        "server",
        "Exchanges the contents of two keyspaces.",
        since="4.0.0",
        args=(Arg("index1", "integer"), Arg("index2", "integer")),
    ),
)
