"""get, put, delete, scan: one operation and out.

Owns their arguments and what they print. `get` writes the value's bytes and nothing else, so that
`marram get k > file` is exact; on a terminal it shows them safely instead.

Threading: the main thread.
"""

from __future__ import annotations

import sys

import click

from marram.cli.options import (
    Coding,
    Place,
    coding_options,
    engine_option,
    json_option,
    place_options,
    print_json,
    write_bytes,
)

EXIT_MISSING = 1


@click.command()
@place_options
@coding_options
@json_option
@click.argument("key")
def get(place: Place, coding: Coding, as_json: bool, key: str) -> int:
    """Print the value of KEY.

    A missing key is exit code 1 and "key not found" on stderr.
    """
    wanted = coding.read_key(key)
    with place.open() as db:
        value = db.get(wanted)
    if value is None:
        click.echo("key not found", err=True)
        return EXIT_MISSING
    if as_json:
        print_json(_record(wanted, value))
    elif coding.name != "text":
        write_bytes(coding.write(value) + b"\n")
    elif sys.stdout.isatty():
        from marram.cli.render import value_text

        click.echo(value_text(value))
    else:
        write_bytes(value)
    return 0


@click.command()
@place_options
@coding_options
@json_option
@click.option("--ttl", type=float, metavar="SECONDS", help="Let the key stop existing after this.")
@click.option("--stdin", "from_stdin", is_flag=True, help="Read the value's bytes from stdin.")
@click.option("--no-create", is_flag=True, help="Fail where the directory holds no store.")
@engine_option
@click.argument("key")
@click.argument("value", required=False)
def put(
    place: Place,
    coding: Coding,
    as_json: bool,
    ttl: float | None,
    from_stdin: bool,
    no_create: bool,
    engine: str | None,
    key: str,
    value: str | None,
) -> None:
    """Set KEY to VALUE.

    Returns when the write is durable. KEY and VALUE are text unless --hex or --base64 is given.
    """
    if (value is None) != from_stdin:
        raise click.UsageError("give VALUE, or --stdin instead of it")
    if ttl is not None and not 0 < ttl < 10**11:
        raise click.BadParameter("it must be a positive number of seconds", param_hint="'--ttl'")
    wanted = coding.read_key(key)
    data = sys.stdin.buffer.read() if value is None else coding.read(value)
    with place.open(create=not no_create, engine=engine) as db:
        db.put(wanted, data, ttl)
    if as_json:
        print_json({"ok": True})
    else:
        click.echo("OK")


@click.command()
@place_options
@coding_options
@json_option
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
def delete(place: Place, coding: Coding, as_json: bool, keys: tuple[str, ...]) -> None:
    """Delete each KEY; a missing one is fine."""
    wanted = [coding.read_key(key) for key in keys]
    with place.open() as db:
        deleted = sum(db.delete(key) for key in wanted)
    if as_json:
        print_json({"ok": True, "deleted": deleted})
    else:
        click.echo("OK" if deleted == len(wanted) else f"OK ({deleted} of {len(wanted)} existed)")


@click.command()
@place_options
@coding_options
@json_option
@click.option("--prefix", default="", help="Only keys that begin with this.")
@click.option("--start", help="From this key on.")
@click.option("--stop", help="Up to, not including, this key.")
@click.option("--reverse", is_flag=True, help="In descending order.")
@click.option("--limit", type=click.IntRange(0), metavar="N", help="At most N.")
@click.option("--keys", "keys_only", is_flag=True, help="Keys alone.")
def scan(
    place: Place,
    coding: Coding,
    as_json: bool,
    prefix: str,
    start: str | None,
    stop: str | None,
    reverse: bool,
    limit: int | None,
    keys_only: bool,
) -> None:
    """Print keys and values in key order.

    A line each: the key, a tab, the value. What is not plain text is quoted with escapes.
    --json prints a JSON object a line.
    """
    from marram.cli.parse import quote

    def shown(data: bytes) -> str:
        return quote(data) if coding.name == "text" else coding.write(data).decode("ascii")

    with place.open() as db:
        pairs = db.scan(
            coding.read(prefix),
            None if start is None else coding.read(start),
            None if stop is None else coding.read(stop),
            reverse,
            limit,
        )
        for key, value in pairs:
            if as_json:
                record = _record(key, value)
                print_json(
                    {k: v for k, v in record.items() if k.startswith("key") or not keys_only}
                )
            else:
                # Not click.echo(), which flushes every line.
                line = shown(key) if keys_only else f"{shown(key)}\t{shown(value)}"
                sys.stdout.write(line + "\n")


def _record(key: bytes, value: bytes) -> dict[str, str]:
    """Key and value as JSON says them: text, or base64 where the bytes are not UTF-8."""
    import json

    from marram.storage.dump import dump_line

    record: dict[str, str] = json.loads(dump_line((0, key, value, 0, 0)))
    return record
