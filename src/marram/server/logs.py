"""Log lines: one event a line, for people on a terminal, as JSON for machines.

Owns the formats and where the lines go (stderr); not what is logged, which each module decides.

H1  one record is one line, whatever clients put into it: control bytes are escaped.
H2  an event that comes in floods is written REPEATS_MAX times a second; the first line after that
    says how many were left out. Whoever makes the server complain cannot fill its disk with it.
H3  fields hold no secrets and no whole keys or values: shown() truncates them where they are made.

Modules log with logging.getLogger("marram.<part>"); event() adds fields to a line. Threading:
logging's own lock.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO, Any, Final

_OWN: Final = ("marram", "uvicorn", "asyncio", "starlette")
"""The loggers whose lines are ours to write."""

REPEATS_MAX: Final = 20

_SHOWN_BYTES: Final = 64
_REMEMBERED_MAX: Final = 1000  # different events in a second


def event(logger: logging.Logger, level: int, name: str, /, **fields: Any) -> None:
    """Log the event `name`, a short constant text, with fields (plain values)."""
    if logger.isEnabledFor(level):
        logger.log(level, "%s", name, extra={"marram_fields": fields})


def shown(data: bytes, limit: int = _SHOWN_BYTES) -> str:
    """Bytes a client sent, safe and short enough for a line: printable text, else escapes."""
    text = data[:limit].decode("utf-8", "backslashreplace")
    return _escape(text) + (f"... ({len(data)} bytes)" if len(data) > limit else "")


def one_line(text: str) -> str:
    """The text with control bytes and line ends escaped."""
    return _escape(text)


class HumanFormatter(logging.Formatter):
    """12:34:56 warning store: message  key=value"""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows on lines of its own."""
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        part = record.name.removeprefix("marram.")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()} "
        line = f"{clock} {level}{part}: {_escape(record.getMessage())}"
        for name, value in _fields(record).items():
            line += f"  {name}={_escape(str(value))}"
        trace = _trace(self, record)
        return f"{line}\n{trace}" if trace else line


class JsonFormatter(logging.Formatter):
    """{"time": "...Z", "level": "info", "logger": "marram.store", "event": "...", ...fields}"""

    def format(self, record: logging.LogRecord) -> str:
        """One line, always."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        for name, value in _fields(record).items():
            line.setdefault(name, value)
        trace = _trace(self, record)
        if trace:
            line["traceback"] = trace
        # ASCII: json escapes every control byte and everything a terminal might act on.
        return json.dumps(line, ensure_ascii=True, default=str)


class RepeatFilter(logging.Filter):
    """Keeps H2. An event is what a line says, its fields aside."""

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._counts: dict[str, int] = {}
        self._left_out: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write the record."""
        second = int(record.created)
        if second != self._second:
            self._second = second
            self._left_out = {
                key: count - REPEATS_MAX
                for key, count in self._counts.items()
                if count > REPEATS_MAX
            }
            self._counts = {}
        key = f"{record.name} {record.getMessage()}"[:200]
        count = self._counts.get(key, 0)
        if count or len(self._counts) < _REMEMBERED_MAX:
            self._counts[key] = count + 1
        if count >= REPEATS_MAX:
            return False
        left_out = self._left_out.pop(key, 0)
        if left_out:
            record.marram_fields = {**_fields(record), "left_out": left_out}
        return True


@contextmanager
def installed(form: str, level: str, stream: IO[str] | None = None) -> Iterator[None]:
    """Write our lines to `stream` (stderr by default) while the context lasts.

    form: "human", "json", or "auto": human where the stream is a terminal. level: the least
    severe to write, as in ServerConfig.log_level.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    human = form == "human" or (form == "auto" and stream.isatty())
    handler.setFormatter(HumanFormatter() if human else JsonFormatter())
    handler.addFilter(RepeatFilter())
    loggers = [logging.getLogger(name) for name in _OWN]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        # Others' libraries speak of what they do; only what goes wrong there is our news.
        least = logging.getLevelNamesMapping()[level.upper()]
        logger.setLevel(least if logger.name == "marram" else max(least, logging.WARNING))
        logger.propagate = False
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, (old_level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(old_level)
            logger.propagate = propagate


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = getattr(record, "marram_fields", None)
    return fields if isinstance(fields, dict) else {}


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The traceback, where there is one; its lines quote what clients sent, too."""
    if not record.exc_info:
        return ""
    lines = formatter.formatException(record.exc_info).split("\n")
    return "\n".join(_escape(line) for line in lines)


def _escape(text: str) -> str:
    """Printable characters as they are; escapes for all else: controls, marks that turn text."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
