"""What a person sees who starts the server on a terminal: where it is, and lines to try.

Owns the text; rich, where it is installed, only colours it. Threading: called once.
"""

from __future__ import annotations

import re
from typing import Final

from marram import __version__
from marram.server.config import ServerConfig
from marram.storage.store import Store

_HEADING: Final = re.compile(r"^  (\S[^:]*):", re.MULTILINE)


def show(config: ServerConfig, addresses: dict[str, str], directory: str, store: Store) -> None:
    """Print the screen to stdout."""
    text = lines(config, addresses, directory, store.stats()["num_keys"])
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


def lines(config: ServerConfig, addresses: dict[str, str], directory: str, num_keys: int) -> str:
    """The screen's text, with lines to copy."""
    durable = {
        "sync": "a write is answered once it is on disk",
        "interval": f"writes are synced every {config.interval_ms} ms",
        "none": "writes are not synced",
    }
    keys = "1 key" if num_keys == 1 else f"{num_keys:,} keys"
    out = [
        "",
        f"marram {__version__}",
        "",
        f"  store: {directory} ({keys}; {durable[config.durability]})",
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
