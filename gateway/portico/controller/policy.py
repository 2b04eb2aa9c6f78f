"""What a model's policy file (`model.yaml`) may say, as frozen data. `policy_file` reads it; the rest of the controller
knows the `Policy` alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from portico.controller.servable import LoadOptions
from portico.routing import CallPolicy, Server, Wire


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

    def unfit(self, server: Server) -> str:
        """Why a model of this server cannot have the policy, empty if it can."""
        if server is Server.TORCHSERVE:
            return ""
        given = {
            "workers": self.options.workers is not None,
            "max_batch_size": self.options.max_batch_size is not None,
            "batch_delay": self.options.batch_delay is not None,
            "wire": self.calls.wire is not Wire.AUTO,
        }
        keys = ", ".join(f"'{key}'" for key, is_given in given.items() if is_given)
        return keys and f"{keys} in its policy: only TorchServe has that, and this is a SavedModel; remove it"
