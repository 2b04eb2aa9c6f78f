"""The policy file of a model, `model.yaml` or `<name>.yaml`: its keys, its JSON Schema, its reading into a `Policy`.
Called by `repository` for files that have settled, and by the command line for the schema.
"""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from portico.controller import policy_yaml
from portico.controller.bounded_read import read_file
from portico.controller.policy import Policy
from portico.controller.policy_yaml import Document
from portico.controller.rejected import Rejected
from portico.controller.servable import LoadOptions
from portico.routing import CallPolicy, Wire

MAX_BYTES = 64 << 10
"""Size of the largest policy file."""
MOST_REASONS = 3
"""How many things that are wrong with a file are told at once."""
VERSION = r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,62}$"
"""What a version may be called, as `scan` has it."""

_Version = Annotated[str, Field(pattern=VERSION)] | Annotated[int, Field(ge=0, lt=1 << 63)]
_LabelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
_Newest = Annotated[str, Field(pattern=r"^(all|latest( [1-9][0-9]{0,3})?)$")]
_Header = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'+.^_`|~-]{1,64}$")]
_Headers = Annotated[tuple[_Header, ...], Field(min_length=1, max_length=8, strict=False)]
_Listed = Annotated[list[_Version], Field(min_length=1)]


def _without_default(schema: dict[str, Any]) -> None:
    """For keys whose default is the stack's own."""
    del schema["default"]


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Cache(_Keys):
    """Whether and how long answers of the model are kept."""

    model_config = ConfigDict(title="Cache")

    enabled: bool = Field(True, description="Whether answers are kept.")
    ttl: int = Field(
        0,
        ge=1,
        le=366 * 86400,
        description="Seconds an answer is kept. Default: PORTICO_CACHE_TTL.",
        json_schema_extra=_without_default,
    )
    max_entry_bytes: int = Field(
        0,
        ge=1,
        le=64 << 20,
        description="Size of the largest answer that is kept. Default: PORTICO_CACHE_MAX_ENTRY_BYTES.",
        json_schema_extra=_without_default,
    )
    vary: _Header | _Headers = Field(
        (),
        description="A request header, or a list of them: callers who send different values share no answers, "
        "and those who send none share theirs.",
        examples=["x-tenant", ["x-tenant", "accept-language"]],
        json_schema_extra=_without_default,
    )


_CacheOrSwitch = Annotated[
    Annotated[bool, Tag("switch")] | Annotated[_Cache, Tag("keys")],
    Discriminator(lambda value: "switch" if isinstance(value, bool) else "keys"),
]
_NewestOrListed = Annotated[
    Annotated[_Newest, Tag("newest")] | Annotated[_Listed, Tag("listed")],
    Discriminator(lambda value: "listed" if isinstance(value, list) else "newest"),
]


class _PolicyFile(_Keys):
    """How one model is served: model.yaml in its folder, or <name>.yaml beside <name>.mar. All keys are optional."""

    model_config = ConfigDict(title="Portico model policy")

    versions: _NewestOrListed = Field(
        "latest",
        description="Which versions are served: 'latest' (the newest), 'latest 2' (the newest two), 'all', or a list.",
        examples=["latest 2", [1, 2], ["1.0", "2.0"]],
    )
    labels: dict[_LabelName, _Version] = Field(
        {},
        description="Names for versions, which clients may call instead. A version that has a label is served.",
        examples=[{"stable": 1, "canary": 2}],
        json_schema_extra={"additionalProperties": False},
    )
    default_version: _Version = Field(
        "",
        description="The version that a call without one gets; it is served. Default: the newest that is ready.",
        json_schema_extra=_without_default,
    )
    cache: _CacheOrSwitch = Field(True, description="Whether and how long answers are kept: true, false, or keys.")
    timeout: float = Field(
        0.0,
        gt=0,
        le=86400,
        description="Seconds a call may take. Default, and most: PORTICO_REQUEST_TIMEOUT.",
        json_schema_extra=_without_default,
    )
    stateful: bool = Field(
        False, description="Calls change the model's state: answers are never kept, no call is sent twice."
    )
    max_batch_size: int = Field(
        0,
        ge=1,
        le=65536,
        description="TorchServe: how many requests go into one batch at most. Default: as the archive says, else 1.",
        json_schema_extra=_without_default,
    )
    batch_delay: int = Field(
        0,
        ge=1,
        le=60_000,
        description="TorchServe: milliseconds it waits for a full batch. Default: as the archive says, else 100.",
        json_schema_extra=_without_default,
    )
    workers: int = Field(
        0,
        ge=1,
        le=64,
        description="TorchServe: processes that run the model, in each replica. Default: as the archive says, else 1.",
        json_schema_extra=_without_default,
    )
    warmup: str = Field(
        "",
        min_length=1,
        max_length=255,
        description="A file of requests that are run before a version takes traffic: JSON Lines, each line the body of "
        "an Open Inference infer request. Its name is relative to the folder of the policy.",
        examples=["warmup.jsonl"],
        json_schema_extra=_without_default,
    )
    wire: Annotated[Wire, Field(strict=False)] = Field(
        Wire.AUTO, description="TorchServe: the form in which the handler takes and gives tensors."
    )


