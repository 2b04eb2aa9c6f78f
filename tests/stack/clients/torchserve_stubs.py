"""A client by TorchServe's own stubs, made from the .proto files in its jar.

torchserve_stubs.py ADDRESS STUBS PICTURE GATE; STUBS is the folder of the stubs, GATE a file that does not exist yet
"""

import json
import sys
from pathlib import Path

import grpc
from google.protobuf.empty_pb2 import Empty

address, stubs, picture, gate = sys.argv[1:]
sys.path.insert(0, stubs)

import inference_pb2  # noqa: E402 - where it lies is an argument
import inference_pb2_grpc  # noqa: E402

SECONDS = 60
PARTS = {
    "image": b"\x89PNG\r\n\x1a\n\0\xff",
    "empty": b"",
    "größe (cm)": b"--\r\n--",
    "a.b-c_d": bytes(range(256)) * 40,
}

channel = grpc.insecure_channel(address)
client = inference_pb2_grpc.InferenceAPIsServiceStub(channel)


def request(model, version="", sequence=None, **parts):
    return inference_pb2.PredictionsRequest(model_name=model, model_version=version, sequence_id=sequence, input=parts)


def predictions(*arguments, **parts):
    return client.Predictions(request(*arguments, **parts), timeout=SECONDS).prediction


def streamed(*arguments, **parts):
    answers = client.StreamPredictions(request(*arguments, **parts), timeout=SECONDS)
    return [answer.prediction.decode() for answer in answers]


def failed(call, *arguments, **parts):
    try:
        call(*arguments, **parts)
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    raise AssertionError("it did not fail")


def opened():
    """The pieces of an answer, and whether the gate was shut when the first of them came."""
    Path(gate).unlink(missing_ok=True)
    answers = client.StreamPredictions(request("gated", body=gate.encode()), timeout=SECONDS)
    first, shut = next(answers).prediction.decode(), not Path(gate).exists()
    Path(gate).touch()
    return shut, [first, *(answer.prediction.decode() for answer in answers)]


def broken():
    """What came of a stream whose handler fails after the first piece, and how it ended."""
    answers = client.StreamPredictions(request("gated", body=f"{gate}\nraise".encode()), timeout=SECONDS)
    first = next(answers).prediction.decode()
    return [first, *failed(list, answers)]


seven = Path(picture).read_bytes()
told = json.loads(predictions("told", **PARTS))
print(
    json.dumps(
        {
            "ping": json.loads(client.Ping(Empty(), timeout=SECONDS).health),
            "digit": [json.loads(predictions("digits", version, data=seven))["digit"] for version in ("", "1.0")],
            "digit streamed": [json.loads(answer)["digit"] for answer in streamed("digits", data=seven) * 2],
            "parts are the same": {name: bytes.fromhex(part) for name, part in told["parts"].items()} == PARTS,
            "types": sorted(set(told["types"].values())),
            "words at first": "".join(streamed("words", text=b"one two")),
            "words": [streamed("words", text=text.encode()) for text in ("one two", "", "größe")],
            "words as one": predictions("words", text=b"one two").decode(),
            "words again": streamed("words", text=b"three"),
            "gate": [opened() for _ in range(2)],
            "broken": broken(),
            "own status": predictions("shelf", item=b"milk").decode(),
            "bad input": failed(predictions, "digits", data=b"hello"),
            "no such model": failed(predictions, "digit", data=b"x"),
            "no such version": failed(streamed, "digits", "7", data=b"x"),
            "no name": failed(predictions, "", data=b"x"),
            "sequence": failed(predictions, "digits", "", "s", data=b"x"),
            "sequences": failed(lambda: list(client.StreamPredictions2(iter([request("digits", data=b"x")])))),
        }
    )
)
