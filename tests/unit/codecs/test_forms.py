"""Forms come apart into the parts that clients put in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.codecs.forms import parts_of_form
from portico.codecs.multipart import multipart
from portico.errors import InvalidRequest

URLENCODED = "application/x-www-form-urlencoded"
names = st.text("abcäöü_.-", min_size=1, max_size=12)


@given(parts=st.dictionaries(names, st.binary(max_size=64), min_size=1, max_size=4))
def test_multipart(parts: dict[str, bytes]) -> None:
    """Parts of any bytes come back by their names."""
    body, content_type = multipart(parts.items())
    assert parts_of_form(body, content_type) == parts


def test_what_curl_sends() -> None:
    """A file's name and a part's own content type do not matter, nor does a quoted boundary."""
    body = (
        b'--a b\r\nContent-Disposition: form-data; name="x"; filename="x.json"\r\nContent-Type: text/plain\r\n\r\n[1]'
        b"\r\n--a b--\r\n"
    )
    assert parts_of_form(body, 'Multipart/Form-Data; boundary="a b"') == {"x": b"[1]"}


def test_urlencoded() -> None:
    """Names and values are unquoted to the byte."""
    assert parts_of_form(b"a=%5B1%5D&b+c=%ff+x&d=", URLENCODED) == {"a": b"[1]", "b c": b"\xff x", "d": b""}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"pixels", URLENCODED),
        (b"=1", URLENCODED),
        (b"a=1&b", URLENCODED),
        (b"--a", "multipart/form-data; boundary=a"),
        (b"a=1", "multipart/form-data"),
        (b"--a\r\n\r\n1\r\n--a--", "text/plain"),
    ],
)
def test_what_is_no_form(body: bytes, content_type: str) -> None:
    """What is no form, or breaks off, has no parts."""
    assert parts_of_form(body, content_type) == {}


def test_two_of_one_name() -> None:
    """Two parts of one name are refused, as one would be lost."""
    with pytest.raises(InvalidRequest, match="two parts of one name"):
        parts_of_form(b"a=1&a=2", URLENCODED)


def test_too_many() -> None:
    """A form of more parts than a request may have inputs is refused before it is taken apart."""
    with pytest.raises(InvalidRequest, match="may have up to"):
        parts_of_form(b"a=1&" * (1 << 14), URLENCODED)
