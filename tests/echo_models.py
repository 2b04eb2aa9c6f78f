"""A gateway whose models give back what they are given: for each datatype `echo-<datatype>`, on TF Serving, with an
input `x` and an output `y` of any shape; and `body`, a TorchServe handler that answers what `answer` says.
"""

from dataclasses import replace

from portico.codecs.handler import raw_response
from portico.inference import ITEM_SIZE, InferenceRequest, InferenceResponse
from portico.routing import RouteTable, Server, Signature, State, TensorSpec
from sample_gateway import PREDICT, SampleGateway, model

DATATYPES = (*ITEM_SIZE, "BYTES")


def echo(request: InferenceRequest) -> InferenceResponse:
    """x as y."""
    return InferenceResponse(tuple(replace(tensor, name=tensor.name.replace("x", "y")) for tensor in request.inputs))


class EchoGateway(SampleGateway):
    """`answer` and `content_type` are what the handler gives."""

    answer, content_type = b"", "application/json"

    def __init__(self, timeout: float = 20.0) -> None:
        signatures = {
            name: {
                "serving_default": Signature((TensorSpec("x", name, None),), (TensorSpec("y", name, None),), PREDICT)
            }
            for name in DATATYPES
        }
        two = Signature(
            (TensorSpec("x1", "FP32", (-1,)), TensorSpec("x2", "BYTES", (-1,))),
            (TensorSpec("y1", "FP32", (-1,)), TensorSpec("y2", "BYTES", (-1,))),
            PREDICT,
        )
        signatures |= {"two": {"serving_default": two}}
        models = [
            model(f"echo-{name}", Server.TF_SERVING, {"1": State.READY}, found) for name, found in signatures.items()
        ]
        models.append(model("body", Server.TORCHSERVE, {"1.0": State.READY}))
        super().__init__(timeout, RouteTable({entry.name: entry for entry in models}))
        self.tf_serving.servables = {f"echo-{name}-1--loaded": echo for name in signatures}
        self.torchserve.servables = {"body-1.0--loaded": lambda _: raw_response(self.answer, self.content_type)}
