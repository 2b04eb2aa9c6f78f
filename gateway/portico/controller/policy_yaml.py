"""YAML as a policy file may use it: plain values, each with the line it stands in. Called by `policy_file`.

Stricter than YAML, where YAML surprises: no key twice, no aliases and tags, no number that is not written as one.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import yaml

from portico.controller.rejected import Rejected

LONGEST = 60
"""Characters of a name or value that a reason repeats."""

_TAG = "tag:yaml.org,2002:"
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_READ_AS = {"bool": "true or false", "float": "a number"}

Path = Sequence[str | int]
"""Keys and positions that lead to a value; parts that lead nowhere are passed over."""


class _Loader(yaml.SafeLoader):
    """Refuses tags, and aliases, which can make a file of bytes a value of gigabytes, or one that holds itself."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refused(event, "an alias (*) is not allowed: write the value again")
        if event.tag is not None:
            raise _refused(event, f"the tag '{short(event.tag)}' is not allowed")
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


@dataclass(frozen=True)
class Document:
    """A parsed file: `value` is dict, list, str, int, float, bool or None, and None for an empty file."""

    value: Any
    root: yaml.Node | None

    def find(self, path: Path) -> tuple[tuple[str | int, ...], yaml.Node | None, int]:
        """(the path without parts that lead nowhere, the node there, the line of its key or else of itself)."""
        node, found = self.root, list[str | int]()
        line = _line(node)
        for part in path:
            if isinstance(node, yaml.MappingNode):
                for key, value in node.value:
                    if key.value == part:
                        node, line = value, _line(key)
                        found.append(part)
                        break
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
                node = node.value[part]
                line = _line(node)
                found.append(part)
        return tuple(found), node, line


def parse(text: str) -> Document:
    """The value of a YAML text. Raises Rejected with line and reason; runs nothing that the text says."""
    try:
        loader = _Loader(text)
        try:
            root: yaml.Node | None = loader.get_single_node()
        finally:
            loader.dispose()
        return Document(None if root is None else _value(root), root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise Rejected(f"{where}is no YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise Rejected(f"is no YAML: {error}".splitlines()[0]) from error
    except RecursionError:
        raise Rejected("its values are nested too deep") from None


def is_scalar(node: yaml.Node | None, *kinds: str) -> bool:
    """Whether YAML reads a value as one of these kinds: str, int, float, bool, null, timestamp."""
    return isinstance(node, yaml.ScalarNode) and node.tag.removeprefix(_TAG) in kinds


def read_as(node: yaml.Node) -> str:
    """What YAML takes a bool or float for."""
    return _READ_AS[node.tag.removeprefix(_TAG)]


def shown(node: yaml.Node | None) -> str:
    """A value as it is written in the file, for a sentence."""
    if isinstance(node, yaml.ScalarNode):
        if is_scalar(node, "null"):
            return "nothing"
        return short(node.value) if is_scalar(node, "int", "float", "bool") else f"the text '{short(node.value)}'"
    return "a list" if isinstance(node, yaml.SequenceNode) else "keys with values"


def short(text: str) -> str:
    """A name or value of the file's, fit for one line of a listing."""
    line = "".join(character if character.isprintable() else "�" for character in text[:LONGEST])
    return line if len(text) <= LONGEST else f"{line}…"


def _value(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(entry) for entry in node.value]
    kind, text = node.tag.removeprefix(_TAG), str(node.value)
    if kind == "int" and _WHOLE.fullmatch(text):
        return int(text)
    if kind == "float":
        with suppress(ValueError):
            return float(text)
    if kind in ("int", "float"):
        raise _refused(node, f"{short(text)} is a number in a form that is misread: put it in quotes")
    if kind == "bool":
        return yaml.SafeLoader.bool_values[text.lower()]
    return None if kind == "null" else text


def _mapping(node: yaml.MappingNode) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.value:
        if not is_scalar(key, "str"):
            if not isinstance(key, yaml.ScalarNode):
                raise _refused(key, "a key has to be text")
            raise _refused(key, f"YAML does not read the key {short(key.value)} as text: put it in quotes")
        if key.value in found:
            raise _refused(key, f"the key '{short(key.value)}' is there twice")
        found[key.value] = _value(value)
    return found


def _line(node: Any) -> int:
    return 1 if node is None else int(node.start_mark.line) + 1


def _refused(node: Any, why: str) -> Rejected:
    return Rejected(f"line {_line(node)}: {why}")
