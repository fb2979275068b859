"""Redis's glob patterns over bytes: KEYS, SCAN MATCH, PSUBSCRIBE, CONFIG GET.

Owns the pattern language and its matching; not what is matched.

    *       any bytes, also none            ?       any one byte
    [abc]   one byte of a set               [a-c]   of a range, ends included, either way round
    [^a]    one byte not of the set         \\x      the byte x itself, also within a set

A set left open at the end of the pattern ends there; a backslash at the end is itself.

G1  no pattern backtracks: each part between two stars is looked for once, from where the part
    before it ended, because its leftmost place leaves the most room for what follows. Compiling
    costs O(pattern); matching costs O(string) for parts of plain bytes and O(part * string) bit
    operations, 30 at a time, for parts with `?` or sets.
G2  no recursion, and no memory beyond the pattern's and the string's size; a pattern longer than
    MAX_PATTERN_BYTES is refused.
G3  every string that matches starts with `prefix`; where `literal` is not None, it is the only one.

Threading: a compiled Glob is immutable; share it freely.
"""

from __future__ import annotations

import re
from typing import Final

from marram.commands.spec import CommandError

MAX_PATTERN_BYTES: Final = 1 << 20

# One token: stars, `?`, a set, an escaped byte, or a run of plain bytes. A set's members are pairs
# `\\x`, ranges `a-x` (whatever x is) and bytes, so neither `\\]` nor `a-]` closes it.
_TOKEN: Final = re.compile(
    rb"\*+|\?|\[\^?(?:\\.|[^\]\\]-.|[^\]])*+\]?|\\.|[^*?\[\\]+|\\", re.DOTALL
)

_STAR: Final = ord("*")
_ANY: Final = ord("?")
_OPEN: Final = ord("[")
_CLOSE: Final = ord("]")
_ESCAPE: Final = ord("\\")
_DASH: Final = ord("-")

_ALL: Final = (1 << 256) - 1
_ONLY: Final = tuple(1 << byte for byte in range(256))  # shared, so that a long pattern stays small

Part = bytes | tuple[int, ...]
"""What stands between two stars: plain bytes, or per byte the set of those allowed (bit b: b)."""


class Glob:
    """A compiled pattern.

    prefix: what every match starts with, maybe b"". literal: the only match, or None where there
    may be several. Raises CommandError: the pattern is longer than MAX_PATTERN_BYTES.

    >>> Glob(b"user:*:[ab]").matches(b"user:17:b")
    True
    >>> Glob(b"user:*").prefix
    b'user:'
    >>> Glob(b"a\\\\*").literal
    b'a*'
    """

    __slots__ = ("_first", "_last", "_middle", "_min_size", "literal", "prefix")

    def __init__(self, pattern: bytes) -> None:
        if len(pattern) > MAX_PATTERN_BYTES:
            raise CommandError(f"ERR a pattern has at most {MAX_PATTERN_BYTES} bytes")
        parts = _parse(pattern)
        self._first = parts[0]
        self._last: Part | None = parts[-1] if len(parts) > 1 else None
        self._middle = [part for part in parts[1:-1] if part]
        self._min_size = sum(map(len, parts))
        first = parts[0]
        alone = len(parts) == 1
        self.literal = first if alone and isinstance(first, bytes) else None
        self.prefix = first if isinstance(first, bytes) else _plain_start(first)

    def matches(self, string: bytes) -> bool:
        """Whether the whole string fits the pattern."""
        size = len(string)
        first = self._first
        last = self._last
        if size < self._min_size or (last is None and size != len(first)):
            return False
        if not _fits(first, string, 0):
            return False
        if last is None:
            return True
        stop = size - len(last)
        if not _fits(last, string, stop):
            return False
        at = len(first)
        for part in self._middle:
            at = _find(part, string, at, stop)
            if at < 0:
                return False
            at += len(part)
        return True


def _parse(pattern: bytes) -> list[Part]:
    """The parts between the stars; there is one more of them than runs of stars."""
    parts: list[Part] = []
    plain: list[bytes] = []
    sets: list[int] | None = None
    for match in _TOKEN.finditer(pattern):
        token = match.group()
        kind = token[0]
        if kind == _STAR:
            parts.append(b"".join(plain) if sets is None else tuple(sets))
            plain, sets = [], None
            continue
        if kind in (_ANY, _OPEN):
            if sets is None:
                sets = [_ONLY[byte] for byte in b"".join(plain)]
            sets.append(_ALL if kind == _ANY else _set(token))
            continue
        literal = token[1:] if kind == _ESCAPE and len(token) > 1 else token
        if sets is None:
            plain.append(literal)
        else:
            sets += [_ONLY[byte] for byte in literal]
    parts.append(b"".join(plain) if sets is None else tuple(sets))
    return parts


def _set(token: bytes) -> int:
    """The bytes a set allows, as bits; the token starts with `[` and may lack its `]`."""
    negated = token[1:2] == b"^"
    allowed = 0
    at = 2 if negated else 1
    end = len(token)
    while at < end:
        byte = token[at]
        if byte == _ESCAPE and at + 1 < end:
            at += 1
            allowed |= 1 << token[at]
        elif byte == _CLOSE:
            break
        elif at + 2 < end and token[at + 1] == _DASH:
            low, high = sorted((byte, token[at + 2]))
            allowed |= (2 << high) - (1 << low)
            at += 2
        else:
            allowed |= 1 << byte
        at += 1
    return _ALL & ~allowed if negated else allowed


def _plain_start(sets: tuple[int, ...]) -> bytes:
    """The bytes that a part with sets begins with for certain."""
    start = bytearray()
    for allowed in sets:
        if allowed.bit_count() != 1:
            break
        start.append(allowed.bit_length() - 1)
    return bytes(start)


def _fits(part: Part, string: bytes, at: int) -> bool:
    """Whether the part fits at that very place; the string is long enough."""
    if isinstance(part, bytes):
        return string.startswith(part, at)
    return all(allowed >> byte & 1 for allowed, byte in zip(part, string[at:], strict=False))


def _find(part: Part, string: bytes, start: int, stop: int) -> int:
    """The first place in [start, stop) where the part fits wholly, or -1."""
    if isinstance(part, bytes):
        return string.find(part, start, stop)
    places = stop - start - len(part) + 1
    if places <= 0:
        return -1
    # Bit p of `possible`: the part may start at start + p. One step a byte of the part, all
    # places at once; `rows` keeps, per set, which bytes of the string it allows.
    text = string[start:stop][::-1]
    possible = (1 << places) - 1
    rows: dict[int, int] = {}
    for offset, allowed in enumerate(part):
        if allowed == _ALL:
            continue
        row = rows.get(allowed)
        if row is None:
            row = rows[allowed] = int(text.translate(_digits(allowed)), 2)
        possible &= row >> offset
        if not possible:
            return -1
    return start + (possible & -possible).bit_length() - 1


def _digits(allowed: int) -> bytes:
    """A translation table: b"1" for the bytes allowed, b"0" for the others."""
    return f"{allowed:0256b}"[::-1].encode("ascii")
