"""Settings: what an operator can set about the node, typed.

Owns the fields and their defaults; parameters.py shows them as CONFIG does and validates what
clients send, the server fills them from its configuration.

Threading: read and written on the thread that owns the node.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple


class OutputLimit(NamedTuple):
    """When a client that does not read is cut off; 0 for never."""

    hard_bytes: int = 0
    soft_bytes: int = 0
    soft_s: int = 0


NO_LIMIT: Final = OutputLimit()
PUBSUB_LIMIT: Final = OutputLimit(32 << 20, 8 << 20, 60)


@dataclass(frozen=True, slots=True)
class ReplicationSettings:
    """How a node replicates.

    min_acks: replicas that every write has to reach, 0 for none; ack_on_disk: what they have to
    have done with it, else they have applied it; ack_timeout_ms: how long a write may wait for
    them. max_replicas: that may be connected. sync_rate: bytes a second of a full copy, 0 for any.
    password: what the upstream asks for, b"" for none. max_frame_bytes: of what it sends.
    """

    min_acks: int = 0
    ack_on_disk: bool = True
    ack_timeout_ms: int = 5000
    max_replicas: int = 32
    sync_rate: int = 0
    password: bytes = field(default=b"", repr=False)
    max_frame_bytes: int = 1 << 30


@dataclass(slots=True)
class Settings:
    """Everything about the node that is not the store's (storage.options.Options).

    password_hash: of the user "default" (passwords.hash_password), or "" for no password.
    debug_commands: whether DEBUG is allowed.
    maxclients: connections at once. timeout_s: silence after which one is closed; 0 for never.
    tcp_keepalive_s: seconds between probes. slowlog_us: SLOWLOG's threshold; 0 all, -1 none.
    slowlog_entries: how many it keeps. latency_ms: LATENCY's threshold; 0 for none.
    max_bulk_bytes, max_request_bytes: of one argument, of one request.
    normal_output, pubsub_output: limits on unread output.
    host, port: where RESP is served, for INFO and CONFIG; 0: not.
    backup_dir: where BACKUP makes its directories, absolute; "" turns it off.
    max_subscriptions, max_watched_keys, max_snapshots: per session. snapshot_age_s: how long a
    session may keep one. max_queue_bytes: of the commands between MULTI and EXEC.
    """

    password_hash: str = field(default="", repr=False)
    debug_commands: bool = False
    maxclients: int = 10_000
    timeout_s: int = 0
    tcp_keepalive_s: int = 300
    slowlog_us: int = 10_000
    slowlog_entries: int = 128
    latency_ms: int = 0
    max_bulk_bytes: int = 512 << 20
    max_request_bytes: int = 1 << 30
    normal_output: OutputLimit = NO_LIMIT
    pubsub_output: OutputLimit = PUBSUB_LIMIT
    host: str = ""
    port: int = 0
    backup_dir: str = ""
    max_subscriptions: int = 100_000
    max_watched_keys: int = 100_000
    max_snapshots: int = 16
    snapshot_age_s: int = 3600
    max_queue_bytes: int = 256 << 20
    replication: ReplicationSettings = field(default_factory=ReplicationSettings)
