"""Base64 is read as TF Serving reads it, and what is none is refused with the place where it is wrong."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.codecs.base64_text import NotBase64, decode


@given(value=st.binary(max_size=200), spaces=st.lists(st.tuples(st.integers(0, 300), st.sampled_from(" \t\r\n\v\f"))))
def test_white_space_and_padding_do_not_count(value: bytes, spaces: list[tuple[int, str]]) -> None:
    """The bytes come back, with padding or without, and with white space anywhere."""
    for text in (base64.b64encode(value).decode(), base64.b64encode(value).decode().rstrip("=")):
        for position, space in spaces:
            text = text[:position] + space + text[position:]
        assert decode(text) == value


def test_lines() -> None:
    """What `base64` prints in lines is read, as is padding by dots."""
    assert decode(base64.encodebytes(bytes(range(256))).decode()) == bytes(range(256))
    assert decode("YQ..") == b"a"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("?", "'?' at position 0"),
        ("YWJj-A", "'-' at position 4"),
        ("YWä=", "'\\xe4' at position 2"),
        ("YWJjZ", "5 characters are one too many or too few"),
        ("YQ=", "2 characters take 2 of padding, or none, not 1"),
        ("YWJj=", "4 characters take 0 of padding, or none, not 1"),
        ("YQ==YQ==", "characters follow its padding"),
        (1, "has to be a string"),
        (None, "has to be a string"),
    ],
)
def test_what_is_none(text: object, says: str) -> None:
    """The error says which character is wrong and where, or that some are missing."""
    with pytest.raises(NotBase64, match=r"^not base64: ") as caught:
        decode(text)
    assert says in str(caught.value)
