"""import: a live Redis, copied.

Owns which keys are copied, in which pieces, and the report; not what is said to the Redis
(redis_source.py) nor how rows are written (sink.py).

I1  a copied key has the value and the deadline it had at one moment. Different keys may be of
    different moments: a Redis gives no snapshot. What SCAN promises holds: a key that is there
    all the while is copied, one that comes or goes meanwhile may be or not.
I2  a deadline may come out earlier by one round trip, never later.
I3  every key that SCAN names is counted: copied, kept, gone, of another type, or not fit. None of
    the latter two is left behind without a word.
I4  memory holds one piece of at most _PIECE_BYTES of values, or one larger value.
I5  what was written stays, whatever happens later; running it again is harmless.

Threading: the main thread.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import click

from marram.cli import progress
from marram.cli.options import (
    ENGINE_IS_THE_SERVERS,
    KEYSPACES,
    Place,
    engine_option,
    json_option,
    print_json,
    whole_place_options,
)
from marram.cli.parse import quote
from marram.cli.progress import Callback
from marram.cli.redis_source import MAX_VALUE_BYTES, RedisSource, RedisUrl, Tls, parse_redis_url
from marram.cli.render import size_text, value_text
from marram.cli.sink import ServerSink, Sink, StoreSink
from marram.coding.batch import TYPE_STRING
from marram.errors import Error, InvalidArgument
from marram.storage.dump import Row, dump_line

_PIECE_BYTES = 16 << 20
_SMALL_BYTES = 1 << 10  # a value this small comes with the first reading, however large the batch
_EXAMPLES = 3
_SHOWN_BYTES = 60  # of a key in a message
_ALL = "all"


@dataclass(slots=True)
class _Left:
    """Keys that were left behind for one reason; examples: (database, key) of the first few."""

    count: int = 0
    examples: list[tuple[int, bytes]] = field(default_factory=list)

    def add(self, database: int, key: bytes) -> None:
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append((database, key))


@dataclass(slots=True)
class _Tally:
    """What became of the keys (I3). A key that SCAN gives twice counts twice."""

    copied: int = 0
    copied_bytes: int = 0
    kept: int = 0
    gone: int = 0
    others: dict[str, _Left] = field(default_factory=dict)  # by type
    unfit: dict[str, _Left] = field(default_factory=dict)  # by reason


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to copy. databases: (number in the Redis, keyspace here)."""

    databases: list[tuple[int, int]]
    pattern: bytes | None
    batch: int
    replaces: bool
    total: int  # keys, as far as known


def _tls_options(function: Any) -> Any:
    file = click.Path(exists=True, dir_okay=False)
    for name, text in (
        ("--key", "rediss://: the client certificate's private key (PEM)."),
        ("--cert", "rediss://: a client certificate (PEM)."),
        ("--cacert", "rediss://: whom to trust (PEM) [the system's authorities]."),
    ):
        function = click.option(name, f"{name[2:]}_file", type=file, metavar="FILE", help=text)(
            function
        )
    return click.option(
        "--insecure", is_flag=True, help="rediss://: trust whoever answers, whatever its name."
    )(function)


