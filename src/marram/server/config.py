"""The server's options: names, defaults, units, help, and where their values come from.

Owns the order of sources, the conversion of text and every message about a bad value; not what an
option does. The command line makes its flags from OPTIONS, so a new field is a new flag.

G1  defaults < file (TOML, flat) < MARRAM_* environment < flags.
G2  an unknown key is an error that names its nearest neighbour; nothing is ignored.
G3  a secret is never part of a message or of repr().
G4  a listener beyond loopback has a password, or an explicit option that says it has none.

Threading: frozen values.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from marram import compiled
from marram.errors import InvalidArgument
from marram.node.replication.address import split_address
from marram.storage.options import COMPRESSIONS, DURABILITIES, ENGINES, KIB, MIB, Options

DEFAULT_FILE: Final = "marram.toml"
"""Read where it exists in the working directory and no other file is named."""

_FILE_MAX = 1 * MIB
_SHOWN_MAX = 80  # characters of a wrong name in a message

OFF: Final = "off"
"""The value of a port whose listener is disabled."""

AUTO: Final = "auto"
"""The engine that is there already."""


# -- kinds of values -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of option: how its text is read, and what a typed value must be.

    name: for messages ("must be an integer"). read: from text; raises ValueError.
    accepts: whether a value that came typed (TOML, code) is one.
    """

    name: str
    read: Callable[[str], Any]
    accepts: Callable[[Any], bool]


_SIZE = re.compile(r"(\d{1,18})\s*(b|k|kb|kib|m|mb|mib|g|gb|gib)?", re.IGNORECASE)
_SIZE_SHIFT = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30}
_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})


def _read_switch(text: str) -> bool:
    word = text.lower()
    if word not in _YES | _NO:
        raise ValueError
    return word in _YES


def _read_integer(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,18}", text, re.ASCII):
        raise ValueError
    return int(text)


def _read_size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError
    return int(match[1]) << _SIZE_SHIFT[(match[2] or "")[:1].lower()]


def _read_port(text: str) -> int | str:
    return OFF if text.lower() == OFF else _read_integer(text)


def _read_list(text: str) -> tuple[str, ...]:
    return tuple(word for word in (part.strip() for part in text.split(",")) if word)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_integer(value) or isinstance(value, float)


