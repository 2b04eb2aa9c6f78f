"""`ports.Backend`: one suite, held against the fake and the adapters for the real TF Serving and TorchServe, which are
reached through a relay that can be cut.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import numpy as np
import pytest

from fakes import FakeBackend
from model_servers import ROOT, Process, tf_serving, torchserve
from portico.backends.channel import open_channel
from portico.backends.tf_serving import TFServing
from portico.backends.torchserve import TorchServe
from portico.codecs.handler import body_of, raw_request, raw_response, tensors_of
from portico.controller.loaders import Loader, ReplicaUnreachable
from portico.controller.loaders.tf_serving import TFServing as TFServingLoader
from portico.controller.loaders.torchserve import TorchServe as TorchServeLoader
from portico.controller.servable import Servable
from portico.controller.stage import Stage
from portico.errors import DeadlineExceeded, InvalidRequest, ModelNotReady, PorticoError, ServableLost, Unavailable
from portico.inference import Form, InferenceRequest, InferenceResponse, Tensor, pack_bytes
from portico.ports import Backend
from portico.routing import Route, Server

LIMIT = 1 << 20
PATIENCE = 60.0
"""Seconds in which whatever is waited for has to come."""

MODELS = ROOT / "model-repository"
EXAMPLES = ROOT / "examples"
JSON = "application/json"


class Relay:
    """Stands between an adapter and its server, as a network does: it passes on, holds back, or is cut."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._port = 0
        self._server: asyncio.Server | None = None
        self._passing = asyncio.Event()
        self._passing.set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def restore(self) -> None:
        """Passes everything on, from now and again."""
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]
        self._passing.set()

    def hang(self) -> None:
        """Takes connections and bytes, and passes none on."""
        self._passing.clear()

    async def cut(self) -> None:
        """Breaks what is connected, and takes no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._upstream)
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        self._writers.add(sink)
        try:
            while data := await source.read(1 << 16):
                await self._passing.wait()
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()
            self._writers.discard(sink)


@dataclass(frozen=True)
class Ask:
    """A request, and what the model answers to it."""

    request: InferenceRequest
    answer: Any


@dataclass(frozen=True)
class Sample:
    """A model that is served under a name of its own, and requests for it. `read` takes the answer from a response."""

    route: Route
    asks: Sequence[Ask]
    refused: Sequence[InferenceRequest]
    read: Callable[[InferenceResponse], Any]


def route(model: str, version: str, server: Server) -> Route:
    servable = Servable.of_files(model, version, server, version, f"{model}/{version}", "0123456789abcdef")
    return Route(model, version, server, servable.name, version, servable.fingerprint)


def floats(name: str, rows: Any) -> Tensor:
    array = np.array(rows, "<f4")
    return Tensor(name, "FP32", array.shape, array.tobytes())


def iris() -> Sample:
    """The three species by the measurements of one flower of each."""
    rows = json.loads((EXAMPLES / "iris/request.json").read_text())["instances"]
    refused = [
        floats("petals", rows),
        floats("measurements", [[1.0, 2.0, 3.0]]),
        Tensor("measurements", "INT64", (1, 4), bytes(32)),
    ]
    return Sample(
        route("iris", "1", Server.TF_SERVING),
        [Ask(InferenceRequest((floats("measurements", [row]),)), [species]) for species, row in enumerate(rows)],
        [InferenceRequest((tensor,)) for tensor in refused],
        lambda response: np.frombuffer(tensors_of(response, ("species",))[0].data, "<i8").tolist(),
    )


DIGITS = (
    ((EXAMPLES / "digits/request.json").read_bytes(), JSON, 4),
    ((EXAMPLES / "digits/seven.png").read_bytes(), "image/png", 7),
)
NO_DIGITS = ((b'{"image": [1, 2]}', JSON), (b"[", "application/octet-stream"), (b"\x89PNG\r\n\x1a\n?", "image/png"))


def digits_by_body() -> Sample:
    """A four as JSON and a seven as PNG, sent as a body with a content type."""
    return Sample(
        route("digits", "1.0", Server.TORCHSERVE),
        [Ask(raw_request(body, content_type), digit) for body, content_type, digit in DIGITS],
        [raw_request(body, content_type) for body, content_type in NO_DIGITS],
        lambda response: json.loads(body_of(response))["digit"],
    )


def digits_by_parts() -> Sample:
    """The same, sent as the one named part of a request."""

    def part(body: bytes) -> InferenceRequest:
        return InferenceRequest((Tensor("image", "BYTES", (1,), pack_bytes([body])),), form=Form.PARTS)

    sample = digits_by_body()
    return replace(
        sample,
        asks=[Ask(part(body), digit) for body, _, digit in DIGITS],
        refused=[part(body) for body, _ in NO_DIGITS],
    )


@dataclass
class Case:
    """A backend that is served a sample, and what can be done to the way there."""

    backend: Backend
    sample: Sample
    relays: Sequence[Relay] = ()

    async def ask(self, index: int = 0, timeout: float = PATIENCE) -> Any:
        response = await self.backend.infer(self.sample.route, self.sample.asks[index].request, timeout)
        return self.sample.read(response)

    async def streamed(self, index: int = 0) -> list[Any]:
        """The answers of all that a stream gives, none of which is a piece."""
        stream = self.backend.stream(self.sample.route, self.sample.asks[index].request, PATIENCE)
        responses = [response async for response in stream]
        assert not any(response.partial for response in responses)
        return [self.sample.read(response) for response in responses]

    async def refusal(self, timeout: float = PATIENCE) -> PorticoError:
        """What a good request fails with."""
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(PorticoError) as caught:
                await self.ask(timeout=timeout)
        return caught.value

    async def cut(self) -> None:
        if isinstance(self.backend, FakeBackend):
            self.backend.go_down()
        for relay in self.relays:
            await relay.cut()

    async def restore(self) -> None:
        if isinstance(self.backend, FakeBackend):
            self.backend.go_on()
        for relay in self.relays:
            await relay.restore()

    def hang(self) -> None:
        if isinstance(self.backend, FakeBackend):
            self.backend.hang()
        for relay in self.relays:
            relay.hang()


Open = Callable[[AsyncExitStack], Any]


@dataclass(frozen=True)
class Served:
    """A sample, and the addresses (host:port) of the server that has it: gRPC, and REST if it is needed."""

    sample: Sample
    addresses: Sequence[str] = ()


def fake_case(sample: Sample) -> Case:
    """The fake, as a TorchServe that knows the two digits."""

    def model(request: InferenceRequest) -> InferenceResponse:
        for ask in sample.asks:
            if ask.request == request:
                return raw_response(json.dumps({"digit": ask.answer}).encode(), JSON)
        raise InvalidRequest(f"that is no image for {sample.route.model}")

    return Case(FakeBackend({sample.route.servable: model}), sample)


async def real_case(stack: AsyncExitStack, served: Served) -> Case:
    """The adapter for a server, with a relay before each of its addresses."""
    relays = []
    for address in served.addresses:
        host, _, port = address.rpartition(":")
        relays.append(Relay(host, int(port)))
        await relays[-1].restore()
        stack.push_async_callback(relays[-1].cut)
    channel = await stack.enter_async_context(open_channel(relays[0].address, LIMIT))
    if served.sample.route.server is Server.TF_SERVING:
        return Case(TFServing(channel, LIMIT), served.sample, relays)
    http = await stack.enter_async_context(aiohttp.ClientSession())
    return Case(TorchServe(channel, http, f"http://{relays[1].address}", LIMIT), served.sample, relays)


async def load(loader: Loader, address: str, servable: Servable) -> None:
    """Loads as soon as the server answers, which may be a moment after it listens."""
    try:
        async with asyncio.timeout(2 * PATIENCE):
            while True:
                await loader.replicas()
                try:
                    return await loader.load(address, servable)
                except ReplicaUnreachable:
                    await asyncio.sleep(0.2)
    finally:
        await loader.close()


def loaded(process: Process, loader: Loader, sample: Sample, path: str) -> None:
    """Loads a demo model under the name that the sample's route has."""
    servable = replace(Servable.of_route(sample.route), path=path)
    asyncio.run(load(loader, process.address, servable))


