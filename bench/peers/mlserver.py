"""Seldon's MLServer with its cache, in one process."""

import json

from peers.call import LOOPBACK, open_inference_grpc, open_inference_rest
from peers.peer import Ground, Packages, Peer, Server


def serve(ground: Ground) -> Server:
    """`parallel_workers` of 0 runs the model in the server's own process: the fastest for so small a model."""
    settings = {
        "host": LOOPBACK,
        "http_port": ground.rest,
        "grpc_port": ground.grpc,
        "metrics_endpoint": None,
        "parallel_workers": 0,
        "cache_enabled": True,
        "debug": False,
    }
    (ground.folder / "settings.json").write_text(json.dumps(settings))
    model = {"name": "double", "implementation": "mlserver_double.Double"}
    (ground.folder / "model-settings.json").write_text(json.dumps(model))
    return Server(
        (ground.python.with_name("mlserver"), "start", ground.folder),
        open_inference_rest(ground.rest),
        open_inference_grpc(ground.grpc),
    )


PEER = Peer("mlserver", "1.7.1", True, serve, Packages("mlserver", 64, 242))
