"""`ports.Backend` for handlers that do more than answer: the fake, and the adapter for the real TorchServe with the
handlers of `examples/handlers`, are held to the same.
"""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from archives import HANDLERS, pack
from fakes import FakeBackend, in_pieces
from model_servers import Process, torchserve
from portico.backends.channel import open_channel
from portico.backends.torchserve import TorchServe
from portico.codecs.handler import body_of, raw_request, raw_response
from portico.errors import HandlerAnswer, InvalidRequest
from portico.inference import Form, InferenceRequest, InferenceResponse, Tensor, pack_bytes, unpack_bytes
from portico.ports import Backend
from portico.routing import Route, Server

LIMIT = 1 << 20
PATIENCE = 60.0
MODELS = ("words", "score", "shelf")
TEXT = "text/plain; charset=utf-8"


def route(model: str) -> Route:
    return Route(model, "1.0", Server.TORCHSERVE, f"{model}--0123456789ab", "1.0", "print")


def parts(form: Form = Form.PARTS, **contents: str) -> InferenceRequest:
    tensors = (Tensor(name, "BYTES", (1,), pack_bytes([content.encode()])) for name, content in contents.items())
    return InferenceRequest(tuple(tensors), form=form)


def words(request: InferenceRequest) -> InferenceResponse:
    (text,) = unpack_bytes(request.inputs[0].data)
    each = text.split()
    return in_pieces(b"%d words:" % len(each), *(b" " + word for word in each), b"\n")


def score(request: InferenceRequest) -> InferenceResponse:
    weights = {"height": 0.5, "width": 2.0, "weight": -1.0}
    measured = {tensor.name: next(unpack_bytes(tensor.data)) for tensor in request.inputs}
    if "body" in measured:
        measured = json.loads(measured["body"])
    shares = {name: weights[name] * float(measured[name]) for name in weights if name in measured}
    answer = shares if request.explain else {"score": sum(shares.values())}
    return raw_response(json.dumps(answer).encode(), "application/json")


def shelf(request: InferenceRequest) -> InferenceResponse:
    (item,) = unpack_bytes(request.inputs[0].data)
    if item not in (b"tea", b"coffee"):
        body = b"there is no %b on this shelf" % item
        error = InvalidRequest(body.decode())
        error.answer = HandlerAnswer(404, TEXT, body)
        raise error
    return (
        raw_response(b"tea left: 3", TEXT) if item == b"tea" else raw_response(b"coffee is ordered", TEXT, status=202)
    )


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """TorchServe with the example handlers."""
    store = tmp_path_factory.mktemp("store")
    running = torchserve(store, tmp_path_factory.mktemp("ts"))
    running.start()
    try:
        for model in MODELS:
            register(running, store, model)
        yield running
    finally:
        running.stop()


def register(process: Process, store: Path, model: str) -> None:
    archive = store / f"{route(model).servable}.mar"
    pack(HANDLERS / f"{model}.py", archive)
    asked = f"url={archive.name}&model_name={archive.stem}&initial_workers=1&synchronous=true"
    url = f"{process._environment['TS_MANAGEMENT_ADDRESS']}/models?{asked}"
    urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=PATIENCE).close()  # noqa: S310 - http


