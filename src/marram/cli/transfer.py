"""dump and load: a store as JSON Lines, and back.

Owns where rows come from, and in which batches they go; the lines are storage/dump.py's, the
places that batches go to sink.py's.

T1  a dump of a directory is the state at one position. Of a server it is one position for each
    keyspace, and a deadline that is changed while it runs may be the new one.
T2  load applies a batch whole or not at all; a bad line stops it before its batch, and the message
    says which line, and how far the batches before it went.

Threading: the main thread; progress is told from it too.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, BinaryIO

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
from marram.cli.progress import Callback
from marram.cli.sink import ServerSink, Sink, StoreSink
from marram.env import posix_env
from marram.errors import InvalidArgument
from marram.storage.dump import Row, dump_line, parse_line, read_lines

if TYPE_CHECKING:
    from marram.client.sync import RemoteDB
    from marram.storage.db import DB

Rows = Generator[Row, None, None]

_BATCH_ROWS = 1000
_BATCH_BYTES = 16 << 20  # keys and values; a batch ends early when it has this many


@click.command()
@whole_place_options
@click.option(
    "-n",
    "--keyspace",
    "only",
    type=click.IntRange(0, KEYSPACES - 1),
    help="Only this keyspace [all].",
)
@click.argument("file", default="-", type=click.Path(dir_okay=False, allow_dash=True))
def dump(place: Place, only: int | None, file: str) -> None:
    """Write a store as JSON Lines to FILE [stdout].

    {"key": ..., "value": ..., "deadline_ms"?: ..., "keyspace"?: ...}; "key_base64" and
    "value_base64" where the bytes are not UTF-8.
    """
    with ExitStack() as stack:
        told = stack.enter_context(progress.show("dump"))
        if place.directory is None:
            server = stack.enter_context(place.connect())
            rows = stack.enter_context(closing(_server_rows(server, only, told)))
        else:
            db = stack.enter_context(place.open_directory())
            rows = stack.enter_context(closing(_store_rows(db, only, told)))
        if file == "-":
            _write(sys.stdout.buffer, rows)
            return
        target = stack.enter_context(_new_file(file))
        try:
            _write(target, rows)
        except BaseException:
            posix_env().remove(file)  # half a dump is no dump
            raise


@click.command()
@whole_place_options
@click.option("--no-create", is_flag=True, help="Fail where the directory holds no store.")
@engine_option
@json_option
@click.argument("file", default="-", type=click.Path(dir_okay=False, allow_dash=True))
def load(place: Place, no_create: bool, engine: str | None, as_json: bool, file: str) -> None:
    """Put a dump's records into a store [stdin].

    Keys that are there already are overwritten, others stay. Records whose deadline is over are
    left out.
    """
    if place.directory is None and engine is not None:
        raise click.UsageError(ENGINE_IS_THE_SERVERS)
    with ExitStack() as stack:
        if file == "-":
            source: BinaryIO = sys.stdin.buffer
            size = 0
        else:
            source = stack.enter_context(open(file, "rb"))
            size = source.seek(0, 2)
            source.seek(0)
        if place.directory is None:
            sink: Sink = ServerSink(stack.enter_context(place.connect()))
        else:
            db = place.open_directory(create=not no_create, engine=engine)
            sink = StoreSink(stack.enter_context(db))
        told = stack.enter_context(progress.show("load", size=True))
        loaded, expired = _load(source, sink, size, told)
    if as_json:
        print_json({"ok": True, "records": loaded, "expired": expired})
    else:
        click.echo(f"OK ({loaded} records{f', {expired} expired' if expired else ''})")


# -- dump ------------------------------------------------------------------------------------------


def _store_rows(db: DB, only: int | None, told: Callback | None) -> Rows:
    store = db.store
    snapshot = store.snapshot()
    try:
        store.wait(snapshot.position)
        for rows in store.rows(snapshot, store.now_ms(), told):
            yield from (row for row in rows if only is None or row[0] == only)
    finally:
        store.release(snapshot)


def _server_rows(server: RemoteDB, only: int | None, told: Callback | None) -> Rows:
    from marram.client import calls

    held = server.stats()["keyspaces"]
    numbers = sorted(map(int, held)) if only is None else [only]
    total = sum(held.get(str(number), {}).get("keys", 0) for number in numbers)
    done = 0
    for number in numbers:
        db = server.keyspace(number)
        has_deadlines = held.get(str(number), {}).get("volatile_keys", 1) > 0
        for rows in db.scan_chunks():
            found = db.run(calls.deadlines([key for key, _ in rows])) if has_deadlines else []
            for index, (key, value) in enumerate(rows):
                deadline_ms = max(0, found[index]) if found else 0
                yield number, key, value, deadline_ms, 0
            done += len(rows)
            if told is not None:
                told(done, max(done, total))


def _write(target: BinaryIO, rows: Iterable[Row]) -> None:
    for row in rows:
        target.write(dump_line(row))
    target.flush()


def _new_file(path: str) -> BinaryIO:
    try:
        return open(path, "xb")
    except FileExistsError:
        raise click.UsageError(f"{path} exists; name a new file") from None


# -- load ------------------------------------------------------------------------------------------


def _load(source: BinaryIO, sink: Sink, size: int, told: Callback | None) -> tuple[int, int]:
    """Returns how many records were written, and how many left out. Raises InvalidArgument."""
    max_key, max_value = sink.max_key_bytes, sink.max_value_bytes
    now_ms = sink.now_ms()
    batch: list[Row] = []
    batch_bytes = loaded = expired = done = last_line = 0
    try:
        for number, line in read_lines(source):
            row = parse_line(line, number)
            if len(row[1]) > max_key or len(row[2]) > max_value:
                raise InvalidArgument(f"line {number}: the key or the value is too long")
            done += len(line)
            if 0 < row[3] <= now_ms:
                expired += 1
                continue
            full = len(batch) >= _BATCH_ROWS or batch_bytes >= _BATCH_BYTES
            if batch and (full or batch[0][0] != row[0]):
                sink.apply(batch)
                loaded += len(batch)
                batch, batch_bytes = [], 0
                if told is not None:
                    told(done, size)
            if not batch:
                last_line = number - 1
            batch.append(row)
            batch_bytes += len(row[1]) + len(row[2])
    except InvalidArgument as error:
        before = f"lines 1 to {last_line} were loaded" if loaded else "nothing was loaded"
        raise InvalidArgument(f"{error}; {before}") from None
    if batch:
        sink.apply(batch)
    return loaded + len(batch), expired
