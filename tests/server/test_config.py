"""The server's options: order of sources, conversion, and what is refused with which words."""

from __future__ import annotations

import os
import random
import tracemalloc
from pathlib import Path

import pytest

from marram.errors import InvalidArgument
from marram.server.config import OFF, OPTIONS, ServerConfig, is_loopback, load, values_of
from marram.storage.options import Options

EVERY_NAME = [option.name for option in OPTIONS]


def refusal(*args: object, **kwargs: object) -> str:
    with pytest.raises(InvalidArgument) as caught:
        load(*args, **kwargs)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.fixture
def toml(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write(text: str) -> str:
        path = tmp_path / "some.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_g1_flags_beat_environment_beats_file_beats_defaults(toml) -> None:  # type: ignore[no-untyped-def]
    file = toml("resp_port = 1\nhttp_port = 1\nframe_port = 1\n")
    config = load(
        {"resp_port": "3", "host": None}, {"MARRAM_RESP_PORT": "2", "MARRAM_HTTP_PORT": "2"}, file
    )
    assert (config.resp_port, config.http_port, config.frame_port) == (3, 2, 1)
    assert config.host == "127.0.0.1"


def test_the_file_is_named_by_flag_then_environment_then_found_here(
    toml,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load({}, {}).maxclients == 10_000
    (tmp_path / "marram.toml").write_text("maxclients = 7\n")
    assert load({}, {}).maxclients == 7
    other = toml("maxclients = 8\n")
    assert load({}, {"MARRAM_CONFIG": other}).maxclients == 8
    assert "does not exist" in refusal({}, {}, str(tmp_path / "missing.toml"))


@pytest.mark.parametrize(
    ("flags", "environ", "message"),
    [
        ({"resp_prt": "1"}, {}, "unknown option --resp-prt; did you mean --resp-port?"),
        ({}, {"MARRAM_RESP_PRT": "1"}, "MARRAM_RESP_PRT; did you mean MARRAM_RESP_PORT?"),
        ({"zzz": "1"}, {}, "unknown option --zzz"),
    ],
)
def test_g2_an_unknown_name_is_an_error_with_a_suggestion(
    flags: dict[str, str], environ: dict[str, str], message: str
) -> None:
    assert refusal(flags, environ).endswith(message)


def test_g2_an_unknown_key_of_the_file_is_named_with_the_file(toml) -> None:  # type: ignore[no-untyped-def]
    file = toml("durabilty = 'sync'\n")
    assert refusal({}, {}, file) == (f"{file}: unknown option durabilty; did you mean durability?")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"interval_ms": "12x"}, "--interval-ms must be an integer, not '12x'"),
        ({"interval_ms": "0"}, "--interval-ms must be at least 1, not 0"),
        ({"resp_port": "65536"}, "--resp-port must be at most 65535, not 65536"),
        ({"resp_port": "-1"}, "--resp-port must be at least 0, not -1"),
        ({"resp_port": "none"}, "--resp-port must be a port number or \"off\", not 'none'"),
        (
            {"durability": "synk"},
            "--durability must be one of sync, interval, none (did you mean sync?), not 'synk'",
        ),
        (
            {"engine": "lsn"},
            "--engine must be one of auto, memory, lsm (did you mean lsm?), not 'lsn'",
        ),
        ({"filter_bits_per_key": "65"}, "--filter-bits-per-key must be at most 64, not 65"),
        ({"max_open_tables": "0"}, "--max-open-tables must be at least 1, not 0"),
        ({"memtable_bytes": "-1"}, "--memtable-bytes must be bytes, such as"),
        ({"create": "maybe"}, "--create must be true or false, not 'maybe'"),
        ({"shutdown_timeout_s": "nan"}, "--shutdown-timeout-s must be at least 0, not nan"),
        ({"memory_limit": "12 apples"}, "--memory-limit must be bytes, such as"),
        ({"memory_limit": True}, "--memory-limit must be bytes, such as"),
    ],
)
def test_a_bad_value_is_refused_with_its_source_and_the_wish(
    flags: dict[str, object], message: str
) -> None:
    assert refusal(flags, {}).startswith(message)


