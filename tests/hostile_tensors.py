"""Requests with tensors that cannot be: shapes whose products are huge, sizes below zero, contents of another length,
values in the wrong field. And the valid requests that fuzzing starts from. Used by the fuzz tests.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from choices import Choices
from mutations import mutated
from portico.codecs.tensorflow import DTYPE, encode_tensor
from portico.inference import ITEM_SIZE, Tensor
from portico.wire import open_inference_pb2 as oip
from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs
from portico.wire import torchserve_pb2 as ts

SIZES = (0, 1, 2, 3, 4, 64, 1 << 20, 1 << 24, 1 << 31, 1 << 32, 1 << 62, (1 << 63) - 1, -1, -2, -(1 << 63))
SHAPES = (
    *((), (0,), (1,), (4,), (1, 4), (2, 2), (1 << 40, 0), (0, 1 << 40), (1 << 24, 0), (1, 1 << 24, 0), (1 << 62, 4)),
    *((1 << 32, 1 << 32), ((1 << 63) - 1,) * 3, (1,) * 63, (1,) * 64, (1,) * 65, (2,) * 64, (0,) * 64, (-1, 4), (-2,)),
    ((1 << 63) - 1, 0, (1 << 63) - 1),
)
DATATYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64"),
    *("BYTES", "", "FP8", "fp32", "STRING"),
)
MOST_RIGHT = 1 << 12
"""Bytes of contents that are as long as they should be."""
_RAW = (b"", bytes(4), bytes(8), bytes(16), bytes(64), b"\xff" * 16, b"\4\0\0\0abcd")


def _some(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, max_size=5)


_INT32, _INT64 = _some(st.integers(-(1 << 31), (1 << 31) - 1)), _some(st.integers(-(1 << 63), (1 << 63) - 1))
_UINT32, _UINT64 = _some(st.integers(0, (1 << 32) - 1)), _some(st.integers(0, (1 << 64) - 1))
_CONTENTS = {
    "bool_contents": _some(st.booleans()),
    "int_contents": _INT32,
    "int64_contents": _INT64,
    "uint_contents": _UINT32,
    "uint64_contents": _UINT64,
    "fp32_contents": _some(st.floats(width=32)),
    "fp64_contents": _some(st.floats()),
    "bytes_contents": _some(st.binary(max_size=6)),
}
_VALUES = {
    "half_val": _INT32,
    "float_val": _some(st.floats(width=32)),
    "double_val": _some(st.floats()),
    "int_val": _INT32,
    "string_val": _some(st.binary(max_size=6)),
    "int64_val": _INT64,
    "bool_val": _some(st.booleans()),
    "uint32_val": _UINT32,
    "uint64_val": _UINT64,
}


@dataclass(frozen=True)
class Known:
    """What the receiver serves: by model the name of its input, and the (datatype, shape) that is right for it, where
    it declares one; `examples` are models that classify or regress, `words` other names that mean something.
    """

    inputs: Mapping[str, tuple[str, str, tuple[int, ...]]]
    handlers: tuple[str, ...]
    examples: tuple[str, ...]
    words: tuple[str, ...] = ()

    @cached_property
    def models(self) -> tuple[str, ...]:
        return (*self.inputs, *self.handlers, *self.examples)

    @cached_property
    def all_words(self) -> tuple[str, ...]:
        """Everything that may stand in a string, so that mutations get past the first checks."""
        names = sorted({name for name, _, _ in self.inputs.values()})
        return (*self.models, *names, *DATATYPES, *self.words)


def _shape(choices: Choices) -> tuple[int, ...]:
    return tuple(choices.one(SIZES) for _ in range(choices.upto(4))) if choices.rarely(3) else choices.one(SHAPES)


def _raw(choices: Choices, datatype: str, shape: tuple[int, ...]) -> bytes:
    """Of the length that the shape asks for, where that is not much, or of another."""
    right = prod(max(size, 0) for size in shape) * ITEM_SIZE.get(datatype, 4)
    if right <= MOST_RIGHT and not choices.rarely(3):
        return bytes(right)
    return choices.binary(20) if choices.rarely(4) else choices.one(_RAW)


def _model(choices: Choices, known: Known) -> str:
    return choices.one(
        choices.one([models for models in (tuple(known.inputs), known.handlers, known.examples) if models])
    )


def _described(choices: Choices, known: Known, model: str) -> tuple[str, str, tuple[int, ...]]:
    """(name, datatype, shape) of an input: those of the model for the most part."""
    name, datatype, shape = known.inputs.get(model, ("x", "FP32", (1,)))
    if choices.rarely(6):
        name = choices.one(known.all_words)
    if choices.rarely(4):
        datatype = choices.one(DATATYPES)
    return name, datatype, shape if choices.rarely(4) else _shape(choices)


def infer_request(choices: Choices, known: Known) -> bytes:
    """A ModelInferRequest whose inputs are described in one way and filled in another."""
    request = oip.ModelInferRequest(model_name=_model(choices, known), id="7")
    for _ in range(choices.one((1, 1, 1, 0, 2, 3))):
        name, datatype, shape = _described(choices, known, request.model_name)
        entry = request.inputs.add(name=name, datatype=datatype, shape=shape)
        if choices.rarely(3):
            field = choices.one(tuple(_CONTENTS))
            getattr(entry.contents, field).extend(choices.draw(_CONTENTS[field]))
    if not choices.rarely(4):
        request.raw_input_contents.extend(_raw(choices, one.datatype, tuple(one.shape)) for one in request.inputs)
        if choices.rarely(6):
            request.raw_input_contents.append(b"")
    return request.SerializeToString()


def predict_request(choices: Choices, known: Known) -> bytes:
    """A PredictRequest of the same kind: dense, sparse, of unknown rank, of a dtype that there is not."""
    request = tfs.PredictRequest()
    request.model_spec.name = _model(choices, known)
    for _ in range(choices.one((1, 1, 1, 0, 2))):
        name, datatype, shape = _described(choices, known, request.model_spec.name)
        proto = request.inputs[name]
        proto.dtype = DTYPE.get(datatype) or choices.one((0, 8, 20, 21, 99, 101, -1))  # type: ignore[assignment]
        for size in shape:
            proto.tensor_shape.dim.add(size=size)
        proto.tensor_shape.unknown_rank = choices.rarely(8)
        if choices.rarely(2):
            proto.tensor_content = _raw(choices, datatype, shape)
        for _ in range(choices.upto(2)):
            field = choices.one(tuple(_VALUES))
            getattr(proto, field).extend(choices.draw(_VALUES[field]))
    return request.SerializeToString()


def hostile_message(choices: Choices, kind: Descriptor | None, seeds: list[bytes], known: Known) -> bytes:
    """A message for a method that takes `kind`, most of them wrong; `seeds` are those of `valid`."""
    made = {"inference.ModelInferRequest": infer_request, "tensorflow.serving.PredictRequest": predict_request}
    if kind is not None and kind.full_name in made and choices.rarely(2):
        return made[kind.full_name](choices, known)
    return choices.binary(60) if choices.rarely(6) else mutated(choices, kind, seeds, known.all_words)


def kind_of(method: str) -> Descriptor | None:
    """What a gRPC method of this path takes, None if nobody says: protobuf's pool knows those with a descriptor."""
    service, _, name = method.lstrip("/").partition("/")
    for known in (service, service.replace(".v1.", ".v1alpha.")):  # reflection has both, and a descriptor of one
        try:
            return descriptor_pool.Default().FindServiceByName(known).methods_by_name[name].input_type  # type: ignore[no-any-return, no-untyped-call]
        except KeyError:
            continue
    return None


