"""Name, version or label → route. A `RouteTable` is an immutable snapshot, made by the controller and replaced whole in
each gateway; looking up in it is a few dictionary reads.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from portico.errors import ModelNotFound, ModelNotReady, VersionNotFound

DEFAULT_SIGNATURE = "serving_default"
"""TensorFlow's name for the signature that a call without one means."""


LOADING = "it is being loaded"
"""Why a version is not ready, where nothing else is known."""


class Server(StrEnum):
    """The model servers there are. A route belongs to one of them."""

    TF_SERVING = "tf_serving"
    TORCHSERVE = "torchserve"

    @property
    def display_name(self) -> str:
        """Its name as people write it."""
        return "TF Serving" if self is Server.TF_SERVING else "TorchServe"


class State(StrEnum):
    """Where a model's version stands, as the repository index shows it."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"
    """It was ready, and its model server cannot be reached now."""
    FAILED = "FAILED"
    """The model server refused it."""
    DRAINING = "DRAINING"
    """Calls no longer go to it; it is unloaded when those under way have ended."""
    QUARANTINED = "QUARANTINED"
    """Its files are broken; no server was asked to load them."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output that a model declares. `shape` has -1 where any size goes, and is None where any rank goes.

    `tensor` is the name in the TensorFlow graph ("serving_default_x:0"), empty elsewhere.
    """

    name: str
    datatype: str
    shape: tuple[int, ...] | None
    tensor: str = ""


@dataclass(frozen=True, slots=True)
class Signature:
    """One way to call a model (TensorFlow's SignatureDef). `method` is its method name, e.g. the TF Serving predict."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    method: str = ""


class Wire(StrEnum):
    """The form in which a TorchServe handler takes and gives tensors (`wire` in a model's policy)."""

    AUTO = "auto"
    """One BYTES input is the body, numbers become plain JSON; JSON numbers that come back become tensors."""
    RAW = "raw"
    """The body as it is, both ways: an answer is one BYTES tensor whatever it holds."""
    JSON = "json"
    """JSON both ways, also for text."""
    KSERVE_V1 = "kserve_v1"
    """{"instances": …} and {"predictions": …}."""
    KSERVE_V2 = "kserve_v2"
    """The Open Inference Protocol's JSON: {"inputs": […]} and {"outputs": […]}."""


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """How calls of a model are treated, as its policy file says: None is the stack's own setting.

    `cache_ttl` and `timeout` are seconds. `cache_vary` names headers, in lower case, whose values tell answers apart.
    A `stateful` model is never cached, and no call of it is ever sent twice.
    """

    cache: bool = True
    cache_ttl: int | None = None
    timeout: float | None = None
    stateful: bool = False
    wire: Wire = Wire.AUTO
    cache_max_entry_bytes: int | None = None
    cache_vary: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """Where one version of one model is served.

    `servable` and `servable_version` are its names inside the model server, which clients never see. `fingerprint` is
    the digest of the files that were loaded. `signatures` is empty where the server does not tell (TorchServe).
    """

    model: str
    version: str
    server: Server
    servable: str
    servable_version: str
    fingerprint: str
    signatures: Mapping[str, Signature] = field(default_factory=lambda: MappingProxyType({}))
    policy: CallPolicy = CallPolicy()

    @property
    def answers(self) -> Wire:
        """The form in which its answers come: the tensors as they are, where the model declares them."""
        return Wire.RAW if self.signatures else self.policy.wire


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a model: its state, the reason if it is not ready, its route if it has been ready.

    `leaving` is the servable that still drains, where there is no route any more.
    """

    version: str
    state: State
    reason: str = ""
    route: Route | None = None
    leaving: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the repository. `default` is the version that a call without one gets, empty if none is ready.

    `versions` is ordered, oldest first. `labels` maps a name to a version.
    """

    name: str
    server: Server | None
    default: str
    versions: Mapping[str, Version]
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def is_leaving(self) -> bool:
        """Whether it was deleted, and only the last calls of it are waited for."""
        for version in self.versions.values():  # called for each request, and the first one mostly says it
            if version.state is not State.DRAINING:
                return False
        return bool(self.versions)

    def status(self, version: str = "", label: str = "") -> Version:
        """The version asked for; the default, or else the newest, if none was. Raises VersionNotFound."""
        if label:
            version = self.labels.get(label, "")
            if not version:
                known = ", ".join(sorted(self.labels)) or "none"
                raise VersionNotFound(
                    f"Unrecognized servable version label: {label}. Labels of model '{self.name}': {known}."
                )
        found = self.versions.get(version or self.default or next(reversed(list(self.versions)), ""))
        if found is None:
            known = ", ".join(self.versions) or "none"
            raise VersionNotFound.of(
                self.name, version, f"{self._as_label(version)}Versions of model '{self.name}': {known}."
            )
        return found

    def _as_label(self, name: str) -> str:
        """How to reach a label that was given as a version; empty for a name that is none."""
        if name not in self.labels:
            return ""
        return (
            f"'{name}' is a label, of version {self.labels[name]}: ask for that version, or for the label where the "
            f"protocol has labels (TF Serving's: /v1/models/{self.name}/labels/{name}). "
        )


@dataclass(frozen=True, slots=True)
class RouteTable:
    """All models of the repository at one moment. `revision` grows with each snapshot the controller publishes."""

    models: Mapping[str, Model] = field(default_factory=lambda: MappingProxyType({}))
    revision: int = 0

    def model(self, name: str) -> Model:
        """Raises ModelNotFound, naming the closest names there are; what only drains is not there any more."""
        model = self.models.get(name)
        if model is None or model.is_leaving:
            raise ModelNotFound.named(name, (other for other in self.models if other != name or model is None))
        return model

    def resolve(self, name: str, version: str = "", label: str = "") -> Route:
        """The route of a call. Raises ModelNotFound, VersionNotFound, or ModelNotReady with the reason."""
        model = self.model(name)
        status = model.status(version, label)
        if status.state is State.DRAINING:
            raise VersionNotFound.of(
                name, status.version, "It is being unloaded: it was removed, or replaced by another version."
            )
        if status.route is None:
            reason = status.reason or LOADING
            which = f"Model '{name}' version {status.version}" if status.version else f"Model '{name}'"
            state = "set aside" if status.state is State.QUARANTINED else status.state.lower()
            raise ModelNotReady(f"{which} is {state}: {reason}")
        return status.route


class LiveRoutes:
    """The one mutable cell: the snapshot in force, and what calls under way use. Written by whoever follows the
    controller, read by each request.
    """

    def __init__(self, table: RouteTable | None = None) -> None:
        self.table = table or RouteTable()
        self.received = table is not None
        """Whether any snapshot has come yet; before that, an unknown model proves nothing."""
        self.replaced = asyncio.Event()
        """Set, once and for all, when another snapshot takes the place of `table`; each snapshot has one of its own."""
        self._using: dict[str, int] = {}

    def enter(self, servable: str) -> None:
        """A call to a servable begins; `leave` has to follow."""
        self._using[servable] = self._using.get(servable, 0) + 1

    def leave(self, servable: str) -> None:
        """A call to a servable has ended."""
        left = self._using[servable] - 1
        if left:
            self._using[servable] = left
        else:
            del self._using[servable]

    def leftover(self) -> frozenset[str]:
        """The servables that calls use although no route leads to them any more."""
        if not self._using:
            return frozenset()
        versions = (version for model in self.table.models.values() for version in model.versions.values())
        return frozenset(self._using) - {version.route.servable for version in versions if version.route}

    def replace(self, table: RouteTable) -> None:
        """Puts another snapshot in force, for requests that resolve from now on.

        A model of which nothing has changed stays the same object, by which those know it who remember its answers.
        """
        known = self.table.models
        models = {name: known[name] if known.get(name) == model else model for name, model in table.models.items()}
        self.table = RouteTable(models, table.revision)
        self.received = True
        replaced, self.replaced = self.replaced, asyncio.Event()
        replaced.set()
