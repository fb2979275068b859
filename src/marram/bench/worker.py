"""One of several processes that share a load: `python -m marram.bench.worker`.

Owns the conversation with generator.py, a line of JSON each: what to do comes in, "ready" goes out,
"go" comes in, then how far it is, and at last what was measured, or an error.

Threading: one event loop.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

from marram.bench.generator import Load, drive, loop_factory, stream_of, tcp_connect
from marram.errors import Error


def _say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def _wait_for_go() -> None:
    _say(ready=True)
    loop = asyncio.get_running_loop()
    # It blocks a thread of the loop's, not the loop: connections stay greeted meanwhile.
    if not await loop.run_in_executor(None, sys.stdin.readline):
        raise asyncio.CancelledError  # whoever started this is gone


async def _work(plan: dict[str, Any]) -> None:
    load = Load.from_json(plan["load"])
    stream = stream_of(load, plan["share"], plan["shares"])
    measured = await drive(
        load, tcp_connect(load.place.target), stream,
        progress=lambda title, done, seconds: _say(done=done), ready=_wait_for_go,
    )  # fmt: skip
    _say(measured=measured.as_json())


def main() -> int:
    """Do what standard input says; the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for whoever started this
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_work(json.loads(sys.stdin.readline())))
    except (Error, OSError) as error:
        _say(error=str(error))
        return 1
    except asyncio.CancelledError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
