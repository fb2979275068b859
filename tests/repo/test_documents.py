"""Documents that repeat what the code knows have to agree with it."""

from __future__ import annotations

import os
import pathlib
import re

from marram.commands.spec import Command, Support
from marram.commands.table import TABLE

ROOT = pathlib.Path(__file__).parents[2]
RESP = ROOT / "docs" / "protocols" / "resp.md"
GROUPS = {
    "string": "Strings",
    "bitmap": "Bitmaps",
    "generic": "Keys",
    "transactions": "Transactions",
    "pubsub": "Publish and subscribe",
    "connection": "Connections",
    "server": "Server",
    "cluster": "Cluster and scripting, as far as clients ask at their start",
    "marram": "marram's own",
}


def rows_of(command: Command) -> list[str]:
    """A table row for a command, and one for each subcommand."""
    support = "marram" if command.support is Support.OWN else command.support.value
    note = f" *{command.note}*" if command.note else ""
    summary = command.summary.rstrip(".")
    rows = [f"| `{command.name.upper()}` | {support} | {summary}.{note} |"]
    for sub in command.subcommands:
        name = sub.name.rpartition("|")[2].upper()
        sub_note = f" *{sub.note}*" if sub.note else ""
        rows.append(
            f"| `{command.name.upper()} {name}` | {sub.support.value} "
            f"| {sub.summary.rstrip('.')}.{sub_note} |"
        )
    return rows


def command_tables() -> str:
    """All commands, a table a group."""
    parts = []
    shown = 0
    for group, title in GROUPS.items():
        commands = sorted(
            (c for c in TABLE.values() if c.group.replace("scripting", "cluster") == group),
            key=lambda c: c.name,
        )
        shown += len(commands)
        lines = [f"### {title}", "", "| command | support | what it does |", "|---|---|---|"]
        for command in commands:
            lines += rows_of(command)
        parts.append("\n".join(lines))
    assert shown == len(TABLE), "a group without a title"
    return "\n\n".join(parts)


def test_the_resp_document_lists_every_command() -> None:
    text = RESP.read_text()
    pattern = re.compile(r"(<!-- commands: [^\n]*-->\n).*?(<!-- end of commands -->)", re.DOTALL)
    expected = pattern.sub(lambda m: f"{m[1]}\n{command_tables()}\n\n{m[2]}", text)
    if os.environ.get("MARRAM_WRITE_DOCS"):
        RESP.write_text(expected)
    assert RESP.read_text() == expected, "run with MARRAM_WRITE_DOCS=1"


def test_a_partial_command_says_what_is_missing() -> None:
    for command in TABLE.values():
        if command.support is Support.PARTIAL:
            assert command.note, command.name
