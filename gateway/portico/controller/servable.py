"""The names that loaded models have inside the model servers. A name describes its content, so that whoever reads the
list of a server knows what is loaded; clients never see one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from portico.routing import CallPolicy, Route, Server, Signature

SEPARATOR = "--"
_GENERATED = re.compile(rf".+{SEPARATOR}[0-9a-f]{{12}}")
_DIGITS = re.compile(r"([0-9]+)")


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How TorchServe is to load an archive, as the model's policy says; `batch_delay` is milliseconds.

    None leaves it to the archive's own model-config.yaml, and then to TorchServe.
    """

    workers: int | None = None
    max_batch_size: int | None = None
    batch_delay: int | None = None


@dataclass(frozen=True, slots=True)
class Servable:
    """One version of a model with one content, loaded or to be loaded.

    `servable_version` is the version as the model server counts it: the folder's number (TF Serving), the one in the
    archive (TorchServe). `path` is relative to the repository, empty where only the route is known. `warmup` is the
    file of requests to run once it is loaded, relative to the repository, empty if there is none; `calls` is how they
    are treated.
    """

    name: str
    model: str
    version: str
    server: Server
    servable_version: str
    path: str
    fingerprint: str
    options: LoadOptions = LoadOptions()
    warmup: str = ""
    calls: CallPolicy = CallPolicy()

    @classmethod
    def of_files(
        cls,
        model: str,
        version: str,
        server: Server,
        servable_version: str,
        path: str,
        fingerprint: str,
        options: LoadOptions = LoadOptions(),
        warmup: str = "",
        calls: CallPolicy = CallPolicy(),
    ) -> "Servable":
        """The servable for these files, named `<model>--<generation>`.

        The generation changes with the version, its content, or how it is loaded; it is 12 hexadecimal digits.
        """
        parts = [fingerprint, server, version, servable_version]
        if options != LoadOptions():
            parts.append(repr(options))
        generation = blake2b("\0".join(parts).encode(), digest_size=6).hexdigest()
        name = f"{model}{SEPARATOR}{generation}"
        return cls(name, model, version, server, servable_version, path, fingerprint, options, warmup, calls)

    def route(self, signatures: Mapping[str, Signature]) -> Route:
        """The route to it, once it is ready."""
        return Route(
            self.model,
            self.version,
            self.server,
            self.name,
            self.servable_version,
            self.fingerprint,
            signatures,
            self.calls,
        )

    @classmethod
    def of_route(cls, route: Route) -> "Servable":
        """The servable that a route leads to."""
        return cls(
            route.servable, route.model, route.version, route.server, route.servable_version, "", route.fingerprint
        )


def is_generated(name: str) -> bool:
    """Whether a name on a model server is one of ours; others are left alone."""
    return _GENERATED.fullmatch(name) is not None


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts versions the way people count: 2 before 10, 1.2 before 1.10, v1 before v2, 1.0 before 1.0.1."""
    parts = (part for part in _DIGITS.split(version) if part)
    return tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts)
