"""Messages for the codec's tests: one of every kind, and as hypothesis draws them."""

from __future__ import annotations

from hypothesis import strategies as st

from marram.replication.messages import (
    MARKS_MAX,
    Ack,
    Agreed,
    Batches,
    Challenge,
    Code,
    Compare,
    Heartbeat,
    Login,
    Mark,
    Message,
    Plan,
    Preparing,
    Ready,
    Refusal,
    Rows,
    SnapshotBegin,
    SnapshotEnd,
    Welcome,
)

ONE_OF_EACH: list[Message] = [
    Login(b"p" * 32, b"s" * 16, b"n" * 16, 3, Mark(2, 99, 7), 40, 1 << 20, "host:7381"),
    Agreed(3),
    Agreed(None),
    Preparing(),
    Ready(),
    Ack(7, 6, 300),
    Challenge(1, b"n" * 16, b"r" * 16, b"scrypt$14$8$1$c2FsdA=="),
    Compare((Mark(1, 2, 3), Mark(1, 5, 8))),
    Welcome(
        b"p" * 32,
        b"s" * 16,
        4,
        Mark(3, 120, 9),
        Plan.TAIL,
        None,
        "host:6379",
        1000,
        (b"r" * 16, b"q" * 16),
    ),
    Welcome(b"p" * 32, b"s" * 16, 4, Mark(3, 120, 9), Plan.FULL, 0, "", 1000),
    Batches(7, 1, 2, 1_700_000_000_000, 6, 0x11223344, b"\x04\0\0\0\0\0\0\0"),
    Heartbeat(120, 119, 1_700_000_000_000, 12, 4096, 250),
    SnapshotBegin(Mark(2, 99, 7), 1_700_000_000_000, 5000),
    Rows(4, b"\x04\0\0\0\0\0\0\0"),
    SnapshotEnd(5, 0xFFFFFFFF),
    Refusal(Code.SELF, 3, "a server cannot be its own replica"),
]

u32 = st.integers(0, (1 << 32) - 1)
u64 = st.integers(0, (1 << 64) - 1)
id16 = st.binary(min_size=16, max_size=16)
proof = st.binary(min_size=32, max_size=32)
text = st.text(max_size=200).filter(str.isprintable)
mark = st.builds(Mark, u64, u64, u32)
payload = st.binary(min_size=1, max_size=5000)
ascending = st.lists(mark, min_size=1, max_size=MARKS_MAX, unique_by=lambda m: m.sequence).map(
    lambda marks: Compare(tuple(sorted(marks, key=lambda m: m.sequence)))
)

messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Login, proof, id16, id16, u64, mark, u64, u64, text),
    st.builds(Agreed, st.none() | st.integers(0, MARKS_MAX - 1)),
    st.just(Preparing()),
    st.just(Ready()),
    st.builds(Ack, u64, u64, u64),
    st.builds(Challenge, st.integers(0, 65535), id16, id16, st.binary(max_size=1024)),
    ascending,
    st.builds(Welcome, proof, id16, u64, mark, st.sampled_from(Plan), st.none() | u64, text, u32),
    st.builds(Batches, u64, u32, u64, u64, u64, u32, payload),
    st.builds(Heartbeat, u64, u64, u64, u64, u64, u64),
    st.builds(SnapshotBegin, mark, u64, u64),
    st.builds(Rows, u32, payload),
    st.builds(SnapshotEnd, u32, u32),
    st.builds(Refusal, st.sampled_from(Code), u64, text),
)
