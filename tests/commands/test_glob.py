"""Glob patterns: the language against a recursive model, and the promises on time (G1-G3)."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marram.commands.glob import MAX_PATTERN_BYTES, Glob
from marram.commands.spec import CommandError


def in_set(pattern: bytes, at: int, byte: int) -> tuple[bool, int]:
    """Whether the set that starts behind the `[` at `at` allows the byte; where it ends."""
    negated = pattern[at + 1 : at + 2] == b"^"
    at += 2 if negated else 1
    allowed = False
    while at < len(pattern) and pattern[at] != ord("]"):
        if pattern[at] == ord("\\") and at + 1 < len(pattern):
            allowed |= pattern[at + 1] == byte
            at += 2
        elif pattern[at + 1 : at + 2] == b"-" and at + 2 < len(pattern):
            ends = pattern[at], pattern[at + 2]
            allowed |= min(ends) <= byte <= max(ends)
            at += 3
        else:
            allowed |= pattern[at] == byte
            at += 1
    return allowed != negated, at + 1


def model(pattern: bytes, string: bytes, at: int = 0, place: int = 0) -> bool:
    """The language, said the short way; exponential."""
    if at >= len(pattern):
        return place == len(string)
    if pattern[at] == ord("*"):
        return any(model(pattern, string, at + 1, n) for n in range(place, len(string) + 1))
    if place == len(string):
        return False
    if pattern[at] == ord("?"):
        return model(pattern, string, at + 1, place + 1)
    if pattern[at] == ord("["):
        allowed, end = in_set(pattern, at, string[place])
        return allowed and model(pattern, string, end, place + 1)
    if pattern[at] == ord("\\") and at + 1 < len(pattern):
        at += 1
    return pattern[at] == string[place] and model(pattern, string, at + 1, place + 1)


PATTERNS = st.lists(st.sampled_from([b"*", b"?", b"[", b"]", b"^", b"-", b"\\", b"a", b"b", b"c"]))
STRINGS = st.lists(st.sampled_from([b"a", b"b", b"c", b"]", b"-", b"*", b"\\"]), max_size=8)


@settings(max_examples=1500, deadline=None)
@given(PATTERNS.map(b"".join), STRINGS.map(b"".join))
@example(b"[a-]]b", b"ab")
@example(b"[\\]]", b"]")
@example(b"*[", b"a")
@example(b"[^", b"x")
@example(b"\\", b"\\")
@example(b"a*?b", b"aab")
@example(b"*ab*bc", b"abbc")
def test_matches_what_the_model_matches(pattern: bytes, string: bytes) -> None:
    if len(pattern) <= 12:
        assert Glob(pattern).matches(string) == model(pattern, string)


@settings(max_examples=500, deadline=None)
@given(PATTERNS.map(b"".join), STRINGS.map(b"".join))
def test_g3_what_matches_starts_with_the_prefix(pattern: bytes, string: bytes) -> None:
    glob = Glob(pattern)
    if glob.matches(string):
        assert string.startswith(glob.prefix)
        assert glob.literal in (None, string)
    if glob.literal is not None:
        assert glob.matches(glob.literal)


@pytest.mark.parametrize(
    ("pattern", "prefix", "literal"),
    [
        (b"", b"", b""),
        (b"user:1", b"user:1", b"user:1"),
        (b"user:*", b"user:", None),
        (b"us\\*r?:*", b"us*r", None),
        (b"ab[c]d[ef]", b"abcd", None),
        (b"[ab]c", b"", None),
        (b"*", b"", None),
    ],
)
def test_prefix_and_literal(pattern: bytes, prefix: bytes, literal: bytes | None) -> None:
    assert (Glob(pattern).prefix, Glob(pattern).literal) == (prefix, literal)


def test_bytes_are_bytes() -> None:
    assert Glob(b"?").matches(b"\xff")
    assert not Glob(b"?").matches("é".encode())
    assert Glob(b"[\x80-\xff]").matches(b"\xc3")
    assert not Glob(b"[\x80-\xff]").matches(b"a")
    assert Glob(b"a\x00*").matches(b"a\x00\n\r")


@pytest.mark.parametrize(
    ("pattern", "string"),
    [
        (b"*a" * 30 + b"b", b"a" * 65_536),
        (b"*a" * 500_000 + b"b", b"a" * 65_536),
        (b"*?" * 500_000, b"a" * 65_536),
        (b"*" + b"?" * 30_000 + b"b*", b"a" * 65_536),
        (b"*" + b"[ab]" * 10_000 + b"c*", b"ab" * 32_768),
        (b"*a?" * 20_000 + b"*b", b"a" * 65_536),
        (b"[" * (1 << 20), b"a" * 65_536),
        (b"[a-" * 300_000, b"b"),
        (b"\\" * ((1 << 20) - 1), b"\\"),
        (b"*" * (1 << 20), b"a"),
        (b"[^a]" * (1 << 18), b"b"),
    ],
)
def test_g1_no_pattern_backtracks(pattern: bytes, string: bytes) -> None:
    begun = time.process_time()
    matched = Glob(pattern).matches(string)
    # A backtracking matcher needs hours for the first of them; these need a second at most.
    assert time.process_time() - begun < 20
    assert matched == (pattern.strip(b"*") == b"")


def test_g2_patterns_are_refused_one_byte_past_the_limit() -> None:
    assert Glob(b"*" * MAX_PATTERN_BYTES).matches(b"")
    with pytest.raises(CommandError, match="at most 1048576 bytes"):
        Glob(b"*" * (MAX_PATTERN_BYTES + 1))


def test_stars_match_the_empty_string() -> None:
    assert Glob(b"*").matches(b"")
    assert Glob(b"***").matches(b"")
    assert not Glob(b"*?").matches(b"")
