"""CONFIG's table: every parameter that can be asked for, and what setting it means.

Owns names, the text of values, validation with Redis's messages, and which parameters are real; not
what a setting does, which is its reader's business (`on_change` tells them).

Three kinds:
    real    backed by a field of Settings; setting one takes effect at once
    fixed   a fact about this server; setting it to what it is already succeeds, to anything
            else fails and says why
    compat  Redis tunes something by it that marram does not have. Validated, kept, given back,
            without effect: test suites and frameworks set these and stop where they cannot.

P1  set() sets all of its pairs or, with an error, none.
P2  no parameter names a file or a program.

Threading: the thread that owns the node.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from marram.commands.glob import Glob
from marram.commands.spec import CommandError
from marram.node.settings import OutputLimit, Settings
from marram.storage.options import Options

_INT64_MAX: Final = (1 << 63) - 1
_UINT32_MAX: Final = (1 << 32) - 1
_INT32_MAX: Final = (1 << 31) - 1


class _Refused(Exception):
    """A value does not fit; the text goes behind Redis's "CONFIG SET failed (...) - "."""


# -- kinds of values -------------------------------------------------------------------------------


class _Kind(Protocol):
    def parse(self, text: bytes) -> Any:
        """The value a text stands for. Raises _Refused."""
        ...

    def show(self, value: Any) -> bytes:
        """The text of a value."""
        ...


class _Number:
    def __init__(self, least: int = 0, most: int = _INT64_MAX) -> None:
        self._least = least
        self._most = most

    def parse(self, text: bytes) -> int:
        if re.fullmatch(rb"-?[0-9]{1,20}", text) is None:
            raise _Refused("argument couldn't be parsed into an integer")
        return self._within(int(text))

    def show(self, value: int) -> bytes:
        return b"%d" % value

    def _within(self, number: int) -> int:
        if not self._least <= number <= self._most:
            raise _Refused(f"argument must be between {self._least} and {self._most} inclusive")
        return number


class _Memory(_Number):
    """Bytes, with a unit or without: 100mb, 1g (powers of 1000: k, m, g; of 1024: kb, mb, gb)."""

    def parse(self, text: bytes) -> int:
        match = re.fullmatch(rb"([0-9]{1,20})([a-z]*)", text.lower())
        if match is None or match[2] not in _UNITS:
            raise _Refused("argument must be a memory value")
        return self._within(int(match[1]) * _UNITS[match[2]])


_UNITS: Final = {
    b"": 1,
    b"b": 1,
    b"k": 10**3,
    b"kb": 1 << 10,
    b"m": 10**6,
    b"mb": 1 << 20,
    b"g": 10**9,
    b"gb": 1 << 30,
}


class _Switch:
    def parse(self, text: bytes) -> bool:
        if text.lower() not in (b"yes", b"no"):
            raise _Refused("argument must be 'yes' or 'no'")
        return text.lower() == b"yes"

    def show(self, value: bool) -> bytes:
        return b"yes" if value else b"no"


class _Choice:
    def __init__(self, *words: str) -> None:
        self._words = words

    def parse(self, text: bytes) -> str:
        word = text.lower().decode("utf-8", "replace")
        if word not in self._words:
            choices = ", ".join(self._words)
            raise _Refused(f"argument(s) must be one of the following: {choices}")
        return word

    def show(self, value: str) -> bytes:
        return value.encode()


class _Words:
    """Words that each look like something, a multiple of `step` of them."""

    def __init__(self, pattern: bytes, refusal: str, step: int = 1) -> None:
        self._pattern = re.compile(pattern)
        self._refusal = refusal
        self._step = step

    def parse(self, text: bytes) -> bytes:
        words = text.split()
        if len(words) % self._step or not all(map(self._pattern.fullmatch, words)):
            raise _Refused(self._refusal)
        return b" ".join(words)

    def show(self, value: bytes) -> bytes:
        return value


_NUMBER: Final = _Number()
_SIZE: Final = _Memory()
_SWITCH: Final = _Switch()


# -- parameters ------------------------------------------------------------------------------------

Apply = Callable[[], None]
"""Puts a validated value into force; cannot fail (P1)."""


