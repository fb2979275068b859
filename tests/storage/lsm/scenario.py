"""Text scenarios: a file of commands with what they answer, to read and to diff.

    # What this shows.
    command argument name=value
    lines of input
    ----
    lines of output

Blocks are separated by empty lines. MARRAM_REWRITE=1 writes the answers of today into the file;
the diff then shows what changed, and has to be read like code.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple


class Command(NamedTuple):
    name: str
    arguments: list[str]
    settings: dict[str, str]
    lines: list[str]


def run_scenario(path: pathlib.Path, answer: Callable[[Command], str]) -> None:
    """Run the commands of a file in order, and compare what `answer` says."""
    expected = path.read_text()
    blocks = [block.strip("\n") for block in expected.split("\n\n") if block.strip()]
    actual = "\n\n".join(_answered(block, answer) for block in blocks) + "\n"
    if os.environ.get("MARRAM_REWRITE"):
        path.write_text(actual)
        return
    assert actual == expected


def _answered(block: str, answer: Callable[[Command], str]) -> str:
    lines = block.split("\n")
    comments = [line for line in lines if line.startswith("#")]
    question = [line for line in lines if not line.startswith("#")]
    if not question:
        return block
    if "----" in question:
        question = question[: question.index("----")]
    name, *words = question[0].split()
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    arguments = [word for word in words if "=" not in word]
    output = answer(Command(name, arguments, settings, question[1:])).rstrip("\n")
    return "\n".join([*comments, *question, "----", *([output] if output else [])])
