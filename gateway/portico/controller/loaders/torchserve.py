"""Drives TorchServe 0.12 through its gRPC management API (`org.pytorch.serve.grpc.management`).

Each servable is a model of its own in TorchServe, so that an archive whose version did not change is loaded beside the
one before.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc

from portico.controller.loaders import LoaderError, LoadState, Report, Status
from portico.controller.loaders.channels import CALL_TIMEOUT, CallFailed, Channels, TimedOut, resolve
from portico.controller.loaders.rotation import Rotation
from portico.controller.servable import Servable, is_generated
from portico.routing import Server
from portico.wire import torchserve_management_pb2 as ts

PAGE = 100
"""TorchServe gives at most 100 models at once (ApiUtils.getModelList)."""
UNLOAD_TIMEOUT = 120.0
"""Seconds for a worker to end; TorchServe kills it after `unregister_model_timeout`."""
LOADS = 4
"""Loads at one time in one replica: each starts a worker process."""

_SERVICE = "/org.pytorch.serve.grpc.management.ManagementAPIsService"
_GONE = "TorchServe did not find the archive: does it see the same model repository as the controller?"
_NO_WORKER = "TorchServe could not start a worker: the model's handler failed to load; TorchServe's log says why"

READY = Status(LoadState.READY)


@dataclass(slots=True)
class _Seen:
    """What the last report found ready in one replica."""

    ready: set[str] = field(default_factory=set)
    rotation: Rotation = field(default_factory=Rotation)


class TorchServe:
    """Implements `Loader`. `target` is host:port of the management API.

    TorchServe's model store is the model repository. It takes no folders in the name of an archive, and so only those
    at the root can be loaded (ModelArchive.downloadModel).
    """

    server = Server.TORCHSERVE

    def __init__(self, target: str, load_timeout: float) -> None:
        self._target = target
        self._load_timeout = load_timeout
        self._channels = Channels()
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._seen: dict[str, _Seen] = {}

    async def replicas(self) -> tuple[str, ...]:
        addresses = await resolve(self._target)
        await self._channels.keep(addresses)
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
            status = found.get(name) or await self._status(address, name)
            if status is not None:
                found[name] = status
        seen.ready = {name for name, status in found.items() if status.state is LoadState.READY}
        return found

    async def load(self, address: str, servable: Servable) -> None:
        async with self._slots.setdefault(address, asyncio.Semaphore(LOADS)):
            await self._load(address, servable)

    async def _load(self, address: str, servable: Servable) -> None:
        if "/" in servable.path:
            raise LoaderError("TorchServe loads archives from the root of the model repository only: move it there")
        if await self._status(address, servable.name):
            return
        # What is left of a load that failed, or whose controller died, is in the way of the next one.
        await self.unload(address, servable.name)
        request = ts.RegisterModelRequest(
            url=servable.path, model_name=servable.name, initial_workers=1, synchronous=True
        )
        try:
            await self._call(address, "RegisterModel", request, self._load_timeout)
        except TimedOut as error:
            await self.unload(address, servable.name)
            raise LoaderError(f"TorchServe did not load it within {self._load_timeout:.0f} s") from error
        except CallFailed as error:
            await self.unload(address, servable.name)
            raise LoaderError(_explain(error, servable)) from error

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


def _explain(error: CallFailed, servable: Servable) -> str:
    text = str(error).partition("\n")[0]
    if text.startswith("Failed to start workers") or text == "Error while creating workers":
        return _NO_WORKER
    if text.startswith("Model not found at"):
        return _GONE
    return f"TorchServe refused it: {text.replace(servable.name, servable.model)}"
