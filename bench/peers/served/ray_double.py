"""Ray Serve's deployment: y = 2x. Called with the port and a folder for the cluster."""

import sys

import numpy as np
import ray
from ray import serve
from starlette.requests import Request

OBJECT_STORE_BYTES = 100 * 1024 * 1024


@serve.deployment(num_replicas=1, max_ongoing_requests=256, logging_config={"enable_access_log": False})
class Double:
    """Doubles a list of numbers."""

    async def __call__(self, request: Request) -> list[float]:
        """Becomes JSON."""
        given = await request.json()
        return (2 * np.asarray(given["x"], np.float32)).tolist()


if __name__ == "__main__":
    port, folder = sys.argv[1:]
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        _temp_dir=folder,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)}, logging_config={"enable_access_log": False})
    serve.run(Double.bind(), route_prefix="/predict", blocking=True)
