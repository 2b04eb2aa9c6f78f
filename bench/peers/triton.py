"""NVIDIA Triton with a Python model, with its response cache and without it.

Its server is the program in the wheel of PyTriton, started directly. That wheel has the Python backend only. A hit is
answered before any backend is asked, so which one it is does not matter for hits.

Its gRPC calls must be left to end: this version may crash when calls are cancelled (triton-inference-server/server
issue 7368, fixed in 24.12). So h2load has to be given a number of requests (-n), not a duration (-D), which cuts the
last ones off.
"""

import shutil
import sys
from contextlib import suppress
from dataclasses import replace
from functools import partial

from peers.call import LOOPBACK, open_inference_grpc, open_inference_rest
from peers.peer import SERVED, Ground, Packages, Peer, Server

CACHE_BYTES = 256 * 1024 * 1024
CONFIGURATION = """\
name: "double"
backend: "python"
max_batch_size: 0
input { name: "x" data_type: TYPE_FP32 dims: [ -1, -1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ -1, -1 ] }
instance_group { kind: KIND_CPU count: 1 }
"""
CACHED = "response_cache { enable: true }\n"


def serve(ground: Ground, *, cached: bool) -> Server:
    """Makes the model repository. The program looks for the Python it was built for beside the backend."""
    triton = ground.packages / "pytriton" / "tritonserver"
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = "triton_python_backend_stub"
    with suppress(FileExistsError):
        (triton / "backends" / "python" / stub).hardlink_to(triton / "python_backend_stubs" / minor / stub)
    model = ground.folder / "models" / "double"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(CONFIGURATION + CACHED * cached)
    shutil.copy(SERVED / "triton_double.py", model / "1" / "model.py")
    options = {
        "model-repository": model.parent,
        "backend-directory": triton / "backends",
        "cache-directory": triton / "caches",
        "backend-config": f"python,shm-region-prefix-name={ground.folder.name}",
        "http-address": LOOPBACK,
        "http-port": ground.rest,
        "grpc-address": LOOPBACK,
        "grpc-port": ground.grpc,
        "allow-metrics": "false",
    }
    if cached:
        options["cache-config"] = f"local,size={CACHE_BYTES}"
    return Server(
        (triton / "bin" / "tritonserver", *(f"--{name}={value}" for name, value in options.items())),
        open_inference_rest(ground.rest),
        open_inference_grpc(ground.grpc),
        # The wheel's other libraries: the backend is loaded by the server, but its model runs in another process.
        (("LD_LIBRARY_PATH", str(ground.packages / "nvidia_pytriton.libs")),),
    )


PEER = Peer("triton", "2.51.0", True, partial(serve, cached=True), Packages("triton", 74, 233))
WITHOUT_CACHE = replace(PEER, name="triton-nocache", cached=False, serve=partial(serve, cached=False))
