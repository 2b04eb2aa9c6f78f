"""Classify, Regress and MultiInference over gRPC and REST, as their clients see them."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asgi_client import Answer
from portico.errors import InvalidRequest
from portico.inference import InferenceRequest, InferenceResponse, Tensor, pack_bytes, unpack_bytes
from portico.routing import RouteTable, Server, Signature, State, TensorSpec
from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs
from sample_gateway import PAST_CACHE, SampleGateway, model, parsed

SERVICE = "/tensorflow.serving.PredictionService/"
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION, UNIMPLEMENTED = 3, 5, 7, 9, 12

EXAMPLES = (TensorSpec("inputs", "BYTES", (-1,)),)
CLASSES = TensorSpec("classes", "BYTES", (-1, 2))
SCORES = TensorSpec("scores", "FP32", (-1, 2))
VALUE = TensorSpec("outputs", "FP32", (-1, 1))
NUMBER = (TensorSpec("x", "FP32", (-1,)),)
SIGNATURES = {
    "serving_default": Signature(EXAMPLES, (CLASSES, SCORES), CLASSIFY),
    "scores": Signature(EXAMPLES, (SCORES, TensorSpec("more", "FP32", None)), CLASSIFY),
    "regress": Signature(EXAMPLES, (VALUE,), REGRESS),
    "predict": Signature(NUMBER, (TensorSpec("y", "FP32", (-1,)),), "tensorflow/serving/predict"),
    "two inputs": Signature((*EXAMPLES, *NUMBER), (VALUE,)),
    "three outputs": Signature(EXAMPLES, (CLASSES, SCORES, VALUE)),
    "no classes": Signature(EXAMPLES, (TensorSpec("logits", "FP32", (-1, 2)),)),
    "numbers": Signature((TensorSpec("inputs", "FP32", (-1,)),), (VALUE,)),
}

Model = Callable[[InferenceRequest], InferenceResponse]


def floats(name: str, values: Any) -> Tensor:
    array = np.array(values, "<f4")
    return Tensor(name, "FP32", array.shape, array.tobytes())


def compute(request: InferenceRequest) -> InferenceResponse:
    """Of feature x: y = x / 2 + 2 + bias; the scores of "yes" and "no" are y and 1 - y."""
    given = [tf.Example.FromString(element).features.feature for element in unpack_bytes(request.inputs[0].data)]
    if any("x" not in features for features in given):
        raise InvalidRequest("Feature: x (data type: float) is required but could not be found.")

    def value(features: Any, name: str) -> float:
        return float(sum(features[name].float_list.value) + sum(features[name].int64_list.value))

    y = [value(features, "x") / 2 + 2 + value(features, "bias") for features in given]
    outputs = {
        "classes": Tensor("classes", "BYTES", (len(y), 2), pack_bytes([b"yes", b"no"] * len(y))),
        "scores": floats("scores", [[one, 1 - one] for one in y]),
        "outputs": floats("outputs", [[one] for one in y]),
        "more": floats("more", 0),
    }
    names = [spec.name for spec in SIGNATURES[request.signature or "serving_default"].outputs]
    return InferenceResponse(tuple(outputs[name] for name in request.outputs or names))


@pytest.fixture
def gateway() -> SampleGateway:
    """One model with a signature of each kind, and one of TorchServe."""
    models = [
        model("tf1", Server.TF_SERVING, {"1": State.READY, "2": State.READY}, SIGNATURES),
        model("digits", Server.TORCHSERVE, {"1.0": State.READY}),
    ]
    made = SampleGateway(table=RouteTable({entry.name: entry for entry in models}))
    made.tf_serving.servables = {"tf1-1--loaded": compute, "tf1-2--loaded": compute}
    return made


def spec(name: str = "tf1", signature: str = "", version: int | None = None) -> tfs.ModelSpec:
    message = tfs.ModelSpec(name=name, signature_name=signature)
    if version is not None:
        message.version.value = version
    return message


def example(**features: float) -> tf.Example:
    made = tf.Example()
    for name, value in features.items():
        made.features.feature[name].float_list.value.append(value)
    return made


def examples(*values: float) -> tfs.Input:
    return tfs.Input(example_list=tfs.ExampleList(examples=[example(x=value) for value in values]))


TWO = examples(1, 4)


async def classify(gateway: SampleGateway, of: tfs.ModelSpec, given: tfs.Input = TWO, headers: Any = ()) -> Answer:
    return await gateway.grpc(SERVICE + "Classify", tfs.ClassificationRequest(model_spec=of, input=given), headers)


async def regress(gateway: SampleGateway, of: tfs.ModelSpec, given: tfs.Input = TWO, headers: Any = ()) -> Answer:
    return await gateway.grpc(SERVICE + "Regress", tfs.RegressionRequest(model_spec=of, input=given), headers)


async def multi(gateway: SampleGateway, *tasks: tuple[tfs.ModelSpec, str], given: tfs.Input = TWO) -> Answer:
    request = tfs.MultiInferenceRequest(input=given)
    for of, method in tasks:
        request.tasks.add(model_spec=of, method_name=method)
    return await gateway.grpc(SERVICE + "MultiInference", request)


async def test_classify(gateway: SampleGateway) -> None:
    """Each example gets its classes with label and score; the answer names model, version and signature."""
    response = parsed(await classify(gateway, spec()), tfs.ClassificationResponse)
    found = [[(entry.label, entry.score) for entry in row.classes] for row in response.result.classifications]
    assert found == [[("yes", 2.5), ("no", -1.5)], [("yes", 4.0), ("no", -3.0)]]
    assert response.model_spec == spec(signature="serving_default", version=2)


async def test_classify_with_scores_only(gateway: SampleGateway) -> None:
    """A signature without classes gives empty labels, and only the output that is needed is asked for."""
    response = parsed(await classify(gateway, spec(signature="scores", version=1)), tfs.ClassificationResponse)
    assert [(entry.label, entry.score) for entry in response.result.classifications[0].classes] == [
        ("", 2.5),
        ("", -1.5),
    ]
    route, request, _ = gateway.tf_serving.calls[0]
    assert (route.version, request.outputs) == ("1", ("scores",))


async def test_regress(gateway: SampleGateway) -> None:
    """Each example gets its value."""
    response = parsed(await regress(gateway, spec(signature="regress")), tfs.RegressionResponse)
    assert [entry.value for entry in response.result.regressions] == [2.5, 4.0]
    assert response.model_spec == spec(signature="regress", version=2)


async def test_context(gateway: SampleGateway) -> None:
    """Features of the context count for all examples, over gRPC and REST."""
    shared = tfs.ExampleListWithContext(examples=[example(x=1), example(x=4)], context=example(bias=10))
    given = tfs.Input(example_list_with_context=shared)
    response = parsed(await regress(gateway, spec(signature="regress"), given), tfs.RegressionResponse)
    assert [entry.value for entry in response.result.regressions] == [12.5, 14.0]
    body = {"signature_name": "regress", "context": {"bias": 10.0}, "examples": [{"x": 1.0}, {"x": 4.0}]}
    answer = await gateway.rest("POST", "/v1/models/tf1:regress", body)
    assert (answer.json(), answer.header(b"x-cache")) == ({"results": [12.5, 14.0]}, "HIT")


async def test_multi_inference(gateway: SampleGateway) -> None:
    """Tasks come back in their order, each with its own kind of result, and each is kept in the cache by itself."""
    tasks = (spec(signature="regress"), REGRESS), (spec(), CLASSIFY)
    answer = await multi(gateway, *tasks)
    first, second = parsed(answer, tfs.MultiInferenceResponse).results
    assert [entry.value for entry in first.regression_result.regressions] == [2.5, 4.0]
    assert second.classification_result.classifications[1].classes[0].score == 4.0
    assert (first.model_spec, second.model_spec) == (spec("tf1", "regress", 2), spec("tf1", "serving_default", 2))
    assert answer.header(b"x-cache") == "MISS"
    assert (await classify(gateway, spec())).header(b"x-cache") == "HIT"
    assert (await multi(gateway, *tasks)).header(b"x-cache") == "HIT"
    assert (await multi(gateway, (spec(), CLASSIFY), (spec(signature="scores"), CLASSIFY))).header(b"x-cache") == "MISS"


@pytest.mark.parametrize(
    ("tasks", "code", "says"),
    [
        ([], INVALID_ARGUMENT, "ModelSpec has no name specified."),
        ([(spec(), CLASSIFY), (spec(""), REGRESS)], INVALID_ARGUMENT, "Found ModelSpec with an empty model name."),
        (
            [(spec(), CLASSIFY), (spec("digits"), REGRESS)],
            INVALID_ARGUMENT,
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            [(spec(signature="serving_default"), CLASSIFY), (spec(), CLASSIFY)],
            INVALID_ARGUMENT,
            "Duplicate evaluation of signature: serving_default",
        ),
        ([(spec(signature="none"), REGRESS)], INVALID_ARGUMENT, "Requested signature not found in model graph: none"),
        ([(spec(), "x")], UNIMPLEMENTED, "Unsupported signature method_name: x"),
        ([(spec(), CLASSIFY), (spec(signature="scores"), REGRESS)], INVALID_ARGUMENT, "Expected one output Tensor."),
        ([(spec("none"), CLASSIFY)], NOT_FOUND, "Servable not found for request: Latest(none)"),
    ],
)
async def test_multi_inference_refusals(gateway: SampleGateway, tasks: Any, code: int, says: str) -> None:
    """Tasks that cannot run together are refused with TF Serving's code and text, before any of them runs."""
    found, text = (await multi(gateway, *tasks)).grpc_status
    assert (found, text[: len(says)]) == (code, says)
    assert not gateway.tf_serving.calls


