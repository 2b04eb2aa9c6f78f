"""Hostile requests to every method and endpoint, in-process: none makes the gateway fail, name what is inside it, hang,
or take memory that the request does not bring.
"""

import asyncio
import os
import re
import resource
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from asgi_client import Answer, Exchange, Headers
from choices import Choices, made
from hosted_gateway import KNOWN, HostedGateway
from hostile_tensors import hostile_message, kind_of, valid
from mutations import body_with

ADDRESS_SPACE = 3 << 30
"""Bytes that may be mapped beyond what is, so that a fault fails a test and not the machine."""

EXAMPLES = int(os.environ.get("FUZZ", 100))
INFLATED = 1 << 20
"""Bytes that a compressed message unpacks to, at most."""
INTERNAL = re.compile(rb"Portico failed|--[0-9a-f]{12}|--loaded|Traceback")


@pytest.fixture(scope="module")
def hosted() -> HostedGateway:
    return HostedGateway()


Run = Callable[[Coroutine[Any, Any, Answer]], Answer]


@pytest.fixture(scope="module")
def run(hosted: HostedGateway) -> Iterator[Run]:
    """Runs one call. A fault that takes memory without end is a MemoryError here."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    with asyncio.Runner() as runner:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ADDRESS_SPACE, before[1]))
        try:
            yield runner.run
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)


METHODS = HostedGateway().grpc_edge._methods
ENDPOINTS = [entry for entries in HostedGateway().rest_edge._by_root.values() for entry in entries]


def said(answer: Answer) -> bytes:
    """All that a client reads."""
    headers = [pair for event in answer.events for pair in event.get("headers", [])]
    return b"\n".join([*(event.get("body", b"") for event in answer.events), *(b": ".join(pair) for pair in headers)])


def check_grpc(answer: Answer) -> None:
    code, text = answer.grpc_status
    assert code not in (2, 13), text
    assert not INTERNAL.search(said(answer))


def check_rest(answer: Answer) -> None:
    assert answer.status < 500, answer.body
    assert not INTERNAL.search(said(answer))


def exchange(path: str, body: bytes, headers: Headers = ()) -> Exchange:
    method = METHODS[path]
    if method.lasting and method.both is None:
        headers = [*headers, (b"grpc-timeout", b"10m")]
    return Exchange("POST", path, body, [(b"content-type", b"application/grpc"), *headers], eager=True)


@pytest.mark.parametrize("path", METHODS)
def test_grpc(hosted: HostedGateway, run: Run, path: str) -> None:
    """Whatever is sent to a gRPC method, its answer is one of a gateway that works, and the next call is answered."""
    kind = kind_of(path)
    seeds = valid(kind, KNOWN)

    def call(choices: Choices) -> tuple[bytes, Headers]:
        parts = [
            body_with(choices, hostile_message(choices, kind, seeds, KNOWN), INFLATED)
            for _ in range(1 if METHODS[path].both is None else choices.upto(4))
        ]
        return b"".join(body for body, _ in parts), [header for _, headers in parts for header in headers]

    @settings(derandomize=True, database=None, deadline=None, max_examples=EXAMPLES)
    @given(made(call))
    def fuzz(call: tuple[bytes, Headers]) -> None:
        check_grpc(run(exchange(path, *call).run(hosted.grpc_edge)))

    fuzz()
    run(hosted.good())