def test_values_of_the_file_are_typed(toml) -> None:  # type: ignore[no-untyped-def]
    file = toml(
        "create = false\nmemory_limit = '1gb'\nallowed_hosts = ['a', 'b']\nframe_port = 'off'\n"
    )
    config = load({}, {}, file)
    assert config.create is False
    assert config.memory_limit == 1 << 30
    assert config.allowed_hosts == ("a", "b")
    assert config.frame_port == OFF
    assert "must be an integer" in refusal({}, {}, toml("interval_ms = 1.5"))
    assert "is not TOML" in refusal({}, {}, toml("interval_ms ="))
    assert "must be text" in refusal({}, {}, toml("host = 5"))


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("12", 12), ("64k", 65536), ("64 KiB", 65536), ("2MB", 2 << 20)]
)
def test_sizes_take_units(text: str, size: int) -> None:
    assert load({"memory_limit": text}, {}).memory_limit == size


def test_every_option_has_help_a_flag_and_a_variable() -> None:
    assert len(EVERY_NAME) == len(set(EVERY_NAME))
    for option in OPTIONS:
        assert option.help and not option.help.endswith(".")
        assert option.flag == "--" + option.name.replace("_", "-")
        assert option.variable == "MARRAM_" + option.name.upper()
        assert option.convert(option.default, option.name) == option.default


def test_g3_a_password_shows_in_no_message_and_no_repr(tmp_path: Path) -> None:
    config = load({}, {"MARRAM_PASSWORD": "canary"})
    assert config.password == "canary"
    assert "canary" not in repr(config)
    file = tmp_path / "secret"
    file.write_text("canary\nsecond line\n")
    assert load({"password_file": str(file)}, {}).password == "canary"
    both = refusal({"password_file": str(file)}, {"MARRAM_PASSWORD": "canary"})
    assert both == "password and password_file are both given"
    file.write_text("\n")
    assert "empty line" in refusal({"password_file": str(file)}, {})
    assert "No such file" in refusal({"password_file": str(tmp_path / "none")}, {})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_g4_a_network_address_needs_a_password_or_the_long_option(host: str) -> None:
    with pytest.raises(InvalidArgument, match="without a password"):
        ServerConfig(host=host).check_exposure()
    ServerConfig(host=host, password="x").check_exposure()
    ServerConfig(host=host, allow_network_without_password=True).check_exposure()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST"])
def test_g4_loopback_needs_none(host: str) -> None:
    assert is_loopback(host)
    ServerConfig(host=host).check_exposure()


def test_some_listener_and_a_host_are_needed() -> None:
    with pytest.raises(InvalidArgument, match="every listener is off"):
        ServerConfig(resp_port=OFF, http_port=OFF, frame_port=OFF)
    with pytest.raises(InvalidArgument, match="host is empty"):
        ServerConfig(host="")


def test_the_store_gets_its_options() -> None:
    config = ServerConfig(durability="interval", interval_ms=5, memory_limit=9, create=False)
    options = config.store_options()
    assert (options.durability, options.interval_ms) == ("interval", 5)
    assert (options.memory_limit, options.create) == (9, False)


# -- hostile files and environments ----------------------------------------------------------------

FUZZ_INPUTS = int(os.environ.get("MARRAM_FUZZ_INPUTS", "200000"))
FUZZ_SEED = int(os.environ.get("MARRAM_FUZZ_SEED", "1"))

_LINES = [
    b'dir = "./data"', b"resp_port = 7379", b'http_port = "off"', b'durability = "sync"',
    b"interval_ms = 50", b'memory_limit = "64mb"', b"create = false", b'allowed_hosts = ["a", "b"]',
    b"checkpoint_log_ratio = 1.5", b"maxclients = 0x10", b"[table]", b"a.b = 1", b"x = 1979-05-27",
]  # fmt: skip
_PIECES = [
    b"=", b'"', b"'", b"[", b"]", b"{", b"}", b"\n", b"#", b"\\", b"\0", b"\xff", b"nan", b"inf",
    b"-1", b"1e400", b"99999999999999999999", b"0x" + b"f" * 40, b"'''", b'"""', b".", b",",
]  # fmt: skip