async def test_multi_inference_of_a_bad_example(gateway: SampleGateway) -> None:
    """An error of one task is the error of the call."""
    given = tfs.Input(example_list=tfs.ExampleList(examples=[example(z=1)]))
    answer = await multi(gateway, (spec(), CLASSIFY), (spec(signature="regress"), REGRESS), given=given)
    assert answer.grpc_status[0] == INVALID_ARGUMENT
    assert "x (data type: float) is required" in answer.grpc_status[1]


@pytest.mark.parametrize(
    ("call", "of", "says"),
    [
        (classify, spec(""), "Missing ModelSpec"),
        (classify, spec(signature="none"), "No signature was found with the name: none"),
        (classify, spec(signature="two inputs"), "Expected one input Tensor."),
        (classify, spec(signature="three outputs"), "Expected one or two output Tensors, found 3"),
        (classify, spec(signature="predict"), "No classification inputs found in SignatureDef: inputs {"),
        (
            classify,
            spec(signature="no classes"),
            'Expected classification signature outputs to contain at least one of "classes" or "scores". Signature was',
        ),
        (regress, spec(signature="none"), "No signature was found with the name: none"),
        (regress, spec(signature="two inputs"), "Expected one input Tensor."),
        (regress, spec(), "Expected one output Tensor."),
        (regress, spec(signature="predict"), "No regression inputs found in SignatureDef: inputs {"),
        (regress, spec(signature="no classes"), "No regression outputs found in SignatureDef: inputs {"),
        (regress, spec(signature="numbers"), "Input 'inputs' of model 'tf1': given BYTES [2], the model takes FP32"),
        (classify, spec("digits"), "Model 'digits' is served by TorchServe and declares no signatures"),
    ],
)
async def test_signatures_that_do_not_fit(gateway: SampleGateway, call: Any, of: tfs.ModelSpec, says: str) -> None:
    """A signature that is not of the task is refused in TF Serving's words; a TorchServe model with the reason."""
    code, text = (await call(gateway, of)).grpc_status
    assert (code, text[: len(says)]) == (INVALID_ARGUMENT, says)
    assert not gateway.tf_serving.calls
    assert not gateway.torchserve.calls


