"""Calls of a model to copy, in each dialect: a line for a shell, and Python for gRPC. Used for the pages of models;
what it writes is text, which the page has to escape.
"""

import json
from dataclasses import dataclass

from portico.protocols.documentation.caller import Caller
from portico.protocols.documentation.examples import TEXT, columns_example, example, infer_example, rows_example
from portico.protocols.documentation.grpc_calls import array_of, tf_serving, torchserve, triton
from portico.protocols.documentation.handler import (
    NUMBERS,
    PLACEHOLDER,
    body_example,
    instances_example,
    reads_bodies,
)
from portico.protocols.documentation.handler import (
    columns_example as handler_columns,
)
from portico.routing import DEFAULT_SIGNATURE, Route, Server, Signature, TensorSpec, Wire

_FILE = "open('input', 'rb').read()"

TOO_MANY = "It takes too many values to show them here."


@dataclass(frozen=True, slots=True)
class Dialect:
    """A protocol's calls: `curl` and `python` are empty where there is none, which `note` explains then."""

    title: str
    note: str
    curl: str = ""
    python: str = ""


def dialects(caller: Caller, route: Route) -> list[Dialect]:
    """The calls of the model that `route` leads to."""
    if route.server is Server.TORCHSERVE:
        return _of_handler(caller, route)
    signature = route.signatures.get(DEFAULT_SIGNATURE)
    if signature is None:
        return [Dialect("Open Inference", f"The model has no signature '{DEFAULT_SIGNATURE}': name one in each call.")]
    return _of_signature(caller, signature)


def _of_signature(caller: Caller, signature: Signature) -> list[Dialect]:
    inputs = signature.inputs
    infer = infer_example(inputs, signature.outputs)
    note = "" if infer else TOO_MANY
    rows, columns = rows_example(inputs), columns_example(inputs)
    no_rows = "" if rows else note or "The inputs have no rows in common, so the model is asked by columns."
    names = [spec.name for spec in signature.outputs]
    return [
        Dialect(
            "Open Inference",
            note,
            caller.curl(caller.v2 + "/infer", infer),
            triton(caller, [array_of(spec) for spec in inputs], inputs, names),
        ),
        Dialect(
            "TF Serving, columns",
            note,
            caller.curl(caller.v1 + ":predict", columns),
            tf_serving(caller, [array_of(spec) for spec in inputs], inputs, names),
        ),
        Dialect(
            "TF Serving, rows · KServe V1",
            no_rows or "Over gRPC there are columns only.",
            caller.curl(caller.v1 + ":predict", rows),
        ),
        Dialect(
            "TorchServe",
            note,
            caller.curl(caller.predictions, infer and columns["inputs"]),
            torchserve(caller, {spec.name: _part(spec) for spec in inputs}) if infer else "",
        ),
    ]


def _of_handler(caller: Caller, route: Route) -> list[Dialect]:
    body = TensorSpec("body", "BYTES", (1,))
    numbers = TensorSpec(NUMBERS["name"], NUMBERS["datatype"], tuple(NUMBERS["shape"]))
    whole = reads_bodies(route)
    spec, array = (body, f"np.array([{_FILE}], object)") if whole else (numbers, array_of(numbers))
    note = f"“{PLACEHOLDER}” and the file `input` stand for what only the handler's author can tell." if whole else ""
    by_rows = caller.curl(caller.v1 + ":predict", instances_example(route))
    no_rows = "The handler takes tensors with names and datatypes, and instances have none: use Open Inference."
    is_v2 = route.policy.wire is Wire.KSERVE_V2
    return [
        Dialect(
            "TorchServe",
            note or "The file `input` stands for the body that the handler reads.",
            caller.curl_file(caller.predictions),
            torchserve(caller, {"data": _FILE}),
        ),
        Dialect(
            "Open Inference",
            note,
            caller.curl(caller.v2 + "/infer", body_example(route)),
            triton(caller, [array], [spec], []),
        ),
        Dialect("KServe V1", no_rows if is_v2 else "It has no gRPC.", "" if is_v2 else by_rows),
        _tf_serving_of_handler(caller, route, array, spec),
    ]


def _part(spec: TensorSpec) -> str:
    """Python of an input as TorchServe's named parts carry it: JSON, or one element of bytes."""
    if spec.datatype == "BYTES":
        return repr(TEXT.encode())
    return repr(json.dumps(example(spec)).encode())


def _tf_serving_of_handler(caller: Caller, route: Route, array: str, spec: TensorSpec) -> Dialect:
    if route.policy.wire is Wire.KSERVE_V2:
        note, curl = "Over REST its tensors have no datatypes, which the handler takes.", ""
    else:
        note, curl = "", caller.curl(caller.v1 + ":predict", handler_columns(route))
    if caller.version and not caller.version.isdecimal():
        none = f"Over gRPC, versions are whole numbers, and '{caller.version}' is none."
        return Dialect("TF Serving", f"{note} {none}".strip(), curl)
    return Dialect("TF Serving", note, curl, tf_serving(caller, [array], [spec], []))
