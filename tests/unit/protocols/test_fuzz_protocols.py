"""Hostile requests to every method and endpoint, in-process: none makes the gateway fail, name what is inside it, hang,
or take memory that the request does not bring. All that is drawn is drawn in the same way each time.
"""

import asyncio
import gzip
import re
import resource
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator
from math import prod
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_client import Answer, Exchange, Headers
from choices import Choices, made
from hosted_gateway import KNOWN, LIMIT, HostedGateway
from hostile_tensors import hostile_message, infer_request, kind_of, predict_request, valid
from mutated_json import TOKENS, json_bodies, mutated_json
from mutations import LENGTH, Field, body_with, frame, varint
from portico.codecs.json_values import MOST_LISTS
from portico.edges.rest import Endpoint
from portico.edges.status import GrpcCode
from portico.inference import ITEM_SIZE
from portico.routing import Wire
from portico.wire import open_inference_pb2 as oip
from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs
from verdicts import check_grpc, check_http

ADDRESS_SPACE = 3 << 30
"""Bytes that may be mapped beyond what is, so that a fault ends the tests and not the machine."""
MOST_MEMORY = 32 << 20
"""Bytes that a small message may make the gateway take, while `LIMIT` is twice as much."""
INFLATED = 1 << 20
"""Bytes that a compressed message unpacks to, at most."""

INFER, STREAM = (f"/inference.GRPCInferenceService/Model{name}Infer" for name in ("", "Stream"))
PREDICT, CLASSIFY = (f"/tensorflow.serving.PredictionService/{name}" for name in ("Predict", "Classify"))
LENGTH_HEADER = b"inference-header-content-length"

METHODS = HostedGateway().grpc_edge._methods
ENDPOINTS = [entry for entries in HostedGateway().rest_edge._by_root.values() for entry in entries]
BODIES = json_bodies(KNOWN)

Run = Callable[[Coroutine[Any, Any, Answer | None]], Answer]


def fuzz(examples: int) -> settings:
    return settings(derandomize=True, max_examples=examples)


@pytest.fixture(scope="module")
def hosted() -> HostedGateway:
    return HostedGateway()


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs one call."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    with asyncio.Runner() as runner:
        resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESS_SPACE, before[1]))
        try:
            yield runner.run  # type: ignore[misc]
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)


def said(answer: Answer) -> str:
    """All that a client reads."""
    headers = [b": ".join(pair) for event in answer.events for pair in event.get("headers", [])]
    bodies = [event.get("body", b"") for event in answer.events]
    return b"\n".join([*bodies, *headers]).decode("latin-1")


def check_rest(answer: Answer) -> None:
    check_http(answer.status, said(answer))


def grpc_answer(hosted: HostedGateway, run: Run, path: str, body: bytes, headers: Headers = ()) -> Answer:
    """The answer to a body as it is, which has been checked. A call that would not end by itself gets a deadline."""
    method = METHODS[path]
    if method.lasting and method.both is None:
        headers = [*headers, (b"grpc-timeout", b"10m")]
    whole = [(b"content-type", b"application/grpc"), *headers]
    answer = run(Exchange("POST", path, body, whole, eager=True).run(hosted.grpc_edge))
    code, text = answer.grpc_status
    check_grpc(code, text + said(answer), timed=any(name == b"grpc-timeout" for name, _ in headers))
    return answer


@pytest.mark.parametrize("path", METHODS)
def test_grpc(hosted: HostedGateway, run: Run, path: str) -> None:
    """Whatever is sent to a gRPC method, its answer is one of a gateway that works, and the next call is answered."""
    kind = kind_of(path)
    seeds = valid(kind, KNOWN)
    deep = kind is not None and any(field.message_type is not None for field in kind.fields)

    def call(choices: Choices) -> tuple[bytes, Headers]:
        parts = [
            body_with(choices, hostile_message(choices, kind, seeds, KNOWN), INFLATED)
            for _ in range(1 if METHODS[path].both is None else choices.upto(3))
        ]
        return b"".join(body for body, _ in parts), [header for _, headers in parts for header in headers]

    @fuzz(80 if deep else 20)
    @given(made(call))
    def calls(call: tuple[bytes, Headers]) -> None:
        grpc_answer(hosted, run, path, *call)

    calls()
    run(hosted.good())


@pytest.mark.parametrize("rest", [b"", frame(b"", lie=9), b"\1"], ids=["whole", "message cut off", "prefix cut off"])
def test_broken_messages_within_a_stream(hosted: HostedGateway, run: Run, rest: bytes) -> None:
    """Each message of an inference stream is answered in its turn, however broken those around it are."""
    kind = kind_of(STREAM)
    seeds = valid(kind, KNOWN)
    good = hosted.good_request().SerializeToString()

    def conversation(choices: Choices) -> list[bytes]:
        return [
            good if choices.rarely(3) else hostile_message(choices, kind, seeds, KNOWN) for _ in range(choices.upto(5))
        ]

    @fuzz(25)
    @given(made(conversation))
    def calls(messages: list[bytes]) -> None:
        answer = grpc_answer(hosted, run, STREAM, b"".join(map(frame, messages)) + rest)
        told = [event["body"][5:] for event in answer.events if event.get("body")]
        answered = [oip.ModelStreamInferResponse.FromString(one) for one in told]
        assert len(answered) == len(messages)
        for message, one in zip(messages, answered, strict=True):
            assert message != good or one.infer_response.raw_output_contents == [bytes(8)]

    calls()


