"""The replicas of one kind of model server, as they report themselves. Frozen data, and the question which of them may
take calls; `plan` asks it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from portico.controller.loaders import LoadState, Report, Status
from portico.controller.servable import Servable
from portico.routing import State


@dataclass(frozen=True)
class Fleet:
    """What the replicas of one kind of server report, by address; None for one that cannot be reached.

    `problem` says why, if there is no replica that can be reached.
    """

    replicas: Mapping[str, Report | None]
    problem: str = ""

    @cached_property
    def reports(self) -> dict[str, Report]:
        """The reports of the replicas that can be reached."""
        return {address: report for address, report in self.replicas.items() if report is not None}

    def having(self, names: Collection[str]) -> "Fleet":
        """Those that have all of these servables ready; where none has, all that can be reached.

        So one that restarts, or is added, has no say before it has caught up, and takes no calls; and where all have
        lost something, each goes on with what it has.
        """
        reports = self.reports
        complete = {address: report for address, report in reports.items() if is_ready(report, names)}
        return Fleet(complete or reports, self.problem)

    def status(self, servable: Servable) -> tuple[State, str, Status | None]:
        """(state, reason, what a replica that is ready says) of a servable on all replicas together."""
        reports = self.reports
        if not reports:
            return State.UNAVAILABLE, self.problem, None
        found = [report.get(servable.name) for report in reports.values()]
        for status in found:
            if status and status.state is LoadState.FAILED:
                where = f" (in one of {len(found)} replicas)" if len(found) > 1 else ""
                return State.FAILED, f"{status.reason}{where}", None
        ready = [status for status in found if status and status.state is LoadState.READY]
        if len(ready) < len(found):
            return State.LOADING, "the model server is loading it", None
        return State.READY, "", ready[0]

    def state(self, name: str) -> State | None:
        """Whether some replica can answer on a servable; None if none has it any more."""
        reports = self.reports
        if not reports:
            return State.UNAVAILABLE
        states = {status.state for report in reports.values() if (status := report.get(name))}
        if LoadState.READY in states:
            return State.READY
        return State.LOADING if LoadState.LOADING in states else None


def is_ready(report: Report, names: Collection[str]) -> bool:
    """Whether a replica has all of these servables ready."""
    return all((status := report.get(name)) is not None and status.state is LoadState.READY for name in names)
