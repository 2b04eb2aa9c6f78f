"""Open Inference Protocol (V2) over gRPC: all of `inference.GRPCInferenceService` but what only Triton has, its model
configuration and statistics.

Source: the Open Inference Protocol's `specification/protocol/inference_grpc.md`, and Triton's
`docs/protocol/extension_{model_repository,sequence}.md` for the repository and the stream.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from time import monotonic
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from portico import __version__
from portico.codecs.open_inference_proto import (
    decode_request,
    encode_response,
    is_raw,
    parse_request,
    serialize_response,
)
from portico.dispatch import Answer, Dispatcher
from portico.edges.grpc import Abort, Call, Method
from portico.edges.status import GrpcCode
from portico.errors import DeadlineExceeded, InvalidRequest, ModelNotReady, NotFound, PorticoError
from portico.inference import InferenceRequest
from portico.protocols.listing import versions
from portico.protocols.open_inference import EXTENSIONS, FILES_DEPLOY, NAME, describe, outputs_of, waited_for
from portico.routing import Route, Server, State, TensorSpec
from portico.wire import open_inference_pb2 as oip

_SERVICE = "/inference.GRPCInferenceService/"
_FINAL = "triton_final_response"
"""Parameter of a stream's response: no other response to the same request follows."""
_EMPTY_FINAL = "triton_enable_empty_final_response"
"""Parameter of a request: a response without outputs, that says so, may be the last."""

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

    async def model_infer(self, message: bytes, call: Call) -> tuple[bytes, ...]:
        try:
            request, raw = parse_request(message)
        except DecodeError as error:
            raise InvalidRequest(f"The message is no ModelInferRequest: {error}.") from error
        route, decoded = self._decoded(request, raw)
        answer = call.answer = await self._dispatcher.infer(route, decoded, call.deadline, call)
        outputs = outputs_of(answer, decoded)
        return serialize_response(answer.route.model, answer.route.version, decoded.id, outputs, bool(raw))

    async def model_stream_infer(self, messages: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes]:
        """Answers one request after the other, in their order; one that fails does not end the stream.

        A handler that answers in pieces is heard piece by piece, each an output "body", BYTES [1].
        """
        async for message in messages:
            request = oip.ModelInferRequest()
            try:
                request = _parsed(oip.ModelInferRequest, message)
                async with aclosing(self._streamed(request, call)) as responses:
                    async for response, is_final in responses:
                        yield _streamed(oip.ModelStreamInferResponse(infer_response=response), is_final)
            except PorticoError as error:
                failed = oip.ModelStreamInferResponse(error_message=str(error))
                yield _streamed(_about(failed, request), True)

    async def _streamed(
        self, request: oip.ModelInferRequest, call: Call
    ) -> AsyncGenerator[tuple[oip.ModelInferResponse, bool]]:
        """(response, whether it is the last). A piece is the last only if nothing follows, which is known when nothing
        has; so each is held back until then, but for clients that take an empty response as the end.
        """
        ends = monotonic() + self._timeout
        route, decoded = self._decoded(request)
        takes_empty = request.parameters[_EMPTY_FINAL].bool_param if _EMPTY_FINAL in request.parameters else False
        held: oip.ModelInferResponse | None = None
        failed: list[PorticoError] = []
        async with aclosing(self._answers(route, decoded, min(call.deadline, ends), call)) as answers:
            while (answer := await self._next(answers, ends, failed)) is not None:
                response = _response(request, decoded, answer)
                if not answer.response.partial:
                    yield response, True
                    return
                if takes_empty:
                    yield response, False
                    held = encode_response(route.model, answer.route.version, decoded.id, (), False)
                    continue
                if held is not None:
                    yield held, False
                held = response
        if held is not None and not (failed and takes_empty):
            yield held, not failed
        if failed:
            raise failed[0]

    async def _answers(
        self, route: Route, request: InferenceRequest, deadline: float, call: Call
    ) -> AsyncGenerator[Answer]:
        """The answer, or its pieces where the server has models that answer so."""
        if route.server is not Server.TORCHSERVE:
            yield await self._dispatcher.infer(route, request, deadline, call)
            return
        async with aclosing(self._dispatcher.stream(route, request, deadline, call)) as answers:
            async for answer in answers:
                yield answer

    async def _next(self, answers: AsyncGenerator[Answer], ends: float, failed: list[PorticoError]) -> Answer | None:
        """The next answer, None if there is none; the error that came in its place, or that the time of a request is
        over, is put into `failed`.
        """
        try:
            async with asyncio.timeout(ends - monotonic()):
                return await anext(answers, None)
        except PorticoError as error:
            failed.append(error)
        except TimeoutError:
            failed.append(DeadlineExceeded(f"No answer within {self._timeout:g} s (PORTICO_REQUEST_TIMEOUT)."))
        return None

    def _decoded(self, request: oip.ModelInferRequest, raw: Sequence[bytes] = ()) -> tuple[Route, InferenceRequest]:
        if not request.model_name:
            raise InvalidRequest("The request names no model: 'model_name' is empty.")
        route = self._dispatcher.resolve(request.model_name, request.model_version)
        return route, decode_request(request, bool(route.signatures), raw)

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


def _response(request: oip.ModelInferRequest, decoded: InferenceRequest, answer: Answer) -> oip.ModelInferResponse:
    tensors = outputs_of(answer, decoded)
    return encode_response(answer.route.model, answer.route.version, decoded.id, tensors, is_raw(request))


def _about(failed: oip.ModelStreamInferResponse, request: oip.ModelInferRequest) -> oip.ModelStreamInferResponse:
    failed.infer_response.id = request.id
    failed.infer_response.model_name = request.model_name
    failed.infer_response.model_version = request.model_version
    return failed


def _streamed(response: oip.ModelStreamInferResponse, is_final: bool) -> bytes:
    response.infer_response.parameters[_FINAL].bool_param = is_final
    return response.SerializeToString()


def _parsed(kind: type[_Request], message: bytes) -> _Request:
    """Raises InvalidRequest."""
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise InvalidRequest(f"The message is no {kind.DESCRIPTOR.name}: {error}.") from error


def _described(spec: TensorSpec) -> _Tensor:
    """The protocol has no shape for any rank: such a tensor has no sizes, as in Triton."""
    return _Tensor(name=spec.name, datatype=spec.datatype, shape=spec.shape or ())
