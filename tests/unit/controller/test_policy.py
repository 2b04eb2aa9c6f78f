"""A model's policy file: what may be in it, and what a person reads about what may not."""

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from portico.controller.policy import Policy
from portico.controller.policy_file import MAX_BYTES, VERSION, parse_policy, read_policy, schema, schema_text
from portico.controller.rejected import Rejected
from portico.controller.scan import is_version
from portico.controller.servable import LoadOptions
from portico.routing import CallPolicy, Server, Wire

ROOT = Path(__file__).parents[3]


def refusal(text: str) -> str:
    """Why a policy of this text is refused."""
    with pytest.raises(Rejected) as refused:
        parse_policy(text)
    return str(refused.value)


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n", "---\n", "{}", "null"])
def test_an_empty_file(text: str) -> None:
    """A file that says nothing is the policy of a model without a file."""
    assert parse_policy(text) == Policy()


def test_every_key() -> None:
    """Each key arrives where it is used."""
    text = """
    versions: latest 3
    labels: {stable: 1, canary: "2.10"}
    default_version: 2
    cache: {enabled: true, ttl: 60}
    timeout: 2.5
    stateful: true
    max_batch_size: 8
    batch_delay: 20
    workers: 2
    warmup: ./warm/up.jsonl
    wire: kserve_v2
    """
    assert parse_policy(text) == Policy(
        latest=3,
        labels={"stable": "1", "canary": "2.10"},
        default_version="2",
        warmup="warm/up.jsonl",
        options=LoadOptions(workers=2, max_batch_size=8, batch_delay=20),
        calls=CallPolicy(cache=True, cache_ttl=60, timeout=2.5, stateful=True, wire=Wire.KSERVE_V2),
    )


@pytest.mark.parametrize(
    ("text", "latest", "only"),
    [
        ("latest", 1, set()),
        ("latest 1", 1, set()),
        ("latest 12", 12, set()),
        ("all", None, set()),
        ("[2]", 1, {"2"}),
        ("[1, 10]", 1, {"1", "10"}),
        ('["1.0", v2]', 1, {"1.0", "v2"}),
        ("[2024-01-31]", 1, {"2024-01-31"}),
        ("[1.0.1, 0]", 1, {"1.0.1", "0"}),
    ],
)
def test_versions(text: str, latest: int | None, only: set[str]) -> None:
    """The newest, the newest few, all, or those that are listed; a number is a version as it is written."""
    policy = parse_policy(f"versions: {text}")
    assert (policy.latest, policy.only) == (latest, only)


@pytest.mark.parametrize(
    ("text", "cache", "ttl"),
    [
        ("true", True, None),
        ("false", False, None),
        ("off", False, None),
        ("{}", True, None),
        ("{enabled: false}", False, None),
        ("{ttl: 5}", True, 5),
    ],
)
def test_the_cache(text: str, cache: bool, ttl: int | None) -> None:
    """The cache is switched by one word, or told how long to keep answers."""
    calls = parse_policy(f"cache: {text}").calls
    assert (calls.cache, calls.cache_ttl) == (cache, ttl)


