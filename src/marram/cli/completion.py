"""What to suggest while a line is typed, and the hint below it.

Owns the choice of suggestions; how they are drawn is prompt.py's.

C1  every suggestion, put in place of the word at the cursor, is a word that may stand there.
C2  keys are suggested once they were seen in a command or its answer; nothing is asked of the
    store while a person types.

Threading: the shell's thread; prompt.py asks from the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from marram.cli.grammar import Leaf, Piece, grammar_of, syntax
from marram.cli.parse import BadLine, quote, split
from marram.cli.words import QUIT_WORDS, Found, find, topics
from marram.protocol.replies import wire_to_text

MAX_KEYS = 2000
_MAX_KEY_BYTES = 200  # longer ones help nobody who types
_MAX_SHOWN = 50


class SeenKeys:
    """The keys of the latest commands and answers, the oldest forgotten first."""

    def __init__(self) -> None:
        self._keys: dict[bytes, None] = {}

    def __iter__(self) -> Iterator[bytes]:
        return reversed(self._keys)

    def add(self, keys: Iterable[object]) -> None:
        """Remember what is a key among these."""
        for key in keys:
            if isinstance(key, bytes) and 0 < len(key) <= _MAX_KEY_BYTES:
                self._keys.pop(key, None)
                self._keys[key] = None
        while len(self._keys) > MAX_KEYS:
            del self._keys[next(iter(self._keys))]


class Suggestion(NamedTuple):
    """text: instead of what is typed from column `start` to the cursor; about: a short note."""

    text: str
    start: int
    about: str = ""


class _Typed(NamedTuple):
    words: list[str]  # whole ones, before the cursor
    current: str  # the one at the cursor, "" between two
    start: int


def _typed(line: str) -> _Typed:
    try:
        words = split(line)
    except BadLine as error:
        try:
            words = split(line[: error.column])
        except BadLine:
            words = []
        return _Typed(
            [wire_to_text(word.value) for word in words], line[error.column :], error.column
        )
    texts = [wire_to_text(word.value) for word in words]
    if words and words[-1].stop == len(line):
        return _Typed(texts[:-1], line[words[-1].start :], words[-1].start)
    return _Typed(texts, "", len(line))


def suggest(line: str, keys: Iterable[bytes]) -> list[Suggestion]:
    """Suggestions for a line up to the cursor (C1)."""
    typed = _typed(line)
    if not typed.words:
        return _commands(typed)
    found = find(typed.words)
    if found is None:
        return []
    suggestions = _subcommands(typed, found)
    leaves, _ = grammar_of(found.topic.args).after(typed.words[found.words :])
    for leaf in leaves:
        if leaf.token is not None:
            if leaf.token.startswith(typed.current.upper()):
                text = _in_case_of(typed.current, leaf.token)
                about = "" if leaf.arg.type == "pure-token" else leaf.arg.name
                suggestions.append(Suggestion(text, typed.start, about))
        elif leaf.arg.type == "key":
            suggestions += _keys(typed, keys)
        elif found.topic.name == "HELP":
            suggestions += _commands(typed)
    return suggestions


def _commands(typed: _Typed) -> list[Suggestion]:
    wanted = typed.current.upper()
    return [
        Suggestion(_in_case_of(typed.current, topic.name), typed.start, topic.summary)
        for topic in topics().values()
        if topic.name.startswith(wanted)
    ]


def _subcommands(typed: _Typed, found: Found) -> list[Suggestion]:
    if len(typed.words) != 1:
        return []
    names = [(topic.name.partition(" ")[2], topic.summary) for topic in found.topic.subtopics]
    return [
        Suggestion(_in_case_of(typed.current, name), typed.start, summary)
        for name, summary in names
        if name.startswith(typed.current.upper())
    ]


def _keys(typed: _Typed, keys: Iterable[bytes]) -> list[Suggestion]:
    found = []
    for key in keys:
        text = quote(key)
        if text.startswith(typed.current) and text != typed.current:
            found.append(Suggestion(text, typed.start, "key"))
            if len(found) == _MAX_SHOWN:
                break
    return found


def _in_case_of(typed: str, word: str) -> str:
    return word.lower() if typed and typed == typed.lower() else word


def hint(line: str) -> tuple[list[Piece], str]:
    """The syntax of the command being typed, the next part marked, and its summary."""
    typed = _typed(line)
    words = [*typed.words, typed.current] if not typed.words else typed.words
    found = find(words)
    if found is None:
        return [], ""
    topic = found.topic
    expected: list[Leaf] = []
    if typed.words:
        expected, _ = grammar_of(topic.args).after(typed.words[found.words :])
    pieces = [Piece(topic.name)]
    if topic.subtopics and not topic.args:
        names = [subtopic.name.partition(" ")[2] for subtopic in topic.subtopics]
        return [*pieces, Piece(" " + " | ".join(names))], topic.summary
    arguments = syntax(topic.args, expected)
    return [*pieces, Piece(" "), *arguments] if arguments else pieces, topic.summary


def is_known(word: str) -> bool:
    """Whether a line may begin with the word."""
    return word.upper() in topics() or word.upper() in QUIT_WORDS
