"""Where a server is, as people write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marram.client.url import Target, parse_address, parse_url
from marram.errors import InvalidArgument


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("marram://localhost", Target("localhost")),
        ("marram://localhost/", Target("localhost")),
        ("marram://10.0.0.1:7000/15", Target("10.0.0.1", 7000, 15)),
        ("marram://[::1]:7000", Target("::1", 7000)),
        ("marram://:secret@h", Target("h", password="secret")),
        ("marram://me:se%40%3A%2Fcret@h:1/2", Target("h", 1, 2, "me", "se@:/cret")),
    ],
)
def test_a_url_names_a_server(url, target):
    assert parse_url(url) == target


@pytest.mark.parametrize(
    "url",
    [
        "", "localhost", "redis://localhost", "marram:///3", "marram://h:0", "marram://h:65536",
        "marram://h:x", "marram://h/16", "marram://h/x", "marram://h?x=1", "marram://h#x",
        "marram://h/1/2", "marram://a@b", "marram://[::1", "marram://h h", "marram://h\n",
    ],
)  # fmt: skip
def test_what_is_no_url_is_refused(url):
    with pytest.raises(InvalidArgument):
        parse_url(url)


def test_a_password_is_in_no_message():
    with pytest.raises(InvalidArgument) as caught:
        parse_url("marram://:se@cret@h")
    assert "cret" not in str(caught.value)
    assert "%40" in str(caught.value)
    target = parse_url("marram://u:secret@h")
    assert "secret" not in repr(target)
    assert str(target) == "marram://u:***@h:7379"


@given(
    st.sampled_from(["h", "::1", "10.1.2.3"]),
    st.integers(1, 65535),
    st.integers(0, 15),
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.text(st.characters(codec="utf-8"), max_size=5),
)
def test_a_target_is_what_its_url_says(host, port, keyspace, user, password):
    target = Target(host, port, keyspace, user, password)
    assert parse_url(target.url) == target


def test_an_address_is_a_host_and_a_port_or_a_url():
    assert parse_address("h") == Target("h")
    assert parse_address("h:1", 3, "pw") == Target("h", 1, 3, password="pw")
    assert parse_address("[::1]:2") == Target("::1", 2)
    assert parse_address("marram://h:4/5") == Target("h", 4, 5)
    for wrong in ("", ":1", "h:", "h:1:2", "::1", "h/1"):
        with pytest.raises(InvalidArgument):
            parse_address(wrong)
