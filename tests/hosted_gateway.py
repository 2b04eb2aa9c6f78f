"""A gateway of models for fuzzing: all datatypes, all wires, examples. Each model is asked as its real server is, so
that what the gateway writes for it is written.
"""

import json
from collections.abc import Callable
from dataclasses import replace

from echo_models import DATATYPES
from fakes import FakeModel
from hostile_tensors import Known
from portico.backends.tf_serving import _message
from portico.codecs.handler import raw_response, request_body
from portico.inference import InferenceRequest, InferenceResponse, Tensor, pack_bytes
from portico.routing import CallPolicy, Model, Route, RouteTable, Server, Signature, State, TensorSpec, Wire
from portico.wire import open_inference_pb2 as oip
from sample_gateway import PREDICT, SampleGateway, model, parsed

LIMIT = 64 << 20
"""Bytes of a message: as in production, far above what any call of the tests is allowed to cost."""

EXAMPLES = (TensorSpec("inputs", "BYTES", (-1,)),)
TASKS = {
    "serving_default": Signature(
        EXAMPLES, (TensorSpec("classes", "BYTES", (-1, 2)), TensorSpec("scores", "FP32", (-1, 2))), "classify"
    ),
    "regress": Signature(EXAMPLES, (TensorSpec("outputs", "FP32", (-1,)),), "regress"),
}
DECLARED = {
    **{name: Signature((TensorSpec("x", name, None),), (TensorSpec("y", name, None),), PREDICT) for name in DATATYPES},
    "rows": Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 4)),), PREDICT),
}
KNOWN = Known(
    inputs={
        name: ("x", spec.inputs[0].datatype, (1, 4) if spec.inputs[0].shape else (2,))
        for name, spec in DECLARED.items()
    },
    handlers=tuple(f"handler_{wire}" for wire in Wire),
    examples=("tasks",),
    words=("body", "signature_name", "content_type", "binary_data", "serving_default", "regress", "signature_def", "1"),
)


def echo(request: InferenceRequest) -> InferenceResponse:
    """x as y."""
    return InferenceResponse(tuple(Tensor("y", one.datatype, one.shape, one.data) for one in request.inputs))


def labelled(request: InferenceRequest) -> InferenceResponse:
    """Two classes, or one value, for each example."""
    rows = request.inputs[0].shape[0]
    if request.signature == "regress":
        return InferenceResponse((Tensor("outputs", "FP32", (rows,), bytes(4 * rows)),))
    classes = Tensor("classes", "BYTES", (rows, 2), pack_bytes([b"a", b"b"] * rows))
    return InferenceResponse((classes, Tensor("scores", "FP32", (rows, 2), bytes(8 * rows))))


def handled(request: InferenceRequest) -> InferenceResponse:
    """What any of the handlers answers: JSON that fits each wire."""
    tensor = {"name": "y", "datatype": "FP32", "shape": [1], "data": [1]}
    body = json.dumps({"predictions": [1], "explanations": [1], "outputs": [tensor]}).encode()
    return raw_response(body, "application/json")


class HostedGateway(SampleGateway):
    """Models of all datatypes, handlers of all wires, and a model for examples."""

    def __init__(self) -> None:
        tf = {
            name: model(name, Server.TF_SERVING, {"1": State.READY}, {"serving_default": spec})
            for name, spec in DECLARED.items()
        }
        tf["tasks"] = model("tasks", Server.TF_SERVING, {"1": State.READY}, TASKS)
        torch = {f"handler_{wire}": _with(wire) for wire in Wire}
        super().__init__(table=RouteTable(tf | torch))
        self.tf_serving.servables = {
            route.servable: _asked(route, _message, labelled if name == "tasks" else echo)
            for name, entry in tf.items()
            for route in _routes(entry)
        }
        self.torchserve.servables = {
            route.servable: _asked(route, lambda route, request: request_body(request, route.policy.wire), handled)
            for entry in torch.values()
            for route in _routes(entry)
        }
        self.grpc_edge._max_bytes = self.rest_edge._max_bytes = LIMIT

    def good_request(self) -> oip.ModelInferRequest:
        """One that is answered with the same 8 bytes."""
        request = oip.ModelInferRequest(model_name="FP32", raw_input_contents=[bytes(8)])
        request.inputs.add(name="x", datatype="FP32", shape=[2])
        return request

    async def good(self) -> None:
        """A call that has to be answered whatever came before."""
        infer = "/inference.GRPCInferenceService/ModelInfer"
        answer = await self.grpc(infer, self.good_request(), [(b"cache-control", b"no-cache")])
        assert parsed(answer, oip.ModelInferResponse).raw_output_contents == [bytes(8)]


def _with(wire: Wire) -> Model:
    entry = model(f"handler_{wire}", Server.TORCHSERVE, {"1": State.READY})
    version = entry.versions["1"]
    assert version.route is not None
    return replace(entry, versions={"1": replace(version, route=replace(version.route, policy=CallPolicy(wire=wire)))})


def _routes(entry: Model) -> list[Route]:
    return [version.route for version in entry.versions.values() if version.route is not None]


def _asked(route: Route, written: Callable[[Route, InferenceRequest], object], answer: FakeModel) -> FakeModel:
    def ask(request: InferenceRequest) -> InferenceResponse:
        written(route, request)
        return answer(request)

    return ask
