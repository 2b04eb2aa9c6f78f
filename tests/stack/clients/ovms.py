"""ovmsclient, over gRPC and HTTP. Called with host:port, rows of measurements and images as JSON; prints JSON.

Without a version the client sends 0, which is how OpenVINO Model Server is asked for the default one.
"""

import json
import sys
from typing import Any

import numpy as np
import ovmsclient

ADDRESS, ROWS, IMAGES = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])


def calls(client: Any) -> dict[str, Any]:
    """All that the client can do, with a version and without; and what it makes of errors."""
    inputs = {"measurements": np.array(ROWS, np.float32)}
    outputs = client.predict(inputs, "iris", 1)
    default = client.predict(inputs, "iris")
    return {
        "probabilities": np.asarray(outputs["probabilities"]).tolist(),
        "species": np.asarray(outputs["species"]).tolist(),
        "default": np.asarray(default["species"]).tolist(),
        "metadata": client.get_model_metadata("iris"),
        "status": client.get_model_status("iris"),
        "status of 1": client.get_model_status("iris", 1),
        "digits": {
            name: np.asarray(output).tolist()
            for name, output in client.predict({"image": np.array(IMAGES)}, "digits").items()
        },
        "metadata of digits": client.get_model_metadata("digits"),
        "errors": {
            "model": error(lambda: client.predict(inputs, "absent")),
            "version": error(lambda: client.get_model_status("iris", 9)),
            "input": error(lambda: client.predict({"petals": inputs["measurements"]}, "iris")),
        },
    }


def error(call: Any) -> list[str]:
    """(class, text) of the error that a call ends with."""
    try:
        call()
    except Exception as raised:
        return [type(raised).__name__, str(raised)]
    return []


print(
    json.dumps(
        {"grpc": calls(ovmsclient.make_grpc_client(ADDRESS)), "http": calls(ovmsclient.make_http_client(ADDRESS))}
    )
)
