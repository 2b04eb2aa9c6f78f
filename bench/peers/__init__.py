"""What people pick instead of Portico, each installed on demand and run by the benchmark beside it."""

from peers import bentoml, kserve, litserve, mlserver, ray, triton, tutorial
from peers.peer import Peer

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        tutorial.PEER,
        triton.PEER,
        triton.WITHOUT_CACHE,
        mlserver.PEER,
        kserve.PEER,
        litserve.PEER,
        bentoml.PEER,
        ray.PEER,
    )
}
