"""TF Serving's `signature_def` metadata → the routes' signatures. Used by the controller's TF Serving adapter; the
other direction is in `codecs.tensorflow`.
"""

from collections.abc import Mapping

from portico.codecs.tensorflow import DATATYPE
from portico.routing import DEFAULT_SIGNATURE, Signature, TensorSpec
from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs


def decode_signatures(signatures: tfs.SignatureDefMap) -> dict[str, Signature]:
    """The signatures in an order that does not depend on the wire, where a map has none."""
    by_name: Mapping[str, tf.SignatureDef] = signatures.signature_def
    names = sorted(by_name, key=lambda name: (name != DEFAULT_SIGNATURE, name.startswith("__"), name))
    return {name: _signature(by_name[name]) for name in names}


def _signature(definition: tf.SignatureDef) -> Signature:
    return Signature(_specs(definition.inputs), _specs(definition.outputs), definition.method_name)


def _specs(tensors: Mapping[str, tf.TensorInfo]) -> tuple[TensorSpec, ...]:
    return tuple(_spec(name, tensors[name]) for name in sorted(tensors))


def _spec(name: str, tensor: tf.TensorInfo) -> TensorSpec:
    """A datatype that the Open Inference Protocol has no name for keeps TensorFlow's, such as DT_COMPLEX64."""
    datatype = DATATYPE.get(tensor.dtype) or _tensorflow_name(tensor.dtype)
    unknown = tensor.tensor_shape.unknown_rank
    shape = None if unknown else tuple(dim.size for dim in tensor.tensor_shape.dim)
    return TensorSpec(name, datatype, shape, tensor.name)


def _tensorflow_name(dtype: int) -> str:
    return tf.DataType.Name(dtype) if dtype in tf.DataType.values() else f"DT_{dtype}"
