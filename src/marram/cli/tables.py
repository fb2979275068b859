"""compact, convert: what the engines keep in files, put in order or carried over.

Owns their arguments and reports; the work is the library's (Store.compact(), storage/convert.py).

Threading: the main thread; a server's progress is asked for there while another thread waits.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from marram.cli import progress
from marram.cli.options import (
    KEYSPACES,
    Coding,
    Place,
    coding_options,
    directory_options,
    json_option,
    print_json,
    whole_place_options,
)
from marram.cli.progress import Callback
from marram.cli.render import size_text
from marram.storage.options import ENGINES

if TYPE_CHECKING:
    from marram.client.sync import RemoteDB

_POLL_S = 0.2


@click.command()
@whole_place_options
@coding_options
@click.option("-n", "--keyspace", "only", type=click.IntRange(0, KEYSPACES - 1),
              help="Only this keyspace [all; 0 with --start or --stop].")  # fmt: skip
@click.option("--start", metavar="KEY", help="Only from this key on.")
@click.option("--stop", metavar="KEY", help="Only up to, not including, this key.")
@json_option
def compact(
    place: Place,
    coding: Coding,
    only: int | None,
    start: str | None,
    stop: str | None,
    as_json: bool,
) -> None:
    """Take out of the tables what is of no use any more.

    Everything is flushed and brought as deep as it goes. On the memory engine, which has no
    tables, it makes a checkpoint. With --connect the server does it, beside its other work.
    """
    low = None if start is None else coding.read(start)
    high = None if stop is None else coding.read(stop)
    if only is not None and low is None:
        low = b""  # a range, or it would be every keyspace's
    with progress.show("compact", size=True) as told:
        if place.directory is None:
            with place.connect() as server:
                before = server.stats()
                _compact_there(server.keyspace(only or 0), low, high, told)
                after = server.stats()
        else:
            with place.open_directory() as db:
                before = db.stats()
                db.keyspace(only or 0).compact(low, high, told)
                after = db.stats()
    if as_json:
        print_json({"ok": True, **_compacted(before, after)})
    else:
        click.echo(f"OK ({_told(before, after)})")


def _compact_there(
    server: RemoteDB, start: bytes | None, stop: bytes | None, told: Callback | None
) -> None:
    """Have a server compact, and show how far it is."""
    if told is None:
        server.compact(start, stop)
        return
    from marram.client import calls
    from marram.env import posix_env
    from marram.errors import Error

    failures: list[Exception] = []

    def work() -> None:
        try:
            server.compact(start, stop)
        except Exception as error:  # raised again on the main thread
            failures.append(error)

    task = posix_env().start("marram-compact", work)
    while not task.join(_POLL_S):
        try:
            status = server.run(calls.compaction_status())
        except Error:
            continue  # who compacts says what is wrong
        told(status.get("requested_done_bytes", 0), status.get("requested_total_bytes", 0))
    if failures:
        raise failures[0]


def _compacted(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    done = {"engine": after["engine"], "did": "compact", "generation": after["generation"]}
    if "lsm" not in after:
        return {**done, "did": "checkpoint"}
    for name in ("tables", "table_bytes"):
        done[name] = {"before": before["lsm"][name], "after": after["lsm"][name]}
    return done


def _told(before: dict[str, Any], after: dict[str, Any]) -> str:
    if "lsm" not in after:
        generation = after["generation"]
        return f"the memory engine has no tables: checkpoint, generation {generation}"
    was, now = before["lsm"], after["lsm"]
    return f"{_tables(was)} before, {_tables(now)} now"


def _tables(lsm: dict[str, Any]) -> str:
    count = lsm["tables"]
    return f"{count:,} table{'' if count == 1 else 's'} of {size_text(lsm['table_bytes'])}"


@click.command()
@directory_options
@click.option("--to", "target", required=True, metavar="NEWDIR", type=click.Path(file_okay=False),
              help="The copy's directory, new or empty.")  # fmt: skip
@click.option("--engine", required=True, type=click.Choice(ENGINES), metavar="|".join(ENGINES),
              help="The copy's engine.")  # fmt: skip
@json_option
def convert(place: Place, target: str, engine: str, as_json: bool) -> None:
    """Copy the store in --dir to NEWDIR with another engine.

    Keys, values, deadlines and keyspaces are the same, at the same position; the store in --dir
    stays as it is. Nobody may have it open. The copy is a store of its own, with an identity of
    its own: from here on the two may differ.
    """
    from marram.env import posix_env
    from marram.storage.convert import convert as convert_store

    assert place.directory is not None
    path = os.path.abspath(target)
    with progress.show("convert") as told:
        done = convert_store(posix_env(), os.path.abspath(place.directory), path, engine, told)
    if as_json:
        print_json(
            {"ok": True, "target": path, "engine": engine, "keys": done.keys,
             "position": done.position._asdict()}
        )  # fmt: skip
    else:
        keys = f"{done.keys:,} key{'' if done.keys == 1 else 's'}"
        click.echo(f"OK ({path} is of engine {engine}: {keys}, position {done.position})")
