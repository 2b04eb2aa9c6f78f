"""Drives TF Serving through its `tensorflow.serving.ModelService`.

Its configuration is one list that is replaced whole; it cannot be read back. So this adapter remembers for each replica
what it has put there, and asks after everything on the stage to take up what another controller did before it.
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import grpc
from google.protobuf.wrappers_pb2 import Int64Value

from portico.codecs.signatures import decode_signatures
from portico.controller.loaders import LoaderError, LoadState, Report, Status
from portico.controller.loaders.channels import CallFailed, Channels, TimedOut
from portico.controller.loaders.rotation import Rotation
from portico.controller.servable import Servable
from portico.controller.stage import Stage
from portico.routing import Server, Signature
from portico.wire import tf_serving_pb2 as tfs

PLATFORM = "tensorflow"
_MODELS = "/tensorflow.serving.ModelService"
_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
_SIGNATURE_DEF = "signature_def"
_State = tfs.ModelVersionStatus.State
_STATES: Mapping[int, LoadState] = {
    _State.START: LoadState.LOADING,
    _State.LOADING: LoadState.LOADING,
    _State.AVAILABLE: LoadState.READY,
    _State.UNLOADING: LoadState.UNLOADING,
}

_UNDER_WAY = (LoadState.LOADING, LoadState.UNLOADING)

_NOBODY = Servable("portico", "", "1", Server.TF_SERVING, "1", "", "")
"""Asked for when there is nothing to ask for, to see whether somebody answers."""


@dataclass(slots=True)
class _Replica:
    """What one replica was told to serve; `sent` is the list that it has accepted."""

    wanted: dict[str, Servable] = field(default_factory=dict)
    loading: set[str] = field(default_factory=set)
    sent: frozenset[str] | None = None
    ready: dict[str, Status] = field(default_factory=dict)
    rotation: Rotation = field(default_factory=Rotation)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def note(self, servable: Servable, status: Status | None) -> None:
        """Takes up what is there, and drops what is not: the replica was restarted, or has lost the files."""
        if status and status.state in (LoadState.LOADING, LoadState.READY):
            self.wanted.setdefault(servable.name, servable)
        elif servable.name in self.wanted and servable.name not in self.loading:
            del self.wanted[servable.name]
            self.sent = None


class TFServing:
    """Implements `Loader`. `targets` are host:port of the gRPC API, several with commas; `load_timeout` is seconds."""

    server = Server.TF_SERVING

    def __init__(self, targets: str, stage: Stage, load_timeout: float) -> None:
        self._stage = stage
        self._load_timeout = load_timeout
        self._channels = Channels(targets)
        self._replicas: dict[str, _Replica] = {}
        self._signatures: dict[str, Mapping[str, Signature]] = {}

    async def replicas(self) -> tuple[str, ...]:
        addresses = await self._channels.addresses()
        for address in self._replicas.keys() - set(addresses):
            del self._replicas[address]
        return addresses

    async def report(self, address: str, known: Iterable[Servable]) -> Report:
        replica = self._replica(address)
        staged = (servable for servable in await self._staged() if servable.server is self.server)
        asked = {servable.name: servable for servable in (*staged, *replica.wanted.values(), *known)}
        again = replica.rotation.next(replica.ready.keys() & asked.keys())
        states = {name: await self._status(address, asked[name]) for name in again}
        if all(status and status.state is LoadState.READY for status in states.values()):
            states |= {name: status for name, status in replica.ready.items() if name in asked and name not in states}
        for name, servable in asked.items():
            if name not in states:
                states[name] = await self._status(address, servable)
        if not states:
            await self._status(address, _NOBODY)
        for name, status in states.items():
            replica.note(asked[name], status)
        found = {name: status for name, status in states.items() if status and status.state is not LoadState.FAILED}
        replica.ready = {name: status for name, status in found.items() if status.state is LoadState.READY}
        return found

    async def load(self, address: str, servable: Servable) -> None:
        replica = self._replica(address)
        if replica.sent and servable.name in replica.sent and servable.name not in replica.wanted:
            # It failed before. TF Serving tries again only what was out of its list in between.
            await self._reload(address, replica)
        replica.wanted[servable.name] = servable
        replica.loading.add(servable.name)
        try:
            await self._reload(address, replica)
            status = await self._ended(address, servable)
            if status is None or status.state is LoadState.FAILED:
                raise LoaderError(status.reason if status else "TF Serving did not find its files")
        except LoaderError:
            # A reload fails, or takes too long, for the sake of any model in the list.
            if not await self._is_ready(address, servable):
                replica.wanted.pop(servable.name, None)
                raise
        finally:
            replica.loading.discard(servable.name)

    async def _is_ready(self, address: str, servable: Servable) -> bool:
        try:
            status = await self._status(address, servable)
        except LoaderError:
            return False
        return status is not None and status.state is LoadState.READY

    async def unload(self, address: str, name: str) -> None:
        replica = self._replica(address)
        dropped = replica.wanted.pop(name, None)
        replica.ready.pop(name, None)
        try:
            await self._reload(address, replica)
        except LoaderError:
            if dropped:
                replica.wanted.setdefault(name, dropped)
            raise
        if not any(name in other.wanted for other in self._replicas.values()):
            self._signatures.pop(name, None)

    async def close(self) -> None:
        await self._channels.close()

    def _replica(self, address: str) -> _Replica:
        return self._replicas.setdefault(address, _Replica())

    async def _reload(self, address: str, replica: _Replica) -> None:
        """Sends the list as it is when its turn comes; what has joined in the meantime goes with it."""
        await asyncio.sleep(0)
        async with replica.turn:
            names = frozenset(replica.wanted)
            if names == replica.sent:
                return
            wanted = [servable for _, servable in sorted(replica.wanted.items())]
            await self._put(wanted, replica.sent or frozenset())
            request = tfs.ReloadConfigRequest()
            request.config.model_config_list.config.extend(map(self._config, wanted))
            replica.sent = None
            method = f"{_MODELS}/HandleReloadConfigRequest"
            try:
                await self._channels.call(address, method, request, tfs.ReloadConfigResponse, self._load_timeout)
            except TimedOut as error:
                raise LoaderError(f"TF Serving did not load it within {self._load_timeout:.0f} s") from error
            except CallFailed as error:
                # UNKNOWN says that some model in the list failed to load. The list is in force all the same.
                if error.code is not grpc.StatusCode.UNKNOWN:
                    raise LoaderError(f"TF Serving refused its configuration: {error}") from error
            replica.sent = names

    async def _staged(self) -> list[Servable]:
        try:
            return await asyncio.to_thread(self._stage.known)
        except OSError as error:
            raise LoaderError(str(error)) from error

    async def _put(self, servables: Collection[Servable], sent: Collection[str]) -> None:
        """All of the list, not just what is new: with one base path missing TF Serving loads nothing any more, and a
        reload that waits for a load waits without end, with every later one behind it.
        """

        def put() -> None:
            for servable in servables:
                if servable.name not in sent:
                    self._stage.put(servable)
            self._stage.keep_whole(servable for servable in servables if servable.name in sent)

        try:
            await asyncio.to_thread(put)
        except OSError as error:
            raise LoaderError(str(error)) from error

    async def _ended(self, address: str, servable: Servable) -> Status | None:
        """The status once it has come to an end: a reload may return before that, while the last unload goes on."""
        deadline = time.monotonic() + self._load_timeout
        status = await self._status(address, servable)
        while status and status.state in _UNDER_WAY and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            status = await self._status(address, servable)
        if status and status.state in _UNDER_WAY:
            raise LoaderError(f"TF Serving did not load it within {self._load_timeout:.0f} s")
        return status

    def _config(self, servable: Servable) -> tfs.ModelConfig:
        config = tfs.ModelConfig(
            name=servable.name, base_path=self._stage.base_path(servable.name), model_platform=PLATFORM
        )
        config.model_version_policy.specific.versions.append(int(servable.servable_version))
        return config

    async def _status(self, address: str, servable: Servable) -> Status | None:
        request = tfs.GetModelStatusRequest(model_spec=_spec(servable))
        try:
            answer = await self._channels.call(
                address, f"{_MODELS}/GetModelStatus", request, tfs.GetModelStatusResponse
            )
        except CallFailed as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                return None
            raise
        for version in answer.model_version_status:
            if version.state == _State.END:
                failed = version.status.error_code != 0
                return (
                    Status(LoadState.FAILED, self._explain(version.status.error_message, servable)) if failed else None
                )
            state = _STATES.get(version.state)
            if state is LoadState.READY:
                return Status(state, signatures=await self._signatures_of(address, servable))
            return Status(state) if state else None
        return None

    def _explain(self, text: str, servable: Servable) -> str:
        """In terms of the repository: people see neither the stage nor the name."""
        if servable.path:
            text = text.replace(f"{self._stage.base_path(servable.name)}/{servable.servable_version}", servable.path)
        return f"TF Serving could not load it: {text.replace(servable.name, servable.model)}"

    async def _signatures_of(self, address: str, servable: Servable) -> Mapping[str, Signature]:
        """A name stands for one content, so it is asked for once."""
        known = self._signatures.get(servable.name)
        if known is not None:
            return known
        request = tfs.GetModelMetadataRequest(model_spec=_spec(servable), metadata_field=[_SIGNATURE_DEF])
        answer = await self._channels.call(address, _METADATA, request, tfs.GetModelMetadataResponse)
        signatures = tfs.SignatureDefMap()
        answer.metadata[_SIGNATURE_DEF].Unpack(signatures)
        return self._signatures.setdefault(servable.name, decode_signatures(signatures))


def _spec(servable: Servable) -> tfs.ModelSpec:
    return tfs.ModelSpec(name=servable.name, version=Int64Value(value=int(servable.servable_version)))
