"""Runs a model's warm-up requests on one replica before the version takes traffic. Called by `work` once a servable is
ready.

A warm-up file is JSON Lines; each line is the body of an Open Inference infer request.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

from portico.codecs import json_values
from portico.codecs.handler import tensors_of
from portico.codecs.open_inference import decode_request
from portico.controller.bounded_read import read_file
from portico.controller.loaders import LoaderError, ReplicaUnreachable
from portico.controller.rejected import Rejected, reason
from portico.errors import PorticoError, Unavailable
from portico.inference import InferenceRequest
from portico.ports import Backend
from portico.routing import Route, Server
from portico.validation import validate

MAX_BYTES = 64 << 20
"""Size of the largest warm-up file."""
MAX_REQUESTS = 1000

Connect = Callable[[Server, str], AbstractAsyncContextManager[Backend]]
"""Opens a backend on one replica, by its kind and the address that its loader knows it by; closed on leaving."""


async def warm_up(
    connect: Connect, address: str, route: Route, repository: Path, name: str, limit: float, copies: int = 1
) -> int:
    """Runs the requests of a file one after another, each with `copies` at once, and returns how many there are.

    `route` leads to the servable, which has to be ready at `address`. TorchServe gives each of the copies to another
    of its workers. Raises LoaderError that says which request failed and why, also when all together take more than
    `limit` seconds; ReplicaUnreachable if the replica, and not the request, is the reason.
    """
    end = asyncio.get_running_loop().time() + limit
    try:
        requests = await asyncio.to_thread(lambda: list(_lines(repository, name)))
    except Rejected as error:
        raise LoaderError(str(error)) from error
    except OSError as error:
        raise LoaderError(f"its warm-up file {reason(error)}") from error
    async with connect(route.server, address) as backend:
        for number, line in requests:
            with _explained(f"warm-up request {number}", limit):
                async with asyncio.timeout_at(end):
                    request = await asyncio.to_thread(_request, line, route)
                    calls = (_call(backend, route, request, limit) for _ in range(copies))
                    for outcome in await asyncio.gather(*calls, return_exceptions=True):
                        if outcome is not None:
                            raise outcome
    return len(requests)


@contextmanager
def _explained(what: str, limit: float) -> Iterator[None]:
    """Raises LoaderError for our own errors and for a timeout."""
    try:
        yield
    except TimeoutError as error:
        raise LoaderError(f"{what}: the time for the warm-up, {limit:g} s, is over") from error
    except Unavailable as error:
        raise ReplicaUnreachable(f"{what}: {error}") from error
    except PorticoError as error:
        raise LoaderError(f"{what}: {error}") from error


async def _call(backend: Backend, route: Route, request: InferenceRequest, limit: float) -> None:
    response = await backend.infer(route, request, limit)
    tensors_of(response, request.outputs, route.answers)


def _request(line: bytes, route: Route) -> InferenceRequest:
    request = decode_request(json_values.parse_object(line), bool(route.signatures))
    validate(route, request)
    return request


def _lines(repository: Path, name: str) -> Iterator[tuple[int, bytes]]:
    """(number, request) of each line that is not empty. Raises Rejected, OSError."""
    root, path = os.path.realpath(repository), os.path.realpath(repository / name)
    try:
        if os.path.commonpath((root, path)) != root:
            raise Rejected("lies outside of the repository")
        lines = [line for line in read_file(Path(path), MAX_BYTES).splitlines() if line.strip()]
        if not lines:
            raise Rejected("holds no requests")
        if len(lines) > MAX_REQUESTS:
            raise Rejected(f"holds more than {MAX_REQUESTS} requests")
    except Rejected as error:
        raise Rejected(f"the warm-up file {Path(name).name} {error}") from error
    yield from enumerate(lines, 1)
