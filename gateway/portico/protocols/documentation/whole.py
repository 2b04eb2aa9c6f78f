"""The OpenAPI document of everything that the REST door answers, read from `openapi.yaml`. Used by `endpoints`, and
by `model` for the documents of single models. It knows no model.
"""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from portico import __version__
from portico.codecs import json_values

SHARED = "x-shared"
"""The key under which the file keeps what several places repeat."""

# The parser in C takes a sixth of the time; PyYAML's wheels have it.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def document() -> Mapping[str, Any]:
    """The document, not to be changed: parts of it that are the same are one object."""
    text = (files(__package__) / "openapi.yaml").read_bytes()
    found: dict[str, Any] = yaml.load(text, _Loader)  # noqa: S506 - either is a safe one
    del found[SHARED]
    return found | {"info": found["info"] | {"version": __version__}}


@cache
def rendered() -> bytes:
    """The document as JSON."""
    return json_values.render(document())
