"""Drives TorchServe 0.12 through its gRPC management API (`org.pytorch.serve.grpc.management`).

Each servable is a model of its own in TorchServe, so that an archive whose version did not change is loaded beside the
one before.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc

from portico.controller.loaders import LoaderError, LoadState, Report, Status
from portico.controller.loaders.channels import CALL_TIMEOUT, CallFailed, Channels, TimedOut
from portico.controller.loaders.rotation import Rotation
from portico.controller.servable import Servable, is_generated
from portico.controller.stage import ARCHIVE, Stage
from portico.routing import Server
from portico.wire import torchserve_management_pb2 as ts

PAGE = 100
"""TorchServe gives at most 100 models at once (ApiUtils.getModelList)."""
UNLOAD_TIMEOUT = 120.0
"""Seconds for a worker to end; TorchServe kills it after `unregister_model_timeout`."""
LOADS = 4
"""Loads at one time in one replica: each starts a worker process."""

_SERVICE = "/org.pytorch.serve.grpc.management.ManagementAPIsService"
_GONE = "TorchServe did not find the archive: does it see the same model repository and stage as the controller?"
_NO_WORKER = "TorchServe could not start a worker: the model's handler failed to load; TorchServe's log says why"

READY = Status(LoadState.READY)


@dataclass(slots=True)
class _Seen:
    """What the last report found ready in one replica."""

    ready: set[str] = field(default_factory=set)
    waiting: dict[str, float] = field(default_factory=dict)
    rotation: Rotation = field(default_factory=Rotation)


class TorchServe:
    """Implements `Loader`. `targets` are host:port of the management API, several with commas; timeouts are seconds.

    TorchServe's model store is on the stage, since it takes no folders in the name of an archive
    (ModelArchive.downloadModel). It follows links, unpacks to a folder of its own, and deletes nothing in its store.
    """

    server = Server.TORCHSERVE

    def __init__(self, targets: str, stage: Stage, load_timeout: float) -> None:
        self._stage = stage
        self._load_timeout = load_timeout
        self._channels = Channels(targets)
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._seen: dict[str, _Seen] = {}
        self._loading: set[tuple[str, str]] = set()

    async def replicas(self) -> tuple[str, ...]:
        addresses = await self._channels.addresses()
        for address in self._seen.keys() - set(addresses):
            del self._seen[address]
        return addresses

    async def report(self, address: str, known: Iterable[Servable]) -> Report:
        names = [name async for name in self._names(address) if is_generated(name)]
        seen = self._seen.setdefault(address, _Seen())
        ready = [name for name in names if name in seen.ready]
        again = set(seen.rotation.next(ready))
        found: dict[str, Status] = {name: READY for name in ready if name not in again}
        for name in names:
            under_way = Status(LoadState.LOADING) if (address, name) in self._loading else None
            status = under_way or found.get(name) or await self._status(address, name)
            if status is not None:
                found[name] = status
        self._give_up_on_the_stuck(seen, found, address)
        seen.ready = {name for name, status in found.items() if status.state is LoadState.READY}
        return found

    def _stuck(self, address: str) -> Collection[str]:
        now = time.monotonic()
        waiting = self._seen[address].waiting if address in self._seen else {}
        return [name for name, since in waiting.items() if now - since > self._load_timeout]

    def _give_up_on_the_stuck(self, seen: _Seen, found: dict[str, Status], address: str) -> None:
        """TorchServe stops starting a worker again after some minutes, and lists it for ever: whatever loads for longer
        than a load may take, and not for us, counts as not loaded.
        """
        now = time.monotonic()
        loading = {name for name, status in found.items() if status.state is LoadState.LOADING}
        loading -= {name for where, name in self._loading if where == address}
        seen.waiting = {name: seen.waiting.get(name, now) for name in loading}
        for name in self._stuck(address):
            del found[name]

    async def load(self, address: str, servable: Servable) -> None:
        async with self._slots.setdefault(address, asyncio.Semaphore(LOADS)):
            # Its first worker is ready before the last one, which may fail.
            stuck = servable.name in self._stuck(address)
            self._loading.add((address, servable.name))
            try:
                await self._load(address, servable, stuck)
            finally:
                self._loading.discard((address, servable.name))

    async def _load(self, address: str, servable: Servable, stuck: bool) -> None:
        if not stuck and await self._status(address, servable.name):
            return
        # What is left of a load that failed, or whose controller died, is in the way of the next one.
        await self.unload(address, servable.name)
        try:
            await asyncio.to_thread(self._stage.put, servable)
            await self._call(address, "RegisterModel", _registration(servable), self._load_timeout)
            await self._scale(address, servable)
        except OSError as error:
            raise LoaderError(str(error)) from error
        except TimedOut as error:
            await self.unload(address, servable.name)
            raise LoaderError(f"TorchServe did not load it within {self._load_timeout:.0f} s") from error
        except CallFailed as error:
            await self.unload(address, servable.name)
            raise LoaderError(_explain(error, servable)) from error

    async def _scale(self, address: str, servable: Servable) -> None:
        """An archive's own minWorkers wins over those of its registration (ApiUtils.handleRegister)."""
        workers = servable.options.workers
        if workers is None:
            return
        (model,) = await self._call(address, "DescribeModel", ts.DescribeModelRequest(model_name=servable.name))
        if model.get("minWorkers") == model.get("maxWorkers") == workers:
            return
        request = ts.ScaleWorkerRequest(
            model_name=servable.name, min_worker=workers, max_worker=workers, synchronous=True
        )
        await self._call(address, "ScaleWorker", request, self._load_timeout)

    async def unload(self, address: str, name: str) -> None:
        try:
            await self._call(address, "UnregisterModel", ts.UnregisterModelRequest(model_name=name), UNLOAD_TIMEOUT)
        except CallFailed as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise

    async def close(self) -> None:
        await self._channels.close()

    async def _names(self, address: str) -> AsyncIterator[str]:
        token = 0
        while True:
            answer = await self._call(address, "ListModels", ts.ListModelsRequest(limit=PAGE, next_page_token=token))
            for model in answer.get("models", ()):
                yield str(model["modelName"])
            following = int(answer.get("nextPageToken", 0) or 0)
            if following <= token:
                return
            token = following

    async def _status(self, address: str, name: str) -> Status | None:
        """None for what is registered without a worker: nothing can be asked of it, and loading it again mends it."""
        try:
            answer = await self._call(address, "DescribeModel", ts.DescribeModelRequest(model_name=name))
        except CallFailed as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                return None
            raise
        workers = [worker.get("status") for model in answer for worker in model.get("workers", ())]
        if not workers:
            return None
        return READY if "READY" in workers else Status(LoadState.LOADING)

    async def _call(self, address: str, method: str, request: Any, timeout: float = CALL_TIMEOUT) -> Any:
        answer = await self._channels.call(address, f"{_SERVICE}/{method}", request, ts.ManagementResponse, timeout)
        try:
            return json.loads(answer.msg)
        except ValueError:
            return {"message": answer.msg}


def _registration(servable: Servable) -> ts.RegisterModelRequest:
    """It is answered when all workers are up. What is not set is as the archive says, else as TorchServe's settings."""
    options = servable.options
    return ts.RegisterModelRequest(
        url=servable.name + ARCHIVE,
        model_name=servable.name,
        initial_workers=options.workers or 1,
        batch_size=options.max_batch_size,
        max_batch_delay=options.batch_delay,
        synchronous=True,
    )


def _explain(error: CallFailed, servable: Servable) -> str:
    text = str(error).partition("\n")[0]
    if text.startswith("Failed to start workers") or text == "Error while creating workers":
        return _NO_WORKER
    if text.startswith("Model not found at"):
        return _GONE
    return f"TorchServe refused it: {text.replace(servable.name, servable.model)}"