class _Parameter(Protocol):
    def get(self) -> bytes:
        """Its present text."""
        ...

    def prepare(self, text: bytes) -> Apply:
        """Validate a new text. Raises _Refused."""
        ...


class _Real:
    """A field of Settings."""

    def __init__(self, settings: Settings, field: str, kind: _Kind) -> None:
        self._settings = settings
        self._field = field
        self._kind = kind

    def get(self) -> bytes:
        return self._kind.show(getattr(self._settings, self._field))

    def prepare(self, text: bytes) -> Apply:
        value = self._kind.parse(text)
        return lambda: setattr(self._settings, self._field, value)


class _Fixed:
    """A fact. kind: how texts compare, and the complaint about nonsense."""

    def __init__(self, value: Any, kind: _Kind, why: str = "can't set immutable config") -> None:
        self._value = value
        self._kind = kind
        self._why = why

    def get(self) -> bytes:
        return self._kind.show(self._value)

    def prepare(self, text: bytes) -> Apply:
        if self._kind.parse(text) != self._value:
            raise _Refused(self._why)
        return lambda: None


class _Shown:
    """A fact that is known only once the server listens. value: gives it, of `kind`."""

    def __init__(self, value: Callable[[], Any], kind: _Kind) -> None:
        self._value = value
        self._kind = kind

    def get(self) -> bytes:
        return self._kind.show(self._value())

    def prepare(self, text: bytes) -> Apply:
        return _Fixed(self._value(), self._kind).prepare(text)


class _Compat:
    """Kept and given back."""

    def __init__(self, value: Any, kind: _Kind) -> None:
        self._value = value
        self._kind = kind

    def get(self) -> bytes:
        return self._kind.show(self._value)

    def prepare(self, text: bytes) -> Apply:
        value = self._kind.parse(text)

        def apply() -> None:
            self._value = value

        return apply


class _Password:
    """requirepass: kept as a hash, never shown."""

    def __init__(self, settings: Settings, hashed: Callable[[bytes], str]) -> None:
        self._settings = settings
        self._hashed = hashed

    def get(self) -> bytes:
        return b"(hidden)" if self._settings.password_hash else b""

    def prepare(self, text: bytes) -> Apply:
        kept = self._hashed(text) if text else ""

        def apply() -> None:
            self._settings.password_hash = kept

        return apply


class _OutputLimits:
    """client-output-buffer-limit: "class hard soft seconds", once or more."""

    _FIELDS: Final = {b"normal": "normal_output", b"pubsub": "pubsub_output"}
    _NO_REPLICAS: Final = (b"slave", b"replica")

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def get(self) -> bytes:
        normal, pubsub = self._settings.normal_output, self._settings.pubsub_output
        return b"normal %d %d %d slave 0 0 0 pubsub %d %d %d" % (*normal, *pubsub)

    def prepare(self, text: bytes) -> Apply:
        words = text.split()
        if not words or len(words) % 4:
            raise _Refused("Wrong number of arguments in buffer limit configuration.")
        found: dict[str, OutputLimit] = {}
        for at in range(0, len(words), 4):
            kind = words[at].lower()
            if kind not in self._FIELDS and kind not in self._NO_REPLICAS:
                raise _Refused("Invalid client class specified in buffer limit configuration.")
            try:
                limit = OutputLimit(
                    _SIZE.parse(words[at + 1]),
                    _SIZE.parse(words[at + 2]),
                    _NUMBER.parse(words[at + 3]),
                )
            except _Refused:
                raise _Refused(
                    "Error in hard, soft or soft_seconds setting in buffer limit configuration."
                ) from None
            if kind in self._FIELDS:
                found[self._FIELDS[kind]] = limit

        def apply() -> None:
            for field, limit in found.items():
                setattr(self._settings, field, limit)

        return apply