@click.command("import")
@click.argument("url")
@whole_place_options
@click.option("--db", "database", metavar="N|all", help="Which database [the URL's, or all].")
@click.option(
    "-n", "--keyspace", "chosen", type=click.IntRange(0, KEYSPACES - 1),
    help="Where one database goes [the keyspace of its number].",
)  # fmt: skip
@click.option("--match", "pattern", metavar="PATTERN", help="Only keys like this, as in 'user:*'.")
@click.option(
    "--replace/--keep-existing", "replaces", default=True,
    help="What to do with keys that are there already [replace].",
)  # fmt: skip
@click.option("--skip-other-types", is_flag=True, help="Succeed though lists, hashes, ... stay.")
@click.option(
    "--batch", type=click.IntRange(1, 10_000), default=1000, metavar="N",
    help="Keys a round trip; more where the Redis is far away [1000].",
)  # fmt: skip
@click.option(
    "--ask-redis-password", is_flag=True,
    help="Ask for the Redis's password; the URL's or REDISCLI_AUTH is used otherwise.",
)  # fmt: skip
@_tls_options
@click.option("--no-create", is_flag=True, help="Fail where the directory holds no store.")
@engine_option
@json_option
def import_(
    place: Place,
    url: str,
    database: str | None,
    chosen: int | None,
    pattern: str | None,
    replaces: bool,
    skip_other_types: bool,
    batch: int,
    ask_redis_password: bool,
    no_create: bool,
    engine: str | None,
    as_json: bool,
    **tls: Any,
) -> None:
    """Copy a running Redis: its strings, with their times to live.

    URL is redis://[[user]:password@]host[:port][/database], rediss://... (TLS), or
    unix:///path/of/the/socket?db=N. Lists, hashes, sets, sorted sets and streams are counted,
    named and left, and the command then fails, unless --skip-other-types.

    Keys keep changing while they are copied; run it again when nobody writes to the Redis any
    more. It may be run as often as one likes; with --keep-existing it goes on where it broke off.
    """
    where = _source_url(url, ask_redis_password)
    number = _database(where, database, chosen)
    if place.directory is None and engine is not None:
        raise click.UsageError(ENGINE_IS_THE_SERVERS)
    if any(tls.values()) and not where.tls:
        raise click.UsageError("--cacert, --cert, --key and --insecure go with rediss://")
    tally = _Tally()
    outcome: dict[str, Any] = {"cluster": False}
    try:
        with ExitStack() as stack:
            source = stack.enter_context(RedisSource(where, Tls(**tls)))
            info = source.info()
            outcome["cluster"] = (info or {}).get("redis_mode") == "cluster"
            databases = _databases(source, info, number, chosen)
            total = 0 if pattern is not None else sum(size for _, _, size in databases)
            plan = _Plan(
                [(from_, to) for from_, to, _ in databases],
                None if pattern is None else os.fsencode(pattern),
                batch, replaces, total,
            )  # fmt: skip
            sink = _sink(stack, place, create=not no_create, engine=engine)
            told = stack.enter_context(progress.show("import"))
            _Copy(source, sink, plan, tally, told).run()
    except (Error, OSError) as error:
        _fail(error, tally, outcome, as_json)
    except KeyboardInterrupt:
        click.echo(f"interrupted; {_so_far(tally)}", err=True)
        raise
    _report(tally, outcome, skip_other_types, as_json)


# -- what the options mean -------------------------------------------------------------------------


def _source_url(text: str, ask: bool) -> RedisUrl:
    try:
        url = parse_redis_url(text)
    except InvalidArgument as error:
        raise click.UsageError(str(error)) from None
    if ask:
        password = click.prompt("Redis password", hide_input=True, err=True)
    else:
        password = url.password or os.environ.get("REDISCLI_AUTH", "")
    if url.user and not password:
        raise click.UsageError("the URL has a user, but there is no password")
    return replace(url, password=password)


def _database(url: RedisUrl, given: str | None, keyspace: int | None) -> int | None:
    """The one database to copy, or None for all."""
    if given is None:
        number = url.database
    elif given != _ALL and not (given.isascii() and given.isdigit() and len(given) < 10):
        raise click.BadParameter("a number, or all", param_hint="'--db'")
    else:
        number = None if given == _ALL else int(given)
        if url.database not in (None, number):
            raise click.UsageError("the URL and --db name different databases")
    if number is None and keyspace is not None:
        raise click.UsageError("--keyspace is for one database; choose it with --db")
    if number is not None and number >= KEYSPACES and keyspace is None:
        raise click.UsageError(f"{_homeless(number)}; choose one with --keyspace")
    return number


def _homeless(number: int) -> str:
    return f"database {number} has no keyspace of its number: there are 0 .. {KEYSPACES - 1}"


def _databases(
    source: RedisSource, info: dict[str, str] | None, number: int | None, keyspace: int | None
) -> list[tuple[int, int, int]]:
    """(database, keyspace, keys) of each that is to be copied."""
    if number is not None:
        size = source.select(number)
        return [(number, number if keyspace is None else keyspace, size or 0)]
    if info is None:
        raise InvalidArgument(
            f"{source.address} does not let this user list its databases (INFO): "
            "choose one with --db"
        )
    found = sorted(
        (int(name[2:]), _keys(value))
        for name, value in info.items()
        if name[:2] == "db" and name[2:].isdigit() and value.startswith("keys=")
    )
    for each, _ in found:
        if each >= KEYSPACES:
            raise InvalidArgument(f"{_homeless(each)}; copy it alone with --db {each} --keyspace N")
    return [(each, each, size) for each, size in found]


