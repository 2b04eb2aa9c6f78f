"""What HTTP says about answers that are kept: what a client may ask of a cache, and what it is told. Pure.

Source: RFC 9111 (caching), sections 4.2.3 and 5.2.1; RFC 9110 (HTTP), sections 8.8.3 and 13.1.2 for entity tags.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from time import time

from blake3 import blake3

from portico.errors import InvalidRequest
from portico.inference import InferenceResponse

TAG_BYTES = 12

_DIRECTIVE = re.compile(r'([!#$%&\'*+.^_`|~0-9A-Za-z-]+)(?:=(?:"([^"]*)"|([^",\s]*)))?')
_LONGEST_AGE = 1 << 31
"""Seconds; a greater number in a header counts as this one (RFC 9111, section 1.2.2)."""


class CacheStatus(StrEnum):
    """What the cache had to do with an answer, as the `x-cache` header says it."""

    HIT = "HIT"
    """It was kept."""
    MISS = "MISS"
    """The model was called."""
    COALESCED = "COALESCED"
    """The model was called, by an identical request that was under way already."""
    BYPASS = "BYPASS"
    """The model was called, and nobody looked for a kept answer: it may not be kept, or the client wanted a new one."""


@dataclass(frozen=True, slots=True)
class CacheControl:
    """The directives of a request's `cache-control` that count here; others are passed over, as RFC 9111 has it.

    `max_age` is seconds, None for any age.
    """

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age: int | None = None

    @classmethod
    def parse(cls, header: str) -> "CacheControl":
        """Raises InvalidRequest for a `max-age` that is no number of seconds."""
        given = {name.lower(): quoted or plain for name, quoted, plain in _DIRECTIVE.findall(header)}
        max_age = None
        if "max-age" in given:
            seconds = given["max-age"]
            if not (seconds.isascii() and seconds.isdigit()):
                raise InvalidRequest(f"cache-control: 'max-age' takes seconds, as in 'max-age=60', not '{seconds}'.")
            max_age = min(int(seconds[:12]), _LONGEST_AGE)
        return cls("no-cache" in given, "no-store" in given, "only-if-cached" in given, max_age)


ANY = CacheControl()
"""What a client asks for that says nothing."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What is known of a kept answer: since when (seconds since the epoch), for how long (seconds), and a `tag` that
    tells its content.
    """

    stored_at: float
    lifetime: float
    tag: bytes

    def age(self, now: float) -> int:
        """Whole seconds; clocks of two machines may differ, and no answer is younger than now."""
        return max(int(now - self.stored_at), 0)

    @property
    def expires(self) -> float:
        """Seconds since the epoch."""
        return self.stored_at + self.lifetime

    @property
    def etag(self) -> str:
        """An entity tag, weak since an answer has many encodings."""
        return f'W/"{self.tag.hex()}"'


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer that is kept."""

    response: InferenceResponse
    stamp: Stamp

    @classmethod
    def of(cls, digest: bytes, response: InferenceResponse, lifetime: float) -> "Entry":
        """The answer to the request of this digest, from now on. Raises InferenceFailed if it cannot be read."""
        return cls(response, Stamp(time(), lifetime, _tag(digest, response)))

    def until(self, lifetime: float) -> "Entry":
        """The same, for no longer than that: a policy may have been changed since it was stored."""
        stamp = self.stamp
        return self if stamp.lifetime <= lifetime else Entry(self.response, replace(stamp, lifetime=lifetime))


def matches(etag: str, if_none_match: str) -> bool:
    """Whether a client has this answer: the weak comparison of RFC 9110, section 8.8.3.2."""
    if if_none_match.strip() == "*":
        return True
    return etag.removeprefix("W/") in (each.strip().removeprefix("W/") for each in if_none_match.split(","))


def _tag(digest: bytes, response: InferenceResponse) -> bytes:
    """The same for the same answer to the same question, whoever computes it."""
    tag = blake3(digest)
    for output in response.outputs:
        tag.update(repr((output.name, output.datatype, output.shape, len(output.data))).encode())
        tag.update(output.data)
    tag.update(response.content_type.encode())
    return tag.digest(length=TAG_BYTES)