@pytest.mark.parametrize("call", [classify, regress])
async def test_no_examples(gateway: SampleGateway, call: Any) -> None:
    """A call without examples is refused in TF Serving's words."""
    signature = "regress" if call is regress else ""
    assert (await call(gateway, spec(signature=signature), tfs.Input())).grpc_status == (3, "Input is empty.")


def answering(*outputs: Tensor) -> Model:
    return lambda request: InferenceResponse(outputs)


@pytest.mark.parametrize(
    ("call", "signature", "outputs", "says"),
    [
        (regress, "regress", [floats("outputs", 1)], "either [batch_size] or [batch_size, 1] but got []"),
        (regress, "regress", [floats("outputs", [[1, 2]])], "either [batch_size] or [batch_size, 1] but got [1,2]"),
        (regress, "regress", [floats("outputs", [1])], "did not match output batch size: 2 vs. 1"),
        (regress, "regress", [Tensor("outputs", "INT8", (2,), b"\1\2")], "of DT_FLOAT.  Got: DT_INT8"),
        (classify, "scores", [floats("scores", [1, 2])], "shape: [batch_size num_classes] but got [2]"),
        (classify, "scores", [floats("scores", [[1]])], "Expected scores output batch size of 2. Got: 1"),
        (classify, "scores", [Tensor("scores", "INT8", (2, 1), b"\1\2")], "scores Tensor of DT_FLOAT. Got: DT_INT8"),
        (
            classify,
            "",
            [Tensor("classes", "INT8", (2, 1), b"\1\2"), floats("scores", [[1], [2]])],
            "Expected classes Tensor of DT_STRING. Got: DT_INT8",
        ),
        (
            classify,
            "",
            [Tensor("classes", "BYTES", (2, 1), pack_bytes([b"", b""])), floats("scores", [[1, 2], [3, 4]])],
            "Tensors class and score should match in dim_size(1). Got 1 vs. 2",
        ),
    ],
)
async def test_outputs_that_do_not_fit(
    gateway: SampleGateway, call: Any, signature: str, outputs: list[Tensor], says: str
) -> None:
    """Outputs that are no result are refused in TF Serving's words, never cut to fit."""
    gateway.tf_serving.servables["tf1-2--loaded"] = answering(*outputs)
    code, text = (await call(gateway, spec(signature=signature))).grpc_status
    assert (code, says in text) == (INVALID_ARGUMENT, True), text


