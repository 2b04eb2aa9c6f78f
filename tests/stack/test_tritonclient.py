"""tritonclient, unmodified, in all its four kinds: what it is told is what plain JSON is told."""

import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import third_party
from door import Door, eventually

from portico import __version__
from portico.local.stack import Stack

SEVEN = Path(__file__).parents[2] / "examples/digits/seven.png"
ROWS = [5.1, 3.5, 1.4, 0.2, 6.2, 2.9, 4.3, 1.3, 7.7, 3.0, 6.1, 2.3]
READY_SECONDS = 120
EVERY = pytest.mark.parametrize("kind", ["http", "http_aio", "grpc", "grpc_aio"])
Ask = Callable[[str], Any]
SHOUT = """
def handle(data, context):
    return None if data is None else [[[text.upper() for text in row] for row in request["body"]] for request in data]
"""


@pytest.fixture(scope="module")
def shout(stack: Stack, door: Door) -> Iterator[None]:
    """A TorchServe model that answers a matrix of texts in capitals."""
    packed = io.BytesIO()
    manifest = {"modelName": "shout", "modelVersion": "1.0", "handler": "handler.py:handle"}
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": manifest}))
        archive.writestr("handler.py", SHOUT)
    file = stack.models / "shout.mar"
    file.write_bytes(packed.getvalue())
    eventually(lambda: door.get("/v2/models/shout/ready").status == 200, READY_SECONDS, "shout is ready")
    yield
    file.unlink()
    eventually(lambda: door.get("/v2/models/shout").status == 404, READY_SECONDS, "shout is gone")


@pytest.fixture(scope="module")
def ask(door: Door, shout: None) -> Ask:
    """What a kind of client was told; each runs once."""
    return cache(lambda kind: third_party.run(f"triton_{kind}.py", door.address, str(SEVEN)))


def plain(door: Door) -> dict[str, Any]:
    """The answer to ROWS as plain JSON tells it, in the form of the scripts."""
    answer = door.infer("iris", "measurements", "FP32", ROWS, [3, 4])
    assert answer.status == 200, answer.body
    names = {"FP32": "float32", "INT64": "int64"}
    return {
        output["name"]: {"dtype": names[output["datatype"]], "shape": output["shape"], "values": output["data"]}
        for output in answer.json["outputs"]
    }


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal to float32 precision, which numpy's lists of Python floats go beyond."""
    assert found.keys() == expected.keys()
    for name, output in found.items():
        assert output | {"values": None} == expected[name] | {"values": None}
        assert output["values"] == pytest.approx(expected[name]["values"], rel=1e-6)


@EVERY
def test_health(ask: Ask, kind: str) -> None:
    """The server lives and is ready, models are ready by name and by version, and one that is not there is not."""
    told = ask(kind)
    assert (told["live"], told["ready"], told["models"]) == (True, True, [True, True, False])


@EVERY
def test_metadata(ask: Ask, kind: str, door: Door) -> None:
    """The client reads the metadata of the server and of models of both model servers."""
    told = ask(kind)
    expected = {"name": "portico", "version": __version__, "extensions": ["binary_tensor_data", "model_repository"]}
    assert told["server"] == expected
    for name, metadata in told["metadata"].items():
        for tensor in metadata["inputs"] + metadata["outputs"]:
            tensor["shape"] = list(map(int, tensor["shape"]))  # protobuf writes 64 bits as strings
        assert metadata == door.get(f"/v2/models/{name}").json


@EVERY
def test_repository_index(ask: Ask, kind: str) -> None:
    """The client lists the models with their versions and states."""
    index = ask(kind)["index"]
    assert {"iris", "digits", "shout"} <= {entry["name"] for entry in index}
    assert {entry["state"] for entry in index} == {"READY"}


@EVERY
def test_infer(ask: Ask, kind: str, door: Door) -> None:
    """Every way to send a tensor and to get one, binary, as JSON and compressed, gives the numbers of plain JSON."""
    answers, expected = ask(kind)["infer"], plain(door)
    ways = {"defaults", *(("gzip True", "deflate False") if kind == "http" else ("gzip", "deflate"))}
    ways |= {f"in {sent} out {got}" for sent in (True, False) for got in (True, False)} if "http" in kind else set()
    assert ways <= answers.keys()
    for answer in answers.values():
        same(answer, expected)


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_details_of_a_call(ask: Ask, kind: str) -> None:
    """An id comes back, an empty batch is answered with an empty one, and a chosen output comes alone."""
    told = ask(kind)["details"]
    assert (told["id"], told["chosen"]) == ("42", ["species"])
    assert told["empty"] == {"species": {"dtype": "int64", "shape": [0], "values": []}}


@EVERY
def test_strings(ask: Ask, kind: str) -> None:
    """Texts and images go to a TorchServe handler as BYTES, and its texts and its raw body come back as them."""
    told = ask(kind)["strings"]
    expected = {"output": {"dtype": "bytes", "shape": [2, 2], "values": ["GRÜN", "B", "", "D"]}}
    texts = [answer for name, answer in told.items() if name.startswith("texts")]
    assert texts == [expected] * len(texts) != []
    assert told["image"]["digit"]["values"] == [7]
    body = told["body"]["body"]
    assert (body["shape"], json.loads(body["values"][0])["digit"]) == ([1], 7)


@pytest.mark.parametrize("kind", ["grpc", "grpc_aio"])
def test_streams(ask: Ask, kind: str, door: Door) -> None:
    """Requests on a stream are answered in their order; the one that fails says why, and the others go on."""
    species, streamed = plain(door)["species"]["values"], list(ask(kind)["streamed"])
    assert "There is no model named 'absent'" in streamed.pop(10)
    assert streamed == [[str(number), species[number % 3]] for number in range(20) if number != 10]


@pytest.mark.parametrize(("kind", "count"), [("http", 4), ("grpc", 6), ("http_aio", 1), ("grpc_aio", 1)])
def test_refusals(ask: Ask, kind: str, count: int) -> None:
    """What cannot be done reaches the client's user with its reason."""
    says = {
        "model": "Did you mean iris",
        "datatype": "given FP64 [3, 4], the model takes FP32 [-1, 4]",
        "sequence": "Portico keeps no sequences",
        "load": "by their files",
        "unload": "by their files",
        "config": "there is no /inference.GRPCInferenceService/ModelConfig",
    }
    refused = ask(kind)["refused"]
    assert len(refused) == count
    for name, failure in refused.items():
        assert says[name] in failure["message"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_at_the_door(door: Door, encoding: str) -> None:
    """A small body that inflates beyond the stack's limit is 413; it goes on with the next request."""
    packed = (gzip.compress if encoding == "gzip" else zlib.compress)(bytes(80 << 20))
    assert len(packed) < 100_000
    answer = door.post("/v2/models/iris/infer", packed, content_encoding=encoding)
    assert (answer.status, "67108864 bytes" in answer.json["error"]) == (413, True)
    assert plain(door)["species"]["values"] == [0, 1, 2]
