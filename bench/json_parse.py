"""What 1 MB of numbers as Open Inference JSON costs: Portico's reading of a request to the bytes of its tensors, beside
MLServer's and KServe's, from the bytes of the body to a numpy array, as their REST servers do it.

Run: `.venv/dev/bin/python bench/json_parse.py [mlserver=PYTHON] [kserve=PYTHON]`, of which those that `bench/peers` has
installed need not be named. Every round measures each once, in a process of its own; what counts are ratios within a
round, of which the median is told.
"""

import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 7

_TIMER = """
import sys, time
for line in sys.stdin.buffer:
    size, repeats = map(int, line.split())
    body = sys.stdin.buffer.read(size)
    timed(body)
    begun = time.thread_time()
    for _ in range(repeats):
        timed(body)
    print((time.thread_time() - begun) / repeats, flush=True)
"""
READERS = {
    "portico": """
from portico.codecs.json_values import parse_object
from portico.codecs.open_inference import decode_request
read = lambda body: decode_request(parse_object(body, numbers=True), signed=True).inputs[0].data
""",
    # mlserver/rest: orjson, then FastAPI's validation of the payload; then the codec that a numpy model asks for.
    "mlserver": """
import orjson
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest
parsed = lambda body: InferenceRequest.model_validate(orjson.loads(body))
read = lambda body: NumpyCodec.decode_input(parsed(body).inputs[0])
""",
    # kserve/protocol/rest: Starlette's json, then FastAPI's validation; DataPlane.decode, and as_numpy by the model.
    "kserve": """
import json
from kserve import InferRequest
from kserve.protocol.rest.v2_datamodels import InferenceRequest
parsed = lambda body: InferRequest.from_inference_request(InferenceRequest.model_validate(json.loads(body)), "m")
read = lambda body: parsed(body).inputs[0].as_numpy()
""",
}
"""Each defines `read`, all the way to the numbers, and the peers `parsed`, which only parses."""


class Timer:
    """A process that times one function."""

    def __init__(self, name: str, python: str, function: str) -> None:
        self.name = f"{name}, {'parsed only' if function == 'parsed' else 'to the numbers'}"
        program = f"{READERS[name]}\ntimed = {function}\n{_TIMER}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "gateway") if name == "portico" else ""}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen([python, "-c", program], env=environment, **pipes)  # type: ignore[call-overload]

    def seconds(self, body: bytes) -> float:
        self._process.stdin.write(b"%d %d\n" % (len(body), max(1, 500_000 // len(body))) + body)
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def stop(self) -> None:
        self._process.communicate(timeout=10)


def cases() -> dict[str, bytes]:
    draw = random.Random(1)
    floats = [draw.uniform(-10, 10) for _ in range(55_008)]
    rows = [floats[start : start + 16] for start in range(0, len(floats), 16)]
    image = [[[[draw.randrange(256) for _ in range(3)] for _ in range(300)] for _ in range(300)]]
    return {
        "100 B, 2 floats": _body([1.5, -2.5], [2], "FP32"),
        "1 MB of floats, flat": _body(floats, [len(floats)], "FP32"),
        "1 MB of floats, [n, 16]": _body(rows, [len(rows), 16], "FP32"),
        "1 MB of floats of 4 places, flat": _body([round(value, 4) for value in floats * 2], [2 * len(floats)], "FP32"),
        "1 MB of integers, flat": _body([draw.randrange(1 << 62) for _ in range(52_000)], [52_000], "INT64"),
        "1 MB of an image, [1, 300, 300, 3]": _body(image, [1, 300, 300, 3], "UINT8"),
    }


def _body(data: object, shape: list[int], datatype: str) -> bytes:
    request = {"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}]}
    return json.dumps(request, separators=(",", ":")).encode()


def peers() -> dict[str, str]:
    """The Pythons of the peers that are named as arguments or are installed."""
    named = dict(argument.split("=", 1) for argument in sys.argv[1:])
    pythons = {name: named.get(name, f"{ROOT}/.venv/peers/{name}/bin/python") for name in READERS if name != "portico"}
    return {name: python for name, python in pythons.items() if Path(python).exists()}


def main() -> None:
    timers = [Timer("portico", sys.executable, "read")]
    timers += [Timer(name, python, function) for name, python in peers().items() for function in ("parsed", "read")]
    print(f"Time of others / time of Portico, medians of {ROUNDS} rounds\n")
    print(f"| body | {timers[0].name} (ms) | {' | '.join(timer.name for timer in timers[1:])} |")
    print(f"|---|{'---|' * len(timers)}")
    for name, body in cases().items():
        rounds = [[timer.seconds(body) for timer in timers] for _ in range(ROUNDS)]
        ratios = [statistics.median(taken[index] / taken[0] for taken in rounds) for index in range(1, len(timers))]
        own = 1000 * statistics.median(taken[0] for taken in rounds)
        print(f"| {name} | {own:.3f} | {' | '.join(f'{ratio:.1f}' for ratio in ratios)} |", flush=True)
    for timer in timers:
        timer.stop()


if __name__ == "__main__":
    main()
