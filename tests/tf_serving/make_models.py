"""Makes the SavedModels of this folder's tests. Run by conftest.py with the Python that has TensorFlow:

python make_models.py <directory>
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

v1 = tf.compat.v1
Tensor = Any  # TensorFlow has no types
DTYPES = ("float32", "float64", "int32", "int64", "uint8", "int8", "int16", "uint32", "uint64", "bool", "string")
MORE_DTYPES = ("float16", "bfloat16", "complex64")


class Half(tf.Module):
    """y = x / 2 + offset, and a second signature that triples."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = tf.Variable(offset, dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def half(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": x / 2 + self.offset}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def triple(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": 3 * x, "x_again": x}


class Product(tf.Module):
    """Two inputs, matrix times vector: the shapes must fit."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 2], tf.float32, name="matrix"),
            tf.TensorSpec([None, 2], tf.float32, name="vector"),
        ]
    )
    def product(self, matrix: Tensor, vector: Tensor) -> dict[str, Tensor]:
        return {"product": tf.matmul(matrix, vector, transpose_b=True), "sum": matrix + vector}


class Text(tf.Module):
    """Strings in; strings, bytes and a scalar out."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def shout(self, text: Tensor) -> dict[str, Tensor]:
        return {"shouted": tf.strings.upper(text), "shouted_bytes": tf.strings.upper(text)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def count(self, text: Tensor) -> dict[str, Tensor]:
        return {"count": tf.size(text)}


class Echo(tf.Module):
    """One input and one output of each datatype."""

    @tf.function(input_signature=[{name: tf.TensorSpec(None, name, name=name) for name in DTYPES}])
    def echo(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {f"{name}_out": tf.identity(value) for name, value in values.items()}

    @tf.function(input_signature=[{name: tf.TensorSpec(None, name, name=name) for name in MORE_DTYPES}])
    def more(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {f"{name}_out": tf.identity(value) for name, value in values.items()}


def save_half(root: Path, name: str, versions: Iterable[int]) -> None:
    """Version 1 is half_plus_two; each later one adds one more."""
    for version in versions:
        module = Half(float(version + 1))
        signatures = {"serving_default": module.half, "triple": module.triple}
        tf.saved_model.save(module, str(root / name / str(version)), signatures=signatures)


def save_tf1(path: Path) -> None:
    """A TensorFlow 1 SavedModel that parses tf.Examples: predict, regress and classify signatures over variables."""
    with v1.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, name="tf_example")
        parsed = v1.io.parse_example(
            serialized,
            {
                "x": v1.io.FixedLenFeature([1], tf.float32),
                "bias": v1.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
            },
        )
        x = tf.identity(parsed["x"], name="x")
        two = v1.get_variable("two", initializer=2.0)
        y = tf.add(x * 0.5, two + parsed["bias"], name="y")
        plain = tf.add(x * 0.5, two, name="plain")
        scores = tf.concat([y, 1 - y], axis=1, name="scores")
        names = tf.tile(tf.constant([["yes", "no"]]), [tf.shape(x)[0], 1], name="classes")
        session.run(v1.global_variables_initializer())
        tensors = {"examples": serialized, "x": x, "y": y, "plain": plain, "scores": scores, "classes": names}
        infos = {key: v1.saved_model.build_tensor_info(value) for key, value in tensors.items()}
        save_signatures(session, path, infos)


def save_signatures(session: Any, path: Path, infos: dict[str, Any]) -> None:
    """Write the session with its signatures: predict on x, regress and classify on tf.Examples."""

    def signature(inputs: dict[str, Any], outputs: dict[str, Any], kind: str) -> Any:
        return v1.saved_model.build_signature_def(inputs, outputs, f"tensorflow/serving/{kind}")

    examples = {"inputs": infos["examples"]}
    builder = v1.saved_model.Builder(str(path))
    builder.add_meta_graph_and_variables(
        session,
        ["serve"],
        signature_def_map={
            "serving_default": signature({"x": infos["x"]}, {"y": infos["plain"]}, "predict"),
            "regress": signature(examples, {"outputs": infos["y"]}, "regress"),
            "classify": signature(examples, {"classes": infos["classes"], "scores": infos["scores"]}, "classify"),
            "classify_scores": signature(examples, {"scores": infos["scores"]}, "classify"),
        },
    )
    builder.save()


def save_other_tag(path: Path) -> None:
    """A SavedModel with no meta graph to serve."""
    with v1.Graph().as_default(), v1.Session() as session:
        v1.placeholder(tf.float32, name="x")
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["train"])
        builder.save()


def save_warm(path: Path, signature: str) -> None:
    """Half with one recorded warm-up request, for a signature that exists or not."""
    tf.saved_model.save(module := Half(2.0), str(path), signatures=module.half)
    log = PredictionLog()
    log.predict_log.request.model_spec.signature_name = signature
    log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))
    (path / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(path / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        writer.write(log.SerializeToString())


def main(root: Path) -> None:
    """Make all of them."""
    save_half(root, "half", range(1, 6))
    tf.saved_model.save(module := Product(), str(root / "product" / "1"), signatures=module.product)
    text = Text()
    tf.saved_model.save(text, str(root / "text" / "1"), signatures={"serving_default": text.shout, "count": text.count})
    echo = Echo()
    tf.saved_model.save(echo, str(root / "echo" / "1"), signatures={"serving_default": echo.echo, "more": echo.more})
    save_tf1(root / "tf1" / "1")
    save_other_tag(root / "other_tag" / "1")
    save_warm(root / "warm" / "1", "serving_default")
    save_warm(root / "warm_wrong" / "1", "no_such_signature")
    broken = root / "broken" / "1"
    broken.mkdir(parents=True)
    (broken / "saved_model.pb").write_bytes(b"this is no SavedModel")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
