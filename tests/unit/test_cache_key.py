"""Two requests share a key if and only if the model would be asked the same thing."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.cache_key import cache_key
from portico.inference import Form, InferenceRequest, Tensor
from portico.routing import Route, Server, Signature, TensorSpec

# Few letters and short texts, so that two draws are often equal in part, and fields often join to the same bytes.
WORDS = st.text("ab=:,\0", max_size=3)
TENSORS = st.builds(
    Tensor, WORDS, st.sampled_from(["FP32", "INT8", "BYTES"]), st.lists(st.integers(0, 12), max_size=2).map(tuple),
    st.binary(max_size=2),
)  # fmt: skip
OUTPUTS = tuple(TensorSpec(name, "FP32", None) for name in "ab")
SIGNATURES = {"serving_default": Signature((), OUTPUTS)}
REQUESTS = st.builds(
    InferenceRequest,
    inputs=st.lists(TENSORS, max_size=2, unique_by=lambda tensor: tensor.name).map(tuple),
    outputs=st.lists(WORDS | st.sampled_from("ab"), max_size=3).map(tuple),
    signature=WORDS,
    form=st.sampled_from(Form),
    content_type=WORDS,
    url_path=WORDS,
    explain=st.booleans(),
    id=WORDS,
)
ROUTES = st.builds(
    Route,
    WORDS,
    WORDS,
    st.sampled_from(Server),
    st.just("servable"),
    st.just("1"),
    WORDS,
    st.sampled_from([{}, SIGNATURES]),
)

ROUTE = Route("iris", "1", Server.TF_SERVING, "iris--a", "1", "print", SIGNATURES)
X = Tensor("x", "FP32", (1, 2), bytes(range(8)))
Y = Tensor("y", "FP32", (1, 2), bytes(range(8)))
REQUEST = InferenceRequest((X, Y), ("p", "q"), "signature", Form.TENSORS, "image/png", id="id")


def canonical(route: Route, request: InferenceRequest) -> Any:
    """What the model is asked: all that makes a difference to its answer, and nothing else."""
    inputs = [(tensor.name, tensor.datatype, tensor.shape, tensor.data) for tensor in request.inputs]
    return (
        (route.model, route.version, route.fingerprint, request.signature or "serving_default"),
        (request.form, request.content_type, request.url_path, request.explain),
        asked_for(route, request),
        sorted(inputs) if goes_by_names(route, request) else inputs,
    )


def asked_for(route: Route, request: InferenceRequest) -> set[str]:
    """The outputs that come of it, where the model declares what it has; all it declares is what none means."""
    declared = {"serving_default": {"a", "b"}}.get(request.signature or "serving_default", set())
    if not route.signatures or (declared and not declared - set(request.outputs)):
        return set()
    return set(request.outputs)


def goes_by_names(route: Route, request: InferenceRequest) -> bool:
    """Whether the order of the inputs is nothing to the model."""
    return bool(route.signatures) or request.form is Form.PARTS


@given(ROUTES, REQUESTS, ROUTES, REQUESTS)
def test_equal_if_and_only_if_the_same_is_asked(a: Route, x: InferenceRequest, b: Route, y: InferenceRequest) -> None:
    """Keys are equal exactly when route and request are, in all that matters to the answer."""
    assert (cache_key(a, x) == cache_key(b, y)) == (canonical(a, x) == canonical(b, y))


@given(ROUTES, REQUESTS, WORDS)
def test_order_and_id_make_no_difference(route: Route, request: InferenceRequest, identity: str) -> None:
    """The order of inputs and outputs, and the request's id, are not part of the key; only a handler that gets tensors
    sees their order.
    """
    inputs = request.inputs[::-1] if goes_by_names(route, request) else request.inputs
    turned = replace(request, inputs=inputs, outputs=request.outputs[::-1], id=identity)
    assert cache_key(route, turned) == cache_key(route, request)


def test_a_handler_sees_the_order_of_tensors() -> None:
    """KServe's envelope hands them on as a list, so another order is another question."""
    handler = replace(ROUTE, server=Server.TORCHSERVE, signatures={})
    assert cache_key(handler, REQUEST) != cache_key(handler, replace(REQUEST, inputs=(Y, X)))


