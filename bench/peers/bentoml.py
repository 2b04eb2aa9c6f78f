"""BentoML, which has no cache: one worker."""

from peers.call import LOOPBACK, plain_rest
from peers.peer import SERVED, Ground, Packages, Peer, Server


def serve(ground: Ground) -> Server:
    """Its folder of models and settings is ours, and it tells nobody that it was started."""
    options = ("--working-dir", SERVED, "--host", LOOPBACK, "--port", str(ground.rest), "--do-not-track")
    return Server(
        (ground.python.with_name("bentoml"), "serve", "bentoml_double:Double", *options),
        plain_rest(ground.rest, "/predict"),
        environment=(("BENTOML_HOME", str(ground.folder)), ("BENTOML_DO_NOT_TRACK", "True")),
    )


PEER = Peer("bentoml", "1.4.39", False, serve, Packages("bentoml", 32, 140))
