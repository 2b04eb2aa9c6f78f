"""Lightning's LitServe, which has no cache: one API server and one worker, processes of their own."""

from peers.call import plain_rest
from peers.peer import SERVED, Ground, Packages, Peer, Server


def serve(ground: Ground) -> Server:
    """The port is all there is to say."""
    return Server((ground.python, SERVED / "litserve_double.py", str(ground.rest)), plain_rest(ground.rest, "/predict"))


PEER = Peer("litserve", "0.2.19", False, serve, Packages("litserve", 11, 61))