def hostile(draw: random.Random) -> bytes:
    """Lines of a real file, damaged."""
    text = bytearray(b"\n".join(draw.sample(_LINES, draw.randrange(1, 4))))
    for _ in range(draw.randrange(1, 5)):
        at = draw.randrange(len(text) + 1)
        if draw.random() < 0.6:
            text[at:at] = draw.choice(_PIECES)
        else:
            del text[at : at + draw.randrange(1, 8)]
    return bytes(text)


def test_damaged_files_give_values_or_one_clear_refusal() -> None:
    draw = random.Random(FUZZ_SEED)
    refused = 0
    for _ in range(FUZZ_INPUTS // 2):
        text = hostile(draw)
        try:
            ServerConfig(**values_of(text, "some.toml"))
        except InvalidArgument as error:
            refused += 1
            assert len(str(error)) < 500
    assert FUZZ_INPUTS // 4 < refused < FUZZ_INPUTS // 2


def test_odd_environments_give_values_or_one_clear_refusal() -> None:
    draw = random.Random(FUZZ_SEED)
    refused = 0
    for _ in range(FUZZ_INPUTS // 2):
        name = draw.choice(EVERY_NAME).upper()
        text = b"".join(draw.choices([*_PIECES, b"1", b"yes", b"8k", b"off"], k=draw.randrange(3)))
        try:
            load({}, {"MARRAM_" + name: text.decode("latin-1"), "HOME": "/"})
        except InvalidArgument as error:
            refused += 1
            assert len(str(error)) < 500
    assert FUZZ_INPUTS // 8 < refused < FUZZ_INPUTS // 2


@pytest.mark.parametrize(
    "text",
    [
        b"a = " + b"[" * 100_000,
        b"a = " + b"{a=" * 50_000,
        b"maxclients = " + b"9" * 100_000,
        b"maxclients = 0x" + b"f" * 100_000,
        b"k" * 500_000 + b" = 1",
        b'dir = "' + b"x" * (2 << 20) + b'"',
    ],
    ids=["lists", "tables", "digits", "hex", "name", "size"],
)
def test_a_file_that_is_too_much_is_refused_and_costs_little(text: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(InvalidArgument) as caught:
        values_of(text, "some.toml")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert len(str(caught.value)) < 500
    assert peak < 64 << 20


def test_the_lsm_engine_s_options_come_from_all_three_places(toml) -> None:  # type: ignore[no-untyped-def]
    file = toml('engine = "lsm"\nmemtable_bytes = "8mb"\nfilter_bits_per_key = 12\n')
    environ = {"MARRAM_COMPACTION_RATE": "10mb", "MARRAM_MEMTABLE_BYTES": "4mb"}
    config = load({"max_open_tables": "50", "compression": "zlib"}, environ, file)
    options = config.store_options()
    assert (options.engine, options.memtable_bytes, options.filter_bits_per_key) == (
        "lsm", 4 << 20, 12,
    )  # fmt: skip
    assert (options.compaction_rate, options.max_open_tables) == (10 << 20, 50)
    assert options.compression == "zlib"


def test_without_an_engine_the_store_says_which_it_is() -> None:
    assert ServerConfig().store_options().engine is None
    assert ServerConfig(engine="memory").store_options().engine == "memory"


def test_the_server_keeps_log_for_replicas_and_the_library_does_not() -> None:
    config = load({"replica_log_bytes": "64mb", "replica_log_age_s": "60"}, {}, None)
    options = config.store_options()
    assert (options.replica_log_bytes, options.replica_log_age_s) == (64 << 20, 60)
    assert ServerConfig().store_options().replica_log_bytes == 256 << 20
    assert Options().replica_log_bytes == 0
    for name, value in (("replica_log_bytes", "-1"), ("replica_log_age_s", "-1")):
        with pytest.raises(InvalidArgument, match=name.replace("_", ".")):
            load({name: value}, {}, None)
