"""Proofs that both ends know the password, without sending it.

Owns what is proved and how; not where the secret comes from: the upstream keeps it as the digest
of its password hash, the replica derives it from the password and the parameters in Challenge.

K1  a proof is of use on no other link and in no other direction: both nonces, both run ids and the
    prover's side go into it.
K2  proofs are compared in constant time.

Whoever steals an upstream's secret can log in as a replica: it is worth a password here. Traffic
is neither encrypted nor bound to the proofs (SECURITY.md).

Threading: pure functions, frozen values.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from marram.replication.messages import PROOF_BYTES

NO_PROOF: Final = bytes(PROOF_BYTES)
"""Stands for a proof where no password is asked for."""


@dataclass(frozen=True, slots=True)
class Secret:
    """What an upstream keeps of its password. parameters: see Challenge; digest: 1 byte or more."""

    parameters: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the two ends told each other first: nonces and run ids, 16 bytes each."""

    replica_nonce: bytes
    replica_run: bytes
    upstream_nonce: bytes
    upstream_run: bytes


def prove_replica(digest: bytes, greeting: Greeting) -> bytes:
    """The replica's proof, PROOF_BYTES (K1)."""
    return _prove(digest, b"marram replica", greeting)


def prove_upstream(digest: bytes, greeting: Greeting) -> bytes:
    """The upstream's proof, PROOF_BYTES (K1)."""
    return _prove(digest, b"marram upstream", greeting)


def is_right(given: bytes, wanted: bytes) -> bool:
    """Whether a proof is the wanted one (K2)."""
    return hmac.compare_digest(given, wanted)


def _prove(digest: bytes, side: bytes, greeting: Greeting) -> bytes:
    parts = (
        side,
        greeting.replica_nonce,
        greeting.replica_run,
        greeting.upstream_nonce,
        greeting.upstream_run,
    )
    return hmac.new(digest, b"\0".join(parts), hashlib.sha256).digest()
