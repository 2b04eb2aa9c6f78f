"""`python -m peers install NAME|all` makes environments; `python -m peers try NAME|all` starts, asks and stops peers.

To be run in bench/, with .venv/dev/bin/python.
"""

import argparse

from peers import PEERS
from peers.call import LOOPBACK
from peers.peer import Peer
from portico.local.installing import InstallationFailed
from portico.local.process import PartFailed

REQUESTS = 20


def main() -> None:
    """Raises SystemExit with what went wrong."""
    parser = argparse.ArgumentParser(prog="python -m peers", description=__doc__)
    parser.add_argument("verb", choices=["install", "try"])
    parser.add_argument("name", choices=[*PEERS, "all"])
    options = parser.parse_args()
    do = Peer.install if options.verb == "install" else attempt
    for peer in PEERS.values() if options.name == "all" else [PEERS[options.name]]:
        try:
            do(peer)
        except (InstallationFailed, PartFailed) as error:
            raise SystemExit(str(error)) from error


def attempt(peer: Peer) -> None:
    """Starts it, asks a few times, tells what runs where, and stops it."""
    with peer.start() as running:
        print(f"{peer.name} {peer.version}: pids {running.pids}, behind it {list(running.behind)}")
        for endpoint in filter(None, (running.rest, running.grpc)):
            right = sum(endpoint.answers() for _ in range(REQUESTS))
            print(f"  {LOOPBACK}:{endpoint.port}{endpoint.path}: {right} of {REQUESTS} answers right")


if __name__ == "__main__":
    main()