def valid(kind: Descriptor | None, known: Known) -> list[bytes]:
    """Messages to begin with, as good as can be made without knowing the method; of any kind there is one at least."""
    if kind is None:
        return [b""]
    made = _VALID.get(kind.full_name, lambda known: [])(known)
    return [message.SerializeToString() for message in (*made, *(_filled(kind, word) for word in known.models))]


def _filled(kind: Descriptor, word: str, depth: int = 0) -> Message:
    """A message with `word` as each of its texts, so that the model is named whatever the field is called."""
    message: Message = GetMessageClass(kind)()
    for field in kind.fields:
        if field.type == field.TYPE_STRING and not field.is_repeated:
            setattr(message, field.name, word)
        elif field.type == field.TYPE_MESSAGE and not field.is_repeated and depth < 2:
            getattr(message, field.name).CopyFrom(_filled(field.message_type, word, depth + 1))
    return message


def _infer(known: Known) -> list[Message]:
    """Raw and typed for each model with a signature, and a body for each handler."""
    made: list[Message] = []
    for model, (name, datatype, shape) in known.inputs.items():
        message = oip.ModelInferRequest(model_name=model, raw_input_contents=[_zeros(datatype, shape)])
        message.inputs.add(name=name, datatype=datatype, shape=shape)
        made.append(message)
    for model in known.handlers:
        message = oip.ModelInferRequest(model_name=model)
        message.inputs.add(name="body", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"[1, 2]")
        message.parameters["content_type"].string_param = "application/json"
        made.append(message)
    return made


