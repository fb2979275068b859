"""Setting batches aside: what a deposed primary has that its successor does not.

Owns the file diverged-EPOCH-FROM-TO.log; not the decision. It is a log (docs/formats/log.md) like
any other, with number 0 and the batches after the position both agree on, ended by a mark. No store
reads it: it is there for people, who may want to know what was lost, and keep it or throw it away.

Threading: any thread; the log is read beside its writer.
"""

from __future__ import annotations

import logging
from contextlib import closing
from typing import TYPE_CHECKING

from marram.storage import layout
from marram.storage.log.format import LogHeader, LogStart
from marram.storage.log.writer import LogWriter

if TYPE_CHECKING:
    from marram.storage.store import Store

_logger = logging.getLogger("marram.store")

_READ_BYTES = 1024 * 1024


def set_aside(store: Store, after: int) -> str | None:
    """Write the batches after position `after` to a file of their own, durably; returns its path.

    None where there are none. Those that the log has no more are left out, which is warned of.
    Raises OSError, Corruption, OutcomeUnknown.
    """
    store.wait_durable(store.last)
    history = store.history
    first_after = max(after, history.oldest)
    base, newest = history.mark(first_after), history.newest()
    if newest.sequence <= after:
        return None
    if base is None or newest.sequence <= first_after:
        _logger.warning(
            "batches %d to %d are not in the history of the primary, and could not be set aside: "
            "they are not in the log any more", after + 1, newest.sequence,
        )  # fmt: skip
        return None
    now_ms = store.now_ms()
    start = LogStart(base.epoch, base.chain, now_ms)
    header = LogHeader(store.store_id, 0, 0, base.sequence, newest.epoch, start)
    path = layout.diverged_path(store.directory, newest.epoch, base.sequence + 1, newest.sequence)
    env = store.env
    if env.exists(path):  # of an earlier try: the same batches, maybe not all of them
        env.remove(path)
    log = LogWriter.create_at(env, store.directory, path, header, 0)
    try:
        with closing(history.tail(base.sequence)) as tail:
            while tail.position < newest.sequence:
                for frame in tail.read(_READ_BYTES):
                    log.reserve(len(frame.payload))
                    log.write(
                        [frame.payload], frame.first_sequence, frame.epoch, frame.time_ms,
                        frame.count,
                    )  # fmt: skip
        log.sync()
        log.mark(newest.sequence, newest.epoch, now_ms)
        log.sync()
        log.trim()
    finally:
        log.close()
    missing = "" if first_after == after else f" (those up to {first_after} are not in the log)"
    _logger.warning(
        "batches %d to %d are not in the history of the primary and were set aside%s: %s",
        after + 1, newest.sequence, missing, path,
    )  # fmt: skip
    return path
