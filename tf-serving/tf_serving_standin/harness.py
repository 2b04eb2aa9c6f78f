"""One managed version and the policy that decides what to do next: pure, no threads of its own.

Used by the lifecycle only (core/loader_harness.h, core/availability_preserving_policy.cc).
"""

import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Generic, TypeVar

from tf_serving_standin.states import ServableId

S = TypeVar("S")


class Phase(Enum):
    """Where a harness is on its way from new to gone."""

    NEW = auto()
    LOADING = auto()
    READY = auto()
    QUIESCING = auto()
    DISABLED = auto()
    ERROR = auto()


class Action(Enum):
    """What the policy can ask for."""

    LOAD = auto()
    UNLOAD = auto()


@dataclass
class Harness(Generic[S]):
    """A version under management; guarded by the lifecycle's lock."""

    id: ServableId
    path: str
    phase: Phase = Phase.NEW
    aspired: bool = True
    servable: S | None = None
    users: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)


def next_action(models: Iterable[Collection[Harness[S]]]) -> tuple[Action, Harness[S] | None]:
    """The next thing to do over all models, each with its versions: unloads before loads, so that memory is freed."""
    chosen = [availability_preserving(versions) for versions in models]
    for wanted in (Action.UNLOAD, Action.LOAD):
        for action, found in chosen:
            if found is not None and action is wanted:
                return action, found
    return Action.LOAD, None


def availability_preserving(versions: Collection[Harness[S]]) -> tuple[Action, Harness[S] | None]:
    """Unload an old version only once a new one is ready (or none is wanted), oldest first; load newest first."""
    aspired = [h for h in versions if h.aspired]
    outgoing = [h for h in versions if not h.aspired and h.phase is Phase.READY]
    serving = any(h.phase is Phase.READY for h in aspired)
    if outgoing and (not aspired or serving or len(outgoing) > 1):
        return Action.UNLOAD, min(outgoing, key=lambda h: h.id)
    new = [h for h in aspired if h.phase is Phase.NEW]
    return Action.LOAD, max(new, key=lambda h: h.id, default=None)
