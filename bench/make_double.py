"""Run by TensorFlow's Python: writes the SavedModel of y = 2x, on FP32 numbers of the shape [n, 16].

make_double.py FOLDER
"""

import sys

import tensorflow as tf


class Double(tf.Module):
    """With a weight, so that there are variables as in any other model."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 16], tf.float32, "x")])
    def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """[n, 16] float32 → [n, 16] float32."""
        return {"y": x * self.weight}


double = Double()
tf.saved_model.save(double, sys.argv[1], signatures={"serving_default": double.serve})
