"""checkpoint, backup, restore, verify, stats: looking after a store.

Owns their arguments and reports; the work is the library's (storage/backup.py, verify.py, ...).

Threading: the main thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from marram.cli import progress
from marram.cli.options import (
    Place,
    directory_options,
    json_option,
    print_json,
    whole_place_options,
)
from marram.cli.render import size_text, stats_lines

if TYPE_CHECKING:
    from marram.storage.verify import Report

EXIT_DAMAGED = 1


@click.command()
@whole_place_options
@json_option
def stats(place: Place, as_json: bool) -> None:
    """Print figures about a store."""
    with place.open() as db:
        figures = db.stats()
    if as_json:
        print_json(figures)
    else:
        click.echo("Statistics:")
        _echo_lines(stats_lines(figures))


@click.command()
@whole_place_options
@json_option
def checkpoint(place: Place, as_json: bool) -> None:
    """Start a new generation from the present state.

    The log starts anew with it, so the next opening is quicker.
    """
    if place.directory is None:
        with place.connect() as server:
            server.checkpoint()
            generation = server.stats()["generation"]
    else:
        with place.open_directory() as db, progress.show("checkpoint") as told:
            db.checkpoint(told)
            generation = db.stats()["generation"]
    if as_json:
        print_json({"ok": True, "generation": generation})
    else:
        click.echo(f"OK (generation {generation})")


@click.command()
@whole_place_options
@json_option
@click.argument("target", type=click.Path(file_okay=False))
def backup(place: Place, as_json: bool, target: str) -> None:
    """Copy a store into the new directory TARGET.

    The copy is consistent, and a store itself. With --connect the server makes it, beside its
    other work, and TARGET is a name below the directory it was started with (--backup-dir).
    """
    if place.directory is None:
        with place.connect() as server:
            position = server.backup(target)
    else:
        with place.open_directory() as db, progress.show("backup") as told:
            position = db.backup(target, told)
        target = os.path.abspath(target)
    if as_json:
        print_json({"ok": True, "target": target, "position": position._asdict()})
    else:
        click.echo(f"OK ({target} holds position {position})")


@click.command()
@directory_options
@json_option
@click.argument("source", type=click.Path(file_okay=False))
def restore(place: Place, as_json: bool, source: str) -> None:
    """Copy the backup in SOURCE into --dir.

    It is checked first; --dir must be new or empty.
    """
    from marram.env import posix_env
    from marram.storage.backup import restore as restore_backup

    assert place.directory is not None
    target = os.path.abspath(place.directory)
    with progress.show("restore", size=True) as told:
        restore_backup(posix_env(), os.path.abspath(source), target, told)
    if as_json:
        print_json({"ok": True, "target": target})
    else:
        click.echo(f"OK ({place.directory} holds what {source} holds)")


@click.command()
@whole_place_options
@json_option
def verify(place: Place, as_json: bool) -> int:
    """Read every byte of a store and check it.

    The exit code is 1 where anything is wrong. Nothing is changed. A store that a server has open
    is checked by the server (--connect), beside its other work.
    """
    if place.directory is None:
        with place.connect() as server:
            report = server.verify()
    else:
        report = _verify_directory(place.directory)
    if as_json:
        print_json(
            {
                "ok": report.ok,
                "problems": report.problems,
                "checked": [{"file": name, "size_bytes": size} for name, size in report.checked],
                "rows": report.rows,
                "batches": report.batches,
                "torn_tail_bytes": report.torn_tail_bytes,
                "orphans": report.orphans,
            }
        )
        return 0 if report.ok else EXIT_DAMAGED
    for name, size in report.checked:
        click.echo(f"{name}: {size_text(size)}")
    if report.torn_tail_bytes:
        click.echo(f"unfinished tail: {size_text(report.torn_tail_bytes)}, cut at the next opening")
    for name in report.orphans:
        click.echo(f"{name}: left by a crash, removed at the next opening")
    for problem in report.problems:
        click.echo(f"Error: {problem}", err=True)
    if not report.ok:
        return EXIT_DAMAGED
    rows = f"{report.rows} rows in the checkpoint and the tables"
    click.echo(f"OK ({rows}, {report.batches} batches in the log)")
    return 0


def _verify_directory(directory: str) -> Report:
    from marram.env import posix_env
    from marram.errors import NotAStore
    from marram.storage.verify import verify_directory

    path = os.path.abspath(directory)
    env = posix_env()
    if not env.exists(path):
        raise NotAStore(f"{directory} does not exist")
    with progress.show("verify", size=True) as told:
        return verify_directory(env, path, told)


def _echo_lines(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)
