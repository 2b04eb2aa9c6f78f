"""Trains the iris demo model and writes it as a TensorFlow SavedModel to `<out>/iris/1/`.

Run by hand or by `tests/examples`, with the TF Serving environment's Python. It knows nothing of Portico.
"""

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

SEED = 7
STEPS = 400
LEARNING_RATE = 0.5
MINIMUM_ACCURACY = 0.93
SPECIES = ("setosa", "versicolor", "virginica")
DEFAULT_OUT = Path(__file__).resolve().parents[2] / "model-repository"


class Iris(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
    """Softmax regression over the four measurements, with their normalisation inside.

    A plain `tf.Module`: a Keras model of the same size takes ten times the bytes and loads more slowly.
    """

    def __init__(self, mean: Any, scale: Any) -> None:
        super().__init__(name="iris")
        self.mean = tf.constant(mean, tf.float32)
        self.scale = tf.constant(scale, tf.float32)
        self.weights = tf.Variable(tf.zeros([4, len(SPECIES)]), name="weights")
        self.bias = tf.Variable(tf.zeros([len(SPECIES)]), name="bias")

    def logits(self, measurements: Any) -> Any:
        """FP32 [n,4] centimetres -> FP32 [n,3] unnormalised log-probabilities."""
        return tf.matmul((measurements - self.mean) / self.scale, self.weights) + self.bias

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="measurements")])  # type: ignore[untyped-decorator]
    def predict(self, measurements: Any) -> dict[str, Any]:
        """FP32 [n,4] centimetres -> `probabilities` FP32 [n,3] and `species` INT64 [n], an index into SPECIES."""
        logits = self.logits(measurements)
        return {"probabilities": tf.nn.softmax(logits), "species": tf.argmax(logits, axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])  # type: ignore[untyped-decorator]
    def classify(self, inputs: Any) -> dict[str, Any]:
        """Serialised `tf.Example`s with a float feature `measurements` [4] -> `classes` [n,3], `scores` FP32 [n,3].

        The names that TF Serving's Classify API asks for (tensorflow/serving, servables/tensorflow/classifier.cc). The
        signature's method name is predict's, as `tf.saved_model.save` has no other; TF Serving looks at it only with
        `--enable_signature_method_name_check`, which it is not started with by default.
        """
        features = tf.io.parse_example(inputs, {"measurements": tf.io.FixedLenFeature([4], tf.float32)})
        scores = tf.nn.softmax(self.logits(features["measurements"]))
        return {"classes": tf.repeat(tf.constant([SPECIES]), tf.shape(scores)[0], axis=0), "scores": scores}


def fit(model: Iris, measurements: Any, species: Any) -> None:
    """Full-batch gradient descent; the problem is convex, so the result does not depend on where it starts."""
    variables = (model.weights, model.bias)
    for _ in range(STEPS):
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(species, model.logits(measurements))
            loss = tf.reduce_mean(losses) + 1e-3 * tf.nn.l2_loss(model.weights)
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(LEARNING_RATE * gradient)


def save(model: Iris, version: Path) -> None:
    """Writes the SavedModel beside its destination and renames it, so that no half-written version is ever seen."""
    aside = version.parent / f".{version.name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    signatures = {"serving_default": model.predict, "classify": model.classify}
    tf.saved_model.save(model, str(aside), signatures=signatures)
    shutil.rmtree(version, ignore_errors=True)
    aside.rename(version)


def main() -> None:
    """Trains, prints the held-out accuracy, and writes the model only if that is good enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="the model repository to write into")
    out: Path = parser.parse_args().out

    tf.random.set_seed(SEED)
    measurements, species = load_iris(return_X_y=True)
    measurements = measurements.astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(
        measurements, species, test_size=0.2, stratify=species, random_state=SEED
    )
    model = Iris(train_x.mean(axis=0), train_x.std(axis=0))
    fit(model, tf.constant(train_x), tf.constant(train_y))

    accuracy = float(np.mean(model.predict(test_x)["species"].numpy() == test_y))
    print(f"held-out accuracy {accuracy:.4f} on {len(test_y)} flowers")
    if accuracy < MINIMUM_ACCURACY:
        raise SystemExit(f"below {MINIMUM_ACCURACY}: nothing written")
    version = out / "iris" / "1"
    version.parent.mkdir(parents=True, exist_ok=True)
    save(model, version)
    print(f"wrote {version}")


if __name__ == "__main__":
    main()