class Parameters:
    """The table over one node's settings and its store's options."""

    on_change: Callable[[], None] | None
    """Called after set() changed anything."""

    def __init__(
        self, settings: Settings, options: Options, hashed: Callable[[bytes], str]
    ) -> None:
        """hashed: makes what is kept of a password."""
        self.on_change = None
        self._table: dict[bytes, _Parameter] = {
            **_real(settings, hashed),
            **_fixed(settings, options),
            **_compat(),
        }

    def get(self, patterns: Sequence[bytes]) -> dict[bytes, bytes]:
        """Names and values of the parameters that match a glob, any case; names as asked for."""
        found: dict[bytes, bytes] = {}
        for pattern in patterns:
            glob = Glob(pattern.lower())
            if glob.literal in self._table:
                found[pattern] = self._table[glob.literal].get()
            elif glob.literal is None:
                names = [name for name in self._table if glob.matches(name)]
                found.update((name, self._table[name].get()) for name in names)
        return found

    def set(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Set all of them or, with CommandError, none (P1)."""
        prepared: dict[bytes, Apply] = {}
        for given, text in pairs:
            name = given.lower()
            shown = given.decode("utf-8", "surrogateescape")
            parameter = self._table.get(name)
            if parameter is None:
                raise CommandError(
                    f"ERR Unknown option or number of arguments for CONFIG SET - '{shown}'"
                )
            try:
                if name in prepared:
                    raise _Refused("duplicate parameter")
                prepared[name] = parameter.prepare(text)
            except _Refused as error:
                raise CommandError(
                    f"ERR CONFIG SET failed (possibly related to argument '{shown}') - {error}"
                ) from None
        for apply in prepared.values():
            apply()
        if self.on_change is not None:
            self.on_change()


def _real(settings: Settings, hashed: Callable[[bytes], str]) -> dict[bytes, _Parameter]:
    def real(field: str, kind: _Kind) -> _Parameter:
        return _Real(settings, field, kind)

    return {
        b"maxclients": real("maxclients", _Number(1, _UINT32_MAX)),
        b"timeout": real("timeout_s", _Number(0, _INT32_MAX)),
        b"tcp-keepalive": real("tcp_keepalive_s", _Number(0, 32767)),
        b"requirepass": _Password(settings, hashed),
        b"slowlog-log-slower-than": real("slowlog_us", _Number(-1)),
        b"slowlog-max-len": real("slowlog_entries", _Number(0, 1_000_000)),
        b"latency-monitor-threshold": real("latency_ms", _NUMBER),
        b"proto-max-bulk-len": real("max_bulk_bytes", _Memory(1 << 20, _INT64_MAX)),
        b"client-query-buffer-limit": real("max_request_bytes", _Memory(1 << 20, _INT64_MAX)),
        b"client-output-buffer-limit": _OutputLimits(settings),
    }


_FSYNC: Final = {"sync": "always", "interval": "everysec", "none": "no"}


def _fixed(settings: Settings, options: Options) -> dict[bytes, _Parameter]:
    fsync = _Choice("everysec", "always", "no")
    never = "marram evicts nothing"
    durable = "durability is chosen when the server starts"
    return {
        b"appendonly": _Fixed(True, _SWITCH, "marram's log cannot be turned off"),
        b"appendfsync": _Fixed(_FSYNC[options.durability], fsync, durable),
        b"maxmemory": _Fixed(options.memory_limit, _SIZE, "set memory-limit at the start"),
        b"maxmemory-policy": _Fixed("noeviction", _Choice(*_POLICIES), never),
        b"notify-keyspace-events": _Fixed(
            b"",
            _Words(
                rb"[Ag$lshzxeKEtmdn]*",
                "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.",
            ),
            "keyspace notifications are not supported",
        ),
        b"min-replicas-to-write": _Fixed(
            settings.replication.min_acks, _NUMBER, "set --min-acks at the start"
        ),
        b"databases": _Fixed(16, _NUMBER),
        b"port": _Shown(lambda: settings.port, _NUMBER),
        b"tls-port": _Fixed(0, _NUMBER),
        b"bind": _Shown(lambda: bytes(settings.host, "ascii", "replace"), _Words(rb".*", "")),
        b"cluster-enabled": _Fixed(False, _SWITCH),
        b"io-threads": _Fixed(1, _NUMBER),
        b"daemonize": _Fixed(False, _SWITCH),
        b"supervised": _Fixed("no", _Choice("no", "upstart", "systemd", "auto")),
        b"enable-debug-command": _Fixed(settings.debug_commands, _SWITCH),
        b"enable-module-command": _Fixed(False, _SWITCH),
        b"enable-protected-configs": _Fixed(False, _SWITCH),
        b"max-key-bytes": _Fixed(options.max_key_bytes, _SIZE),
        b"max-value-bytes": _Fixed(options.max_value_bytes, _SIZE),
        b"checkpoint-log-bytes": _Fixed(options.checkpoint_log_bytes, _SIZE),
    }


_POLICIES: Final = (
    "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl", "allkeys-lru",
    "allkeys-lfu", "allkeys-random", "noeviction",
)  # fmt: skip

_COMPAT_NUMBERS: Final = {
    "acllog-max-len": 128, "active-defrag-cycle-max": 25, "active-defrag-cycle-min": 1,
    "active-defrag-max-scan-fields": 1000, "active-defrag-threshold-lower": 10,
    "active-defrag-threshold-upper": 100, "active-expire-effort": 1,
    "auto-aof-rewrite-percentage": 100, "busy-reply-threshold": 5000,
    "hash-max-listpack-entries": 512, "hash-max-ziplist-entries": 512, "hz": 10,
    "lfu-decay-time": 1, "lfu-log-factor": 10, "list-compress-depth": 0, "lua-time-limit": 5000,
    "maxmemory-eviction-tenacity": 10, "maxmemory-samples": 5, "min-replicas-max-lag": 10,
    "repl-backlog-ttl": 3600, "repl-diskless-sync-delay": 5, "repl-ping-replica-period": 10,
    "repl-timeout": 60, "replica-priority": 100, "set-max-intset-entries": 512,
    "set-max-listpack-entries": 128, "shutdown-timeout": 10, "stream-node-max-entries": 100,
    "tcp-backlog": 511, "tracking-table-max-keys": 1_000_000,
    "zset-max-listpack-entries": 128, "zset-max-ziplist-entries": 128,
}  # fmt: skip
_COMPAT_SIZES: Final = {
    "active-defrag-ignore-bytes": 100 << 20, "auto-aof-rewrite-min-size": 64 << 20,
    "hash-max-listpack-value": 64, "hash-max-ziplist-value": 64, "hll-sparse-max-bytes": 3000,
    "maxmemory-clients": 0, "repl-backlog-size": 1 << 20, "set-max-listpack-value": 64,
    "stream-node-max-bytes": 4096, "zset-max-listpack-value": 64, "zset-max-ziplist-value": 64,
}  # fmt: skip
_COMPAT_SWITCHES: Final = {
    "activedefrag": False, "activerehashing": True, "aof-load-truncated": True,
    "aof-rewrite-incremental-fsync": True, "aof-use-rdb-preamble": True, "dynamic-hz": True,
    "jemalloc-bg-thread": True, "latency-tracking": True, "lazyfree-lazy-eviction": False,
    "lazyfree-lazy-expire": False, "lazyfree-lazy-server-del": False,
    "lazyfree-lazy-user-del": False, "lazyfree-lazy-user-flush": False,
    "no-appendfsync-on-rewrite": False, "rdb-save-incremental-fsync": True, "rdbchecksum": True,
    "rdbcompression": True, "repl-diskless-sync": True, "replica-lazy-flush": False,
    "replica-read-only": True, "replica-serve-stale-data": True,
    "stop-writes-on-bgsave-error": True,
}  # fmt: skip


def _compat() -> dict[bytes, _Parameter]:
    signed = _Number(-(1 << 31), _INT32_MAX)
    table: dict[bytes, _Parameter] = {
        # marram decides by the log's size when to checkpoint.
        b"save": _Compat(b"", _Words(rb"[0-9]{1,10}", "Invalid save parameters", step=2)),
        b"list-max-listpack-size": _Compat(-2, signed),
        b"list-max-ziplist-size": _Compat(-2, signed),
        b"latency-tracking-info-percentiles": _Compat(
            b"50 99 99.9",
            _Words(rb"[0-9]{1,3}(\.[0-9]{1,9})?", "Invalid latency percentiles"),
        ),
    }
    kinds: list[tuple[dict[str, Any], _Kind]] = [
        (dict(_COMPAT_NUMBERS), _Number(0, _INT32_MAX)),
        (dict(_COMPAT_SIZES), _SIZE),
        (dict(_COMPAT_SWITCHES), _SWITCH),
    ]
    for values, kind in kinds:
        table |= {name.encode(): _Compat(value, kind) for name, value in values.items()}
    return table
