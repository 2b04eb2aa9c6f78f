"""Hostile JSON: valid bodies in which values are replaced, keys doubled and texts broken. Used
by the fuzz tests; it is written by hand here, since a library's writer would refuse most of it.
"""

import json
from collections.abc import Sequence
from math import prod
from typing import Any

from choices import Choices
from hostile_tensors import Known
from mutations import damaged


class Token(str):
    """JSON text as it is to be written."""


class Pairs(list[tuple[str, Any]]):
    """An object that may have a key twice."""


def _deep(depth: int, opening: str = "[", closing: str = "]") -> Token:
    return Token(opening * depth + closing * depth)


TOKENS = tuple(
    map(
        Token,
        (
            *(
                "null",
                "true",
                "false",
                "0",
                "-0",
                "-1",
                "2.5",
                "1e308",
                "1e999",
                "-1e999",
                "1e-999",
                "NaN",
                "-Infinity",
            ),
            *("9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616", "1" * 400),
            *(
                "1" * 5000,
                "01",
                "+1",
                ".5",
                "1.",
                "0x10",
                "1_000",
                "'a'",
                "undefined",
                "[1,]",
                "{,}",
                "[NaN," + "9" * 30 + "]",
            ),
            *(
                '""',
                '"a"',
                '"\\u0000"',
                '"\\ud800"',
                '"\\ud800\\ud800"',
                '"\\udc00"',
                '"\ufeff"',
                '"\\x"',
                '"é\u202e"',
                '"\t"',
            ),
            *("[]", "{}", "[[]]", "[[],[]]", "[1,[2]]", "[[1],[2,3]]", '[1,"a",null]', "[true,1,1.5]", "[{}]"),
            *(
                '{"b64":"YQ=="}',
                '{"b64":"?"}',
                '{"b64":5}',
                '{"b64":null}',
                '[{"b64":"YQ=="},"a"]',
                '{"b64":"YQ==","c":1}',
            ),
            *("[1099511627776,0]", "[16777216,0]", "[0,1099511627776]", "[4294967296,4294967296]", "[-1,4]", "[1e3]"),
            *(
                "[9223372036854775807,9223372036854775807]",
                "[9223372036854775808]",
                json.dumps([1] * 65),
                json.dumps([2] * 64),
            ),
        ),
    )
) + tuple(_deep(depth) for depth in (3, 65, 200, 260, 500, 1000, 1030, 20000))
TOKENS += (_deep(300, '{"a":', "0}"), Token('{"a":' * 300 + "0" + "}" * 300), Token("[[1]," * 400 + "1" + "]" * 400))
OBJECTS = tuple(Pairs([(name, Token("1"))]) for name in ("b64", "name", "data", "parameters"))
WORDS = ("inputs", "instances", "examples", "context", "outputs", "parameters", "signature_name", "data", "shape", "id")


def text_of(value: Any) -> str:
    """The JSON text of a value that may have tokens in it."""
    if isinstance(value, Token):
        return value
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(key)}:{text_of(inner)}" for key, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(text_of, value)) + "]"
    return json.dumps(value)


def pairs_of(value: Any) -> Any:
    """The same with `Pairs` for its objects."""
    if isinstance(value, dict):
        return Pairs((key, pairs_of(inner)) for key, inner in value.items())
    return [pairs_of(inner) for inner in value] if isinstance(value, list) else value


def mutated_json(choices: Choices, seeds: Sequence[Any], words: Sequence[str] = ()) -> bytes:
    """One of `seeds` as a body, with up to three things wrong; `words` are keys and texts that mean something."""
    value = pairs_of(choices.one(seeds))
    for _ in range(choices.upto(3)):
        value = _changed(choices, value, (*WORDS, *words))
    text = text_of(value)
    match 15 - choices.upto(15):
        case 0:
            return damaged(choices, text.encode())
        case 1:
            return text.encode(choices.one(("utf-16", "utf-8-sig", "utf-32", "latin-1")), errors="replace")
        case 2:
            return text.encode() + choices.one((b"\0", b"{}", b" \n", b",", b"\xff"))
        case _:
            return text.encode()


def _changed(choices: Choices, value: Any, words: Sequence[str]) -> Any:
    """One thing changed, here or further inside."""
    if not isinstance(value, list) or not value or choices.rarely(6):
        return choices.one(choices.one((TOKENS, TOKENS, OBJECTS, words)))
    index = choices.upto(len(value) - 1)
    before, entry, after = value[:index], value[index], value[index + 1 :]
    how = choices.one(("within", "within", "within", "within", "gone", "twice", "more", "renamed"))
    if how == "gone":
        return type(value)([*before, *after])
    if how == "twice":
        return type(value)([*before, entry, entry, *after])
    key, inner = entry if isinstance(value, Pairs) else ("", entry)
    if how == "within":
        inner = _changed(choices, inner, words)
    elif how == "renamed":
        key = choices.one(words)
    else:
        key, inner, after = choices.one(words), choices.one(TOKENS), value[index:]
    return type(value)([*before, (key, inner) if isinstance(value, Pairs) else inner, *after])


def json_bodies(known: Known) -> list[Any]:
    """Valid bodies of all the protocols; of which of them does not matter to an endpoint that refuses most anyway."""
    found: list[Any] = [{"ready": True}, {"instances": [{"b64": "YQ=="}]}, {"instances": [1, {"a": [2.5]}]}]
    for name, datatype, shape in known.inputs.values():
        value: Any = {"BOOL": True, "BYTES": "a"}.get(datatype, 1)
        tensor = {"name": name, "datatype": datatype, "shape": shape, "data": [value] * prod(shape)}
        found.append({"id": "7", "inputs": [tensor], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]})
        found += [{"instances": [[value] * 4] * 2}, {"inputs": {name: [value, value]}, "signature_name": ""}]
    found.append({"examples": [{"a": [1.5, 2], "b": {"b64": "YQ=="}}], "context": {"c": "text"}})
    found.append({"signature_name": "regress", "examples": [{"a": 1}]})
    return found
