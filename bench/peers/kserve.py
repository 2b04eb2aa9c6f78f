"""KServe's model server, which has no cache. It listens on all addresses, and has no setting for that."""

from peers.call import open_inference_grpc, open_inference_rest
from peers.peer import SERVED, Ground, Packages, Peer, Server


def serve(ground: Ground) -> Server:
    """One worker; its default."""
    options = ("--http_port", str(ground.rest), "--grpc_port", str(ground.grpc), "--workers", "1")
    return Server(
        (ground.python, SERVED / "kserve_double.py", *options),
        open_inference_rest(ground.rest),
        open_inference_grpc(ground.grpc),
    )


PEER = Peer("kserve", "0.21.0", False, serve, Packages("kserve", 77, 321))
