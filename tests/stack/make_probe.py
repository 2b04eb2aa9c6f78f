"""Run by TensorFlow's Python: writes a SavedModel that answers one number, `MARKER`, to whatever it is asked.

make_probe.py FOLDER

The number lies in the graph, so that files of other contents can be made by replacing its four bytes.
"""

import sys

import tensorflow as tf

MARKER = 123456.789


class Probe(tf.Module):
    """y = 0·x + weight + MARKER, with a weight so that there are variables."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """[n] float32 → [n] float32."""
        return {"y": x * 0.0 + self.weight + tf.constant(MARKER, tf.float32)}


probe = Probe()
tf.saved_model.save(probe, sys.argv[1], signatures={"serving_default": probe.serve})
