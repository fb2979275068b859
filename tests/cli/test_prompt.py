"""The interactive shell, keys typed through a pipe: history, completion, hints, safe output."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.document import Document
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console

from marram.cli import prompt
from marram.cli.backends import Embedded
from marram.cli.parse import BadLine, split
from marram.cli.prompt import Prompt, TerminalPrinter, history_path, lines_of, open_history
from marram.cli.session import Session


@pytest.fixture
def screen() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def session(tmp_path: Path, screen: io.StringIO) -> Iterator[Session]:
    backend = Embedded(str(tmp_path / "d"), 0, create=True)
    console = Console(file=screen, width=60, highlight=False, markup=False, emoji=False)
    yield Session(backend, TerminalPrinter(console))
    backend.close()


def typed(session: Session, keys: str, history: Any = None) -> list[str]:
    """The lines that the keys make."""
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        pipe.send_text(keys)
        asking = Prompt(session, history or InMemoryHistory(), pipe, DummyOutput())
        found = []
        for line in lines_of(asking):
            session.execute(line)
            found.append(line)
            if session.finished:
                break
        return found


def test_lines_are_typed_run_and_answered(session, screen):
    assert typed(session, "PUT k v\rGET k\rQUIT\r") == ["PUT k v", "GET k", "QUIT"]
    assert screen.getvalue() == "OK\nv\n"


def test_ctrl_c_gives_a_line_up_and_ctrl_d_leaves(session):
    assert typed(session, "PUT k\x03PING\r\x04") == ["PING"]
    assert not session.finished


@pytest.mark.parametrize(("keys", "line"), [("STAT", "STATS"), ("GET us", "GET user:1")])
def test_tab_completes_commands_and_keys_that_were_seen(session, keys, line):
    session.execute("PUT user:1 v")
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        asking = Prompt(session, InMemoryHistory(), pipe, DummyOutput())

        buffer = asking._prompt.default_buffer

        def offered(_: Any) -> None:
            if buffer.text == keys and buffer.complete_state is not None:
                pipe.send_text("\t")

        def changed(_: Any) -> None:
            if buffer.text == line:
                pipe.send_text("\r")

        buffer.on_completions_changed += offered
        buffer.on_text_changed += changed
        pipe.send_text(keys)
        assert asking.ask() == line


def test_lines_are_kept_for_the_arrow_keys(session):
    history = InMemoryHistory()
    typed(session, "PING\rTIME\r\x04", history)
    assert history.get_strings() == ["PING", "TIME"]


def test_the_history_is_a_private_file_without_passwords(session, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = history_path(os.environ)
    assert path == str(tmp_path / "state" / "marram" / "history")
    typed(session, "PING\rAUTH secret\rCONFIG SET requirepass secret\r\x04", open_history())
    text = Path(path).read_text()
    assert "PING" in text
    assert "secret" not in text
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700
    assert list(open_history().load_history_strings()) == ["PING"]


def test_a_history_that_cannot_be_written_is_kept_in_memory(tmp_path, monkeypatch):
    (tmp_path / "marram").write_text("a file where the directory would be")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert isinstance(open_history(), InMemoryHistory)


def test_the_state_directory_is_xdgs_or_below_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert history_path({}) == "/home/me/.local/state/marram/history"
    assert history_path({"XDG_STATE_HOME": "relative"}).startswith("/home/me")


def test_the_prompt_names_the_store_keyspace_and_transaction(session):
    asking = Prompt(session, InMemoryHistory(), output=DummyOutput())
    assert shown(asking._message()) == "d> "
    session.execute("SELECT 3")
    session.execute("MULTI")
    assert shown(asking._message()) == "d[3] (transaction)> "


def shown(parts: Any) -> str:
    return "".join(part[1] for part in parts)


def test_the_toolbar_shows_what_the_command_takes(session):
    asking = Prompt(session, InMemoryHistory(), output=DummyOutput())
    assert "HELP" in shown(asking._toolbar())
    asking._prompt.default_buffer.reset(Document("GET "))
    parts = asking._toolbar()
    assert shown(parts).startswith("GET key")
    assert ("class:bottom-toolbar.next", "key") in parts


def test_the_first_word_is_marked_as_known_or_not():
    lexer = prompt._FirstWord()
    assert lexer.lex_document(Document("GET k"))(0)[0] == ("class:known", "GET")
    assert lexer.lex_document(Document("GETT k"))(0)[0] == ("class:unknown", "GETT")
    assert lexer.lex_document(Document(""))(0) == [("", "")]


def test_answers_are_tables_cut_and_harmless(session, screen):
    session.execute("PUT a '[red]markup :smile:'")
    session.execute('SET b "\\x1b]0;title\\x07"')
    session.execute("SET c " + "x" * 5000)
    session.execute("SCAN")
    session.execute("GET b")
    session.execute("GET c")
    text = screen.getvalue()
    assert "[red]markup :smile:" in text
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\\x1b]0;title\\a" in text
    assert "… (4.9 KiB)" in text
    assert "3 keys" in text
    assert "key" in text.splitlines()[3]


def test_an_empty_scan_and_errors_are_told(session, screen):
    session.execute("SCAN")
    session.execute("GETT")
    session.execute('GET "x')
    assert screen.getvalue() == (
        "(empty)\n"
        "Error: unknown command 'GETT'. Did you mean GET?\n"
        'GET "x\n'
        "    ^ this quote is not closed\n"
    )


def test_the_caret_stands_below_the_column():
    with pytest.raises(BadLine) as caught:
        split("GET\t'x")
    assert caught.value.pointing("GET\t'x") == "GET 'x\n    ^ this quote is not closed"


@pytest.mark.parametrize(
    ("answer", "sure"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_only_yes_means_yes(monkeypatch, capsys, answer, sure):
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert prompt.confirm("Go on? ") is sure
