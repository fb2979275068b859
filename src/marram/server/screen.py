"""What a person sees who starts the server on a terminal: where it is, and lines to try.

Owns the text; rich, where it is installed, only colours it. Threading: called once.
"""

from __future__ import annotations

import re
from typing import Any, Final

from marram import __version__
from marram.server.config import ServerConfig

_HEADING: Final = re.compile(r"^  (\S[^:]*):", re.MULTILINE)


def show(
    config: ServerConfig, addresses: dict[str, str], directory: str, figures: dict[str, Any]
) -> None:
    """Print the screen to stdout. figures: as lines() takes them."""
    text = lines(config, addresses, directory, figures)
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        print(text, flush=True)
        return
    styled = Text(text)
    styled.highlight_regex(_HEADING, "bold cyan")
    styled.highlight_words([f"marram {__version__}"], "bold")
    Console(soft_wrap=True).print(styled)


def lines(
    config: ServerConfig, addresses: dict[str, str], directory: str, figures: dict[str, Any]
) -> str:
    """The screen's text, with lines to copy. figures: the server's (STATS)."""
    durable = {
        "sync": "a write is answered once it is on disk",
        "interval": f"writes are synced every {config.interval_ms} ms",
        "none": "writes are not synced",
    }
    num_keys = figures["num_keys"]
    keys = "1 key" if num_keys == 1 else f"{num_keys:,} keys"
    out = [
        "",
        f"marram {__version__}",
        "",
        f"  store: {directory} ({keys}; {durable[config.durability]})",
        *_about_lsm(figures.get("lsm")),
        *_about_role(figures.get("replication", {})),
    ]
    if "resp" in addresses:
        host, port = addresses["resp"].rsplit(":", 1)
        out.append(f"  RESP:  redis-cli -h {host.strip('[]')} -p {port} SET greeting hello")
    if "http" in addresses:
        out.append(f"  HTTP:  curl http://{addresses['http']}/v1/kv/greeting?encoding=utf-8")
    if "resp" in addresses:
        out.append(f"  shell: marram shell --connect {addresses['resp']}")
    if config.password_file:
        out.append(f"  login: the password is the first line of {config.password_file}")
    return "\n".join([*out, "", "Ctrl-C stops it.", ""])


def _about_role(figures: dict[str, Any]) -> list[str]:
    """Whom the store follows, or what replicas have to have; nothing for a primary alone."""
    upstream = figures.get("upstream")
    if upstream is not None:
        at = f"{upstream['host']}:{upstream['port']}"
        return [f"  role:  replica of {at}; it takes reads. marram promote makes it the primary"]
    if figures.get("min_acks"):
        return [f"  role:  primary; every write waits for {_count(figures['min_acks'], 'replica')}"]
    return []


def _about_lsm(figures: dict[str, Any] | None) -> list[str]:
    """The levels, and whether they hold writers back."""
    if figures is None:
        return []
    levels = [
        f"level {level['level']}: {_count(level['tables'], 'table')}, {_size(level['bytes'])}"
        for level in figures["levels"]
    ]
    memtable, memory = figures["memtable"], figures["memory"]
    out = [
        f"  lsm:   {'; '.join(levels) or 'no tables yet'}",
        f"         memtables of {_size(memtable['limit_bytes'])}, "
        f"{_size(memory['limit_bytes'])} of memory in all",
    ]
    debt, throttle = figures.get("compaction_debt_bytes", 0), figures.get("throttle", 0.0)
    if debt:
        out.append(f"         {_size(debt)} to compact; writers are held back {throttle:.0%}")
    return out


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _size(size_bytes: int) -> str:
    """64.0 MiB."""
    size = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size_bytes} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
