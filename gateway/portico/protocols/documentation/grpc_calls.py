"""Python that calls a model over gRPC, in each dialect, to copy. Used by `calls`."""

from collections.abc import Mapping, Sequence
from typing import Any

from portico.protocols.documentation.caller import Caller
from portico.protocols.documentation.examples import example, example_shape
from portico.routing import TensorSpec


def array_of(spec: TensorSpec) -> str:
    """Python that makes the example of a tensor, or ones of its shape where that is too long."""
    values = example(spec)
    memory = {"BYTES": "object", "BOOL": "bool", "BF16": "'float32'"}.get(spec.datatype, _numpy_name(spec.datatype))
    if values is None:
        return f"np.ones({example_shape(spec)}, {memory})"
    return f"np.array({_literal(values, spec)}, {memory})"


def _literal(value: Any, spec: TensorSpec) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_literal(element, spec) for element in value)}]"
    return repr(value.encode()) if spec.datatype == "BYTES" else repr(value)


def _numpy_name(datatype: str) -> str:
    """INT64 → 'int64', FP32 → 'float32'."""
    return repr(datatype.lower().replace("fp", "float"))


def triton(caller: Caller, arrays: Sequence[str], specs: Sequence[TensorSpec], outputs: Sequence[str]) -> str:
    """With Triton's client, for the Open Inference Protocol. `outputs` are those to print, none for all."""
    lines = [
        "import numpy as np",
        "import tritonclient.grpc as triton  # pip install tritonclient[grpc]",
        "",
        f"client = triton.InferenceServerClient({caller.address!r})",
        "inputs = []",
    ]
    for array, spec in zip(arrays, specs, strict=True):
        lines += [
            f"inputs.append(triton.InferInput({spec.name!r}, {example_shape(spec)}, {spec.datatype!r}))",
            f"inputs[-1].set_data_from_numpy({array})",
        ]
    version = f", model_version={caller.version!r}" if caller.version else ""
    lines.append(f"answer = client.infer({caller.model!r}, inputs{version})")
    shown = [f"print(answer.as_numpy({name!r}))" for name in outputs] or ["print(answer.get_response())"]
    return "\n".join(lines + shown)


def tf_serving(caller: Caller, arrays: Sequence[str], specs: Sequence[TensorSpec], outputs: Sequence[str]) -> str:
    """With TF Serving's own stubs. `outputs` are those to print, none for all."""
    protos = {
        spec.name: f"{array}, tf.bfloat16" if spec.datatype == "BF16" else array
        for spec, array in zip(specs, arrays, strict=True)
    }
    lines = [
        "import grpc",
        "import numpy as np",
        "import tensorflow as tf  # pip install tensorflow-serving-api",
        "from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc",
        "",
        f"with grpc.insecure_channel({caller.address!r}) as channel:",
        "    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)",
        "    request = predict_pb2.PredictRequest()",
        f"    request.model_spec.name = {caller.model!r}",
        *([f"    request.model_spec.version.value = {int(caller.version)}"] if caller.version else []),
        *(f"    request.inputs[{name!r}].CopyFrom(tf.make_tensor_proto({proto}))" for name, proto in protos.items()),
        "    answer = stub.Predict(request, timeout=10)",
    ]
    shown = [f"    print(tf.make_ndarray(answer.outputs[{name!r}]))" for name in outputs]
    return "\n".join(lines + (shown or ["    print(answer.outputs)"]))


def torchserve(caller: Caller, parts: Mapping[str, str]) -> str:
    """With stubs that are made of TorchServe's own definition. `parts` are names and Python of their bytes."""
    version = f", model_version={caller.version!r}" if caller.version else ""
    return "\n".join(
        [
            "import grpc",
            "import inference_pb2  # made of TorchServe's inference.proto by grpc_tools.protoc",
            "import inference_pb2_grpc",
            "",
            f"with grpc.insecure_channel({caller.address!r}) as channel:",
            "    stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)",
            f"    request = inference_pb2.PredictionsRequest(model_name={caller.model!r}{version})",
            *(f"    request.input[{name!r}] = {content}" for name, content in parts.items()),
            "    print(stub.Predictions(request, timeout=10).prediction.decode())",
        ]
    )
