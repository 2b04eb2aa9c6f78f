"""Warm-up requests: which files are taken, what is run, and what is said of the one that fails."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes import FakeBackend, FakeModel
from portico.codecs.handler import raw_response
from portico.controller.loaders import LoaderError, ReplicaUnreachable
from portico.controller.warmup import MAX_REQUESTS, warm_up
from portico.errors import InferenceFailed
from portico.inference import InferenceRequest, InferenceResponse
from portico.ports import Backend
from portico.routing import CallPolicy, Route, Server, Signature, TensorSpec, Wire

X = {"serving_default": Signature((TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y", "FP32", (-1,)),))}
IRIS = Route("iris", "2", Server.TF_SERVING, "iris--0123456789ab", "2", "print", X)
DIGITS = Route("digits", "1.0", Server.TORCHSERVE, "digits--0123456789ab", "1.0", "print")
ADDRESS = "10.0.0.7:8500"


def x(*values: float, **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [len(values)], "data": list(values)}], **more}


def same(request: InferenceRequest) -> InferenceResponse:
    """A model that answers what it is asked."""
    return InferenceResponse(request.inputs)


class Replica:
    """One replica with the two models; `opened` are the connections to it, `open` how many there are now."""

    def __init__(self, model: FakeModel = same) -> None:
        self.backend = FakeBackend({IRIS.servable: model, DIGITS.servable: model})
        self.opened: list[tuple[Server, str]] = []
        self.open = 0

    @asynccontextmanager
    async def connect(self, server: Server, address: str) -> AsyncIterator[Backend]:
        self.opened.append((server, address))
        self.open += 1
        try:
            yield self.backend
        finally:
            self.open -= 1

    @property
    def asked(self) -> list[bytes]:
        return [request.inputs[0].data for _, request, _ in self.backend.calls]


def written(folder: Path, requests: Iterable[Any], name: str = "warmup.jsonl") -> str:
    lines = (request if isinstance(request, str) else json.dumps(request) for request in requests)
    (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return name


async def failure(replica: Replica, route: Route, folder: Path, name: str, limit: float = 20.0) -> LoaderError:
    with pytest.raises(LoaderError) as raised:
        await warm_up(replica.connect, ADDRESS, route, folder, name, limit)
    assert replica.open == 0
    return raised.value


async def test_requests_are_run_in_their_order(tmp_path: Path) -> None:
    """Each request of the file reaches the one replica, in order, on one connection that is closed afterwards."""
    replica = Replica()
    name = written(tmp_path, [x(1), "", x(2), "  ", x(3)])
    assert await warm_up(replica.connect, ADDRESS, IRIS, tmp_path, name, 20) == 3
    assert replica.asked == [bytes.fromhex(value) for value in ("0000803f", "00000040", "00004040")]
    assert (replica.opened, replica.open) == ([(Server.TF_SERVING, ADDRESS)], 0)
    assert [route for route, _, _ in replica.backend.calls] == [IRIS] * 3


async def test_what_a_request_may_say(tmp_path: Path) -> None:
    """Outputs, signature and content type of a request are heeded, and its bytes may be base64."""
    replica = Replica()
    name = written(tmp_path, [x(1, outputs=[{"name": "y"}], parameters={"signature_name": "serving_default"})])
    replica.backend.servables[IRIS.servable] = lambda request: InferenceResponse(
        (replace(request.inputs[0], name="y"),)
    )
    await warm_up(replica.connect, ADDRESS, IRIS, tmp_path, name, 20)
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [{"b64": "iVBORw=="}]}
    written(tmp_path, [{"inputs": [image], "parameters": {"content_type": "image/png"}}])
    await warm_up(replica.connect, ADDRESS, DIGITS, tmp_path, name, 20)
    (_, first, _), (_, second, _) = replica.backend.calls
    assert (first.outputs, first.signature) == (("y",), "serving_default")
    assert (second.content_type, replica.asked[1]) == ("image/png", b"\x04\0\0\0\x89PNG")


async def test_each_worker_gets_one(tmp_path: Path) -> None:
    """Copies of a request are under way at the same time, and the next one waits for all of them."""
    together: list[int] = []
    both = asyncio.Barrier(2)

    class Counting(FakeBackend):
        async def infer(self, route: Route, request: InferenceRequest, timeout: float) -> InferenceResponse:
            together.append(request.inputs[0].data[-1])
            await both.wait()
            return same(request)

    replica = Replica()
    replica.backend = Counting()
    name = written(tmp_path, [x(1), x(-1)])
    assert await warm_up(replica.connect, ADDRESS, IRIS, tmp_path, name, 20, copies=2) == 2
    assert together == [0x3F, 0x3F, 0xBF, 0xBF]


async def test_a_model_that_fails(tmp_path: Path) -> None:
    """The first request that fails ends it, and is told by its number with the model's reason."""

    def fail(request: InferenceRequest) -> InferenceResponse:
        if request.inputs[0].data == bytes(4):
            raise InferenceFailed("the graph divided by zero")
        return same(request)

    replica = Replica(fail)
    name = written(tmp_path, [x(1), "", x(0), x(2)])
    error = await failure(replica, IRIS, tmp_path, name)
    assert str(error) == "warm-up request 2: the graph divided by zero"
    assert not isinstance(error, ReplicaUnreachable)
    assert len(replica.backend.calls) == 2


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ("{", "warm-up request 2: The body is not JSON"),
        ({}, "warm-up request 2: The body needs a list 'inputs'"),
        (
            {"inputs": [{"name": "z", "datatype": "FP32", "shape": [1], "data": [1]}]},
            "2: Model 'iris' has no input 'z'",
        ),
        (x(1, outputs=[{"name": "z"}]), "warm-up request 2: Model 'iris' has no output 'z'. Its outputs: y"),
        (x(1, parameters={"signature_name": "train"}), "warm-up request 2: Model 'iris' has no signature 'train'"),
    ],
)
async def test_a_request_that_does_not_fit(tmp_path: Path, request_: Any, says: str) -> None:
    """A request that the model does not take fails with what the model takes, and does not reach it."""
    replica = Replica()
    error = await failure(replica, IRIS, tmp_path, written(tmp_path, [x(1), request_]))
    assert str(error).startswith(says) or says in str(error)
    assert len(replica.backend.calls) == 1


