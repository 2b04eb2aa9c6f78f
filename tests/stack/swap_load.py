"""A steady load on models that answer with the number of their content, and a judge of each answer."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import aiohttp
import grpc

from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs
from portico.wire import torchserve_pb2 as ts

CALL_SECONDS = 30.0
PAUSE = 0.04
"""Seconds between two calls of one model."""
FRESH = (("cache-control", "no-cache"),)

Call = Callable[[str, int, bool], Awaitable[int]]
"""(model, a number to ask with, whether past the cache) → the content that answered. Raises if there is no answer."""


@dataclass
class Watched:
    """A model under load. `history` are the contents that might answer, from one change to the next; the last now."""

    name: str
    call: Call
    history: list[frozenset[int]] = field(default_factory=lambda: [frozenset()])
    answers: int = 0
    failures: list[str] = field(default_factory=list)

    def allow(self, *contents: int) -> None:
        """From now on, until the next time, these contents may answer."""
        self.history.append(frozenset(contents))

    @property
    def allowed(self) -> frozenset[int]:
        """The contents that may answer now."""
        return self.history[-1]

    async def ask(self, number: int, fresh: bool) -> None:
        """One call; what is wrong with its answer is noted."""
        epoch, began = len(self.history) - 1, time.monotonic()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                content = await self.call(self.name, number, fresh)
        except Exception as error:
            took = time.monotonic() - began
            self.note(f"failed after {took:.2f} s: {type(error).__name__}: {error}")
            return
        self.answers += 1
        # Answers to calls that were under way while it changed may come from either side of each change.
        allowed = frozenset[int]().union(*self.history[epoch:])
        if content not in allowed:
            self.note(f"answered by {content}, allowed were {sorted(allowed)}")

    def note(self, failure: str) -> None:
        """A failure, with the time, by which the logs of the stack can be read beside it."""
        self.failures.append(f"{datetime.now().astimezone():%H:%M:%S.%f} {self.name}: {failure}"[:500])

    async def until(self, content: int, seconds: float, *, may_fail: bool = False) -> None:
        """Returns when a fresh call is answered by `content`. Calls count like all others, unless they `may_fail`."""
        deadline = time.monotonic() + seconds
        found: object = None
        while time.monotonic() < deadline:
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    found = await self.call(self.name, 0, True)
            except Exception as error:
                found = error
                if not may_fail:
                    self.note(f"a call in wait for {content} failed: {error!r}")
            if found == content:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{self.name}: not {content} within {seconds:g} s, but {found!r}")


@dataclass
class Clients:
    """One way to call each kind of model by each kind of API."""

    http: aiohttp.ClientSession
    channel: grpc.aio.Channel

    @classmethod
    @asynccontextmanager
    async def open(cls, port: int) -> "AsyncIterator[Clients]":
        """Connections to the door, kept open."""
        base = f"http://127.0.0.1:{port}"
        async with (
            aiohttp.ClientSession(base, raise_for_status=False) as http,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            yield cls(http, channel)

    async def tf_rest(self, model: str, number: int, fresh: bool) -> int:
        answer = await self._post(f"/v1/models/{model}:predict", f'{{"instances": [{number}.0]}}', fresh)
        return int(json_number(answer, "predictions"))

    async def tf_grpc(self, model: str, number: int, fresh: bool) -> int:
        request = tfs.PredictRequest()
        request.model_spec.name = model
        x = request.inputs["x"]
        x.dtype = tf.DT_FLOAT
        x.tensor_shape.dim.add(size=1)
        x.float_val.append(number)
        predict = self.channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=tfs.PredictRequest.SerializeToString,
            response_deserializer=tfs.PredictResponse.FromString,
        )
        answer = await predict(request, timeout=CALL_SECONDS, metadata=FRESH if fresh else ())
        return int(answer.outputs["y"].float_val[0])

    async def torch_rest(self, model: str, number: int, fresh: bool) -> int:
        return int(await self._post(f"/predictions/{model}", str(number), fresh))

    async def torch_grpc(self, model: str, number: int, fresh: bool) -> int:
        request = ts.PredictionsRequest(model_name=model, input={"data": str(number).encode()})
        predictions = self.channel.unary_unary(
            "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions",
            request_serializer=ts.PredictionsRequest.SerializeToString,
            response_deserializer=ts.PredictionResponse.FromString,
        )
        answer = await predictions(request, timeout=CALL_SECONDS, metadata=FRESH if fresh else ())
        return int(answer.prediction)

    async def _post(self, path: str, body: str, fresh: bool) -> bytes:
        headers = dict(FRESH) if fresh else {}
        async with self.http.post(path, data=body, headers=headers) as response:
            answer = await response.read()
            if response.status != 200:
                raise AssertionError(f"{response.status} {answer[:300]!r}")
            return answer


def json_number(answer: bytes, key: str) -> float:
    """The one number in a JSON answer {key: [number]}."""
    return float(json.loads(answer)[key][0])


@asynccontextmanager
async def load_on(models: list[Watched]) -> AsyncIterator[None]:
    """Calls every model again and again, in turn past the cache and through it, until the context is left."""

    over = asyncio.Event()

    async def drive(model: Watched) -> None:
        for number in itertools.count():
            if over.is_set():
                return
            await model.ask(number // 2 % 10, fresh=number % 2 == 0)
            await asyncio.sleep(PAUSE)

    tasks = [asyncio.create_task(drive(model)) for model in models]
    try:
        yield
    finally:
        over.set()  # not cancelled: on Python 3.11, libraries may lose that
        await asyncio.gather(*tasks, return_exceptions=True)
