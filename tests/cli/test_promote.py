"""promote and follow, against servers in threads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import Cli
from tests.server.serving import serving


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfdbinary: Any) -> Cli:
    return Cli(monkeypatch, capfdbinary)


def test_promote_and_follow_change_the_roles(cli: Cli, tmp_path: Path) -> None:
    with serving(tmp_path / "p", frame_port=0) as old:
        upstream = "{}:{}".format(*old.address("frame"))
        with serving(tmp_path / "r", frame_port=0) as new:
            at = "{}:{}".format(*new.address())
            with old.connect() as client:
                client.ask(b"SET", b"k", b"v")
                assert cli.ok("follow", "--connect", at, upstream) == f"OK (follows {upstream})\n"
                assert client.ask(b"WAITAOF", b"1", b"1", b"20000") == [1, 1]
            refused = cli("put", "--connect", at, "k", "w")
            assert refused.code == 1
            assert "this is a replica" in refused.error
            told = json.loads(cli.ok("promote", "--connect", at, "--json"))
            assert told == {"ok": True, "epoch": 2, "sequence": 1}
            assert cli.ok("promote", "--connect", at) == "OK (primary from position 2-1 on)\n"
            cli.ok("put", "--connect", at, "k", "w")
            other = "{}:{}".format(*old.address())
            downstream = "{}:{}".format(*new.address("frame"))
            told = json.loads(cli.ok("follow", "--connect", other, downstream, "--json"))
            assert told == {"ok": True, "upstream": downstream}


@pytest.mark.parametrize("upstream", ["", "host", "host:", ":1", "host:0", "host:x", "::1:7381"])
def test_an_upstream_that_is_none_is_bad_usage(cli: Cli, upstream: str) -> None:
    done = cli("follow", "--connect", "127.0.0.1:1", upstream)
    assert done.code == 2
    assert "is not HOST:PORT" in done.error


def test_promote_needs_a_server(cli: Cli) -> None:
    assert cli("promote").code == 2