@pytest.mark.parametrize("wire", Wire)
def test_every_wire(wire: Wire) -> None:
    """Each wire that there is can be named."""
    assert parse_policy(f"wire: {wire}").calls.wire is wire


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("label: {a: 1}", "line 1: unknown key 'label': did you mean 'labels'?"),
        ("workers: 1\nWorkers: 2", "line 2: unknown key 'Workers': did you mean 'workers'?"),
        ("cache:\n  tll: 3", "line 2: unknown key 'cache.tll': did you mean 'cache.ttl'?"),
        (
            "gpu: 1",
            "line 1: unknown key 'gpu': known are versions, labels, default_version, cache, timeout, stateful, ",
        ),
        ("cache: {gpu: 1}", "unknown key 'cache.gpu': known are enabled, ttl"),
        ("versions: [1.10]", 'line 1: put the version in quotes, "1.10": without them YAML reads a number'),
        ("labels:\n  a: 1.0", 'line 2: put the version in quotes, "1.0"'),
        ("default_version: 1.5", 'put the version in quotes, "1.5"'),
        ("default_version: on", 'put the version in quotes, "on": without them YAML reads true or false'),
        ("versions: [010]", "010 is a number in a form that is misread: put it in quotes"),
        ("versions: [0x10]", "0x10 is a number in a form that is misread"),
        ("versions: [1_0]", "1_0 is a number in a form that is misread"),
        ("versions: [1:30]", "1:30 is a number in a form that is misread"),
        ("timeout: 1:30.5", "1:30.5 is a number in a form that is misread"),
        ("timeout: .inf", ".inf is a number in a form that is misread"),
        ("default_version: -1", "'default_version' has to be a version, such as 2 or \"1.0\", not -1"),
        ("versions: 2", "has to be 'latest', 'latest N', 'all', or a list of versions, such as [1, 2], not 2"),
        ("versions: latest 0", "'versions' has to be 'latest', 'latest N', 'all'"),
        ("versions: newest", "not the text 'newest'"),
        ("versions: []", "'versions' has to be"),
        ("versions:", "not nothing"),
        ("versions: [a b]", "an entry of 'versions' has to be a version: a number, or up to 63 letters"),
        ("versions: [../1]", "an entry of 'versions' has to be a version"),
        ("versions: [[1]]", "not a list"),
        ("labels: [stable]", "'labels' has to be names with versions, such as {stable: 1}, not a list"),
        ("labels: {a/b: 1}", "the label 'a/b' has to be up to 63 letters"),
        ("labels: {stable: }", "the version of label 'stable' has to be a version"),
        ("labels: {1: 2}", "YAML does not read the key 1 as text: put it in quotes"),
        ("labels: {yes: 2}", "YAML does not read the key yes as text"),
        (
            "cache: 5",
            "'cache' has to be true, false, or the keys 'enabled', 'ttl', 'max_entry_bytes' and 'vary', not 5",
        ),
        ("cache: {ttl: 0}", "'cache.ttl' has to be whole seconds, from 1 to a year, not 0"),
        ("cache: {ttl: 1.5}", "'cache.ttl' has to be whole seconds"),
        ("cache: {vary: '*'}", "'cache.vary' has to be the name of a request header"),
        ("cache: {vary: []}", "'cache.vary' has to be the name of a request header"),
        ("cache: {enabled: 1}", "'cache.enabled' has to be true or false, not 1"),
        ("timeout: 0", "'timeout' has to be a number of seconds, above 0 and up to a day, not 0"),
        ("timeout: 86401", "'timeout' has to be"),
        ("timeout: true", "not true"),
        ("timeout: 500ms", "not the text '500ms'"),
        ("stateful: 1", "'stateful' has to be true or false, not 1"),
        ("max_batch_size: 0", "'max_batch_size' has to be a whole number from 1 to 65536, not 0"),
        ("batch_delay: 0", "'batch_delay' has to be whole milliseconds, from 1 to 60000, not 0"),
        ("workers: 65", "'workers' has to be a whole number from 1 to 64, not 65"),
        ("workers: 1.0", "not 1.0"),
        ('workers: "3"', "not the text '3'"),
        ("workers: 99999999999999999999", "is a number in a form that is misread"),
        ("wire: kserve", "'wire' has to be one of auto, raw, json, kserve_v1, kserve_v2, not the text 'kserve'"),
        ("wire: {}", "not keys with values"),
        ("warmup: ''", "'warmup' has to be the name of a file in the same folder or below it"),
        ("warmup: /etc/passwd", "not the text '/etc/passwd'"),
        ("warmup: a/../../b", "'warmup' has to be"),
        ("warmup: .", "'warmup' has to be"),
        (r"warmup: a\b", "'warmup' has to be"),
        (r'warmup: "a\0b"', "'warmup' has to be"),
        ("versions: all\n\nwarmup: ..", "line 3: 'warmup'"),
        ("- versions", "has to hold keys with values, such as 'versions: all', not a list"),
        ("versions", "not the text 'versions'"),
        ("workers: 1\nworkers: 1", "line 2: the key 'workers' is there twice"),
        ("cache: {ttl: 1, ttl: 2}", "the key 'ttl' is there twice"),
        ("? [a]\n: 1", "line 1: a key has to be text"),
        ("labels: &a {b: 1}\ncache: *a", "line 2: an alias (*) is not allowed"),
        ("&a labels: *a", "an alias (*) is not allowed"),
        ("<<: {workers: 1}", "YAML does not read the key << as text"),
        ("warmup: !!python/object/apply:os.system [ls]", "line 1: the tag 'tag:yaml.org,2002:python/object/apply:os"),
        ("warmup: !mine x", "the tag '!mine' is not allowed"),
        ("warmup: !!binary eA==", "the tag 'tag:yaml.org,2002:binary' is not allowed"),
        ("! workers: 1", "the tag '!' is not allowed"),
        ("stateful: !!bool x", "the tag 'tag:yaml.org,2002:bool' is not allowed"),
        ("workers: [", "line 1: is no YAML: "),
        ("workers: 1\n\tcache: 1", "line 2: is no YAML: "),
        ("a: 1\n---\nb: 2", "line 2: is no YAML: "),
        ("workers: \0", "is no YAML: "),
        ("[" * 20_000, "its values are nested too deep"),
    ],
)
def test_what_is_refused(text: str, says: str) -> None:
    """What cannot be a policy is refused with the line, what was expected and what was given, in one short line."""
    reason = refusal(text)
    assert says in reason
    assert reason.isprintable()
    assert len(reason) < 500


