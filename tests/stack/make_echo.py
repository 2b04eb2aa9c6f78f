"""Run by TensorFlow's Python: writes a SavedModel that gives back what it is given, with a signature for each datatype.

make_echo.py FOLDER
"""

import sys

import tensorflow as tf

DTYPES = {
    "BOOL": tf.bool,
    "UINT8": tf.uint8,
    "UINT16": tf.uint16,
    "UINT32": tf.uint32,
    "UINT64": tf.uint64,
    "INT8": tf.int8,
    "INT16": tf.int16,
    "INT32": tf.int32,
    "INT64": tf.int64,
    "FP16": tf.float16,
    "BF16": tf.bfloat16,
    "FP32": tf.float32,
    "FP64": tf.float64,
    "BYTES": tf.string,
}


def echo(dtype: tf.DType) -> tf.types.experimental.GenericFunction:
    """A function of one tensor `x`, of any shape, that returns it as `y`."""

    @tf.function(input_signature=[tf.TensorSpec(None, dtype, "x")])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.identity(x)}

    return serve


module = tf.Module()
functions = {name: echo(dtype) for name, dtype in DTYPES.items()}
tf.saved_model.save(module, sys.argv[1], signatures=functions)
