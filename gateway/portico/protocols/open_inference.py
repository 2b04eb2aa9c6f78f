"""What the Open Inference Protocol says about the server and its models, the same over REST and gRPC. TF Serving's
protocols say the same of a model that declares nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from portico.codecs.handler import BODY, tensors_of
from portico.dispatch import Answer
from portico.errors import PorticoError
from portico.inference import InferenceRequest, Tensor
from portico.routing import (
    DEFAULT_SIGNATURE,
    Model,
    Route,
    RouteTable,
    Server,
    Signature,
    State,
    TensorSpec,
    Wire,
)
from portico.validation import signature_of

NAME = "portico"
EXTENSIONS = ("binary_tensor_data", "model_repository")
"""Triton's names for what Portico has beyond the protocol."""

PLATFORM = {Server.TF_SERVING: "tensorflow_savedmodel", Server.TORCHSERVE: "pytorch_torchserve"}

FILES_DEPLOY = (
    "Models are loaded and unloaded by their files: put them into the model repository, or take them away. No call "
    "does it."
)

_NOTHING = Signature((), ())
_RAW_BODY = Signature(
    (TensorSpec(BODY, "BYTES", (1,)),), (TensorSpec(BODY, "BYTES", (1,)),), "tensorflow/serving/predict"
)
_RAW_WIRES = frozenset({Wire.AUTO, Wire.RAW})


@dataclass(frozen=True, slots=True)
class Description:
    """Metadata of a model: `versions` that can be called, and the tensors of its default signature."""

    name: str
    versions: tuple[str, ...]
    platform: str
    signature: Signature


def describe(model: Model, version: str) -> Description:
    """What is known of a model's version, or of the one that answers a call without one. Raises VersionNotFound.

    A TorchServe model declares nothing. Where its policy leaves that possible, it has one input and one output that
    every such model has, both called "body", BYTES [1]: what its handler reads and what it answers, as they are. It
    also takes tensors of any names, and answers JSON of numbers as tensors, if "body" is not asked for by its name.
    """
    status = model.status(version)
    versions = tuple(entry.version for entry in model.versions.values() if entry.route)
    return Description(
        model.name, versions, PLATFORM[model.server] if model.server else "", _signature_to_describe(status.route)
    )


def _signature_to_describe(route: Route | None) -> Signature:
    """The default one, else the only one."""
    if route is None:
        return _NOTHING
    if not route.signatures:
        return _RAW_BODY if route.server is Server.TORCHSERVE and route.policy.wire in _RAW_WIRES else _NOTHING
    try:
        return signature_of(route, DEFAULT_SIGNATURE) or _NOTHING
    except PorticoError:
        return next(iter(route.signatures.values()))


def described_signatures(route: Route) -> Mapping[str, Signature]:
    """Those that the model declares; else, as the default one, what `describe` tells of a TorchServe model, if that is
    anything.
    """
    if route.signatures:
        return route.signatures
    found = _signature_to_describe(route)
    return {DEFAULT_SIGNATURE: found} if found is not _NOTHING else {}


def outputs_of(answer: Answer, request: InferenceRequest) -> tuple[Tensor, ...]:
    """The outputs that were asked for; a piece of an answer is one body. Raises InvalidRequest, InferenceFailed."""
    route = answer.route
    if answer.response.partial:
        return tensors_of(answer.response, request.outputs, Wire.RAW)
    whole = not route.signatures and request.outputs == (BODY,) and route.policy.wire in _RAW_WIRES
    return tensors_of(answer.response, request.outputs, Wire.RAW if whole else route.answers)


def waited_for(table: RouteTable) -> list[str]:
    """The models that the server is not ready without; one that only drains has left the repository."""
    return [model.name for model in table.models.values() if _is_awaited(model)]


def _is_awaited(model: Model) -> bool:
    if model.default and model.versions[model.default].state is State.READY:
        return False
    return any(version.state is not State.DRAINING for version in model.versions.values())
