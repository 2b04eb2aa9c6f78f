"""What a model's policy file (`model.yaml`) may say, and its reading. Called by `repository` for files that have
settled; the rest of the controller knows the `Policy` alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from portico.controller.servable import LoadOptions
from portico.routing import CallPolicy


@dataclass(frozen=True, slots=True)
class Policy:
    """A model's policy; the defaults are those of a model without a file.

    Served are the newest `latest` versions (None: all), or, if there are any in `only`, these; and besides, whatever
    `labels` and `default_version` name. `default_version` is the one that a call without a version gets, empty for the
    newest. `warmup` is a file relative to the policy's folder.
    """

    latest: int | None = 1
    only: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    default_version: str = ""
    warmup: str = ""
    options: LoadOptions = LoadOptions()
    calls: CallPolicy = CallPolicy()
