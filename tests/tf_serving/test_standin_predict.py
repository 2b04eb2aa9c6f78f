"""Predict over gRPC: signatures, datatypes, filters, versions, and what is said when a request does not fit."""

from typing import Any

import grpc
import pytest
from standin_process import StandIn, floats, predict_request, shape, spec, texts

from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as wire


def refused(server: StandIn, request: wire.PredictRequest) -> tuple[grpc.StatusCode, str]:
    """The status of a Predict that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        server.predict(request)
    error: Any = caught.value
    return error.code(), error.details()


def test_tf2_model_answers_with_name_signature_and_version(server: StandIn) -> None:
    """A TF2 model answers Predict, and model_spec tells the model, the signature and the version that ran."""
    response = server.predict(predict_request(spec("half"), x=floats([1, 2, 5])))
    assert list(response.outputs["y"].float_val) == [6.5, 7.0, 8.5]
    assert response.model_spec == spec("half", version=5, signature="serving_default")


def test_tf1_model_answers_predict(server: StandIn) -> None:
    """A TF1 SavedModel with variables answers Predict on the tensor its signature names."""
    response = server.predict(predict_request(spec("tf1"), x=floats([1, 4], 2, 1)))
    assert list(response.outputs["y"].float_val) == [2.5, 4.0]
    assert response.outputs["y"].tensor_shape == shape(2, 1)


def test_named_signature_and_all_its_outputs(server: StandIn) -> None:
    """A signature named in the request runs instead of the default, and all its outputs come back."""
    response = server.predict(predict_request(spec("half", signature="triple"), x=floats([2])))
    assert {alias: list(tensor.float_val) for alias, tensor in response.outputs.items()} == {"y": [6], "x_again": [2]}
    assert response.model_spec.signature_name == "triple"


def test_output_filter_limits_the_outputs(server: StandIn) -> None:
    """Only the outputs in output_filter come back."""
    request = predict_request(spec("half", signature="triple"), x=floats([2]))
    request.output_filter.append("x_again")
    assert list(server.predict(request).outputs) == ["x_again"]


def test_values_come_back_in_typed_fields(server: StandIn) -> None:
    """Outputs use float_val and its kin, as the real server does by default, not tensor_content."""
    output = server.predict(predict_request(spec("half"), x=floats([1, 2]))).outputs["y"]
    assert (output.tensor_content, len(output.float_val), output.dtype) == (b"", 2, tf.DT_FLOAT)


def test_tensor_content_is_read(server: StandIn) -> None:
    """Inputs may carry their values in tensor_content."""
    content = b"\x00\x00\x80\x3f\x00\x00\x00\x40"
    tensor = tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=shape(2), tensor_content=content)
    assert list(server.predict(predict_request(spec("half"), x=tensor)).outputs["y"].float_val) == [6.5, 7.0]


def test_missing_trailing_values_repeat_the_last(server: StandIn) -> None:
    """Fewer values than the shape has are filled up with the last one, and none at all with zeros."""
    assert list(server.predict(predict_request(spec("half"), x=floats([2], 3))).outputs["y"].float_val) == [7, 7, 7]
    assert list(server.predict(predict_request(spec("half"), x=floats([], 2))).outputs["y"].float_val) == [6, 6]


def test_strings_pass_through(server: StandIn) -> None:
    """String tensors go in and out as bytes."""
    response = server.predict(predict_request(spec("text"), text=texts(b"a\xc3\xa4", b"")))
    assert list(response.outputs["shouted"].string_val) == [b"A\xc3\xa4", b""]


def test_every_datatype_comes_back_as_it_went_in(server: StandIn) -> None:
    """Each datatype goes through a model unchanged, in its own field of TensorProto."""
    sent = {
        "float32": tf.TensorProto(dtype=tf.DT_FLOAT, float_val=[0.25]),
        "float64": tf.TensorProto(dtype=tf.DT_DOUBLE, double_val=[1e300]),
        "int32": tf.TensorProto(dtype=tf.DT_INT32, int_val=[-(2**31)]),
        "int64": tf.TensorProto(dtype=tf.DT_INT64, int64_val=[-(2**63)]),
        "uint8": tf.TensorProto(dtype=tf.DT_UINT8, int_val=[255]),
        "int8": tf.TensorProto(dtype=tf.DT_INT8, int_val=[-128]),
        "int16": tf.TensorProto(dtype=tf.DT_INT16, int_val=[-32768]),
        "uint32": tf.TensorProto(dtype=tf.DT_UINT32, uint32_val=[2**32 - 1]),
        "uint64": tf.TensorProto(dtype=tf.DT_UINT64, uint64_val=[2**64 - 1]),
        "bool": tf.TensorProto(dtype=tf.DT_BOOL, bool_val=[True]),
        "string": tf.TensorProto(dtype=tf.DT_STRING, string_val=[b"\xff"]),
    }
    for tensor in sent.values():
        tensor.tensor_shape.SetInParent()
    outputs = server.predict(predict_request(spec("echo"), **sent)).outputs
    assert {alias.removesuffix("_out"): tensor for alias, tensor in outputs.items()} == sent


def test_half_bfloat_and_complex_come_back(server: StandIn) -> None:
    """Half floats travel as their bits, complex numbers as pairs."""
    sent = {
        "float16": tf.TensorProto(dtype=tf.DT_HALF, half_val=[0x3C00, 0x4000], tensor_shape=shape(2)),
        "bfloat16": tf.TensorProto(dtype=tf.DT_BFLOAT16, half_val=[0x3F80, 0x4000], tensor_shape=shape(2)),
        "complex64": tf.TensorProto(dtype=tf.DT_COMPLEX64, scomplex_val=[1, 2, 3, 4], tensor_shape=shape(2)),
    }
    outputs = server.predict(predict_request(spec("echo", signature="more"), **sent)).outputs
    assert {alias.removesuffix("_out"): tensor for alias, tensor in outputs.items()} == sent


def test_big_messages_pass(server: StandIn) -> None:
    """Messages far above gRPC's usual limit of 4 MiB are accepted and sent."""
    count = 4 << 20
    tensor = tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=shape(count), tensor_content=bytes(4 * count))
    assert len(server.predict(predict_request(spec("half"), x=tensor)).outputs["y"].float_val) == count


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (predict_request(spec("nobody")), "NOT_FOUND", "Servable not found for request: Latest(nobody)"),
        (predict_request(spec("half", version=9)), "NOT_FOUND", "Servable not found for request: Specific(half, 9)"),
        (
            predict_request(spec("half", label="canary")),
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: canary",
        ),
        (wire.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (predict_request(spec("")), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (
            predict_request(spec("half", signature="none"), x=floats([1])),
            "FAILED_PRECONDITION",
            'Serving signature key "none" not found.',
        ),
        (
            predict_request(spec("half")),
            "INVALID_ARGUMENT",
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        ),
        (
            predict_request(spec("half"), x=floats([1]), z=floats([1])),
            "INVALID_ARGUMENT",
            "input size does not match signature: 2!=1 len({x,z}) != len({x}). "
            "Sent extra: {z}. Missing but required: {}.",
        ),
        (
            predict_request(spec("half"), z=floats([1])),
            "INVALID_ARGUMENT",
            "Signature input alias: x(feed name: serving_default_x:0) not found in request and no default value "
            "provided. Inputs expected to be in the request {x}, or default input alias set: , request input: z",
        ),
        (
            predict_request(spec("half"), x=tf.TensorProto(dtype=tf.DT_INT32, tensor_shape=shape(1), int_val=[1])),
            "INVALID_ARGUMENT",
            "Expects arg[0] to be float but int32 is provided",
        ),
        (
            predict_request(spec("half"), x=tf.TensorProto(dtype=tf.DT_FLOAT, tensor_content=b"123")),
            "INVALID_ARGUMENT",
            "tensor parsing error: x",
        ),
        (
            predict_request(spec("half"), x=floats([1], 1 << 40)),
            "INVALID_ARGUMENT",
            "tensor parsing error: x",
        ),
    ],
)
def test_refusals_have_tf_servings_code_and_text(
    server: StandIn, request_: wire.PredictRequest, code: str, text: str
) -> None:
    """A request that cannot be served gets the code and the text that TF Serving gives it."""
    status, details = refused(server, request_)
    assert (status.name, details) == (code, text)


def test_shapes_that_do_not_fit_are_told_by_the_op(server: StandIn) -> None:
    """A wrong shape is INVALID_ARGUMENT with the text of the op that met it."""
    request = predict_request(spec("product"), matrix=floats([1, 2], 1, 2), vector=floats([1], 1, 1))
    status, details = refused(server, request)
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert "Matrix size-incompatible: In[0]: [1,2], In[1]: [1,1]" in details


def test_unknown_and_double_outputs_are_refused(server: StandIn) -> None:
    """output_filter must name outputs of the signature, each once."""
    request = predict_request(spec("half"), x=floats([1]))
    request.output_filter.append("z")
    assert refused(server, request) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "output tensor alias not found in signature: z Outputs expected to be in the set {y}.",
    )
    request.output_filter[:] = ["y", "y"]
    assert refused(server, request)[1] == "duplicate output tensor alias: y"


def test_label_leads_to_its_version(server: StandIn) -> None:
    """A version label in the request runs the version it is assigned to, and the answer names the version."""
    assert server.half(1, spec("half", label="stable")) == (6.5, 5)