def _zeros(datatype: str, shape: tuple[int, ...]) -> bytes:
    return bytes(prod(shape) * ITEM_SIZE.get(datatype, 4))


def _predict(known: Known) -> list[Message]:
    made: list[Message] = []
    for model, (name, datatype, shape) in known.inputs.items():
        message = tfs.PredictRequest(model_spec=tfs.ModelSpec(name=model))
        encode_tensor(Tensor(name, datatype, shape, _zeros(datatype, shape)), typed=True, into=message.inputs[name])
        made.append(message)
    return made


def _input(context: bool) -> tfs.Input:
    example = tf.Example()
    example.features.feature["a"].float_list.value.extend((1.0, 2.0))
    example.features.feature["b"].bytes_list.value.append(b"text")
    message = tfs.Input()
    if context:
        message.example_list_with_context.context.CopyFrom(example)
        message.example_list_with_context.examples.extend((example, tf.Example()))
    else:
        message.example_list.examples.append(example)
    return message


def _specs(known: Known) -> list[tfs.ModelSpec]:
    return [tfs.ModelSpec(name=model, signature_name=name) for model in known.examples for name in ("", "regress")]


_VALID: Mapping[str, Callable[[Known], list[Message]]] = {
    "inference.ModelInferRequest": _infer,
    "tensorflow.serving.PredictRequest": _predict,
    "tensorflow.serving.ClassificationRequest": lambda known: [
        tfs.ClassificationRequest(model_spec=spec, input=_input(context))
        for spec in _specs(known)
        for context in (False, True)
    ],
    "tensorflow.serving.RegressionRequest": lambda known: [
        tfs.RegressionRequest(model_spec=spec, input=_input(context))
        for spec in _specs(known)
        for context in (False, True)
    ],
    "tensorflow.serving.MultiInferenceRequest": lambda known: [
        tfs.MultiInferenceRequest(
            input=_input(context=True),
            tasks=[
                tfs.InferenceTask(
                    model_spec=spec, method_name=f"tensorflow/serving/{spec.signature_name or 'classify'}"
                )
                for spec in _specs(known)
                if spec.name == model
            ],
        )
        for model in known.examples
    ],
    "tensorflow.serving.GetModelMetadataRequest": lambda known: [
        tfs.GetModelMetadataRequest(model_spec=tfs.ModelSpec(name=model), metadata_field=["signature_def"])
        for model in known.models
    ],
    "org.pytorch.serve.grpc.inference.PredictionsRequest": lambda known: [
        ts.PredictionsRequest(model_name=model, input=parts)
        for model in known.handlers
        for parts in ({"data": b"[1, 2]"}, {"data": b"1", "more": b"2"})
    ],
}