def path_of(endpoint: Endpoint) -> st.SearchStrategy[str]:
    """Paths that an endpoint takes, of models that there are."""
    groups = {"model": "|".join(KNOWN.models), "version": "1|latest"}
    pattern = re.sub(r"\(\?P<(\w+)>([^()]*)\)", lambda found: f"(?:{groups.get(found[1], found[2])})", endpoint.pattern)
    return st.from_regex(re.compile(pattern), fullmatch=True, alphabet=st.characters(codec="ascii", min_codepoint=33))


def rest_call(choices: Choices) -> tuple[bytes, Headers]:
    """(body, headers)."""
    body = choices.binary(60) if choices.rarely(8) else mutated_json(choices, BODIES, KNOWN.words)
    headers: list[tuple[bytes, bytes]] = []
    if choices.rarely(4):
        headers.append((b"content-type", choices.one((b"application/json", b"\xff", b"text/plain; a=\x01", b""))))
    if choices.rarely(8):
        headers.append((b"content-encoding", choices.one((b"gzip", b"deflate", b"br", b"gzip, gzip", b"\xff", b""))))
        body = gzip.compress(body, mtime=0) if choices.rarely(2) else body
    if choices.rarely(8):
        headers.append((LENGTH_HEADER, choices.one((b"0", b"-1", b"", b"5", b"1e3", b"\xb2", b"9" * 30, b"5, 5"))))
    return body, headers


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda found: f"{found.method} {found.pattern}")
def test_rest(hosted: HostedGateway, run: Run, endpoint: Endpoint) -> None:
    """Whatever is sent to an endpoint, its answer is one of a gateway that works, and the next call is answered."""
    has_body = endpoint.method == "POST"

    @fuzz(60 if has_body else 5)
    @given(path_of(endpoint), made(lambda choices: rest_call(choices) if has_body else (b"", ())))
    def calls(path: str, call: tuple[bytes, Headers]) -> None:
        check_rest(run(hosted.rest(endpoint.method, path, *call)))

    calls()
    run(hosted.good())


ASKING = [endpoint for endpoint in ENDPOINTS if endpoint.method == "POST" and "model" in endpoint.regex.groupindex]
KEYS = [
    *(("instances", model) for model in ("FP32", "BYTES", "handler_auto", "handler_kserve_v1")),
    *(("inputs", model) for model in ("FP32", "BYTES")),
    ("examples", "tasks"),
]


@pytest.mark.parametrize(("key", "model"), KEYS)
def test_rest_values(hosted: HostedGateway, run: Run, key: str, model: str) -> None:
    """Each value that is hard to read or to write again gets an answer of a gateway that works."""
    for endpoint in ASKING:
        path = re.sub(r"\(\?P<model>[^()]*\)(?:\(\?:.*\)\?)?", model, endpoint.pattern)
        for token in TOKENS:
            check_rest(run(hosted.rest("POST", path, f'{{"{key}": {token}}}'.encode())))


def binary_call(choices: Choices) -> tuple[bytes, Headers]:
    """An `infer` with its tensors behind the JSON, with lengths that do not agree."""
    name, datatype, shape = choices.one(tuple(KNOWN.inputs.values()))
    size = prod(shape) * ITEM_SIZE.get(datatype, 4)
    told = choices.one((size, size, 0, size + 1, size - 1, -1, 1 << 62, 1 << 64, 10**30))
    tensor = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": told}}
    asked = {"parameters": {"binary_data_output": True}} if choices.rarely(2) else {}
    body = {"inputs": [tensor, tensor] if choices.rarely(5) else [tensor], **asked}
    text = mutated_json(choices, [body], ("binary_data_size", "binary_data_output", "FP32"))
    length = choices.one((len(text), len(text), len(text), len(text) - 1, len(text) + 1, 0, 1 << 62, 10**30, -1))
    return text + bytes(size) + choices.one((b"", b"", b"\0")), [(LENGTH_HEADER, str(length).encode())]


@pytest.mark.parametrize("model", ["FP32", "BOOL", "BYTES", "rows", "tasks", "handler_auto", "handler_kserve_v2"])
def test_rest_binary(hosted: HostedGateway, run: Run, model: str) -> None:
    """Bytes behind JSON, whose lengths disagree in any way, are refused or read, and the next call is answered."""

    @fuzz(60)
    @given(made(binary_call))
    def calls(call: tuple[bytes, Headers]) -> None:
        check_rest(run(hosted.rest("POST", f"/v2/models/{model}/infer", *call)))

    calls()
    run(hosted.good())