@pytest.fixture(scope="module")
def tf_serving_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """TF Serving with the iris model."""
    stage = tmp_path_factory.mktemp("stage")
    process = tf_serving(stage, tmp_path_factory.mktemp("tf"))
    process.start()
    try:
        loaded(process, TFServingLoader(process.address, Stage(stage, MODELS), PATIENCE), iris(), "iris/1")
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="module")
def torchserve_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """TorchServe with the digits model."""
    stage = tmp_path_factory.mktemp("stage")
    process = torchserve(stage / "torchserve", tmp_path_factory.mktemp("ts"))
    process.start()
    try:
        adapter = TorchServeLoader(process.address, Stage(stage, MODELS), PATIENCE)
        loaded(process, adapter, digits_by_body(), "digits.mar")
        yield process
    finally:
        process.stop()


def torchserve_addresses(process: Process) -> tuple[str, str]:
    """Its inference APIs: gRPC, REST."""
    settings = process._environment
    return f"127.0.0.1:{settings['TS_GRPC_INFERENCE_PORT']}", settings["TS_INFERENCE_ADDRESS"].removeprefix("http://")


@pytest.fixture(scope="module", params=["fake", "TF Serving", "TorchServe by body", "TorchServe by parts"])
def served(request: pytest.FixtureRequest) -> Served:
    """Something that is served; the process that does lives as long as the module's tests."""
    if request.param == "fake":
        return Served(digits_by_body())
    if request.param == "TF Serving":
        process: Process = request.getfixturevalue("tf_serving_process")
        return Served(iris(), [process.address])
    sample = digits_by_body() if request.param.endswith("body") else digits_by_parts()
    return Served(sample, torchserve_addresses(request.getfixturevalue("torchserve_process")))


