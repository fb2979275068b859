"""What may come next in a command, and what is suggested for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marram.cli.completion import MAX_KEYS, SeenKeys, hint, is_known, suggest
from marram.cli.grammar import Grammar, grammar_of, syntax_text
from marram.cli.parse import split
from marram.cli.words import OWN, Topic, did_you_mean, find, is_secret, topics
from marram.commands.grammar import KEY, KEYS, VALUE, block, one_of, optional, repeated, word
from marram.commands.spec import Arg
from marram.commands.table import TABLE

EX = Arg("seconds", "integer", "EX")
LIMIT = optional(Arg("limit", "block", "LIMIT", parts=(Arg("offset"), Arg("count"))))


def after(args: tuple[Arg, ...], line: str) -> tuple[list[str], bool]:
    leaves, complete = Grammar(args).after(line.split())
    return [leaf.token or leaf.arg.name for leaf in leaves], complete


@pytest.mark.parametrize(
    ("args", "line", "names", "complete"),
    [
        ((), "", [], True),
        ((), "x", [], False),
        ((KEY, VALUE), "", ["key"], False),
        ((KEY, VALUE), "k", ["value"], False),
        ((KEY, VALUE), "k v", [], True),
        ((KEY, VALUE), "k v x", [], False),
        ((KEYS,), "a", ["key"], True),
        ((KEYS,), "a b c", ["key"], True),
        ((KEY, optional(EX)), "k", ["EX"], True),
        ((KEY, optional(EX)), "k ex", ["seconds"], False),
        ((KEY, optional(EX)), "k EX 5", [], True),
        ((KEY, optional(word("NX")), optional(EX)), "k EX 5 ", ["NX", "EX"], True),
        ((KEY, optional(word("NX")), optional(EX)), "k EX 5 NX", ["NX", "EX"], True),
        ((one_of("what", word("A"), word("B")),), "", ["A", "B"], False),
        ((one_of("what", word("A"), EX),), "EX", ["seconds"], False),
        ((one_of("what", EX, Arg("free")),), "EX", ["seconds"], False),
        ((one_of("what", EX, Arg("free")),), "other", [], True),
        ((optional(one_of("what", word("A"), EX)),), "a", [], True),
        ((KEY, LIMIT), "k LIMIT", ["offset"], False),
        ((KEY, LIMIT), "k LIMIT 1", ["count"], False),
        ((KEY, LIMIT), "k LIMIT 1 2", [], True),
        ((repeated(block("pair", KEY, VALUE)),), "a", ["value"], False),
        ((repeated(block("pair", KEY, VALUE)),), "a 1", ["key"], True),
        ((optional(KEYS), optional(word("END"))), "a END", ["key", "END"], True),
    ],
)
def test_what_may_come_next(args, line, names, complete):
    found, whole = after(args, line)
    assert set(found) == set(names)
    assert whole is complete


def random_sentence(draw: st.DrawFn, args: tuple[Arg, ...]) -> list[str]:
    """A sentence that follows an argument tree, options included or not."""
    words: list[str] = []
    for arg in args:
        if arg.optional and draw(st.booleans()):
            continue
        for _ in range(draw(st.integers(1, 2)) if arg.multiple else 1):
            if arg.token is not None or arg.type == "pure-token":
                words.append((arg.token or arg.name).upper())
            if arg.type == "oneof":
                words += random_sentence(draw, (draw(st.sampled_from(arg.parts)),))
            elif arg.type == "block":
                words += random_sentence(draw, arg.parts)
            elif arg.type != "pure-token":
                words.append("17")
    return words


ROWS = [row for each in TABLE.values() for row in (each, *each.subcommands)]


@st.composite
def sentences(draw: st.DrawFn) -> tuple[tuple[Arg, ...], list[str]]:
    args = draw(st.sampled_from([row.args for row in ROWS] + [topic.args for topic in OWN]))
    return args, random_sentence(draw, args)


@given(sentences())
def test_g1_every_sentence_of_every_command_is_accepted(found):
    args, sentence = found
    _, complete = grammar_of(args).after(sentence)
    assert complete, (syntax_text(args), sentence)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_command_reads_as_syntax_and_has_help(row):
    assert syntax_text(row.args).count("[") == syntax_text(row.args).count("]")
    name, _, sub = row.name.partition("|")
    found = find([name.upper(), sub] if sub else [name])
    assert found is not None
    assert found.topic.summary


KEYS_SEEN = [b"user:1", b"user:2", b"a b", b"\xff"]


def texts(line: str) -> list[str]:
    return [suggestion.text for suggestion in suggest(line, KEYS_SEEN)]


@pytest.mark.parametrize(
    ("line", "included", "excluded"),
    [
        ("", ["PUT", "GET", "SCAN", "QUIT", "CONFIG", "FLUSHALL"], []),
        ("pu", ["put", "publish"], ["PUT", "get"]),
        ("PU", ["PUT", "PUBLISH"], ["put"]),
        ("GET", ["GET", "GETDEL"], ["user:1"]),
        ("GET ", ["user:1", '"a b"', '"\\xff"'], ["GET"]),
        ("GET u", ["user:1", "user:2"], ['"a b"']),
        ('GET "a', ['"a b"'], ["user:1"]),
        ("GET user:1 ", [], ["user:1"]),
        ("SET k v ", ["NX", "EX", "KEEPTTL"], ["user:1"]),
        ("SET k v e", ["ex", "exat"], ["nx"]),
        ("SET k v EX ", [], ["NX"]),
        ("CONFIG ", ["GET", "SET", "HELP"], ["user:1"]),
        ("config g", ["get"], ["GET", "set"]),
        ("nosuch ", [], ["user:1"]),
        ("SCAN ", ["user:1", "LIMIT", "REVERSE"], ["MATCH"]),
        ("SCAN 0 ", ["MATCH", "COUNT"], ["user:1", "LIMIT"]),
        ("HELP se", ["set", "select"], ["put"]),
        ("DEL user:1 ", ["user:2"], []),
    ],
)
def test_suggestions(line, included, excluded):
    found = texts(line)
    assert set(included) <= set(found)
    assert not set(excluded) & set(found)


@pytest.mark.parametrize("line", ["", "se", "GET ", "GET u", "SET k v e", "config g", "DEL a "])
def test_c1_a_suggestion_fits_where_it_is_put(line):
    for suggestion in suggest(line, KEYS_SEEN):
        completed = line[: suggestion.start] + suggestion.text
        assert split(completed)[-1].start == suggestion.start


@given(st.text(max_size=30))
def test_any_line_can_be_asked_about(line):
    assert all(0 <= suggestion.start <= len(line) for suggestion in suggest(line, KEYS_SEEN))
    pieces, _ = hint(line)
    assert all(isinstance(piece.text, str) for piece in pieces)


def test_c2_the_latest_keys_come_first_and_the_oldest_go():
    seen = SeenKeys()
    seen.add([b"a", b"b", None, b"", b"x" * 1000, 5])
    seen.add([b"a"])
    assert list(seen) == [b"a", b"b"]
    seen.add(b"%d" % number for number in range(MAX_KEYS))
    assert len(list(seen)) == MAX_KEYS
    assert b"a" not in list(seen)


def expected(line: str) -> list[str]:
    return [piece.text for piece in hint(line)[0] if piece.expected]


def test_the_hint_marks_what_comes_next():
    pieces, about = hint("SET k")
    assert "".join(piece.text for piece in pieces).startswith("SET key value [")
    assert about == TABLE[b"set"].summary
    assert expected("SET ") == ["key"]
    assert expected("SET k") == ["key"]
    assert expected("SET k ") == ["value"]
    assert "EX" in expected("SET k v ")
    assert expected("SET k v EX ") == ["seconds"]
    assert hint("nosuch") == ([], "")
    assert hint("CONFIG ")[0][1].text.startswith(" GET | SET")
    assert expected("CONFIG SET ") == ["parameter"]


def test_words_are_found_in_any_case_and_misspelt_ones_almost():
    assert find(["get"]) == find(["GET"])
    assert find(["config", "get"]).topic.name == "CONFIG GET"  # type: ignore[union-attr]
    assert find([]) is None
    assert find(["nope"]) is None
    assert did_you_mean("GETT") == " Did you mean GET?"
    assert did_you_mean("zzzzzz") == ""
    assert is_known("quit")
    assert is_known("exit")
    assert not is_known("quite")


def test_every_command_of_the_table_is_a_word_of_the_shell():
    assert {name.decode().upper() for name in TABLE} <= set(topics())
    assert all(isinstance(topic, Topic) for topic in topics().values())


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("AUTH pw", True),
        ("auth user pw", True),
        ("HELLO 3 AUTH u p", True),
        ("CONFIG SET requirepass x", True),
        ("config set maxclients 5 RequirePass x", True),
        ("CONFIG GET requirepass", False),
        ("SET k v", False),
        ("", False),
    ],
)
def test_lines_with_passwords_are_known(line, secret):
    assert is_secret(line) is secret
