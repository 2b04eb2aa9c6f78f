"""Waits until every model of the repository is ready or has failed, by asking the gateway through the edge."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from portico.local import readiness

UNSETTLED = ("LOADING", "UNAVAILABLE")
ROUTES_SECONDS = 60.0


@dataclass(frozen=True)
class ModelState:
    """One line of the index: a model's version, its state, and why it is not ready."""

    name: str
    version: str
    state: str
    reason: str

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self.state == "READY"


class NoRoutes(Exception):
    """The gateway has not got any routes from the controller."""


def index(port: int) -> list[ModelState]:
    """All models as the repository index has them, asked on the clients' port; empty while that does not answer."""
    listed = readiness.json_of(port, "POST", "/v2/repository/index", "{}") or []
    return [ModelState(entry["name"], entry["version"], entry["state"], entry["reason"]) for entry in listed]


def reaches_servers(port: int) -> bool:
    """Whether the gateway has routes and reaches every model server that they need."""
    ready = readiness.json_of(port, "GET", "/readyz")
    return ready is not None and all(state == "ok" for state in ready["model_servers"].values())


def wait_until_settled(
    port: int, seconds: float, tell: Callable[[list[ModelState]], None] = lambda models: None
) -> list[ModelState]:
    """All models when none of them is loading any more, or as they are after `seconds`.

    `tell` is called several times a second. Raises NoRoutes when the gateway gets none within a minute.
    """
    began = time.monotonic()
    while True:
        found, reached = index(port), reaches_servers(port)
        tell(found)
        settled = reached and all(model.state not in UNSETTLED for model in found)
        waited = time.monotonic() - began
        if settled or (found and waited > seconds):
            return found
        if not found and waited > min(ROUTES_SECONDS, seconds):
            raise NoRoutes(f"The gateway got no routes from the controller within {waited:.0f} s.")
        time.sleep(0.1)