class _Schema(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        """No titles: pydantic's are the keys' own names once more."""
        return False


_EXPECTED: Mapping[tuple[str | int, ...], str] = MappingProxyType(
    {
        ("versions",): "'latest', 'latest N', 'all', or a list of versions, such as [1, 2]",
        ("labels",): "names with versions, such as {stable: 1}",
        ("default_version",): 'a version, such as 2 or "1.0"',
        ("cache",): "true, false, or the keys 'enabled', 'ttl', 'max_entry_bytes' and 'vary'",
        ("cache", "enabled"): "true or false",
        ("cache", "ttl"): "whole seconds, from 1 to a year",
        ("cache", "max_entry_bytes"): "whole bytes, from 1 to 67108864",
        ("cache", "vary"): "the name of a request header, such as x-tenant, or a list of up to 8",
        ("timeout",): "a number of seconds, above 0 and up to a day",
        ("stateful",): "true or false",
        ("max_batch_size",): "a whole number from 1 to 65536",
        ("batch_delay",): "whole milliseconds, from 1 to 60000",
        ("workers",): "a whole number from 1 to 64",
        ("warmup",): "the name of a file in the same folder or below it",
        ("wire",): f"one of {', '.join(Wire)}",
    }
)
"""What each key takes, for a person who wrote something else."""
_A_VERSION = "a version: a number, or up to 63 letters, digits, '_', '.', '+' and '-'"
_A_LABEL = "up to 63 letters, digits, '_', '.' and '-'"


def read_policy(path: Path) -> Policy:
    """The policy in a file. Raises Rejected with the file's name, the line and the reason; OSError."""
    try:
        return parse_policy(read_file(path, MAX_BYTES).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Rejected(f"{path.name}: is no text in UTF-8") from error
    except Rejected as error:
        raise Rejected(f"{path.name}: {error}") from error


def parse_policy(text: str) -> Policy:
    """The policy that a YAML text says; an empty text is the policy of a model without a file. Raises Rejected."""
    document = policy_yaml.parse(text)
    if document.value is None:
        return Policy()
    if not isinstance(document.value, dict):
        raise Rejected(f"has to hold keys with values, such as 'versions: all', not {policy_yaml.shown(document.root)}")
    try:
        return _policy(_PolicyFile.model_validate(document.value), document)
    except ValidationError as error:
        raise Rejected(_explained(error, document)) from error


def schema() -> dict[str, Any]:
    """The JSON Schema of a policy file (draft 2020-12), for editors."""
    made = _PolicyFile.model_json_schema(schema_generator=_Schema)
    return {"$schema": GenerateJsonSchema.schema_dialect, **made}


def schema_text() -> str:
    """The schema as docs/model.schema.json has it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _policy(keys: _PolicyFile, document: Document) -> Policy:
    newest = keys.versions if isinstance(keys.versions, str) else ""
    latest = None if newest == "all" else int(newest.removeprefix("latest") or 1)
    cache = _Cache(enabled=keys.cache) if isinstance(keys.cache, bool) else keys.cache
    return Policy(
        latest=latest,
        only=frozenset(map(str, keys.versions)) if isinstance(keys.versions, list) else frozenset(),
        labels=MappingProxyType({name: str(version) for name, version in keys.labels.items()}),
        default_version=str(keys.default_version),
        warmup=_inner_path(keys.warmup, document) if keys.warmup else "",
        options=LoadOptions(keys.workers or None, keys.max_batch_size or None, keys.batch_delay or None),
        calls=CallPolicy(
            cache=cache.enabled,
            cache_ttl=cache.ttl or None,
            cache_max_entry_bytes=cache.max_entry_bytes or None,
            cache_vary=tuple(sorted({name.lower() for name in _headers(cache.vary)})),
            timeout=keys.timeout or None,
            stateful=keys.stateful,
            wire=keys.wire,
        ),
    )


def _headers(vary: str | tuple[str, ...]) -> tuple[str, ...]:
    return (vary,) if isinstance(vary, str) else vary


def _inner_path(name: str, document: Document) -> str:
    """The path, in its shortest spelling. Raises Rejected if it leads out of the policy's folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name or not name.isprintable():
        _, node, line = document.find(("warmup",))
        raise Rejected(f"line {line}: 'warmup' has to be {_EXPECTED['warmup',]}, not {policy_yaml.shown(node)}")
    return str(path)


def _explained(error: ValidationError, document: Document) -> str:
    """What is wrong with each key, once per key."""
    reasons: dict[tuple[str | int, ...], tuple[int, str]] = {}
    for wrong in error.errors(include_url=False, include_context=False):
        path, node, line = document.find(wrong["loc"])
        if len(reasons) == MOST_REASONS:
            break
        if path not in reasons:
            unknown = wrong["type"] == "extra_forbidden"
            reasons[path] = line, _unknown(path) if unknown else _refused(path, node, wrong["loc"])
    return "; ".join(f"line {line}: {reason}" for line, reason in sorted(reasons.values()))


def _unknown(path: tuple[str | int, ...]) -> str:
    known = list((_Cache if path[0] == "cache" and len(path) > 1 else _PolicyFile).model_fields)
    close = get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
    hint = f"did you mean '{'.'.join(map(str, (*path[:-1], close[0])))}'?" if close else f"known are {', '.join(known)}"
    return f"unknown key '{policy_yaml.short('.'.join(map(str, path)))}': {hint}"


def _refused(path: tuple[str | int, ...], node: Any, location: tuple[str | int, ...]) -> str:
    given = policy_yaml.shown(node)
    if "[key]" in location:
        return f"the label '{policy_yaml.short(str(path[-1]))}' has to be {_A_LABEL}"
    if path not in _EXPECTED or path == ("default_version",):
        if policy_yaml.is_scalar(node, "float", "bool"):
            return f'put the version in quotes, "{node.value}": without them YAML reads {policy_yaml.read_as(node)}'
        if path not in _EXPECTED:
            where = "an entry of 'versions'" if path[0] == "versions" else f"the version of label '{path[-1]}'"
            return f"{where} has to be {_A_VERSION}, not {given}"
    return f"'{'.'.join(map(str, path))}' has to be {_EXPECTED[path]}, not {given}"
