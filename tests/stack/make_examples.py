"""Run by TensorFlow's Python: writes a SavedModel that classifies and regresses tf.Examples.

make_examples.py FOLDER

Of an example's features x and bias (float, 0 if there is none) it makes y = x / 2 + 2 + bias, its regression; the
scores of its classes "yes" and "no" are y and 1 - y.
"""

import sys
from typing import Any

import tensorflow as tf

Tensor = Any  # TensorFlow has no types
EXAMPLES = [tf.TensorSpec([None], tf.string, "inputs")]
FEATURES = {
    "x": tf.io.FixedLenFeature([], tf.float32),
    "bias": tf.io.FixedLenFeature([], tf.float32, default_value=0.0),
}


class Half(tf.Module):
    """With a weight, so that there are variables."""

    def __init__(self) -> None:
        super().__init__()
        self.two = tf.Variable(2.0)

    def y(self, inputs: Tensor) -> Tensor:
        """[n] serialized examples → [n] float32."""
        features = tf.io.parse_example(inputs, FEATURES)
        return features["x"] / 2 + self.two + features["bias"]

    @tf.function(input_signature=EXAMPLES)
    def classify(self, inputs: Tensor) -> dict[str, Tensor]:
        y = self.y(inputs)
        classes = tf.tile(tf.constant([["yes", "no"]]), [tf.shape(y)[0], 1])
        return {"classes": classes, "scores": tf.stack([y, 1 - y], axis=1)}

    @tf.function(input_signature=EXAMPLES)
    def regress(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"outputs": self.y(inputs)}


half = Half()
signatures = {"serving_default": half.classify, "regress": half.regress}
tf.saved_model.save(half, sys.argv[1], signatures=signatures)
