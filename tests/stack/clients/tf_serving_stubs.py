"""tensorflow-serving-api's own stubs. Called with host:port, rows of measurements as JSON, and the name of a model of
make_examples.py; prints JSON.
"""

import json
import sys
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

ADDRESS, ROWS, MODEL = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
SECONDS = 20


def example(**features: float) -> tf.train.Example:
    """An Example of floats."""
    lists = {name: tf.train.Feature(float_list=tf.train.FloatList(value=[value])) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=lists))


def predict(stub: Any) -> dict[str, Any]:
    """Predict in both forms of a tensor, with a filter; and the model that answered."""
    request = predict_pb2.PredictRequest(output_filter=["species"])
    request.model_spec.name = "iris"
    request.inputs["measurements"].CopyFrom(tf.make_tensor_proto(ROWS, tf.float32))
    filtered = stub.Predict(request, SECONDS)
    del request.output_filter[:]
    answer, call = stub.Predict.with_call(request, SECONDS, metadata=[("cache-control", "no-cache")])
    return {
        "filtered": {name: tf.make_ndarray(tensor).tolist() for name, tensor in filtered.outputs.items()},
        "probabilities": tf.make_ndarray(answer.outputs["probabilities"]).tolist(),
        "spec": spec(answer.model_spec),
        "x-cache": dict(call.initial_metadata())["x-cache"],
    }


def spec(found: Any) -> list[Any]:
    """(name, version, signature) of a ModelSpec."""
    return [found.name, found.version.value, found.signature_name]


def tasks(stub: Any) -> dict[str, Any]:
    """Classify, Regress with a context, and MultiInference of both."""
    examples = input_pb2.Input(example_list=input_pb2.ExampleList(examples=[example(x=1), example(x=4)]))
    classify = classification_pb2.ClassificationRequest(input=examples)
    classify.model_spec.name = MODEL
    shared = input_pb2.ExampleListWithContext(examples=[example(x=1), example(x=4)], context=example(bias=10))
    regress = regression_pb2.RegressionRequest(input=input_pb2.Input(example_list_with_context=shared))
    regress.model_spec.name, regress.model_spec.signature_name = MODEL, "regress"
    both = inference_pb2.MultiInferenceRequest(input=examples)
    for signature, method in (("regress", "tensorflow/serving/regress"), ("", "tensorflow/serving/classify")):
        task = both.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = MODEL, signature
    classified, regressed = stub.Classify(classify, SECONDS), stub.Regress(regress, SECONDS)
    first, second = stub.MultiInference(both, SECONDS).results
    return {
        "classes": classes(classified.result),
        "classify spec": spec(classified.model_spec),
        "values": [entry.value for entry in regressed.result.regressions],
        "multi values": [entry.value for entry in first.regression_result.regressions],
        "multi classes": classes(second.classification_result),
    }


def iris(stub: Any) -> list[Any]:
    """Classify with the example model's second signature."""
    floats = [tf.train.Feature(float_list=tf.train.FloatList(value=row)) for row in ROWS]
    examples = [tf.train.Example(features=tf.train.Features(feature={"measurements": row})) for row in floats]
    request = classification_pb2.ClassificationRequest(
        input=input_pb2.Input(example_list=input_pb2.ExampleList(examples=examples))
    )
    request.model_spec.name, request.model_spec.signature_name = "iris", "classify"
    return classes(stub.Classify(request, SECONDS).result)


def classes(result: Any) -> list[Any]:
    """Labels and scores by example."""
    return [[[entry.label, entry.score] for entry in row.classes] for row in result.classifications]


def about(stub: Any, models: Any) -> dict[str, Any]:
    """GetModelMetadata, GetModelStatus, and the code that a reload ends with."""
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    metadata.model_spec.name = "iris"
    signatures = get_model_metadata_pb2.SignatureDefMap()
    stub.GetModelMetadata(metadata, SECONDS).metadata["signature_def"].Unpack(signatures)
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "iris"
    states = models.GetModelStatus(status, SECONDS).model_version_status
    try:
        models.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest(), SECONDS)
        reload = "OK"
    except grpc.RpcError as refused:
        reload = refused.code().name
    return {
        "input": signatures.signature_def["serving_default"].inputs["measurements"].name,
        "states": [
            [entry.version, get_model_status_pb2.ModelVersionStatus.State.Name(entry.state)] for entry in states
        ],
        "reload": reload,
    }


with grpc.insecure_channel(ADDRESS) as channel:
    predictions = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    models = model_service_pb2_grpc.ModelServiceStub(channel)
    print(
        json.dumps(
            {
                "predict": predict(predictions),
                "tasks": tasks(predictions),
                "iris": iris(predictions),
                "about": about(predictions, models),
            }
        )
    )