def _keys(value: str) -> int:
    digits = value.removeprefix("keys=").partition(",")[0]
    return int(digits) if digits.isdigit() else 0


def _sink(stack: ExitStack, place: Place, *, create: bool, engine: str | None) -> Sink:
    if place.directory is None:
        return ServerSink(stack.enter_context(place.connect()))
    return StoreSink(stack.enter_context(place.open_directory(create=create, engine=engine)))


# -- copying ---------------------------------------------------------------------------------------


class _Copy:
    """One run through the databases."""

    def __init__(
        self, source: RedisSource, sink: Sink, plan: _Plan, tally: _Tally, told: Callback | None
    ) -> None:
        self._source = source
        self._sink = sink
        self._plan = plan
        self._tally = tally
        self._told = told
        self._seen = 0
        self._max_value_bytes = min(sink.max_value_bytes, MAX_VALUE_BYTES)

    def run(self) -> None:
        """Copy them. Raises Error: what was written before stays (I5)."""
        plan = self._plan
        for database, keyspace in plan.databases:
            self._source.select(database)
            cursor = b"0"
            while True:
                cursor, keys = self._source.scan(cursor, plan.pattern, plan.batch)
                self._page(database, keyspace, list(dict.fromkeys(keys)))
                self._seen += len(keys)
                if self._told is not None:
                    # Without a total where a pattern hides how many there are.
                    total = max(self._seen, plan.total) if plan.total else 0
                    self._told(self._seen, total)
                if cursor == b"0":
                    break

    def _page(self, database: int, keyspace: int, keys: list[bytes]) -> None:
        names = self._strings(database, [key for key in keys if self._fits(database, key)])
        if names and not self._plan.replaces:
            missing = self._sink.missing(keyspace, names)  # what is there need not even be read
            self._tally.kept += len(names) - len(missing)
            names = missing
        if not names:
            return
        limit = max(_SMALL_BYTES, _PIECE_BYTES // len(names))
        large = self._piece(database, keyspace, names, limit)
        for group in _groups(large):
            self._piece(database, keyspace, group, None)

    def _fits(self, database: int, key: bytes) -> bool:
        if key and len(key) <= self._sink.max_key_bytes:
            return True
        longest = size_text(self._sink.max_key_bytes)
        self._unfit(database, key, f"key longer than {longest}" if key else "empty key")
        return False

    def _strings(self, database: int, keys: list[bytes]) -> list[bytes]:
        strings = []
        for key, type_ in zip(keys, self._source.types(keys), strict=True):
            if type_ == "string":
                strings.append(key)
            elif type_ == "none":
                self._tally.gone += 1
            else:
                self._tally.others.setdefault(type_, _Left()).add(database, key)
        return strings

    def _piece(
        self, database: int, keyspace: int, keys: Sequence[bytes], limit: int | None
    ) -> list[tuple[bytes, int]]:
        """Copy the values that have at most `limit` bytes; the larger ones and their sizes."""
        tally = self._tally
        rows: list[Row] = []
        larger: list[tuple[bytes, int]] = []
        now_ms = self._sink.now_ms()  # before the reading, so that no deadline gets later (I2)
        for key, found in zip(keys, self._source.read(keys, limit), strict=True):
            if found is None:
                tally.others.setdefault("changed meanwhile", _Left()).add(database, key)
            elif found.left_ms in (-2, 0):
                tally.gone += 1
            elif found.size_bytes > self._max_value_bytes:
                longest = size_text(self._max_value_bytes)
                self._unfit(database, key, f"value longer than {longest}")
            elif len(found.value) < found.size_bytes:
                larger.append((key, found.size_bytes))
            else:
                deadline_ms = 0 if found.left_ms < 0 else now_ms + found.left_ms
                rows.append((keyspace, key, found.value, deadline_ms, TYPE_STRING))
        if rows:
            self._write(rows)
        return larger

    def _write(self, rows: list[Row]) -> None:
        tally = self._tally
        written = rows
        if self._plan.replaces:
            self._sink.apply(rows)
        else:
            written = self._sink.apply_new(rows)
            tally.kept += len(rows) - len(written)
        tally.copied += len(written)
        tally.copied_bytes += sum(len(row[1]) + len(row[2]) for row in written)

    def _unfit(self, database: int, key: bytes, reason: str) -> None:
        self._tally.unfit.setdefault(reason, _Left()).add(database, key)


def _groups(large: list[tuple[bytes, int]]) -> Iterator[list[bytes]]:
    """Keys whose values together have at most _PIECE_BYTES, or one that has more (I4)."""
    group: list[bytes] = []
    size_bytes = 0
    for key, value_bytes in large:
        if group and size_bytes + value_bytes > _PIECE_BYTES:
            yield group
            group, size_bytes = [], 0
        group.append(key)
        size_bytes += value_bytes
    if group:
        yield group


# -- the report ------------------------------------------------------------------------------------


def _report(tally: _Tally, outcome: dict[str, Any], skips: bool, as_json: bool) -> None:
    """Print what happened. Raises click.ClickException: keys were left behind."""
    left = [] if skips else [*tally.others.items()]
    ok = not left and not tally.unfit
    if as_json:
        print_json({"ok": ok, **_figures(tally), **outcome})
    else:
        others = f"; left: {_lefts([*tally.others.items()])}" if ok and tally.others else ""
        click.echo(f"OK ({_counts(tally)}{others})" if ok else _counts(tally))
        if outcome["cluster"]:
            click.echo("This was one node of a cluster; import from each of its primaries.")
    if ok:
        return
    reasons = _lefts([*left, *tally.unfit.items()])
    hint = "; --skip-other-types leaves them and succeeds" if left and not tally.unfit else ""
    count = sum(each.count for _, each in [*left, *tally.unfit.items()])
    raise click.ClickException(
        f"{_number(count, 'key')} cannot be kept here and {'was' if count == 1 else 'were'} "
        f"left: {reasons}{hint}"
    )


def _fail(error: Exception, tally: _Tally, outcome: dict[str, Any], as_json: bool) -> NoReturn:
    """Raises click.ClickException: what went wrong, and how far it came."""
    from marram.cli.app import describe

    message = f"{describe(error)}; {_so_far(tally)}"
    if as_json:
        print_json({"ok": False, "error": message, **_figures(tally), **outcome})
    raise click.ClickException(message) from error


def _so_far(tally: _Tally) -> str:
    if not tally.copied:
        return "nothing was copied"
    return f"{_number(tally.copied, 'key')} copied before stay; run it again for the others"


def _counts(tally: _Tally) -> str:
    parts = [f"{_number(tally.copied, 'key')} copied, {size_text(tally.copied_bytes)}"]
    if tally.kept:
        parts.append(f"{tally.kept} kept as they were")
    if tally.gone:
        parts.append(f"{tally.gone} gone meanwhile")
    return ", ".join(parts)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _lefts(left: list[tuple[str, _Left]]) -> str:
    """ "2 hash (a, b), 5 list (c, d, e, ...)"."""
    texts = []
    for name, each in left:
        keys = [_shown(key) for _, key in each.examples]
        keys += ["..."] * (each.count > len(each.examples))
        texts.append(f"{each.count} {name} ({', '.join(keys)})")
    return ", ".join(texts)


def _shown(key: bytes) -> str:
    if len(key) <= _SHOWN_BYTES:
        return quote(key)
    return value_text(key, _SHOWN_BYTES, inline=True)


def _figures(tally: _Tally) -> dict[str, Any]:
    return {
        "copied": tally.copied,
        "copied_bytes": tally.copied_bytes,
        "kept": tally.kept,
        "gone": tally.gone,
        "other_types": {name: _left_figures(left) for name, left in tally.others.items()},
        "unfit": {name: _left_figures(left) for name, left in tally.unfit.items()},
    }


def _left_figures(left: _Left) -> dict[str, Any]:
    examples = []
    for database, key in left.examples:
        # An empty key has no dumped form, and one that is too long would be too much to print.
        record = json.loads(dump_line((0, key[:_SHOWN_BYTES], b"", 0, TYPE_STRING)))
        cut = {"key_bytes": len(key)} if len(key) > _SHOWN_BYTES else {}
        del record["value"]
        examples.append({"database": database, **record, **cut})
    return {"keys": left.count, "examples": examples}