@pytest.fixture(params=["fake", "TorchServe"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    if request.param == "fake":
        yield FakeBackend({route(entry.__name__).servable: entry for entry in (words, score, shelf)})
        return
    settings = request.getfixturevalue("process")._environment
    async with AsyncExitStack() as stack:
        address = f"127.0.0.1:{settings['TS_GRPC_INFERENCE_PORT']}"
        channel = await stack.enter_async_context(open_channel(address, LIMIT))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield TorchServe(channel, http, settings["TS_INFERENCE_ADDRESS"], LIMIT)


async def asked(backend: Backend, model: str, request: InferenceRequest) -> InferenceResponse:
    return await backend.infer(route(model), request, PATIENCE)


async def streamed(backend: Backend, model: str, request: InferenceRequest) -> list[InferenceResponse]:
    return [piece async for piece in backend.stream(route(model), request, PATIENCE)]


def body(text: str, content_type: str = "text/plain", **more: Any) -> InferenceRequest:
    return raw_request(text.encode(), content_type, **more)


@pytest.mark.parametrize("request_", [body("one two"), parts(text="one two")], ids=["a body", "a part"])
async def test_pieces_as_one(backend: Backend, request_: InferenceRequest) -> None:
    """An answer in pieces is given to a call as one, and the model goes on answering."""
    for _ in range(3):
        response = await asked(backend, "words", request_)
        assert (body_of(response), response.partial) == (b"2 words: one two\n", False)


async def test_pieces_of_a_body(backend: Backend) -> None:
    """An answer in pieces to a body is streamed in pieces, of which nothing is lost."""
    for _ in range(3):
        pieces = await streamed(backend, "words", body("one two"))
        assert b"".join(map(body_of, pieces)) == b"2 words: one two\n"
        assert all(piece.partial for piece in pieces)


async def test_pieces_of_parts(backend: Backend) -> None:
    """An answer in pieces to named parts is streamed in just these pieces, however large and however fast, once the
    model is known to give pieces.
    """
    await streamed(backend, "words", parts(text="one two"))
    for text in ("one two", "", "x" * 100_000 + " y", "größe " * 200):
        pieces = await streamed(backend, "words", parts(text=text))
        each = text.split()
        assert [body_of(piece).decode() for piece in pieces] == [f"{len(each)} words:", *(f" {w}" for w in each), "\n"]
        assert all(piece.partial for piece in pieces)


async def test_streams_and_calls_in_turn(backend: Backend) -> None:
    """A model may be asked in each way after the other, whether it answers in pieces or not: none costs it a worker."""
    requests = [(model, entry) for model in ("words", "shelf") for entry in (body("tea"), parts(item="tea"))]
    for _ in range(3):
        for model, request in requests:
            whole = body_of(await asked(backend, model, request))
            assert b"".join(map(body_of, await streamed(backend, model, request))) == whole


@pytest.mark.parametrize("streams", [False, True])
async def test_explanations(backend: Backend, streams: bool) -> None:
    """An explanation is another answer than the prediction, whatever form the request has."""
    measured = {"height": 3.0, "width": 1.5}
    numbers = [Tensor(name, "FP64", (), np.float64(value).tobytes()) for name, value in measured.items()]
    for request in (
        body(json.dumps(measured), "application/json"),
        parts(height="3", width="1.5"),
        parts(Form.TENSORS, height="3", width="1.5"),
        *([] if isinstance(backend, FakeBackend) else [InferenceRequest(tuple(numbers))]),
    ):
        for explain, expected in ((False, {"score": 4.5}), (True, {"height": 1.5, "width": 3.0})):
            answer = await asked_or_streamed(backend, "score", _with(request, explain), streams)
            assert json.loads(body_of(answer)) == expected


def _with(request: InferenceRequest, explain: bool) -> InferenceRequest:
    return InferenceRequest(request.inputs, form=request.form, content_type=request.content_type, explain=explain)


async def asked_or_streamed(
    backend: Backend, model: str, request: InferenceRequest, streams: bool
) -> InferenceResponse:
    if not streams:
        return await asked(backend, model, request)
    (answer,) = await streamed(backend, model, request)
    return answer


@pytest.mark.parametrize("streams", [False, True])
async def test_a_handlers_own_status(backend: Backend, streams: bool) -> None:
    """A handler's status of failure is an error that carries its answer; one of success is told with the answer."""
    for item in (body("milk"), parts(item="milk")):
        with pytest.raises(InvalidRequest) as caught:
            await asked_or_streamed(backend, "shelf", item, streams)
        assert caught.value.answer == HandlerAnswer(404, TEXT, b"there is no milk on this shelf")
        assert str(caught.value) == "there is no milk on this shelf"
    answer = await asked_or_streamed(backend, "shelf", body("coffee"), streams)
    assert (answer.status, body_of(answer), answer.content_type) == (202, b"coffee is ordered", TEXT)


async def test_a_stream_that_is_left(backend: Backend) -> None:
    """Who leaves a stream after its first piece leaves the model as it was."""
    for request in (body("one two"), parts(text="one two")):
        for _ in range(2):
            stream = backend.stream(route("words"), request, PATIENCE)
            await anext(stream)
            await stream.aclose()
            async with asyncio.timeout(PATIENCE):
                assert body_of(await asked(backend, "words", request)) == b"2 words: one two\n"
