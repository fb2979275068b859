"""What may come next in a command, worked out from its argument tree.

Owns the matching of typed words against a tree of marram.commands.spec.Arg, and how the tree reads
as syntax; not the trees (the command table, words.py) nor what is suggested (completion.py).

The tree becomes a small automaton: states joined by words, some literal (EX), some any (a value),
and by empty steps. Options that stand side by side may come in any order.

G1  whatever sequence of words follows the tree's syntax is accepted.
G2  a word that is one of the literals expected is read as that, not as a value.

Threading: pure; built automata are immutable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from marram.commands.spec import Arg


class Leaf(NamedTuple):
    """One word that may come next: a literal where token is given, else a value for `arg`."""

    arg: Arg
    token: str | None

    def accepts(self, word: str) -> bool:
        """Whether the word fits."""
        return self.token is None or word.upper() == self.token


class _Builder:
    """The automaton under construction: states are numbers."""

    def __init__(self) -> None:
        self.words: list[list[tuple[Leaf, int]]] = []
        self.empty: list[list[int]] = []

    def state(self) -> int:
        self.words.append([])
        self.empty.append([])
        return len(self.words) - 1

    def word(self, start: int, leaf: Leaf) -> int:
        end = self.state()
        self.words[start].append((leaf, end))
        return end

    def sequence(self, args: Sequence[Arg], start: int) -> int:
        at = 0
        while at < len(args):
            stop = at
            while stop < len(args) and args[stop].optional:
                stop += 1
            if stop - at > 1:
                # A run of options: each leads back to where they all start.
                for arg in args[at:stop]:
                    self.empty[self.repeated(arg, start)].append(start)
                at = stop
            else:
                start = self.argument(args[at], start)
                at += 1
        return start

    def argument(self, arg: Arg, start: int) -> int:
        end = self.repeated(arg, start)
        if arg.optional:
            self.empty[start].append(end)
        return end

    def repeated(self, arg: Arg, start: int) -> int:
        if not arg.multiple:
            return self.once(arg, start)
        first = self.state()
        self.empty[start].append(first)
        end = self.once(arg, first)
        self.empty[end].append(first)
        return end

    def once(self, arg: Arg, start: int) -> int:
        if arg.type == "pure-token":
            return self.word(start, Leaf(arg, (arg.token or arg.name).upper()))
        if arg.token is not None:
            start = self.word(start, Leaf(arg, arg.token.upper()))
        if arg.type == "oneof":
            end = self.state()
            for part in arg.parts:
                self.empty[self.argument(part, start)].append(end)
            return end
        if arg.type == "block":
            return self.sequence(arg.parts, start)
        return self.word(start, Leaf(arg, None))


class Grammar:
    """The automaton of one argument tree."""

    def __init__(self, args: Sequence[Arg]) -> None:
        builder = _Builder()
        self._start = builder.state()
        self._end = builder.sequence(args, self._start)
        self._words = builder.words
        self._empty = builder.empty

    def after(self, words: Iterable[str]) -> tuple[list[Leaf], bool]:
        """(what may come after the words, whether they may also be all). Nothing fits: [], False.

        >>> grammar = Grammar([Arg("key", "key"), Arg("seconds", "integer", "EX", optional=True)])
        >>> leaves, complete = grammar.after(["k"])
        >>> [leaf.token for leaf in leaves], complete
        (['EX'], True)
        """
        states = self._closure({self._start})
        for word in words:
            fitting = [
                (leaf, end)
                for state in states
                for leaf, end in self._words[state]
                if leaf.accepts(word)
            ]
            literal = [step for step in fitting if step[0].token is not None]
            states = self._closure({end for _, end in literal or fitting})
        leaves = [leaf for state in sorted(states) for leaf, _ in self._words[state]]
        return list(dict.fromkeys(leaves)), self._end in states

    def _closure(self, states: set[int]) -> set[int]:
        found = set(states)
        left = list(states)
        while left:
            for state in self._empty[left.pop()]:
                if state not in found:
                    found.add(state)
                    left.append(state)
        return found


@lru_cache(maxsize=256)
def grammar_of(args: tuple[Arg, ...]) -> Grammar:
    """The automaton of a tree, made once."""
    return Grammar(args)


class Piece(NamedTuple):
    """Part of a syntax line; expected: it may come next."""

    text: str
    expected: bool = False


def syntax(args: Sequence[Arg], expected: Sequence[Leaf] = ()) -> list[Piece]:
    """A tree as people write it, in pieces, those that may come next marked.

    >>> "".join(piece.text for piece in syntax([Arg("key", "key"), Arg("n", token="LIMIT")]))
    'key LIMIT n'
    """
    pieces: list[Piece] = []
    for arg in args:
        if pieces:
            pieces.append(Piece(" "))
        pieces += _argument(arg, expected)
    return pieces


def _argument(arg: Arg, expected: Sequence[Leaf]) -> list[Piece]:
    pieces = _once(arg, expected)
    if arg.multiple:
        # The whole once more would be long where it is a block; "..." says it.
        pieces = [*pieces, Piece(" ...")]
    if arg.optional:
        pieces = [Piece("["), *pieces, Piece("]")]
    return pieces


def _once(arg: Arg, expected: Sequence[Leaf]) -> list[Piece]:
    def piece(text: str, token: str | None) -> Piece:
        return Piece(text, Leaf(arg, token) in expected)

    if arg.type == "pure-token":
        token = (arg.token or arg.name).upper()
        return [piece(token, token)]
    pieces: list[Piece] = []
    if arg.token is not None:
        pieces += [piece(arg.token.upper(), arg.token.upper()), Piece(" ")]
    if arg.type == "oneof":
        for index, part in enumerate(arg.parts):
            pieces += [Piece(" | ")] if index else []
            pieces += _argument(part, expected)
        # An optional one is in brackets already.
        return pieces if arg.optional and arg.token is None else [Piece("("), *pieces, Piece(")")]
    if arg.type == "block":
        return pieces + syntax(arg.parts, expected)
    return [*pieces, piece(arg.name, None)]


def syntax_text(args: Sequence[Arg]) -> str:
    """syntax() as one string."""
    return "".join(piece.text for piece in syntax(args))
