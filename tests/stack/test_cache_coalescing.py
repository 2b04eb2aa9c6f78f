"""Identical requests that come while the first is under way share its call of the model, in one gateway and across
gateways, whatever becomes of the first.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from cache_clients import MODEL_INFER
from cache_models import calls, new_log, put_handler, remove, served
from door import Door
from second_gateway import SecondGateway, second_gateway

from portico.local.stack import Stack
from portico.wire import open_inference_pb2 as oip

MODEL = "coalesced"
CROWD = 1000
SLOW = 2.0
"""Seconds that the model takes, in which a crowd arrives."""
ARRIVAL = 2.0
"""Seconds in which a few requests have got to where they wait, on any machine."""
PATIENCE = 30.0
"""Seconds after which a client takes it that nobody will answer; a request itself may take 60."""

Said = tuple[int, str, bytes]
"""Status, x-cache, body."""


@pytest.fixture(scope="module", autouse=True)
def model(stack: Stack, door: Door, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A handler with one worker, that does what it is told."""
    put_handler(stack, "counted", MODEL, tmp_path_factory.mktemp("coalesced"))
    with served(door, MODEL):
        yield
        remove(stack.models, MODEL)


@pytest.fixture(scope="module")
def second(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecondGateway]:
    """Another gateway."""
    with second_gateway(stack, tmp_path_factory.mktemp("second")) as gateway:
        yield gateway


@asynccontextmanager
async def client(port: int) -> AsyncIterator[aiohttp.ClientSession]:
    """Any number of connections to a gateway."""
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(PATIENCE)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector, timeout=timeout) as session:
        yield session


async def infer(session: aiohttp.ClientSession, asked: Mapping[str, Any]) -> Said:
    """By Open Inference."""
    tensor = {"name": "x", "datatype": "BYTES", "shape": [1], "data": [json.dumps(asked)]}
    async with session.post(f"/v2/models/{MODEL}/infer", json={"inputs": [tensor]}) as answer:
        return answer.status, answer.headers.get("x-cache", ""), await answer.read()


async def predictions(session: aiohttp.ClientSession, asked: Mapping[str, Any]) -> Said:
    """By TorchServe's API, whose answers might come in pieces."""
    headers = {"content-type": "text/plain"}
    async with session.post(f"/predictions/{MODEL}", data=json.dumps(asked), headers=headers) as answer:
        return answer.status, answer.headers.get("x-cache", ""), await answer.read()


async def until_called(log: Path, times: int = 1) -> None:
    """Returns when the model has begun."""
    async with asyncio.timeout(PATIENCE):
        while calls(log) < times:
            await asyncio.sleep(0.02)


Ask = Callable[[aiohttp.ClientSession, Mapping[str, Any]], Awaitable[Said]]
BOTH = pytest.mark.parametrize("ask", [infer, predictions])


@BOTH
async def test_a_crowd_over_two_gateways_is_one_call(
    stack: Stack, second: SecondGateway, tmp_path: Path, ask: Ask
) -> None:
    """A thousand identical requests for what nobody has asked before: the model sees one, and all get its answer."""
    log = new_log(tmp_path)
    asked = {"log": str(log), "sleep": SLOW}
    async with client(stack.addresses.gateway) as one, client(second.door.port) as other:
        said = await asyncio.gather(*(ask((one, other)[index % 2], asked) for index in range(CROWD)))
    assert Counter(status for status, _, _ in said) == {200: CROWD}
    assert len({body for _, _, body in said}) == 1
    seen = Counter(x_cache for _, x_cache, _ in said)
    assert (calls(log), seen["MISS"]) == (1, 1), seen
    assert seen["COALESCED"] + seen["HIT"] == CROWD - 1, seen
    assert seen["COALESCED"] > 0