def _is_port(value: Any) -> bool:
    return value == OFF or _is_integer(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


# No text option means anything with a NUL in it, and the system refuses one in a path.
TEXT: Final = Kind("text", str, lambda value: isinstance(value, str) and "\0" not in value)
SWITCH: Final = Kind("true or false", _read_switch, lambda value: isinstance(value, bool))
INTEGER: Final = Kind("an integer", _read_integer, _is_integer)
NUMBER: Final = Kind("a number", float, _is_number)
SIZE: Final = Kind('bytes, such as 1048576 or "64mb"', _read_size, _is_integer)
PORT: Final = Kind('a port number or "off"', _read_port, _is_port)
LIST: Final = Kind("a list of words", _read_list, _is_list)


@dataclass(frozen=True, slots=True)
class Option:
    """One option. unit: of the value, "" where it has none; minimum, maximum: inclusive."""

    name: str
    kind: Kind
    default: Any
    help: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    secret: bool = False

    @property
    def flag(self) -> str:
        """On the command line: --resp-port. A switch also has its --no- form."""
        return _as_flag(self.name)

    @property
    def variable(self) -> str:
        """In the environment: MARRAM_RESP_PORT."""
        return _as_variable(self.name)

    def convert(self, value: Any, source: str) -> Any:
        """The value of this option that `value`, text or typed, stands for.

        source: for messages, for instance "--resp-port". Raises InvalidArgument.
        """
        kind = self.kind
        if isinstance(value, str) and kind is not TEXT:
            try:
                value = kind.read(value.strip())
            except ValueError:
                raise self._refusal(value, source, f"must be {kind.name}") from None
        if not kind.accepts(value):
            raise self._refusal(value, source, f"must be {kind.name}")
        if kind is LIST:
            return tuple(value)
        if self.choices and value not in self.choices:
            wish = f"must be one of {', '.join(self.choices)}{_suggestion(value, self.choices)}"
            raise self._refusal(value, source, wish)
        if _is_number(value):
            self._check_bounds(value, source)
        return value

    def _check_bounds(self, value: float, source: str) -> None:
        # "not >=" also refuses nan
        if self.minimum is not None and not value >= self.minimum:
            raise self._refusal(value, source, f"must be at least {self.minimum:g}")
        if self.maximum is not None and not value <= self.maximum:
            raise self._refusal(value, source, f"must be at most {self.maximum:.15g}")

    def _refusal(self, value: Any, source: str, wish: str) -> InvalidArgument:
        shown = "" if self.secret else f", not {_shown(value)}"
        return InvalidArgument(f"{source} {wish}{shown}")


def _option(default: Any, kind: Kind, help: str, **about: Any) -> Any:
    """A field of ServerConfig that is an option; `about`: the rest of Option's fields."""
    metadata = {"kind": kind, "help": help, **about}
    return field(default=default, metadata=metadata, repr=not about.get("secret", False))


# -- the options ---------------------------------------------------------------------------------

_PORTS: Final = {"minimum": 0, "maximum": 65535}
_SECONDS: Final = {"unit": "seconds", "minimum": 0, "maximum": 10**9}
_BYTES: Final = {"unit": "bytes", "minimum": 0, "maximum": 2**62}
_SOME_BYTES: Final = {"unit": "bytes", "minimum": 1, "maximum": 2**62}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Everything `marram serve` can be told. See OPTIONS for help, units and bounds.

    Raises InvalidArgument: a value is of the wrong type or out of range.
    """

    dir: str = _option("./data", TEXT, "directory of the store")
    engine: str = _option(
        AUTO, TEXT, "where the map lives: in memory, or in sorted tables on disk (lsm); auto: as "
        "the store that is there has it, and in memory for a new one", choices=(AUTO, *ENGINES),
    )  # fmt: skip
    durability: str = _option(
        "sync", TEXT, "when a write is acknowledged: once it is on disk (sync), once the system "
        "has it and syncs it every interval-ms (interval), or once the system has it (none)",
        choices=DURABILITIES,
    )  # fmt: skip
    interval_ms: int = _option(
        1000, INTEGER, "how often to sync with --durability interval", unit="ms",
        minimum=1, maximum=10**9,
    )  # fmt: skip
    create: bool = _option(True, SWITCH, "make the store where the directory holds none")

    host: str = _option("127.0.0.1", TEXT, "address to listen on, for every listener")
    resp_port: int | str = _option(7379, PORT, "RESP (Redis's protocol)", **_PORTS)
    http_port: int | str = _option(7380, PORT, "HTTP + JSON", **_PORTS)
    frame_port: int | str = _option(7381, PORT, "the framed protocol", **_PORTS)
    tcp_backlog: int = _option(
        511, INTEGER, "connections the system may hold for a listener", minimum=1, maximum=65535
    )
    tcp_keepalive_s: int = _option(
        300, INTEGER, "probe silent connections this often; 0 for never",
        unit="seconds", minimum=0, maximum=32767,
    )  # fmt: skip

    password: str = _option(
        "", TEXT, "what clients must present; others on this machine can see flags: prefer "
        "--password-file or MARRAM_PASSWORD", secret=True,
    )  # fmt: skip
    password_file: str = _option("", TEXT, "file whose first line is the password")
    allow_network_without_password: bool = _option(
        False, SWITCH, "listen beyond this machine without a password: anyone who can reach the "
        "port can read and change everything",
    )  # fmt: skip
    allowed_hosts: tuple[str, ...] = _option(
        (), LIST, "names in the Host header of HTTP requests to answer besides this machine's "
        "loopback names and --host; * for any",
    )  # fmt: skip
    backup_dir: str = _option(
        "", TEXT, "directory below which the BACKUP command makes its copies; none turns it off"
    )
    debug_commands: bool = _option(False, SWITCH, "allow the DEBUG command")

    maxclients: int = _option(
        10_000, INTEGER, "RESP and framed connections at once", minimum=1, maximum=10**6
    )
    idle_timeout_s: int = _option(
        0, INTEGER, "close a connection that is silent for this long; 0 for never", **_SECONDS
    )
    handshake_timeout_s: int = _option(
        10, INTEGER, "close a connection that has not authenticated by then; 0 for never",
        **_SECONDS,
    )  # fmt: skip
    output_limit_bytes: int = _option(
        0, SIZE, "close a client that has this much unread output; 0: only slow it down", **_BYTES
    )
    pubsub_output_limit_bytes: int = _option(
        32 * MIB, SIZE, "close a subscriber that has this much unread output; 0 for no limit",
        **_BYTES,
    )  # fmt: skip
    pubsub_output_soft_bytes: int = _option(
        8 * MIB, SIZE, "... or this much for pubsub-output-soft-s; 0 for no limit", **_BYTES
    )
    pubsub_output_soft_s: int = _option(
        60, INTEGER, "how long a subscriber may stay above pubsub-output-soft-bytes", **_SECONDS
    )

    replica_of: str = _option(
        "", TEXT, "follow the server whose frame port is HOST:PORT, as a read-only replica; none: "
        "be a primary, whatever this store was before; without it a store goes on as it was",
    )  # fmt: skip
    min_acks: int = _option(
        0, INTEGER, "replicas that have to have every write before it is acknowledged, or read",
        minimum=0, maximum=1000,
    )  # fmt: skip
    ack_level: str = _option(
        "disk", TEXT, "what they have to have done with it: applied it (received), or made it "
        "durable (disk)", choices=("received", "disk"),
    )  # fmt: skip
    ack_timeout_s: float = _option(
        5.0, NUMBER, "how long a write waits for replicas before its outcome is called unknown",
        unit="seconds", minimum=0.001, maximum=10**6,
    )  # fmt: skip
    max_replicas: int = _option(
        32, INTEGER, "replicas that may be connected at once", minimum=0, maximum=1000
    )
    sync_rate: int = _option(
        0, SIZE, "bytes a second that a full copy for a replica may take; 0: as fast as it goes",
        **_BYTES,
    )  # fmt: skip
    primary_password: str = _option(
        "", TEXT, "what this server presents to the one it follows; without it, its own password",
        secret=True,
    )  # fmt: skip
    primary_password_file: str = _option(
        "", TEXT, "file whose first line is the primary's password"
    )
    announce: str = _option(
        "", TEXT, "the address that others are told to reach this server by, instead of --host"
    )

    max_key_bytes: int = _option(
        64 * KIB, SIZE, "the longest key", unit="bytes", minimum=1, maximum=16 * MIB
    )
    max_value_bytes: int = _option(
        512 * MIB, SIZE, "the longest value", unit="bytes", minimum=1, maximum=2**32 - 33 * MIB
    )
    max_request_bytes: int = _option(
        1 << 30, SIZE, "the longest RESP request, all its arguments together",
        unit="bytes", minimum=1024, maximum=2**40,
    )  # fmt: skip
    http_max_body_bytes: int = _option(
        64 * MIB, SIZE, "the longest body of an HTTP request", **_SOME_BYTES
    )
    http_max_connections: int = _option(
        1000, INTEGER, "HTTP connections at once", minimum=1, maximum=10**6
    )
    http_request_timeout_s: int = _option(
        30, INTEGER, "close an HTTP connection whose request has not arrived whole by then",
        unit="seconds", minimum=1, maximum=10**9,
    )  # fmt: skip
    http_keepalive_s: int = _option(
        75, INTEGER, "close an HTTP connection that is silent for this long after an answer",
        unit="seconds", minimum=1, maximum=10**9,
    )  # fmt: skip

    checkpoint_log_bytes: int = _option(
        64 * MIB, SIZE, "start a checkpoint when the log has this many bytes, and ...; 0 for never",
        **_BYTES,
    )  # fmt: skip
    checkpoint_log_ratio: float = _option(
        1.0, NUMBER, "... this many times the live data", minimum=0, maximum=10**6
    )
    replica_log_bytes: int = _option(
        256 * MIB, SIZE, "keep this much of the log, from before the last checkpoint, for replicas "
        "that are behind; 0 for none. One that needs more takes a copy of everything", **_BYTES,
    )  # fmt: skip
    replica_log_age_s: int = _option(
        86_400, INTEGER, "... and for so long at most, where no connected replica needs it; 0 for "
        "no limit", **_SECONDS,
    )  # fmt: skip
    mapped_log: bool = _option(
        True, SWITCH, "with --durability interval or none, write the log through memory where the "
        "file system is one that is safe for it; else by a call for each commit",
    )  # fmt: skip
    huge_pages: bool = _option(
        True, SWITCH, "hold keys and values in huge pages, where the kernel has them: a look-up "
        "among a million keys takes up to a quarter less",
    )  # fmt: skip
    compression: str = _option(
        "none", TEXT, "how checkpoints, and the tables of lsm, are compressed; zstd needs Python "
        "3.14 or the package backports.zstd", choices=COMPRESSIONS,
    )  # fmt: skip
    memory_limit: int = _option(
        0, SIZE, "with engine memory: refuse writes that add data above this much, 0 for no "
        "limit; with lsm: what memtables, caches and open tables share, 0 for 512 MiB", **_BYTES,
    )  # fmt: skip
    memtable_bytes: int = _option(
        0, SIZE, "with lsm: flush to a table when this much is collected in memory; 0 for an "
        "eighth of memory-limit, 64 MiB at most", **_BYTES,
    )  # fmt: skip
    filter_bits_per_key: int = _option(
        10, INTEGER, "with lsm: what tables spend on telling that a key is not there; 0: nothing",
        unit="bits", minimum=0, maximum=64,
    )  # fmt: skip
    blob_bytes: int = _option(
        4 * KIB, SIZE, "with lsm: values of that size and more go to files of their own, which "
        "compactions need not rewrite; 0 for none, else at least 64 bytes", **_BYTES,
    )  # fmt: skip
    compaction_rate: int = _option(
        0, SIZE, "with lsm: what compactions may read and write together in a second; 0: as "
        "much as the disk takes", **_BYTES,
    )  # fmt: skip
    max_open_tables: int = _option(
        1000,
        INTEGER,
        "with lsm: table files held open at most, and files of large values",
        minimum=1,
        maximum=10**6,
    )

    log_format: str = _option(
        "auto", TEXT, "log lines for people (human) or machines (json); auto: for people on a "
        "terminal", choices=("auto", "human", "json"),
    )  # fmt: skip
    log_level: str = _option(
        "info", TEXT, "the least severe log lines to write",
        choices=("debug", "info", "warning", "error"),
    )  # fmt: skip
    slowlog_us: int = _option(
        10_000, INTEGER, "SLOWLOG keeps commands that take longer; 0 for all, -1 for none",
        unit="microseconds", minimum=-1, maximum=10**15,
    )  # fmt: skip
    slowlog_entries: int = _option(
        128, INTEGER, "how many commands SLOWLOG keeps", minimum=0, maximum=10**6
    )
    shutdown_timeout_s: float = _option(
        10.0, NUMBER, "how long running commands may take to finish when stopping", **_SECONDS
    )
    loop: str = _option(
        "auto", TEXT, "event loop; auto: uvloop where it is installed",
        choices=("auto", "asyncio", "uvloop"),
    )  # fmt: skip

    def __post_init__(self) -> None:
        for option in OPTIONS:
            converted = option.convert(getattr(self, option.name), option.name)
            object.__setattr__(self, option.name, converted)
        if not self.dir:
            raise InvalidArgument("dir is empty")
        if not self.host:
            raise InvalidArgument("host is empty; write 0.0.0.0 or :: for every address")
        if self.replica_of not in ("", "none"):
            try:
                split_address(self.replica_of)
            except InvalidArgument as error:
                raise InvalidArgument(f"replica_of: {error}, nor none") from None
        if self.resp_port == self.http_port == self.frame_port == OFF:
            raise InvalidArgument("every listener is off")

    def store_options(self) -> Options:
        """The part that the store takes. Raises InvalidArgument."""
        names = [field.name for field in fields(Options)]
        values = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return Options(**values | {"engine": None if self.engine == AUTO else self.engine})

    def check_exposure(self) -> None:
        """Keeps G4. Raises InvalidArgument."""
        if self.password or self.allow_network_without_password or is_loopback(self.host):
            return
        raise InvalidArgument(
            f"refusing to listen on {self.host} without a password: set MARRAM_PASSWORD or "
            "--password-file, or say --allow-network-without-password"
        )


def _options() -> tuple[Option, ...]:
    return tuple(
        Option(name=field.name, default=field.default, **field.metadata)
        for field in fields(ServerConfig)
    )


OPTIONS: Final[tuple[Option, ...]] = _options()
"""Every option, in the order they are shown."""

_BY_NAME: Final = {option.name: option for option in OPTIONS}


# -- sources -------------------------------------------------------------------------------------


def load(
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file: str | None = None,
    other_variables: Iterable[str] = ("MARRAM_CONFIG", *compiled.VARIABLES),
) -> ServerConfig:
    """The configuration from all its sources (G1).

    flags: values by option name, text or typed; None counts as not given. environ: the process's
    environment. file: a TOML file; None for MARRAM_CONFIG, or marram.toml where it exists.
    other_variables: names that begin with MARRAM_ and are no options.
    Raises InvalidArgument: an unknown key or a bad value, with its source in the message.
    """
    values: dict[str, Any] = {}
    values.update(_from_file(file or environ.get("MARRAM_CONFIG")))
    values.update(_from_environment(environ, frozenset(other_variables)))
    for name, value in flags.items():
        if value is not None:
            option = _find(name, "", _as_flag)
            values[name] = option.convert(value, option.flag)
    if values.get("password_file"):
        if values.get("password"):
            raise InvalidArgument("password and password_file are both given")
        values["password"] = _read_password(values["password_file"])
    if values.get("primary_password_file"):
        if values.get("primary_password"):
            raise InvalidArgument("primary_password and primary_password_file are both given")
        values["primary_password"] = _read_password(
            values["primary_password_file"], "primary_password_file"
        )
    return ServerConfig(**values)


def _from_file(path: str | None) -> dict[str, Any]:
    name = path or DEFAULT_FILE
    try:
        with open(name, "rb") as file:
            text = file.read(_FILE_MAX + 1)
    except FileNotFoundError:
        if path is None:
            return {}
        raise InvalidArgument(f"{name} does not exist") from None
    except OSError as error:
        raise InvalidArgument(f"cannot read {name}: {error.strerror}") from None
    return values_of(text, name)


def values_of(text: bytes, name: str) -> dict[str, Any]:
    """The values in a file's text, by option. name: of the file, for messages.

    Raises InvalidArgument: not TOML, an unknown key, a bad value.
    """
    if len(text) > _FILE_MAX:
        raise InvalidArgument(f"{name} is longer than {_FILE_MAX} bytes")
    try:
        table = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{name} is not TOML: {error}") from None
    except (RecursionError, ValueError):  # nested without end, or digits without end
        raise InvalidArgument(f"{name} is not TOML that options could be written in") from None
    values = {}
    for key, value in table.items():
        option = _find(key, f"{name}: ", str)
        values[key] = option.convert(value, f"{name}: {key}")
    return values


def _from_environment(environ: Mapping[str, str], others: frozenset[str]) -> dict[str, Any]:
    values = {}
    for variable, text in environ.items():
        if variable.startswith("MARRAM_") and variable not in others:
            name = variable.removeprefix("MARRAM_").lower()
            option = _find(name, "environment: ", _as_variable)
            values[option.name] = option.convert(text, variable)
    return values


def _find(name: str, where: str, written: Callable[[str], str]) -> Option:
    """The option of that name. where: begins the complaint; written: how a name looks there."""
    option = _BY_NAME.get(name)
    if option is None:
        shown = name[:_SHOWN_MAX]
        close = difflib.get_close_matches(shown, _BY_NAME, n=1)
        hint = f"; did you mean {written(close[0])}?" if close else ""
        raise InvalidArgument(f"{where}unknown option {written(shown)!s}{hint}")
    return option


def _shown(value: object) -> str:
    """A wrong value, as far as a message has room for it."""
    try:
        return repr(value)[:_SHOWN_MAX]
    except (ValueError, RecursionError):  # an integer of thousands of digits, lists in lists
        return f"this {type(value).__name__}"


def _as_flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _as_variable(name: str) -> str:
    return "MARRAM_" + name.upper()


def _suggestion(word: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(word)[:_SHOWN_MAX], list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _read_password(path: str, option: str = "password_file") -> str:
    try:
        with open(path, encoding="utf-8") as file:
            password = file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidArgument(f"cannot read {option} {path}: {reason}") from None
    if not password:
        raise InvalidArgument(f"{option} {path} begins with an empty line")
    return password


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; a name other than localhost counts as no."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return address.is_loopback