@pytest.mark.parametrize(
    "other",
    [
        replace(REQUEST, inputs=(X,)),
        replace(REQUEST, inputs=(replace(X, name="z"), Y)),
        replace(REQUEST, inputs=(replace(X, datatype="INT32"), Y)),
        replace(REQUEST, inputs=(replace(X, shape=(2, 1)), Y)),
        replace(REQUEST, inputs=(replace(X, shape=(2,)), Y)),
        replace(REQUEST, inputs=(replace(X, data=bytes(8)), Y)),
        replace(REQUEST, outputs=("p",)),
        replace(REQUEST, signature=""),
        replace(REQUEST, form=Form.BODY),
        replace(REQUEST, form=Form.PARTS),
        replace(REQUEST, content_type="image/jpeg"),
        replace(REQUEST, content_type=""),
    ],
    ids=repr,
)
def test_each_part_of_a_request_counts(other: InferenceRequest) -> None:
    """A difference in an input, the outputs, the signature, the form or the content type is a new key."""
    assert cache_key(ROUTE, other) != cache_key(ROUTE, REQUEST)


@pytest.mark.parametrize("other", [{"model": "other"}, {"version": "other"}, {"fingerprint": "other"}])
def test_each_part_of_a_route_counts(other: Any) -> None:
    """Another model, version or content of the loaded files is a new key."""
    assert cache_key(replace(ROUTE, **other), REQUEST) != cache_key(ROUTE, REQUEST)


def test_where_a_model_is_loaded_makes_no_difference() -> None:
    """The same files under another name inside the model server keep their answers."""
    assert cache_key(replace(ROUTE, servable="iris--b", servable_version="9"), REQUEST) == cache_key(ROUTE, REQUEST)


def test_the_default_signature_by_its_name() -> None:
    """Naming the signature that is meant anyway is the same request."""
    named, unnamed = (replace(REQUEST, signature=signature) for signature in ("serving_default", ""))
    assert cache_key(ROUTE, named) == cache_key(ROUTE, unnamed)


def test_wanted_outputs_of_a_model_without_signatures() -> None:
    """A model that declares no signature answers with all it has, so what is wanted of that makes no difference."""
    digits = replace(ROUTE, signatures={})
    assert cache_key(digits, replace(REQUEST, outputs=("p",))) == cache_key(digits, REQUEST)


def test_bytes_that_move_between_inputs() -> None:
    """Bytes at the end of one input are not taken for the start of the next."""
    one = (Tensor("x", "BYTES", (1,), b"ab"), Tensor("y", "BYTES", (1,), b""))
    other = (Tensor("x", "BYTES", (1,), b"a"), Tensor("y", "BYTES", (1,), b"b"))
    assert cache_key(ROUTE, InferenceRequest(one)) != cache_key(ROUTE, InferenceRequest(other))


def test_an_output_is_not_a_content_type() -> None:
    """What is asked as an output is never mistaken for another field, nor for an input."""
    keys = {
        cache_key(ROUTE, InferenceRequest((), ("a", "b"))),
        cache_key(ROUTE, InferenceRequest((), ("a",), content_type="b")),
        cache_key(ROUTE, InferenceRequest((), ("ab",))),
        cache_key(ROUTE, InferenceRequest((Tensor("a", "b", (), b""),))),
    }
    assert len(keys) == 4


def test_a_key_is_short_and_the_same_in_each_process() -> None:
    """A key is 16 bytes that another process computes alike. It changes on purpose only: what was cached is lost."""
    assert cache_key(ROUTE, REQUEST).digest.hex() == "dcd0d420c764ae247cb449001c98e419"
    assert cache_key(ROUTE, REQUEST).model == "iris"
