"""Replies and values as text that is safe to show.

Owns what a value looks like on a screen; not where it is printed (shell.py) nor raw output
(`marram get` writes bytes as they are).

R1  the text holds no control character but newline and tab, whatever the value holds: a value
    cannot move the cursor, recolour the screen or answer for the terminal.
R2  it costs no more than what is shown: a value of 500 MB that is cut is not decoded whole.

Threading: pure functions.
"""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Iterator
from math import isfinite
from typing import Any

from marram.cli.parse import quote
from marram.protocol.replies import ErrorReply, NullArray, Push, Reply, SetReply, Simple, Verbatim

_JOINERS = {"\u200c", "\u200d"}  # of scripts and emoji: unprintable alone, harmless
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
MAX_DEPTH = 32


def size_text(size_bytes: int) -> str:
    """A size for people.

    >>> size_text(1), size_text(1536), size_text(5 << 30)
    ('1 byte', '1.5 KiB', '5.0 GiB')
    """
    if size_bytes == 1:
        return "1 byte"
    size = float(size_bytes)
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size_bytes} bytes" if unit == "bytes" else f"{size:.1f} {unit}"


def value_text(data: bytes, limit: int | None = None, *, inline: bool = False) -> str:
    """A value: as it is where it is printable text, else quoted with escapes (R1).

    limit: show this many characters at most and say the size; None for all (R2).
    inline: newline and tab are escaped as well.

    >>> print(value_text(b"caf\\xc3\\xa9"), value_text(b"\\x1b[2J"), value_text(b"abcdef", 3))
    café "\\x1b[2J" abc… (6 bytes)
    """
    shown, cut = data, ""
    if limit is not None and len(data) > limit:
        shown = data[: limit * 4]  # the most bytes that many characters take
        cut = f"… ({size_text(len(data))})"
    text = _printable(shown, bool(cut), inline)
    if text is None:
        if cut:
            assert limit is not None
            shown = data[:limit]
        return quote(shown) + cut
    if cut and limit is not None:
        if len(text) <= limit and len(shown) == len(data):
            return text  # many bytes a character: it fits after all
        text = text[:limit]
    return text + cut


def _printable(data: bytes, is_cut: bool, inline: bool) -> str | None:
    """The text of `data`, or None where it is not text that can be shown as it is."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        # The cut may have gone through a character; anything else is not text.
        if not is_cut or error.end < len(data) or len(data) - error.start > 3:
            return None
        text = data[: error.start].decode()
    harmless = text if inline else text.replace("\n", "").replace("\t", "")
    if harmless.isprintable() or all(c.isprintable() or c in _JOINERS for c in harmless):
        return text
    return None


def line_text(text: str) -> str:
    """One line from a server, such as a status or an error, without control characters."""
    return "".join(c if c.isprintable() or c in _JOINERS else "?" for c in text)


def reply_lines(reply: Reply, limit: int | None = None) -> Iterator[str]:
    """A reply as lines, the way a person reads it. limit: as value_text()'s."""
    if isinstance(reply, bytes):
        yield from value_text(reply, limit).split("\n")
    elif isinstance(reply, Verbatim):
        yield from _block(reply.data)
    elif isinstance(reply, ErrorReply):
        yield error_line(reply.text)
    elif isinstance(reply, list | tuple | dict | SetReply | Push):
        yield from _aggregate(reply, limit, 0)
    else:
        yield _scalar(reply)


def error_line(text: str) -> str:
    """An error as the shell shows it."""
    return f"Error: {line_text(text)}"


def _block(data: bytes) -> Iterator[str]:
    """Text of several lines; each is shown as it is where it can be."""
    for line in data.decode("utf-8", "replace").splitlines():
        yield line_text(line.replace("\t", "  "))


def _scalar(reply: Any) -> str:
    if reply is None or isinstance(reply, NullArray):
        return "(nil)"
    if isinstance(reply, bool):
        return "(true)" if reply else "(false)"
    if isinstance(reply, int):
        return f"(integer) {reply}"
    if isinstance(reply, float):
        return f"(double) {reply!r}"
    if isinstance(reply, Simple):
        return line_text(reply.text)
    return line_text(str(reply))


