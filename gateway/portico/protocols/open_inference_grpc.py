"""Open Inference Protocol (V2) over gRPC: all of `inference.GRPCInferenceService` but what only Triton has, its model
configuration and statistics.

Source: the Open Inference Protocol's `specification/protocol/inference_grpc.md`, and Triton's
`docs/protocol/extension_{model_repository,sequence}.md` for the repository and the stream.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from time import monotonic
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from portico import __version__
from portico.codecs.open_inference_proto import decode_request, encode_response, is_raw
from portico.dispatch import Answer, Caller, Dispatcher
from portico.edges.grpc import Abort, Call, Method
from portico.edges.status import GrpcCode
from portico.errors import DeadlineExceeded, InvalidRequest, ModelNotReady, NotFound, PorticoError
from portico.protocols.listing import versions
from portico.protocols.open_inference import EXTENSIONS, FILES_DEPLOY, NAME, describe, outputs_of, waited_for
from portico.routing import State, TensorSpec
from portico.wire import open_inference_pb2 as oip

_SERVICE = "/inference.GRPCInferenceService/"
_FINAL = "triton_final_response"
"""Parameter of a stream's response: no other response to the same request follows."""

_Request = TypeVar("_Request", bound=Message)
_Tensor = oip.ModelMetadataResponse.TensorMetadata


class OpenInferenceGrpc:
    """One method per RPC. `timeout` (s) is that of each request of a stream."""

    def __init__(self, dispatcher: Dispatcher, timeout: float) -> None:
        self._dispatcher = dispatcher
        self._timeout = timeout

    def methods(self) -> Iterable[Method]:
        yield Method(_SERVICE + "ServerLive", self.server_live)
        yield Method(_SERVICE + "ServerReady", self.server_ready)
        yield Method(_SERVICE + "ModelReady", self.model_ready)
        yield Method(_SERVICE + "ServerMetadata", self.server_metadata)
        yield Method(_SERVICE + "ModelMetadata", self.model_metadata)
        yield Method(_SERVICE + "ModelInfer", self.model_infer)
        yield Method(_SERVICE + "ModelStreamInfer", both=self.model_stream_infer, lasting=True)
        yield Method(_SERVICE + "RepositoryIndex", self.repository_index)
        yield Method(_SERVICE + "RepositoryModelLoad", self.repository_model_load)
        yield Method(_SERVICE + "RepositoryModelUnload", self.repository_model_load)

    async def server_live(self, message: bytes, call: Call) -> bytes:
        return oip.ServerLiveResponse(live=True).SerializeToString()

    async def server_ready(self, message: bytes, call: Call) -> bytes:
        """Ready means that every model of the repository is."""
        try:
            ready = not waited_for(self._dispatcher.table)
        except ModelNotReady:
            ready = False
        return oip.ServerReadyResponse(ready=ready).SerializeToString()

    async def model_ready(self, message: bytes, call: Call) -> bytes:
        """A model that is not there is not ready, and no error: clients wait in this way for one to be deployed."""
        request = _parsed(oip.ModelReadyRequest, message)
        try:
            status = self._dispatcher.table.model(request.name).status(request.version)
            ready = status.state is State.READY
        except (NotFound, ModelNotReady):
            ready = False
        return oip.ModelReadyResponse(ready=ready).SerializeToString()

    async def server_metadata(self, message: bytes, call: Call) -> bytes:
        return oip.ServerMetadataResponse(name=NAME, version=__version__, extensions=EXTENSIONS).SerializeToString()

    async def model_metadata(self, message: bytes, call: Call) -> bytes:
        request = _parsed(oip.ModelMetadataRequest, message)
        found = describe(self._dispatcher.table.model(request.name), request.version)
        return oip.ModelMetadataResponse(
            name=found.name,
            versions=found.versions,
            platform=found.platform,
            inputs=[_described(spec) for spec in found.signature.inputs],
            outputs=[_described(spec) for spec in found.signature.outputs],
        ).SerializeToString()

    async def model_infer(self, message: bytes, call: Call) -> bytes:
        request = _parsed(oip.ModelInferRequest, message)
        answer, response = await self._infer(request, call.deadline, call)
        call.answer = answer
        return response.SerializeToString()

    async def model_stream_infer(self, messages: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes]:
        """Answers one request after the other, in their order; one that fails does not end the stream."""
        async for message in messages:
            request = oip.ModelInferRequest()
            try:
                request = _parsed(oip.ModelInferRequest, message)
                response = await self._infer_in_time(request, call)
                streamed = oip.ModelStreamInferResponse(infer_response=response)
            except PorticoError as error:
                streamed = oip.ModelStreamInferResponse(error_message=str(error))
                streamed.infer_response.id = request.id
                streamed.infer_response.model_name = request.model_name
                streamed.infer_response.model_version = request.model_version
            streamed.infer_response.parameters[_FINAL].bool_param = True
            yield streamed.SerializeToString()

    async def _infer_in_time(self, request: oip.ModelInferRequest, call: Call) -> oip.ModelInferResponse:
        try:
            async with asyncio.timeout(self._timeout):
                _, response = await self._infer(request, min(call.deadline, monotonic() + self._timeout), call)
                return response
        except TimeoutError:
            raise DeadlineExceeded(f"No answer within {self._timeout:g} s (PORTICO_REQUEST_TIMEOUT).") from None

    async def _infer(
        self, request: oip.ModelInferRequest, deadline: float, caller: Caller
    ) -> tuple[Answer, oip.ModelInferResponse]:
        if not request.model_name:
            raise InvalidRequest("The request names no model: 'model_name' is empty.")
        route = self._dispatcher.resolve(request.model_name, request.model_version)
        decoded = decode_request(request, bool(route.signatures))
        answer = await self._dispatcher.infer(route, decoded, deadline, caller)
        served, tensors = answer.route, outputs_of(answer, decoded)
        return answer, encode_response(served.model, served.version, decoded.id, tensors, is_raw(request))

    async def repository_index(self, message: bytes, call: Call) -> bytes:
        request = _parsed(oip.RepositoryIndexRequest, message)
        response = oip.RepositoryIndexResponse()
        for model, version in versions(self._dispatcher.table, request.ready):
            response.models.add(
                name=model.name, version=version.version, state=version.state.value, reason=version.reason
            )
        return response.SerializeToString()

    async def repository_model_load(self, message: bytes, call: Call) -> bytes:
        """Refused, whatever the model, and so is to unload one."""
        raise Abort(GrpcCode.PERMISSION_DENIED, FILES_DEPLOY)


def _parsed(kind: type[_Request], message: bytes) -> _Request:
    """Raises InvalidRequest."""
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise InvalidRequest(f"The message is no {kind.DESCRIPTOR.name}: {error}.") from error


def _described(spec: TensorSpec) -> _Tensor:
    """The protocol has no shape for any rank: such a tensor has no sizes, as in Triton."""
    return _Tensor(name=spec.name, datatype=spec.datatype, shape=spec.shape or ())
