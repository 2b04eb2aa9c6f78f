"""Waits until every model of the repository is ready or has failed, by asking the gateway through the edge."""

import time
from collections.abc import Callable

from portico.local import readiness
from portico.models_table import Entry, entry_of

UNSETTLED = ("LOADING", "UNAVAILABLE")
ROUTES_SECONDS = 60.0


class NoRoutes(Exception):
    """The gateway has not got any routes from the controller."""


def entries(port: int) -> list[Entry]:
    """All models as the gateway lists them, asked on the clients' port; empty while that does not answer."""
    answer = readiness.json_of(port, "GET", "/v1/models")
    return [entry_of(version) for version in answer["versions"]] if answer else []


def reaches_servers(port: int) -> bool:
    """Whether the gateway has routes and reaches every model server that they need."""
    ready = readiness.json_of(port, "GET", "/readyz")
    return ready is not None and all(state == "ok" for state in ready["model_servers"].values())


def wait_until_settled(
    port: int, seconds: float, tell: Callable[[list[Entry]], None] = lambda models: None
) -> list[Entry]:
    """All models when none of them is loading any more, or as they are after `seconds`.

    `tell` is called several times a second. Raises NoRoutes when the gateway gets none within a minute.
    """
    began = time.monotonic()
    while True:
        found, reached = entries(port), reaches_servers(port)
        tell(found)
        settled = reached and all(model.state not in UNSETTLED for model in found)
        waited = time.monotonic() - began
        if settled or (found and waited > seconds):
            return found
        if not found and waited > min(ROUTES_SECONDS, seconds):
            raise NoRoutes(f"The gateway got no routes from the controller within {waited:.0f} s.")
        time.sleep(0.1)
