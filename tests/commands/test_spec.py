"""commands/spec.py: what commands share in reading their arguments."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marram.commands.spec import CommandError, integer


@given(st.integers(-(2**63), 2**63 - 1).map(lambda n: b"%d" % n) | st.binary(max_size=22))
@example(b"-")
@example(b"")
@example(b"-0")
@example(b"00")
@example(b"999999999999999999")
@example(b"1000000000000000000")
def test_an_integer_is_taken_in_its_one_spelling_alone(text: bytes) -> None:
    try:
        number = int(text)
        is_one = b"%d" % number == text and -(2**63) <= number < 2**63
    except ValueError:
        is_one = False
    if is_one:
        assert integer(text) == number
    else:
        with pytest.raises(CommandError):
            integer(text)