async def test_labels_that_are_no_text(gateway: SampleGateway) -> None:
    """A label that is not UTF-8 has no form in a result, which the error says."""
    table = Tensor("classes", "BYTES", (1, 1), pack_bytes([b"\xff"]))
    gateway.tf_serving.servables["tf1-2--loaded"] = answering(table, floats("scores", [[1]]))
    code, text = (await classify(gateway, spec(), examples(1))).grpc_status
    assert (code, "'classes' is not UTF-8" in text) == (FAILED_PRECONDITION, True)


async def test_one_value_for_each_is_enough(gateway: SampleGateway) -> None:
    """A regression's output may have no second dimension, and there may be no class at all."""
    gateway.tf_serving.servables["tf1-2--loaded"] = answering(floats("outputs", [1, 2]))
    response = parsed(await regress(gateway, spec(signature="regress")), tfs.RegressionResponse)
    assert [entry.value for entry in response.result.regressions] == [1, 2]
    gateway.tf_serving.servables["tf1-2--loaded"] = answering(floats("scores", [[], []]))
    found = parsed(await classify(gateway, spec(signature="scores")), tfs.ClassificationResponse)
    assert [len(row.classes) for row in found.result.classifications] == [0, 0]


async def test_the_cache(gateway: SampleGateway) -> None:
    """The examples are one entry in the cache, whatever asks: Classify, REST, or Predict with the same bytes."""
    answers = [await classify(gateway, spec(), TWO, headers) for headers in ((), (), PAST_CACHE)]
    assert [answer.header(b"x-cache") for answer in answers] == ["MISS", "HIT", "BYPASS"]
    answer = await gateway.rest("POST", "/v1/models/tf1:classify", {"examples": [{"x": 1.0}, {"x": 4.0}]})
    assert answer.header(b"x-cache") == "HIT"
    request = tfs.PredictRequest(model_spec=spec())
    strings = [entry.SerializeToString() for entry in TWO.example_list.examples]
    shape = tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=2)])
    request.inputs["inputs"].CopyFrom(tf.TensorProto(dtype=tf.DT_STRING, tensor_shape=shape, string_val=strings))
    assert (await gateway.grpc(SERVICE + "Predict", request)).header(b"x-cache") == "HIT"