def _item(reply: Any, limit: int | None) -> str:
    if isinstance(reply, bytes):
        return value_text(reply, limit, inline=True)
    if isinstance(reply, Verbatim):
        return value_text(reply.data, limit, inline=True)
    if isinstance(reply, ErrorReply):
        return error_line(reply.text)
    return _scalar(reply)


def _aggregate(reply: Any, limit: int | None, depth: int) -> Iterator[str]:
    """Numbered items, or "key: value" for maps; what they hold is indented below them."""
    pad = "   " * depth
    if isinstance(reply, SetReply | Push):
        reply = reply.items
    if not reply:
        yield f"{pad}(empty)"
        return
    if isinstance(reply, dict):
        labels = [f"{_item(key, limit)}: " for key in reply]
        items = list(reply.values())
    else:
        width = len(str(len(reply)))
        labels = [f"{index:>{width}}) " for index in range(1, len(reply) + 1)]
        items = list(reply)
    for label, item in zip(labels, items, strict=True):
        nested = isinstance(item, list | tuple | dict | SetReply | Push)
        if not nested:
            yield f"{pad}{label}{_item(item, limit)}"
        elif not _length(item):
            yield f"{pad}{label}(empty)"
        elif depth < MAX_DEPTH:
            yield f"{pad}{label.rstrip()}"
            yield from _aggregate(item, limit, depth + 1)


def _length(reply: Any) -> int:
    return len(reply.items if isinstance(reply, SetReply | Push) else reply)


def plain(reply: Any) -> Any:
    """A reply as what JSON can say: text where bytes are UTF-8, else {"base64": ...}."""
    if isinstance(reply, bytes):
        try:
            return reply.decode()
        except UnicodeDecodeError:
            return {"base64": b64encode(reply).decode("ascii")}
    if isinstance(reply, Verbatim):
        return reply.data.decode("utf-8", "replace")
    if isinstance(reply, Simple):
        return reply.text
    if isinstance(reply, ErrorReply):
        return {"error": reply.text}
    if isinstance(reply, SetReply | Push):
        return [plain(item) for item in reply.items]
    if isinstance(reply, list | tuple):
        return [plain(item) for item in reply]
    if isinstance(reply, dict):
        return {_json_key(key): plain(value) for key, value in reply.items()}
    if isinstance(reply, float) and not isfinite(reply):
        return str(reply)  # JSON has no such numbers
    return None if isinstance(reply, NullArray) else reply


def _json_key(key: Any) -> str:
    if isinstance(key, bytes):
        return key.decode("utf-8", "backslashreplace")
    return key.text if isinstance(key, Simple) else str(key)


def stats_lines(figures: dict[str, Any]) -> Iterator[str]:
    """A store's figures; the lsm engine's as a picture (levels.py)."""
    lsm = figures.get("lsm")
    yield from figures_lines({name: each for name, each in figures.items() if name != "lsm"})
    if isinstance(lsm, dict):
        from marram.cli.levels import levels_lines

        yield from levels_lines(lsm, figures.get("stalls"), block=_block_for(sys.stdout.encoding))


def _block_for(encoding: str | None) -> str:
    """What bars are made of, where the terminal can show it."""
    try:
        "\u2588".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "#"
    return "\u2588"


def figures_lines(figures: dict[str, Any], depth: int = 1) -> Iterator[str]:
    """Nested figures as indented "name: value" lines, what is flat first."""
    pad = "  " * depth
    for name, value in figures.items():
        if not isinstance(value, dict):
            yield f"{pad}{line_text(str(name))}: {line_text(_figure(value))}"
    for name, value in figures.items():
        if isinstance(value, dict) and value:
            yield f"{pad}{line_text(str(name))}:"
            yield from figures_lines(value, depth + 1)


def _figure(value: Any) -> str:
    if isinstance(value, bytes):
        return value_text(value, inline=True)
    if isinstance(value, list | tuple):
        return ", ".join(_figure(item) for item in value)
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
