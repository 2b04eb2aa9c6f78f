"""The address for operators."""

import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import Counter

from portico.listener import CannotListen, listening

SEEN = Counter("portico_test_listener_seen", "What the test has seen.", ["model"])


async def greet(request: web.Request) -> web.Response:
    return web.json_response({"hello": request.match_info["name"]})


async def fail(request: web.Request) -> web.Response:
    raise RuntimeError("secret")


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    address = free_address()
    routes = [web.get("/hello/{name}", greet), web.get("/fail", fail)]
    async with listening(address, routes), aiohttp.ClientSession(f"http://{address}") as session:
        yield session


async def test_metrics(client: aiohttp.ClientSession) -> None:
    """Whatever the process counts, in the format that the scraper asks for."""
    SEEN.labels("iris").inc()
    async with client.get("/metrics") as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=")
        text = await answer.text()
        assert 'portico_test_listener_seen_total{model="iris"} 1.0\n' in text
        assert "_created" not in text
    async with client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}) as answer:
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert (await answer.text()).endswith("# EOF\n")


async def test_what_else_it_is_given(client: aiohttp.ClientSession) -> None:
    """The process adds its own endpoints."""
    async with client.get("/hello/you") as answer:
        assert await answer.json() == {"hello": "you"}


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/nothing", 404, "Not Found: there is nothing at /nothing."),
        ("POST", "/metrics", 405, "POST is not allowed here; allowed: GET, HEAD."),
        ("GET", "/fail", 500, "It failed; the log says why."),
    ],
)
async def test_errors(client: aiohttp.ClientSession, method: str, path: str, status: int, says: str) -> None:
    """They are JSON like the gateway's, and what a handler raised stays in the log."""
    async with client.request(method, path) as answer:
        assert (answer.status, await answer.json()) == (status, {"error": says})
        assert answer.headers.get("allow") == ("GET, HEAD" if status == 405 else None)


async def test_no_address() -> None:
    """Nobody is answered, and nothing is opened."""
    async with listening(""):
        pass


@pytest.mark.parametrize("address", ["taken", "127.0.0.1:70000", "no.such.host.invalid:9400"])
async def test_an_address_that_cannot_be_had(address: str) -> None:
    """The error names the setting and the address."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        address = f"127.0.0.1:{holder.getsockname()[1]}" if address == "taken" else address
        with pytest.raises(CannotListen, match=f"PORTICO_METRICS_ADDRESS: nothing can listen on {address}: "):
            async with listening(address):
                raise AssertionError("it listens")


async def test_it_ends_with_its_context() -> None:
    """The address is free again at once."""
    address = free_address()
    for _ in range(2):
        async with (
            listening(address),
            aiohttp.ClientSession(f"http://{address}") as session,
            session.get("/metrics") as answer,
        ):
            assert answer.status == 200
