"""TorchServe's dialect by the clients that people have: TorchServe's own gRPC stubs, and curl as its documentation
calls it. The handlers are those of `examples/handlers`, and some that tell more.
"""

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import third_party
from door import Door, eventually

from archives import HANDLERS, pack
from portico.local import layout
from portico.local.stack import Stack
from portico.wire import open_inference_pb2 as oip

ROOT = Path(__file__).parents[2]
SEVEN = ROOT / "examples/digits/seven.png"
FOUR = ROOT / "examples/digits/request.json"
PROTOS = ("inference.proto", "google/rpc/status.proto")
MODELS = {
    **{name: HANDLERS / f"{name}.py" for name in ("words", "score", "shelf")},
    **{name: Path(__file__).parent / "handlers" / f"{name}.py" for name in ("gated", "told")},
}
SECONDS = 120
BROKEN_OFF = (18, 56, 92)
"""curl's exit codes for an answer that has no end: a partial file, a reset, an HTTP/2 stream that was reset."""


@pytest.fixture(scope="module", autouse=True)
def models(stack: Stack, door: Door) -> Iterator[None]:
    """The handlers as archives in the repository, ready; taken away afterwards."""
    archives = [stack.models / f"{name}.mar" for name in MODELS]
    for archive, handler in zip(archives, MODELS.values(), strict=True):
        pack(handler, archive)
    for name in MODELS:
        ready = f"/v2/models/{name}/ready"
        eventually(lambda path=ready: door.get(path).status == 200, SECONDS, f"{name} is ready")  # type: ignore[misc]
    yield
    for archive in archives:
        archive.unlink()
    for name in MODELS:
        there = f"/models/{name}"
        eventually(lambda path=there: door.get(path).status == 404, SECONDS, f"{name} is gone")  # type: ignore[misc]


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TorchServe's stubs, made from what lies in its jar."""
    (jar,) = (layout.TORCHSERVE_PYTHON.parents[1] / "lib").glob("python*/site-packages/ts/frontend/model-server.jar")
    folder = tmp_path_factory.mktemp("stubs")
    with zipfile.ZipFile(jar) as packed:
        for proto in PROTOS:
            packed.extract(proto, folder)
    out = [f"-I{folder}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *out, *PROTOS], check=True, timeout=SECONDS)
    return folder


def test_torchserves_stubs(door: Door, stubs: Path, tmp_path: Path) -> None:
    """Every RPC by the unmodified stubs: predictions, streams piece by piece, parts byte for byte, and failures."""
    gate = tmp_path / "gate"
    told = third_party.run(
        "torchserve_stubs.py", door.address, str(stubs), str(SEVEN), str(gate), python=Path(sys.executable)
    )
    assert told["ping"] == {"status": "Healthy"}
    assert (told["digit"], told["digit streamed"]) == ([7, 7], [7, 7])
    assert (told["parts are the same"], told["types"]) == (True, [""])
    assert told["words at first"] == "2 words: one two\n"
    assert told["words"] == [["2 words:", " one", " two", "\n"], ["0 words:", "\n"], ["1 words:", " größe", "\n"]]
    assert (told["words as one"], told["words again"]) == ("2 words: one two\n", ["1 words:", " three", "\n"])
    assert [(shut, "".join(pieces)) for shut, pieces in told["gate"]] == [(True, "first second third")] * 2
    assert told["gate"][1][1] == ["first ", "second ", "third"]
    assert told["broken"][0] == "first "
    assert told["broken"][1] == "UNAVAILABLE"  # what TorchServe's gRPC makes of a handler that raised
    assert told["own status"] == "there is no milk on this shelf"
    assert told["bad input"][0] == "INVALID_ARGUMENT"
    assert "neither JSON nor a PNG" in told["bad input"][1]
    assert told["no such model"][0] == told["no such version"][0] == "NOT_FOUND"
    assert told["no such model"][1].startswith("Model not found: digit. ")
    assert told["no such version"][1].startswith("Model version: 7 does not exist for model: digits. ")
    assert told["no name"][0] == told["sequence"][0] == "INVALID_ARGUMENT"
    assert told["sequences"][0] == "UNIMPLEMENTED"
    assert "--" not in str([told[name] for name in ("bad input", "no such model", "no such version", "broken")])


def curl(door: Door, path: str, *arguments: str | Path) -> bytes:
    """What curl prints."""
    command = ["curl", "-sS", "--max-time", "60", f"http://{door.address}{path}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=True, timeout=SECONDS).stdout


def posted(door: Door, path: str, *arguments: str | Path) -> Any:
    return json.loads(curl(door, path, *arguments))


def answered(door: Door, path: str, *arguments: str | Path) -> tuple[int, str, str]:
    """(status, content type, body)."""
    out = curl(door, path, "-w", "\n%{http_code} %{content_type}", *arguments).decode()
    body, _, told = out.rpartition("\n")
    status, _, content_type = told.partition(" ")
    return int(status), content_type, body


def test_curl_with_files(door: Door) -> None:
    """A file as the body, as a part of a form, and JSON, as TorchServe's documentation sends them."""
    for arguments in (["-T", SEVEN], ["-F", f"data=@{SEVEN}"], ["-F", f"image=@{SEVEN};type=image/png"]):
        assert posted(door, "/predictions/digits", *arguments)["digit"] == 7
    as_json = ["-H", "Content-Type: application/json", "--data-binary", f"@{FOUR}"]
    assert posted(door, "/predictions/digits/1.0", *as_json)["digit"] == 4


def test_curl_with_forms(door: Door) -> None:
    """The fields of both kinds of form reach the handler as parts, byte for byte, with the types of files alone."""
    form = posted(door, "/predictions/told", "-F", "a=1", "-F", "b=;type=text/x", "-F", f"c=@{SEVEN};type=image/png")
    assert form["parts"] == {"a": b"1".hex(), "b": "", "c": SEVEN.read_bytes().hex()}
    assert (form["types"]["a"], form["types"]["c"]) == ("", "image/png")
    fields = posted(door, "/predictions/told", "-d", "a=1", "--data-urlencode", "b=ß &=")
    assert fields["parts"] == {"a": b"1".hex(), "b": "ß &=".encode().hex()}
    assert posted(door, "/predictions/score", "-d", "height=3", "-d", "width=1.5") == {"score": 4.5}


def test_what_a_handler_sees(door: Door) -> None:
    """The further path reaches the handler; no header of the client's does but the content type."""
    told = posted(door, "/predictions/told/1.0/a/b?x=1", "-d", "hi", "-H", "Content-Type: text/x", "-H", "X-Secret: no")
    assert told == {"parts": {"body": "hi"}, "types": {"body": "text/x"}, "url_path": "a/b", "secret": None}


def test_explanations(door: Door) -> None:
    """Explanations come from the endpoint of their own, for a form and for JSON."""
    shares = {"height": 1.5, "width": 3.0}
    assert posted(door, "/explanations/score", "-F", "height=3", "-F", "width=1.5") == shares
    as_json = ["-H", "Content-Type: application/json", "-d", '{"height": 3, "width": 1.5}']
    assert posted(door, "/explanations/score/1.0", *as_json) == shares
    assert posted(door, "/predictions/score/1.0", *as_json) == {"score": 4.5}


def test_a_handlers_own_status(door: Door) -> None:
    """A handler's status, content type and body reach TorchServe's clients as they are; others read the words."""
    text = "text/plain; charset=utf-8"
    cases = {"tea": (200, "tea left: 3"), "coffee": (202, "coffee is ordered")}
    for item, (status, body) in {**cases, "milk": (404, "there is no milk on this shelf")}.items():
        for _ in range(2):
            assert answered(door, "/predictions/shelf", "-F", f"item={item}") == (status, text, body)
    refused = door.infer("shelf", "item", "BYTES", ["milk"], [1])
    assert (refused.status, refused.json["error"]) == (400, "there is no milk on this shelf")


def test_a_handler_that_raises(door: Door) -> None:
    """TorchServe's clients read what TorchServe says of it, others which model it was and where the reason stands."""
    status, _, body = answered(door, "/predictions/score", "-H", "Content-Type: application/json", "-d", "[1]")
    said = {"code": 503, "type": "InternalServerException", "message": "Prediction failed"}
    assert (status, json.loads(body)) == (503, said)
    told = "The handler of model 'score' raised an error; TorchServe's log has its traceback."
    for refused in (
        door.infer("score", "x", "INT64", [1], [1]),
        door.post("/v1/models/score:predict", {"instances": [1]}),
        door.post("/v1/models/score:predict", {"inputs": [1]}),
    ):
        assert (refused.status, refused.json["error"]) == (500, told)


def test_pieces_by_open_inference(door: Door) -> None:
    """`ModelStreamInfer` gives the pieces of a handler's answer, the last of them marked, beside whole answers."""
    requests = []
    for model, body in (("words", b"one two"), ("shelf", b"tea"), ("words", b"three")):
        raw = len(body).to_bytes(4, "little") + body
        requests.append(oip.ModelInferRequest(model_name=model, id=str(len(requests)), raw_input_contents=[raw]))
        requests[-1].inputs.add(name="body", datatype="BYTES", shape=[1])
    heard: dict[str, list[tuple[bytes, bool]]] = {}
    with grpc.insecure_channel(door.address) as channel:
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        for message in stream((request.SerializeToString() for request in requests), timeout=60):
            answer = oip.ModelStreamInferResponse.FromString(message)
            assert not answer.error_message
            is_final = answer.infer_response.parameters["triton_final_response"].bool_param
            piece = answer.infer_response.raw_output_contents[0][4:]
            heard.setdefault(answer.infer_response.id, []).append((piece, is_final))
    said = {number: b"".join(piece for piece, _ in pieces) for number, pieces in heard.items()}
    assert said == {"0": b"2 words: one two\n", "1": b"tea left: 3", "2": b"1 words: three\n"}
    for pieces in heard.values():
        assert [is_final for _, is_final in pieces] == [False] * (len(pieces) - 1) + [True]


def streaming(door: Door, gate: str) -> "subprocess.Popen[bytes]":
    command = ["curl", "-sN", f"http://{door.address}/predictions/gated", "--max-time", "60", "--data-binary", gate]
    return subprocess.Popen([*command, "-H", "Content-Type: application/octet-stream"], stdout=subprocess.PIPE)


def test_curl_reads_pieces_as_they_come(door: Door, tmp_path: Path) -> None:
    """The first piece is read while the handler waits for a file that is made only then."""
    gate = tmp_path / "gate"
    with streaming(door, str(gate)) as client:
        assert client.stdout is not None
        assert client.stdout.read(6) == b"first "
        gate.touch()
        assert client.stdout.read() == b"second third"
    assert client.returncode == 0


def test_curl_sees_an_answer_that_breaks_off(door: Door, tmp_path: Path) -> None:
    """An answer whose handler fails after the first piece has no end, and curl says so."""
    gate = tmp_path / "gate"
    with streaming(door, f"{gate}\nraise") as client:
        assert client.stdout is not None
        assert client.stdout.read(6) == b"first "
        gate.touch()
        assert client.stdout.read() == b""
    assert client.returncode in BROKEN_OFF


def test_who_leaves_ends_the_call(door: Door, stack: Stack, tmp_path: Path) -> None:
    """When a client leaves between two pieces, the call of the model server ends before the handler does."""
    gate = tmp_path / "gate"

    def calls() -> int:
        stats = Door(stack.addresses.envoy_admin).get("/stats?filter=cluster.torchserve_rest.upstream_rq_active$")
        return int(stats.body.rsplit(b":", 1)[1])

    with streaming(door, str(gate)) as client:
        assert client.stdout is not None
        assert client.stdout.read(6) == b"first "
        assert calls() == 1
        client.terminate()
    try:
        eventually(lambda: calls() == 0, SECONDS / 4, "the call has ended")
    finally:
        gate.touch()


def test_strings_of_open_inference_are_parts(door: Door) -> None:
    """Several BYTES inputs of one element each reach the handler as its named parts, and are answered from the cache
    the second time."""
    inputs = [{"name": name, "datatype": "BYTES", "shape": [1], "data": [name * 2]} for name in ("x", "größe")]
    for expected in ("MISS", "HIT"):
        answer = door.post("/v2/models/told/infer", {"inputs": inputs})
        assert (answer.status, answer.headers["x-cache"]) == (200, expected)
        (output,) = answer.json["outputs"]
        parts = json.loads(output["data"][0])["parts"]
        assert {name: bytes.fromhex(part).decode() for name, part in parts.items()} == {
            "x": "xx",
            "größe": "größegröße",
        }


def test_the_management_api_to_read(door: Door) -> None:
    """Models are listed in pages and described; what would change them is refused, as files do it."""
    names, token = [], "0"
    while token:
        page = posted(door, f"/models?limit=2&next_page_token={token}")
        assert 0 < len(page["models"]) <= 2
        names += [model["modelName"] for model in page["models"]]
        token = page.get("nextPageToken", "")
    assert names == sorted({*MODELS, "digits", "iris"})
    (described,) = posted(door, "/models/digits/all")
    assert (described["modelName"], described["modelVersion"]) == ("digits", "1.0")
    assert described["workers"] == [{"status": "READY"}]
    status, _, body = answered(door, "/models?url=x.mar", "-X", "POST")
    assert (status, json.loads(body)["type"]) == (405, "MethodNotAllowedException")
    assert posted(door, "/", "-X", "OPTIONS")["openapi"] == "3.0.1"
    assert posted(door, "/ping") == {"status": "Healthy"}
