"""tritonclient.grpc. Called with host:port and a PNG; prints JSON."""

import queue

import numpy as np
import triton_calls as calls
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

SECONDS = 30


def given(name: str, values: "np.ndarray", datatype: str) -> InferInput:
    return InferInput(name, values.shape, datatype).set_data_from_numpy(values)


def infer(client: InferenceServerClient) -> dict[str, object]:
    """Every way to send a tensor and to get one."""
    names = ("probabilities", "species")
    rows = [given("measurements", calls.ROWS, "FP32")]
    found = {"defaults": calls.shown(client.infer("iris", rows), *names)}
    for algorithm in ("gzip", "deflate"):
        found[algorithm] = calls.shown(client.infer("iris", rows, compression_algorithm=algorithm), *names)
    answers: queue.Queue = queue.Queue()
    client.async_infer("iris", rows, lambda result, error: answers.put(result))
    found["async"] = calls.shown(answers.get(timeout=SECONDS), *names)
    return found


def details(client: InferenceServerClient) -> dict[str, object]:
    """A version, an id, a parameter, a chosen output, and an empty batch."""
    rows = [given("measurements", calls.ROWS, "FP32")]
    outputs = [InferRequestedOutput("species")]
    chosen = client.infer("iris", rows, "1", outputs, request_id="42", parameters={"custom": 3}).get_response()
    return {
        "id": chosen.id,
        "chosen": [output.name for output in chosen.outputs],
        "empty": calls.shown(client.infer("iris", [given("measurements", calls.EMPTY, "FP32")]), "species"),
    }


def streamed(client: InferenceServerClient) -> list[object]:
    """Species of one row each, or the error, in the order that they come."""
    answers: queue.Queue = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(calls.STREAMED):
        model = "absent" if number == calls.STREAMED // 2 else "iris"
        row = calls.ROWS[number % 3 : number % 3 + 1]
        client.async_stream_infer(model, [given("measurements", row, "FP32")], request_id=str(number))
    told: list[object] = []
    for _ in range(calls.STREAMED):
        result, error = answers.get(timeout=SECONDS)
        told.append(str(error.message()) if error else [result.get_response().id, *result.as_numpy("species").tolist()])
    client.stop_stream()
    return told


def strings(client: InferenceServerClient) -> dict[str, object]:
    """Texts, and an image, to a TorchServe handler."""
    outputs = [InferRequestedOutput("body")]
    return {
        "texts": calls.shown(client.infer("shout", [given("text", calls.TEXTS, "BYTES")]), "output"),
        "image": calls.shown(client.infer("digits", [given("image", calls.image(), "BYTES")]), "digit"),
        "body": calls.shown(client.infer("digits", [given("body", calls.image(), "BYTES")], outputs=outputs), "body"),
    }


def refused(client: InferenceServerClient) -> dict[str, object]:
    """What has to fail."""
    found: dict[str, object] = {}
    wrong = [given("measurements", calls.ROWS.astype(np.float64), "FP64")]
    rows = [given("measurements", calls.ROWS, "FP32")]
    for name, call in {
        "datatype": lambda: client.infer("iris", wrong),
        "model": lambda: client.infer("iriss", rows),
        "sequence": lambda: client.infer("iris", rows, sequence_id=7, sequence_start=True),
        "load": lambda: client.load_model("iris"),
        "unload": lambda: client.unload_model("iris"),
        "config": lambda: client.get_model_config("iris"),
    }.items():
        try:
            call()
            found[name] = None
        except InferenceServerException as error:
            found[name] = calls.failure(error)
    return found


def main() -> None:
    with InferenceServerClient(calls.address()) as client:
        calls.tell(
            {
                "live": client.is_server_live(),
                "ready": client.is_server_ready(),
                "models": [client.is_model_ready(*name) for name in (("iris",), ("iris", "1"), ("absent",))],
                "server": client.get_server_metadata(as_json=True),
                "metadata": {name: client.get_model_metadata(name, as_json=True) for name in ("iris", "digits")},
                "index": client.get_model_repository_index(as_json=True)["models"],
                "infer": infer(client),
                "details": details(client),
                "streamed": streamed(client),
                "strings": strings(client),
                "refused": refused(client),
            }
        )


main()