@pytest.fixture
def traced() -> Iterator[Callable[[], int]]:
    """Gives the bytes that were taken since it was asked last."""
    tracemalloc.start()
    before = 0

    def peak() -> int:
        nonlocal before
        taken = tracemalloc.get_traced_memory()[1] - before
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        return taken

    yield peak
    tracemalloc.stop()


def infer(model: str, datatype: str, shape: tuple[int, ...], raw: bytes) -> bytes:
    message = oip.ModelInferRequest(model_name=model, raw_input_contents=[raw])
    message.inputs.add(name="x", datatype=datatype, shape=shape)
    return message.SerializeToString()


def sparse(tensors: int, count: int) -> bytes:
    """Tensors of `count` values, of which one is there and stands for the others."""
    request = tfs.PredictRequest(model_spec=tfs.ModelSpec(name="FP64"))
    for index in range(tensors):
        proto = request.inputs["x" * (index + 1)]
        proto.dtype = tf.DT_DOUBLE
        proto.tensor_shape.dim.add(size=count)
        proto.double_val.append(1.5)
    return request.SerializeToString()


def context(size: int, examples: int) -> bytes:
    """Features that are put before each of many examples."""
    request = tfs.ClassificationRequest(model_spec=tfs.ModelSpec(name="tasks"))
    shared = request.input.example_list_with_context
    shared.context.features.feature["a"].bytes_list.value.append(bytes(size))
    shared.examples.extend(tf.Example() for _ in range(examples))
    return request.SerializeToString()


SIZES = (MOST_LISTS - 1, 1 << 22)
"""Of lists that are written, and of lists that are refused."""
BOMBS = {
    **{
        f"{size} lists of nothing, {datatype}, {wire}": (INFER, infer(f"handler_{wire}", datatype, (size, 0), b""))
        for size in SIZES
        for datatype in ("FP32", "BYTES")
        for wire in Wire
    },
    **{
        f"lists of one, {wire}": (INFER, infer(f"handler_{wire}", "UINT8", (1 << 14, *(1,) * 60), bytes(1 << 14)))
        for wire in Wire
    },
    "product": (INFER, infer("FP32", "FP32", (1 << 31, 1 << 31), bytes(16))),
    "empty, and large": (INFER, infer("FP32", "FP32", ((1 << 63) - 1, 0, (1 << 63) - 1), b"")),
    "one value for all": (PREDICT, sparse(1, 1 << 24)),
    "one value for all of many": (PREDICT, sparse(90, 1 << 17)),
    "context": (CLASSIFY, context(30_000, 15_000)),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs(hosted: HostedGateway, run: Run, traced: Callable[[], int], bomb: str) -> None:
    """A small message that names something huge takes no memory for it, although a large message would be taken."""
    path, message = BOMBS[bomb]
    traced()
    grpc_answer(hosted, run, path, frame(message))
    assert traced() < MOST_MEMORY < LIMIT


@pytest.mark.parametrize(("path", "make"), [(INFER, infer_request), (PREDICT, predict_request)], ids=["oip", "tf"])
def test_memory(
    hosted: HostedGateway, run: Run, traced: Callable[[], int], path: str, make: Callable[[Choices, Any], bytes]
) -> None:
    """Tensors of any shape take memory only for the values that there are."""

    @fuzz(40)
    @given(made(lambda choices: make(choices, KNOWN)))
    def calls(message: bytes) -> None:
        traced()
        grpc_answer(hosted, run, path, frame(message))
        assert traced() < MOST_MEMORY

    calls()


def field(number: int, value: bytes) -> bytes:
    return Field(number, LENGTH, value).encoded


def many(template: bytes) -> bytes:
    """A field of a message, very often, each time with another name in it."""
    return b"".join(template.replace(NAME, b"%05x" % index) for index in range(MANY))


MANY = 100_000
NAME = b"?????"
FP32 = field(1, b"FP32")
NAMED, KEYED = field(1, NAME), field(1, NAME) + field(2, b"\x08\1")
CROWDS = {
    "inputs": (INFER, FP32 + many(field(5, NAMED))),
    "raw inputs": (INFER, FP32 + field(7, b"") + many(field(5, NAMED))),
    "outputs": (INFER, FP32 + many(field(6, NAMED))),
    "parameters": (INFER, FP32 + many(field(4, KEYED))),
    "TF inputs": (PREDICT, field(1, FP32) + many(field(2, KEYED))),
    "filters": (PREDICT, field(1, FP32) + many(field(3, NAME))),
    "dimensions": (INFER, FP32 + field(5, field(2, b"FP32") + field(3, varint(1) * MANY))),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("crowd", CROWDS)
def test_crowds(hosted: HostedGateway, run: Run, crowd: str) -> None:
    """A hundred thousand of what a message has a few of are refused, and not each compared with every other."""
    path, message = CROWDS[crowd]
    assert grpc_answer(hosted, run, path, frame(message)).grpc_status[0] == GrpcCode.INVALID_ARGUMENT