async def test_who_leaves_ends_it_for_nobody(stack: Stack, second: SecondGateway, tmp_path: Path) -> None:
    """Neither the client that came first, nor one with a short deadline, nor one at the other gateway: the call goes
    on for those who wait.
    """
    log, gate = new_log(tmp_path), tmp_path / "gate"
    asked = {"log": str(log), "gate": str(gate)}
    async with client(stack.addresses.gateway) as one, client(second.door.port) as other:
        first = asyncio.create_task(infer(one, asked))
        await until_called(log)
        leaves = asyncio.create_task(infer(other, asked))
        stay = [asyncio.create_task(infer(session, asked)) for session in (one, other) for _ in range(3)]
        late = asyncio.create_task(short_deadline(stack.addresses.gateway, asked))
        assert await late is grpc.StatusCode.DEADLINE_EXCEEDED
        for task in (first, leaves):
            task.cancel()
        await asyncio.wait((first, leaves))
        await asyncio.sleep(0.5)  # the gateways notice
        assert not any(task.done() for task in stay)
        gate.touch()
        said = await asyncio.gather(*stay)
    assert {status for status, _, _ in said} == {200}
    assert {x_cache for _, x_cache, _ in said} == {"COALESCED"}
    assert calls(log) == 1


async def short_deadline(port: int, asked: Mapping[str, Any]) -> grpc.StatusCode:
    """What a gRPC client is told that waits half a second for the same."""
    request = oip.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="x", datatype="BYTES", shape=[1]).contents.bytes_contents.append(json.dumps(asked).encode())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(MODEL_INFER)(request.SerializeToString(), timeout=0.5)
        return await call.code()


@BOTH
async def test_a_gateway_that_dies_costs_one_lease(stack: Stack, tmp_path: Path, ask: Ask) -> None:
    """The gateway that asks the model is killed: those who wait at the other one get the answer of one more call."""
    log = new_log(tmp_path)
    asked = {"log": str(log), "sleep": 1.0}
    with second_gateway(stack, tmp_path / "dies") as dies:
        await leader_dies(stack, dies, asked, ask)
    assert calls(log) == 2


async def leader_dies(stack: Stack, dies: SecondGateway, asked: Mapping[str, Any], ask: Ask) -> None:
    """Asks at both gateways, kills the one that asks the model, and checks what is said at the other."""
    async with client(stack.addresses.gateway) as one, client(dies.door.port) as other:
        lost = asyncio.create_task(ask(other, asked))
        await until_called(Path(asked["log"]))
        waiting = [asyncio.create_task(ask(one, asked)) for _ in range(20)]
        await asyncio.sleep(0.3)
        dies.kill()
        with pytest.raises(aiohttp.ClientError):
            await lost
        said = await asyncio.gather(*waiting)
    assert Counter((status, x_cache) for status, x_cache, _ in said) == {(200, "MISS"): 1, (200, "COALESCED"): 19}


async def test_a_lease_lasts_as_long_as_its_gateway(stack: Stack, second: SecondGateway, tmp_path: Path) -> None:
    """A model that takes longer than a lease is asked once all the same."""
    log = new_log(tmp_path)
    asked = {"log": str(log), "sleep": 5.0}
    async with client(stack.addresses.gateway) as one, client(second.door.port) as other:
        said = await asyncio.gather(*(infer(session, asked) for session in (one, other)))
    assert calls(log) == 1
    assert sorted(x_cache for _, x_cache, _ in said) == ["COALESCED", "MISS"]


@BOTH
async def test_a_failure_goes_to_all_who_wait(stack: Stack, second: SecondGateway, tmp_path: Path, ask: Ask) -> None:
    """The model fails once, at both gateways all get its error, and nothing is kept: who asks later asks anew."""
    log, fail, gate = new_log(tmp_path), tmp_path / "fail", tmp_path / "gate"
    fail.touch()
    asked = {"log": str(log), "gate": str(gate), "fail": str(fail)}
    async with client(stack.addresses.gateway) as one, client(second.door.port) as other:
        first = asyncio.create_task(ask(one, asked))
        await until_called(log)
        rest = [asyncio.create_task(ask(session, asked)) for session in (one, other) for _ in range(20)]
        await asyncio.sleep(ARRIVAL)
        gate.touch()
        said = await asyncio.gather(first, *rest)
        assert (len({(status, body) for status, _, body in said}), calls(log)) == (1, 1), said
        assert said[0][0] >= 500
        fail.unlink()
        again = [await ask(session, asked) for session in (one, other, one)]
    assert [status for status, _, _ in again] == [200] * 3
    assert (again[0][1], calls(log)) == ("MISS", 2)
