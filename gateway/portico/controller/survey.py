"""Asks all replicas of all servers what they have, at once. Called by the reconcile loop as each round begins."""

import asyncio
import logging
from collections.abc import Iterable, Mapping

from portico.controller.fleet import Fleet
from portico.controller.inventory import Inventory
from portico.controller.loaders import Loader, LoaderError, ReplicaUnreachable, Report
from portico.controller.memory import Troubles
from portico.controller.plan import routes
from portico.controller.servable import Servable
from portico.controller.work import Work
from portico.routing import RouteTable, Server

REPORT_TIMEOUT = 10.0
"""Seconds that all questions to one replica may take in one round."""

_log = logging.getLogger(__name__)


class Survey:
    """`absent` says why there is no server of a kind."""

    def __init__(
        self, loaders: Mapping[Server, Loader], work: Work, troubles: Troubles, absent: Mapping[Server, str]
    ) -> None:
        self._loaders = loaders
        self._work = work
        self._troubles = troubles
        self._absent = {server: Fleet({}, problem) for server, problem in absent.items()}
        self.servers = frozenset(loaders)
        """The kinds of servers that there are."""

    async def ask(self, published: RouteTable, lying: Inventory) -> dict[Server, Fleet]:
        """What all replicas have. `published` and `lying` say what that may be."""
        known = known_servables(published, lying)
        routed = {route.servable for route in routes(published)}
        fleets = await asyncio.gather(*(self._fleet(loader, known, routed) for loader in self._loaders.values()))
        return {**self._absent, **dict(zip(self._loaders, fleets, strict=True))}

    async def _fleet(self, loader: Loader, known: Iterable[Servable], routed: set[str]) -> Fleet:
        try:
            addresses = await loader.replicas()
        except ReplicaUnreachable as error:
            self._troubles.tell(loader.server.display_name, str(error))
            return Fleet({}, f"{loader.server.display_name} cannot be found")
        self._troubles.end(loader.server.display_name)
        mine = {servable.name: servable for servable in known if servable.server is loader.server}
        # What is loaded besides, an adapter knows by itself; of the versions that only lie there, there may be many.
        reports = await asyncio.gather(*(self._report(loader, address, mine, routed) for address in addresses))
        # Clients read it: the addresses stay in the log.
        reached = any(found is not None for found in reports)
        problem = "" if reached else f"{loader.server.display_name} cannot be reached"
        return Fleet(dict(zip(addresses, reports, strict=True)), problem)

    async def _report(
        self, loader: Loader, address: str, known: Mapping[str, Servable], routed: set[str]
    ) -> Report | None:
        """What a replica has, with what this controller knows besides."""
        try:
            async with asyncio.timeout(REPORT_TIMEOUT):
                report = await loader.report(address, [known[name] for name in known.keys() & routed])
        except (LoaderError, TimeoutError) as error:
            reason = str(error) or f"no answer from {address} in time"
            self._troubles.tell(address, f"{loader.server.display_name}: {reason}")
            self._work.forget(address)
            return None
        except Exception:
            _log.exception("%s at %s: its report cannot be read", loader.server, address)
            return None
        self._troubles.end(address)
        return self._work.complete(address, report, known, routed)


def known_servables(published: RouteTable, lying: Inventory) -> list[Servable]:
    """Every servable that may be loaded somewhere."""
    found = (version.servable for model in lying.models.values() for version in model.versions)
    known = {servable.name: servable for servable in found if servable}
    return [*known.values(), *(Servable.of_route(route) for route in routes(published) if route.servable not in known)]
