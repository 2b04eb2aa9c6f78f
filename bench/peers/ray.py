"""Ray Serve, which has no cache: a cluster of this machine alone, one proxy and one replica."""

from peers.call import plain_rest
from peers.peer import SERVED, Ground, Packages, Peer, Server


def serve(ground: Ground) -> Server:
    """Its folder of sockets and logs is ours, and it tells nobody that it was started."""
    return Server(
        (ground.python, SERVED / "ray_double.py", str(ground.rest), ground.folder / "ray"),
        plain_rest(ground.rest, "/predict"),
        environment=(("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_DISABLE_IMPORT_WARNING", "1")),
    )


PEER = Peer("ray", "2.60.0", False, serve, Packages("ray", 139, 409))