@pytest.mark.parametrize(("path", "version"), [("tf1", "2"), ("tf1/versions/1", "1")])
async def test_rest(gateway: SampleGateway, path: str, version: str) -> None:
    """`:classify` and `:regress` answer with "results": pairs of label and score, or values."""
    body: dict[str, Any] = {"examples": [{"x": 1.0}, {"x": [4]}]}
    answer = await gateway.rest("POST", f"/v1/models/{path}:classify", body)
    assert answer.json() == {"results": [[["yes", 2.5], ["no", -1.5]], [["yes", 4.0], ["no", -3.0]]]}
    answer = await gateway.rest("POST", f"/v1/models/{path}:regress", body | {"signature_name": "regress"})
    assert answer.json() == {"results": [2.5, 4.0]}
    assert {route.version for route, _, _ in gateway.tf_serving.calls} == {version}


async def test_numbers_in_rest(gateway: SampleGateway) -> None:
    """Scores are written as short as a float is, whole ones with a point; NaN and infinities as their words."""
    gateway.tf_serving.servables["tf1-2--loaded"] = answering(floats("outputs", [0.2, 3.0]))
    body: dict[str, Any] = {"signature_name": "regress", "examples": [{"x": 1.0}, {"x": 4.0}]}
    assert (await gateway.rest("POST", "/v1/models/tf1:regress", body)).body == b'{"results":[0.2,3.0]}'
    gateway.tf_serving.servables["tf1-2--loaded"] = answering(floats("scores", [[0.2, float("inf")], [0.5, 1]]))
    answer = await gateway.rest("POST", "/v1/models/tf1:classify", body | {"signature_name": "scores"})
    assert json.loads(answer.body)["results"][0][1] == ["", float("inf")]
    assert b'["",0.5]' in answer.body


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("tf1:classify", b"{", 400, "not JSON"),
        ("tf1:classify", {}, 400, "key 'examples' is expected and was not found"),
        ("tf1:regress", {"examples": []}, 400, "'examples' value is an empty array"),
        ("tf1:classify", {"examples": [{"x": 1.0}], "signature_name": 1}, 400, "'signature_name' has to be a string"),
        ("tf1:regress", {"examples": [{"x": 1.0}]}, 400, "Expected one output Tensor."),
        ("tf1:classify", {"examples": [{"z": 1.0}]}, 400, "x (data type: float) is required"),
        ("tf1/versions/9:classify", {"examples": [{"x": 1.0}]}, 404, "Servable not found for request"),
        ("digits:classify", {"examples": [{"x": 1.0}]}, 400, "is served by TorchServe and declares no signatures"),
    ],
)
async def test_rest_refusals(gateway: SampleGateway, path: str, body: Any, status: int, says: str) -> None:
    """A request that cannot be answered says why in TF Serving's form of an error."""
    found, answer = await gateway.refused("POST", f"/v1/models/{path}", body)
    assert (found, list(answer)) == (status, ["error"])
    assert says in answer["error"]


async def test_reloading_is_refused(gateway: SampleGateway) -> None:
    """A client that would configure models by a call is told that files deploy."""
    request = tfs.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="m", base_path="/m")
    code, text = (await gateway.grpc("/tensorflow.serving.ModelService/HandleReloadConfigRequest", request)).grpc_status
    assert (code, "files deploy" in text) == (PERMISSION_DENIED, True)