def test_several_things_are_wrong() -> None:
    """Whatever is wrong is told at once, each with its line, and a few of many."""
    assert refusal("workers: 0\nlabel: {}\ncache: {ttl: x}") == (
        "line 1: 'workers' has to be a whole number from 1 to 64, not 0; "
        "line 2: unknown key 'label': did you mean 'labels'?; "
        "line 3: 'cache.ttl' has to be whole seconds, from 1 to a year, not the text 'x'"
    )
    assert refusal("".join(f"key{number}: 1\n" for number in range(3000))).count("unknown key") == 3


def test_a_long_name_or_value_is_cut() -> None:
    """A key or value of kilobytes, or with escapes in it, is repeated in part and in one line."""
    assert "unknown key '" + "k" * 60 + "…'" in refusal("? " + "k" * 5000 + "\n: 1")
    assert "not the text 'a�b" in refusal(r'workers: "a\eb' + "c" * 5000 + '"')


@given(st.text() | st.text("abc:{}[]&*!-?|>'\"#% \n1.0", max_size=60))
@example("=")
@example("- =\n- <<")
@example("!!timestamp x")
@example("!!set {a}")
@example("!!omap [a: 1]")
@example("!!null x")
@example("!!float x")
@example("'\\")
def test_any_text(text: str) -> None:
    """Any text is a policy or is refused; nothing else happens."""
    with suppress(Rejected):
        assert isinstance(parse_policy(text), Policy)


@given(st.dictionaries(st.sampled_from(sorted(schema()["properties"])), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["all", "latest 2", "raw"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5,
)))  # fmt: skip
def test_any_values(values: dict[str, Any]) -> None:
    """Any value of any key is taken or refused; nothing else happens."""
    with suppress(Rejected):
        assert isinstance(parse_policy(json.dumps(values)), Policy)


@given(st.from_regex(VERSION, fullmatch=True) | st.text())
def test_versions_are_those_of_the_scan(version: str) -> None:
    """A policy can name whatever the repository can hold as a version, and nothing else."""
    pattern = VERSION.removesuffix("$") + r"\Z"  # Python's own $ also matches before a line's end
    assert (re.match(pattern, version) is not None) == is_version(version)
    if is_version(version):
        assert parse_policy(json.dumps({"default_version": version})).default_version == version


def test_a_file(tmp_path: Path) -> None:
    """A policy is read from its file, also one with the mark that Windows' editors begin with."""
    path = tmp_path / "model.yaml"
    path.write_bytes(b"\xef\xbb\xbfworkers: 2\r\n")
    assert read_policy(path).options.workers == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"worker: 2", "model.yaml: line 1: unknown key 'worker': did you mean 'workers'?"),
        (b"\xff\xfe", "model.yaml: is no text in UTF-8"),
        (b"#" * (MAX_BYTES + 1), "model.yaml: is larger than 64 KiB"),
    ],
)
def test_a_file_that_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    """The reason begins with the name of the file."""
    path = tmp_path / "model.yaml"
    path.write_bytes(content)
    with pytest.raises(Rejected, match=re.escape(says)):
        read_policy(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    """A folder or a pipe under the name of a policy is refused at once, and one that is not there is an OSError."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(Rejected, match=f"{name}: is no file"):
            read_policy(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_policy(tmp_path / "absent")


def test_the_published_schema() -> None:
    """docs/model.schema.json is the schema of the keys that are read: `portico schema > docs/model.schema.json`."""
    assert (ROOT / "docs/model.schema.json").read_text() == schema_text()


def test_the_schema_helps_editors() -> None:
    """The schema describes every key, and has no others, at any level."""
    found = schema()
    assert found["additionalProperties"] is False
    assert found["$defs"]["_Cache"]["additionalProperties"] is False
    assert found["properties"]["labels"]["additionalProperties"] is False
    for key in (*found["properties"].values(), *found["$defs"]["_Cache"]["properties"].values()):
        assert key["description"]


def test_every_key_is_documented() -> None:
    """docs/model-policy.md has a section for each key, and an example that is read without complaint."""
    text = (ROOT / "docs/model-policy.md").read_text()
    assert re.findall(r"^### `(\w+)`", text, re.M) == list(schema()["properties"])
    examples = re.findall(r"^```yaml\n(.*?)^```", text, re.S | re.M)
    assert len(examples) > len(schema()["properties"])
    for each in examples:
        assert parse_policy(each) != Policy(), each


def test_a_policy_for_the_other_server() -> None:
    """Keys that only TorchServe has are refused for a SavedModel, by name; all others fit both."""
    policy = parse_policy("workers: 2\nwire: raw\ntimeout: 3")
    assert policy.unfit(Server.TF_SERVING) == (
        "'workers', 'wire' in its policy: only TorchServe has that, and this is a SavedModel; remove it"
    )
    assert policy.unfit(Server.TORCHSERVE) == ""
    assert parse_policy("max_batch_size: 2\nbatch_delay: 5").unfit(Server.TF_SERVING).startswith("'max_batch_size', 'b")
    assert parse_policy("versions: all\ncache: false\nwarmup: a").unfit(Server.TF_SERVING) == ""
