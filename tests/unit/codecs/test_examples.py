"""tf.Examples from messages and from JSON."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.codecs.examples import decode_examples, examples_from_json
from portico.errors import InvalidRequest
from portico.inference import unpack_bytes
from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs


def example(**features: Any) -> tf.Example:
    """An Example with a feature of floats, integers or bytes for each list."""
    made = tf.Example()
    for name, values in features.items():
        kind = {float: "float_list", int: "int64_list", bytes: "bytes_list"}[type(values[0])]
        getattr(made.features.feature[name], kind).value.extend(values)
    return made


def listed(*examples: tf.Example) -> tfs.Input:
    return tfs.Input(example_list=tfs.ExampleList(examples=examples))


def read(message: tfs.Input) -> list[tf.Example]:
    """The examples as a model reads them."""
    tensor = decode_examples(message, "inputs").check()
    assert (tensor.name, tensor.datatype) == ("inputs", "BYTES")
    elements = [tf.Example.FromString(element) for element in unpack_bytes(tensor.data)]
    assert tensor.shape == (len(elements),)
    return elements


def test_each_example_is_one_element() -> None:
    """A list of examples is a vector with each of them, serialized."""
    examples = [example(x=[1.5], name=[b"\xff"]), example(), example(n=[1, 2])]
    assert read(listed(*examples)) == examples


def test_the_context_is_part_of_each_example() -> None:
    """Features of the context are features of every example; an example's own feature of that name wins."""
    shared = tfs.ExampleListWithContext(examples=[example(x=[1]), example(a=[7])], context=example(a=[5], b=[6]))
    assert read(tfs.Input(example_list_with_context=shared)) == [example(a=[5], b=[6], x=[1]), example(a=[7], b=[6])]


@given(st.permutations([f"feature {number}" for number in range(40)]))
def test_the_order_of_features_does_not_matter(names: list[str]) -> None:
    """The same features in any order are the same bytes, so that an answer is found in the cache."""
    given_order, sorted_order = (
        decode_examples(listed(example(**{name: [1.0] for name in order})), "inputs")
        for order in (names, sorted(names))
    )
    assert given_order.data == sorted_order.data


@pytest.mark.parametrize(
    "message",
    [
        tfs.Input(),
        listed(),
        tfs.Input(example_list_with_context=tfs.ExampleListWithContext(context=example(a=[1]))),
    ],
    ids=["nothing", "no examples", "only a context"],
)
def test_no_examples(message: tfs.Input) -> None:
    """A request without an example is refused in TF Serving's words."""
    with pytest.raises(InvalidRequest, match=r"^Input is empty\.$"):
        decode_examples(message, "inputs")


def test_json_examples() -> None:
    """Numbers with a point are floats, others and booleans integers, text and b64 bytes; each alone or in a list."""
    raw = base64.b64encode(b"\xff\0").decode()
    values = {"f": 1.0, "i": 3, "s": "ä", "b": {"b64": raw}, "t": True, "fs": [1.5, -2.5], "is": [1, False], "n": []}
    values |= {"bs": ["a", {"b64": raw}]}
    expected = example(
        f=[1.0], i=[3], s=["ä".encode()], b=[b"\xff\0"], t=[1], fs=[1.5, -2.5], bs=[b"a", b"\xff\0"], **{"is": [1, 0]}
    )
    expected.features.feature["n"].SetInParent()
    assert examples_from_json({"examples": [values, {}]}) == listed(expected, example())


def test_json_context() -> None:
    """A context in JSON is the context of the message."""
    found = examples_from_json({"context": {"a": 5}, "examples": [{"x": 1}, {"x": 2}]})
    shared = tfs.ExampleListWithContext(examples=[example(x=[1]), example(x=[2])], context=example(a=[5]))
    assert found == tfs.Input(example_list_with_context=shared)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"a": 1}, "When method is classify, key 'examples' is expected and was not found"),
        ({"examples": {"x": 1}}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [[]]}, "Example must be JSON object but got JSON Array"),
        ({"examples": [False]}, "Example must be JSON object but got JSON False"),
        ({"examples": [{}], "context": "a"}, "Example must be JSON object but got JSON String"),
        ({"examples": [{"x": None}]}, "Feature: x has element with unexpected JSON type: Null"),
        ({"examples": [{"x": [[1]]}]}, "Feature: x has element with unexpected JSON type: Array"),
        ({"examples": [{"x": {"y": 1}}]}, "Feature: x has element with unexpected JSON type: Object"),
        ({"examples": [{"x": {"b64": 1}}]}, "Feature: x has element with unexpected JSON type: Object"),
        ({"examples": [{"x": {"b64": "?"}}]}, "Unable to base64 decode"),
        ({"examples": [{"x": {"b64": "ä"}}]}, "Unable to base64 decode"),
        ({"examples": [{"x": 1 << 63}]}, "Feature: x has uint64_t element. Only int64_t is supported."),
        ({"examples": [{"x": -(1 << 63) - 1}]}, "Only int64_t is supported."),
        ({"examples": [{"x": [1.5, 1]}]}, "Unexpected element type in feature: x expecting type: float"),
        ({"examples": [{"x": [1, "a"]}]}, "Unexpected element type in feature: x expecting type: int64"),
        ({"examples": [{"x": ["a", 1]}]}, "Unexpected element type in feature: x expecting type: bytes"),
    ],
)
def test_json_that_is_no_examples(body: dict[str, Any], says: str) -> None:
    """What cannot be read is refused in TF Serving's words, with the feature that it is about."""
    with pytest.raises(InvalidRequest) as refused:
        examples_from_json(body)
    assert says in str(refused.value)


def test_a_large_body_is_not_quoted_whole() -> None:
    """The error that quotes a body quotes the beginning of a large one."""
    with pytest.raises(InvalidRequest) as refused:
        examples_from_json({"instances": ["x"] * 10_000})
    assert len(str(refused.value)) < 400
