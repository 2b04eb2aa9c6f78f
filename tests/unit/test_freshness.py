"""What clients may say to a cache, and what they are told: `cache-control`, ages, entity tags."""

import pytest

from portico.errors import InvalidRequest
from portico.freshness import ANY, CacheControl, Entry, Stamp, matches
from portico.inference import InferenceResponse, Tensor

Y = Tensor("y", "INT8", (2,), b"ab")
RESPONSE = InferenceResponse((Y,), "text/plain")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", ANY),
        ("no-transform, private", ANY),
        ("no-cache", CacheControl(no_cache=True)),
        ("No-Store", CacheControl(no_store=True)),
        ("max-age=60", CacheControl(max_age=60)),
        ("max-age=0, only-if-cached", CacheControl(max_age=0, only_if_cached=True)),
        ('max-age="5", x="no-cache"', CacheControl(max_age=5)),
        ("max-age=99999999999999999999999", CacheControl(max_age=1 << 31)),
        ("not-no-cache", ANY),
    ],
)
def test_what_a_client_asks_of_the_cache(header: str, expected: CacheControl) -> None:
    """The directives are read whole, in any case and order; those that mean nothing here are passed over."""
    assert CacheControl.parse(header) == expected


@pytest.mark.parametrize("header", ["max-age", "max-age=", "max-age=soon", "max-age=-1", "max-age=1.5", "max-age=٣"])
def test_an_age_that_is_none(header: str) -> None:
    """The client learns what it should have sent."""
    with pytest.raises(InvalidRequest, match="max-age=60"):
        CacheControl.parse(header)


def test_ages_and_ends() -> None:
    """Ages are whole seconds and never negative, whatever the clocks of two machines say."""
    stamp = Stamp(1000.0, 60.0, b"tag")
    assert [stamp.age(now) for now in (990.0, 1000.0, 1000.9, 1061.0)] == [0, 0, 0, 61]
    assert stamp.expires == 1060.0


def test_tags() -> None:
    """The same answer to the same question has the same tag, whoever computes it, and any other answer another."""
    tag = Entry.of(b"key", RESPONSE, 60).stamp.tag
    assert Entry.of(b"key", InferenceResponse((Y,), "text/plain"), 5).stamp.tag == tag
    others = [
        Entry.of(b"other", RESPONSE, 60),
        Entry.of(b"key", InferenceResponse((Y,)), 60),
        Entry.of(b"key", InferenceResponse((Tensor("y", "INT8", (2,), b"ac"),), "text/plain"), 60),
        Entry.of(b"key", InferenceResponse((Tensor("y", "INT8", (1, 2), b"ab"),), "text/plain"), 60),
        Entry.of(b"key", InferenceResponse((Tensor("y", "BOOL", (2,), b"ab"),), "text/plain"), 60),
        Entry.of(b"key", InferenceResponse((Tensor("z", "INT8", (2,), b"ab"),), "text/plain"), 60),
        Entry.of(b"key", InferenceResponse((Y, Y), "text/plain"), 60),
    ]
    assert len({tag, *(other.stamp.tag for other in others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("said", "expected"),
    [('W/"ab"', True), ('"ab"', True), ('"x", W/"ab"', True), ("*", True), ('W/"abc"', False), ("ab", False)],
)
def test_tags_that_a_client_has(said: str, expected: bool) -> None:
    """`if-none-match` holds any number of tags, weak or not; `*` is any."""
    assert matches('W/"ab"', said) is expected