@pytest.fixture
async def case(served: Served) -> AsyncIterator[Case]:
    """A backend of its own for each test."""
    async with AsyncExitStack() as stack:
        yield await real_case(stack, served) if served.addresses else fake_case(served.sample)


async def test_answers(case: Case) -> None:
    """Each request is answered by what the model makes of it."""
    for index, ask in enumerate(case.sample.asks):
        assert await case.ask(index) == ask.answer


async def test_a_stream_of_a_whole_answer(case: Case) -> None:
    """A model that answers whole is streamed as that one answer, and is asked again as well as before."""
    for index, ask in enumerate(case.sample.asks):
        assert await case.streamed(index) == [ask.answer]
        assert await case.ask(index) == ask.answer


async def test_answers_at_the_same_time(case: Case) -> None:
    """Calls that run side by side each get their own answer."""
    indices = [number % len(case.sample.asks) for number in range(20)]
    answers = await asyncio.gather(*(case.ask(index) for index in indices))
    assert answers == [case.sample.asks[index].answer for index in indices]


async def test_input_that_the_model_does_not_take(case: Case) -> None:
    """Input that the model cannot read is the client's to mend, and told in terms that it knows."""
    for request in case.sample.refused:
        with pytest.raises(InvalidRequest) as caught:
            await case.backend.infer(case.sample.route, request, PATIENCE)
        assert str(caught.value)
        with pytest.raises(InvalidRequest, match=re.escape(str(caught.value))):
            await anext(case.backend.stream(case.sample.route, request, PATIENCE))
        assert case.sample.route.servable not in str(caught.value)
        assert "Exception" not in str(caught.value)
    assert await case.ask() == case.sample.asks[0].answer


async def test_a_servable_that_is_not_there(case: Case) -> None:
    """A servable that the server does not know is a model that will be ready again, and its inner name is not told."""
    unknown = replace(case.sample.route, servable=f"{case.sample.route.model}--ffffffffffff")
    with pytest.raises(ModelNotReady) as caught:
        await case.backend.infer(unknown, case.sample.asks[0].request, PATIENCE)
    with pytest.raises(ServableLost):
        await anext(case.backend.stream(unknown, case.sample.asks[0].request, PATIENCE))
    assert "Try again" in str(caught.value)
    assert "ffffffffffff" not in str(caught.value)
    assert "Exception" not in str(caught.value)


async def test_ping(case: Case) -> None:
    """A server that answers can be pinged."""
    await case.backend.ping(PATIENCE)


async def test_a_server_that_is_gone(case: Case) -> None:
    """A server that is gone is unavailable at once, and not when the call's time is up; no address is told."""
    await case.cut()
    error = await case.refusal(timeout=10 * PATIENCE)
    assert type(error) is Unavailable
    assert "127.0.0.1" not in str(error)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Unavailable):
            await case.backend.ping(10 * PATIENCE)


async def test_a_server_that_goes_while_it_is_asked(case: Case) -> None:
    """A call whose server goes away ends as unavailable, and does not wait for its deadline."""
    assert await case.ask() == case.sample.asks[0].answer
    case.hang()
    call = asyncio.create_task(case.refusal(timeout=10 * PATIENCE))
    await asyncio.sleep(0.2)
    assert not call.done()
    await case.cut()
    assert type(await call) is Unavailable


async def test_a_server_that_comes_back(case: Case) -> None:
    """When a server is back, the same backend reaches it again."""
    await case.cut()
    assert type(await case.refusal()) is Unavailable
    await case.restore()
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                assert await case.ask() == case.sample.asks[0].answer
                break
            except Unavailable:
                await asyncio.sleep(0.1)
    await case.backend.ping(PATIENCE)


@pytest.mark.parametrize("connected", [False, True])
async def test_a_server_that_hangs(case: Case, connected: bool) -> None:
    """A server that does not answer in time is a deadline exceeded, and to a ping unavailable."""
    if connected:
        await case.ask()
    case.hang()
    assert type(await case.refusal(timeout=0.2)) is DeadlineExceeded
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Unavailable):
            await case.backend.ping(0.2)


async def test_a_caller_that_does_not_wait(case: Case) -> None:
    """A call that is cancelled ends as cancelled, and the next one is answered."""
    await case.ask()
    case.hang()
    call = asyncio.create_task(case.ask())
    await asyncio.sleep(0.2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await case.restore()
    assert await case.ask(1) == case.sample.asks[1].answer
