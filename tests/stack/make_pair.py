"""Run by TensorFlow's Python: writes a SavedModel of two inputs, two outputs and two signatures.

make_pair.py FOLDER

`MARKER` lies in the graph, so that files of other contents can be made by replacing its four bytes.
"""

import sys

import tensorflow as tf

MARKER = 123456.789
ANY = [tf.TensorSpec(None, tf.float32, "a"), tf.TensorSpec(None, tf.float32, "b")]


class Pair(tf.Module):
    """Two functions of float32 tensors of any shape, with a weight so that there are variables."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = tf.Variable(0.0)

    @tf.function(input_signature=ANY)
    def serve(self, a: tf.Tensor, b: tf.Tensor) -> dict[str, tf.Tensor]:
        """total = a + 2b, which is of both inputs but not the same if they are swapped; content = 0a + MARKER."""
        return {"total": a + 2.0 * b + self.weight, "content": a * 0.0 + tf.constant(MARKER, tf.float32)}

    @tf.function(input_signature=ANY)
    def negate(self, a: tf.Tensor, b: tf.Tensor) -> dict[str, tf.Tensor]:
        """The same with another sign."""
        return {"total": self.weight - a - 2.0 * b, "content": a * 0.0 + tf.constant(MARKER, tf.float32)}


pair = Pair()
tf.saved_model.save(pair, sys.argv[1], signatures={"serving_default": pair.serve, "negated": pair.negate})