async def test_a_handler_of_another_form(tmp_path: Path) -> None:
    """A handler that does not answer as the model's policy says has failed its warm-up."""
    route = replace(DIGITS, policy=CallPolicy(wire=Wire.KSERVE_V2))
    error = await failure(Replica(lambda _: raw_response(b"[1]", "")), route, tmp_path, written(tmp_path, [x(1)]))
    assert "warm-up request 1: The handler's answer is not of the form 'kserve_v2'" in str(error)


async def test_a_replica_that_goes_away(tmp_path: Path) -> None:
    """A replica that cannot be reached is told as that: it is no fault of the version's."""
    replica = Replica()
    replica.backend.go_down()
    error = await failure(replica, IRIS, tmp_path, written(tmp_path, [x(1)]))
    assert isinstance(error, ReplicaUnreachable)
    assert str(error) == "warm-up request 1: The fake model server cannot be reached now."


async def test_the_time_limit(tmp_path: Path) -> None:
    """A warm-up that takes longer than its limit has failed, and goes no further."""
    replica = Replica()
    replica.backend.hang()
    error = await failure(replica, IRIS, tmp_path, written(tmp_path, [x(1), x(2)]), limit=0.05)
    assert str(error).startswith("warm-up request 1: ")
    assert len(replica.backend.calls) == 1


async def test_a_caller_that_stops(tmp_path: Path) -> None:
    """A warm-up that is cancelled leaves no call and no connection behind."""
    replica = Replica()
    replica.backend.hang()
    name = written(tmp_path, [x(1)])
    task = asyncio.create_task(warm_up(replica.connect, ADDRESS, IRIS, tmp_path, name, 20, copies=3))
    async with asyncio.timeout(20):
        while len(replica.backend.calls) < 3:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (replica.backend.cancelled, replica.open) == (3, 0)


@pytest.mark.parametrize(
    ("requests", "says"),
    [
        ([], "the warm-up file warmup.jsonl holds no requests"),
        (["", " "], "the warm-up file warmup.jsonl holds no requests"),
        ([x(1)] * (MAX_REQUESTS + 1), "the warm-up file warmup.jsonl holds more than 1000 requests"),
    ],
)
async def test_files_that_are_refused(tmp_path: Path, requests: list[Any], says: str) -> None:
    """A file with no requests, or with too many, is refused before anything is loaded, and run by nobody."""
    name = written(tmp_path, requests)
    replica = Replica()
    assert says in str(await failure(replica, IRIS, tmp_path, name))
    assert not replica.opened


async def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A file that is not there is named."""
    error = await failure(Replica(), IRIS, tmp_path, "absent.jsonl")
    assert str(error) == "its warm-up file cannot be read: No such file or directory: absent.jsonl"


async def test_a_link_out_of_the_repository(tmp_path: Path) -> None:
    """A link that leads out of the repository is not followed; one inside of it is."""
    repository = tmp_path / "models"
    repository.mkdir()
    written(tmp_path, [x(1)], "outside.jsonl")
    (repository / "out.jsonl").symlink_to(tmp_path / "outside.jsonl")
    error = await failure(Replica(), IRIS, repository, "out.jsonl")
    assert str(error) == "the warm-up file out.jsonl lies outside of the repository"
    (repository / "in.jsonl").symlink_to(repository / written(repository, [x(1)]))
    assert await warm_up(Replica().connect, ADDRESS, IRIS, repository, "in.jsonl", 20) == 1
