"""Classify, Regress and MultiInference over gRPC, on a TF1 model that parses tf.Examples."""

from typing import Any

import grpc
import pytest
from standin_process import StandIn, spec

from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as wire

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def example(**features: float) -> tf.Example:
    """A tf.Example of floats."""
    found = tf.Example()
    for name, value in features.items():
        found.features.feature[name].float_list.value.append(value)
    return found


def examples(*values: float) -> wire.Input:
    """Examples with one feature x each."""
    return wire.Input(example_list=wire.ExampleList(examples=[example(x=value) for value in values]))


def classify(server: StandIn, request: wire.ClassificationRequest) -> wire.ClassificationResponse:
    """PredictionService.Classify."""
    return server.call("PredictionService/Classify", request, wire.ClassificationResponse)


def regress(server: StandIn, request: wire.RegressionRequest) -> wire.RegressionResponse:
    """PredictionService.Regress."""
    return server.call("PredictionService/Regress", request, wire.RegressionResponse)


def multi(server: StandIn, *tasks: tuple[str, str], name: str = "tf1") -> wire.MultiInferenceResponse:
    """PredictionService.MultiInference with tasks of (signature, method) on two examples."""
    request = wire.MultiInferenceRequest(input=examples(1, 4))
    for signature, method in tasks:
        request.tasks.add(model_spec=spec(name, signature=signature), method_name=method)
    return server.call("PredictionService/MultiInference", request, wire.MultiInferenceResponse)


def test_classify_gives_labels_and_scores(server: StandIn) -> None:
    """Each example gets its classes with label and score, and the answer names the version."""
    response = classify(
        server, wire.ClassificationRequest(model_spec=spec("tf1", signature="classify"), input=examples(1, 4))
    )
    found = [[(c.label, c.score) for c in row.classes] for row in response.result.classifications]
    assert found == [[("yes", 2.5), ("no", -1.5)], [("yes", 4.0), ("no", -3.0)]]
    assert response.model_spec == spec("tf1", version=1, signature="classify")


def test_classify_without_classes_gives_scores_only(server: StandIn) -> None:
    """A signature without `classes` yields empty labels."""
    request = wire.ClassificationRequest(model_spec=spec("tf1", signature="classify_scores"), input=examples(1))
    (row,) = classify(server, request).result.classifications
    assert [(c.label, c.score) for c in row.classes] == [("", 2.5), ("", -1.5)]


def test_regress_gives_one_value_per_example(server: StandIn) -> None:
    """Each example gets its value."""
    request = wire.RegressionRequest(model_spec=spec("tf1", signature="regress"), input=examples(1, 4))
    response = regress(server, request)
    assert [r.value for r in response.result.regressions] == [2.5, 4.0]
    assert response.model_spec.version.value == 1


def test_context_is_part_of_each_example(server: StandIn) -> None:
    """Features in the context count for all examples."""
    context = wire.ExampleListWithContext(examples=[example(x=1), example(x=4)], context=example(bias=10))
    request = wire.RegressionRequest(
        model_spec=spec("tf1", signature="regress"), input=wire.Input(example_list_with_context=context)
    )
    assert [r.value for r in regress(server, request).result.regressions] == [12.5, 14.0]


def test_multi_inference_answers_each_task(server: StandIn) -> None:
    """Tasks on one model come back in order, each with its own kind of result."""
    first, second = multi(server, ("regress", REGRESS), ("classify", CLASSIFY)).results
    assert [r.value for r in first.regression_result.regressions] == [2.5, 4.0]
    assert second.classification_result.classifications[1].classes[0].score == 4.0
    assert second.model_spec == spec("tf1", version=1, signature="classify")


@pytest.mark.parametrize(
    ("signature", "input_", "text"),
    [
        ("regress", wire.Input(), "Input is empty."),
        ("none", examples(1), "No signature was found with the name: none"),
        ("", examples(1), "No regression inputs found in SignatureDef: "),
        ("classify", examples(1), "Expected one output Tensor."),
    ],
)
def test_regress_refuses_what_does_not_fit(server: StandIn, signature: str, input_: wire.Input, text: str) -> None:
    """No examples, no such signature, or a signature that does not regress: INVALID_ARGUMENT and TF Serving's text."""
    with pytest.raises(grpc.RpcError) as caught:
        regress(server, wire.RegressionRequest(model_spec=spec("tf1", signature=signature), input=input_))
    error: Any = caught.value
    assert (error.code(), error.details()[: len(text)]) == (grpc.StatusCode.INVALID_ARGUMENT, text)


def test_classify_refuses_a_regression_signature(server: StandIn) -> None:
    """A signature without classes and scores cannot classify."""
    with pytest.raises(grpc.RpcError, match="Expected classification signature outputs to contain at least one of"):
        classify(server, wire.ClassificationRequest(model_spec=spec("tf1", signature="regress"), input=examples(1)))


def test_broken_examples_are_refused(server: StandIn) -> None:
    """An example without a feature the model needs is INVALID_ARGUMENT."""
    request = wire.RegressionRequest(model_spec=spec("tf1", signature="regress"))
    request.input.example_list.examples.append(example(z=1))
    with pytest.raises(grpc.RpcError, match="Feature: x \\(data type: float\\) is required but could not be found"):
        regress(server, request)


@pytest.mark.parametrize(
    ("tasks", "code", "text"),
    [
        (
            (("regress", REGRESS), ("regress", REGRESS)),
            "INVALID_ARGUMENT",
            "Duplicate evaluation of signature: regress",
        ),
        ((("none", REGRESS),), "INVALID_ARGUMENT", "Requested signature not found in model graph: none"),
        ((("regress", "x"),), "UNIMPLEMENTED", "Unsupported signature method_name: x"),
        ((), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    ],
)
def test_multi_inference_refusals(server: StandIn, tasks: tuple[tuple[str, str], ...], code: str, text: str) -> None:
    """Tasks that cannot run together are refused with TF Serving's code and text."""
    with pytest.raises(grpc.RpcError) as caught:
        multi(server, *tasks)
    error: Any = caught.value
    assert (error.code().name, error.details()) == (code, text)
