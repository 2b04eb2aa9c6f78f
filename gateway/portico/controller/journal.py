"""Every change of what is served, as one line in the log and one count in the metrics: what, why, and how long it took.
Called by the reconcile loop for each table that it has published.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping

from prometheus_client import Counter as CounterMetric
from prometheus_client import Gauge, Histogram

from portico.controller.changes import Swap, changes
from portico.controller.inventory import Inventory, ModelFiles
from portico.routing import RouteTable, State

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

CHANGES = CounterMetric("portico_model_changes", "Changes of what is served.", ["model", "change"])
PHASES = Histogram("portico_swap_seconds", "From the last file written to the route.", ["phase"], buckets=_BUCKETS)
VERSIONS = Gauge("portico_model_versions", "Versions of models in the listing.", ["state"])

AGAIN = 5.0
"""Seconds after its files were judged when a load can no longer have been begun because of them."""

_log = logging.getLogger(__name__)


class Journal:
    """`clock` is that of the times in the inventory, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock

    def published(
        self, old: RouteTable, new: RouteTable, inventory: Inventory, loaded: Mapping[str, tuple[float, float]]
    ) -> None:
        """`new` has taken the place of `old`. `loaded` says when the last load of each servable began and ended."""
        now = self._clock()

        def timed(model: str, servable: str) -> Swap | None:
            return _swap(inventory.models.get(model), servable, loaded.get(servable, (0.0, 0.0)), now)

        for change in changes(old, new, timed):
            _log.info("%s", change)
            CHANGES.labels(change.model, change.what).inc()
            for phase, seconds in change.swap.phases() if change.swap else ():
                PHASES.labels(phase).observe(seconds)
        states = Counter(version.state for model in new.models.values() for version in model.versions.values())
        for state in State:
            VERSIONS.labels(state.lower()).set(states[state])


def _swap(files: ModelFiles | None, servable: str, load: tuple[float, float], now: float) -> Swap | None:
    """How long it took; None where no files tell of a beginning."""
    if files is None:
        return None
    began, loaded = load
    own = next((one for one in files.versions if one.servable and one.servable.name == servable), None)
    if began > max(files.settled, own.judged if own else 0.0) + AGAIN:
        # No files brought it about: a replica came back, or what had failed was tried again.
        return Swap.of_times(began, began, began, loaded, now)
    if own and (own.judged >= files.since or (began <= own.judged + AGAIN and loaded >= files.since)):
        return Swap.of_times(own.since, own.settled, own.judged, loaded, now)
    # Another version was what changed, or the policy.
    return Swap.of_times(files.since, files.settled, files.settled, loaded, now)
