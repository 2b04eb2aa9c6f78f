"""tritonclient.http. Called with host:port and a PNG; prints JSON."""

import numpy as np
import triton_calls as calls
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException


def given(name: str, values: "np.ndarray", datatype: str, binary: bool = True) -> InferInput:
    return InferInput(name, values.shape, datatype).set_data_from_numpy(values, binary_data=binary)


def infer(client: InferenceServerClient) -> dict[str, object]:
    """Every way to send a tensor and to get one."""
    found: dict[str, object] = {}
    names = ("probabilities", "species")
    for binary_in in (True, False):
        for binary_out in (True, False):
            outputs = [InferRequestedOutput(name, binary_data=binary_out) for name in names]
            result = client.infer("iris", [given("measurements", calls.ROWS, "FP32", binary_in)], outputs=outputs)
            found[f"in {binary_in} out {binary_out}"] = calls.shown(result, *names)
    rows = [given("measurements", calls.ROWS, "FP32")]
    found["defaults"] = calls.shown(client.infer("iris", rows), *names)
    for algorithm in ("gzip", "deflate"):
        for binary in (True, False):
            packed = [given("measurements", calls.ROWS, "FP32", binary)]
            result = client.infer("iris", packed, request_compression_algorithm=algorithm)
            found[f"{algorithm} {binary}"] = calls.shown(result, *names)
    found["async"] = calls.shown(client.async_infer("iris", rows).get_result(), *names)
    return found


def details(client: InferenceServerClient) -> dict[str, object]:
    """A version, an id, a parameter, a chosen output, and an empty batch."""
    rows = [given("measurements", calls.ROWS, "FP32")]
    outputs = [InferRequestedOutput("species")]
    chosen = client.infer("iris", rows, "1", outputs, request_id="42", parameters={"custom": 3}).get_response()
    return {
        "id": chosen["id"],
        "chosen": [output["name"] for output in chosen["outputs"]],
        "empty": calls.shown(client.infer("iris", [given("measurements", calls.EMPTY, "FP32")]), "species"),
    }


def strings(client: InferenceServerClient) -> dict[str, object]:
    """Texts, and an image, to a TorchServe handler."""
    found: dict[str, object] = {}
    for binary in (True, False):
        result = client.infer("shout", [given("text", calls.TEXTS, "BYTES", binary)])
        found[f"texts {binary}"] = calls.shown(result, "output")
    result = client.infer("digits", [given("image", calls.image(), "BYTES")])
    found["image"] = calls.shown(result, "digit")
    outputs = [InferRequestedOutput("body")]
    found["body"] = calls.shown(
        client.infer("digits", [given("body", calls.image(), "BYTES")], outputs=outputs), "body"
    )
    return found


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
                "server": client.get_server_metadata(),
                "metadata": {name: client.get_model_metadata(name) for name in ("iris", "digits")},
                "index": client.get_model_repository_index(),
                "infer": infer(client),
                "details": details(client),
                "strings": strings(client),
                "refused": refused(client),
            }
        )


main()
