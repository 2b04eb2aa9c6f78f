"""Real predictions through the edge once the demo models are ready: every call is printed as it can be pasted, and run.

Called by `portico local`. What is printed as an answer came from that very command.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from shlex import quote

from portico.local import layout
from portico.local.board import Paint

CALL = ".venv/gateway/bin/python -m portico.local.call"
PICTURE = "examples/digits/seven.png"
DRAWING = "examples/digits/request.json"
CALL_SECONDS = 60.0


@dataclass(frozen=True)
class Call:
    """One call of the demo: its heading, the model it needs, and the command line, to be run in the checkout."""

    heading: str
    model: str
    command: str


def calls(port: int, curl: bool) -> list[Call]:
    """A prediction by each of the protocols that clients have, then a cache miss and a hit."""
    url = f"http://127.0.0.1:{port}/predictions/digits"
    repeated = cache_status(url, curl)
    return [
        Call("TF Serving, gRPC: Predict", "iris", predict(port)),
        Call("Open Inference, REST: infer", "iris", post_json(port, curl, infer_body(6.2, 2.9, 4.3, 1.3))),
        Call("TorchServe, REST: /predictions", "digits", post_picture(port, curl)),
        Call("TorchServe, gRPC: Predictions", "digits", predictions(port)),
        Call("The cache, first call: a miss", "digits", repeated),
        Call("The cache, same call again: a hit", "digits", repeated),
    ]


def predict(port: int) -> str:
    """TF Serving's Predict with one row of measurements."""
    tensor = {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": 1}, {"size": 4}]},
        "float_val": [5.1, 3.5, 1.4, 0.2],
    }
    request = {"model_spec": {"name": "iris"}, "inputs": {"measurements": tensor}}
    method = "tensorflow.serving.PredictionService/Predict"
    return f"{CALL} grpc 127.0.0.1:{port} {method} {quote(json.dumps(request))}"


def predictions(port: int) -> str:
    """TorchServe's Predictions with a PNG."""
    request = {"model_name": "digits", "input": {"data": f"@{PICTURE}"}}
    method = "org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
    return f"{CALL} grpc 127.0.0.1:{port} {method} {quote(json.dumps(request))}"


def infer_body(*measurements: float) -> str:
    """An Open Inference request with one row of measurements."""
    row = {"name": "measurements", "datatype": "FP32", "shape": [1, 4], "data": measurements}
    return json.dumps({"inputs": [row]})


def post_json(port: int, curl: bool, body: str) -> str:
    """Open Inference's infer."""
    url = f"http://127.0.0.1:{port}/v2/models/iris/infer"
    return f"curl -sS {url} -d {quote(body)}" if curl else f"{CALL} rest {url} {quote(body)}"


def post_picture(port: int, curl: bool) -> str:
    """TorchServe's REST call with a PNG."""
    url = f"http://127.0.0.1:{port}/predictions/digits"
    if curl:
        return f"curl -sS {url} -H 'content-type: image/png' --data-binary @{PICTURE}"
    return f"{CALL} rest {url} @{PICTURE}"


def cache_status(url: str, curl: bool) -> str:
    """A call of which only the cache's header and the time are shown."""
    if not curl:
        return f"{CALL} rest {url} @{DRAWING} | grep -E 'x-cache|seconds'"
    quiet = "-o /dev/null -D - -w 'seconds: %{time_total}\\n' | grep -E 'x-cache|seconds'"
    return f"curl -sS {url} -H 'content-type: application/json' --data-binary @{DRAWING} {quiet}"


def show(port: int, ready: Iterable[str], write: Callable[[str], object] = sys.stdout.write) -> bool:
    """Makes the calls for which the model is ready; whether all of them were answered."""
    paint, models = Paint(sys.stdout), set(ready)
    answered = True
    for call in calls(port, curl=shutil.which("curl") is not None):
        if call.model not in models:
            continue
        write(f"{paint('bold', call.heading)}\n  {paint('cyan', '$ ' + call.command)}\n")
        done = run(call.command)
        output = (done.stdout + done.stderr).replace("\r", "").strip()
        write("".join(f"  {line}\n" for line in output.splitlines()) + "\n")
        if done.returncode != 0:
            answered = False
            write(f"  {paint('red', '✗')} That call failed (exit code {done.returncode}).\n\n")
    return answered


def run(command: str) -> subprocess.CompletedProcess[str]:
    """Runs one of the commands as a shell in the checkout would."""
    try:
        return subprocess.run(  # noqa: S602 - the text is this module's own
            command,
            shell=True,
            cwd=layout.ROOT,
            capture_output=True,
            text=True,
            timeout=CALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {CALL_SECONDS:.0f} s")
