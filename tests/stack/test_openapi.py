"""What the OpenAPI documents promise, held to the running stack by schemathesis: calls that fit them and calls that do
not, the same ones in each run.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from door import Door

CONFORMANCE = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
REFUSED = "negative_data_rejection"
ACCEPTED = "positive_data_acceptance"
SECONDS = 240

# A method that HTTP/1.1 does not know is refused by Envoy. What a handler fails at is its own failure, and the demo's
# cannot explain.
CONFIG = """
[phases.coverage]
unexpected-methods = ["get", "put", "post", "delete", "options", "patch", "trace"]

[[operations]]
include-path-regex = "explan|explain"
checks.not_a_server_error.enabled = false
"""


def conform(document: Any, door: Door, folder: Path, checks: tuple[str, ...], *options: str) -> None:
    """Fails with schemathesis' report, which has a curl line for each finding."""
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "schemathesis.toml").write_text(CONFIG)
    command = [
        Path(sys.executable).with_name("schemathesis"), "run", "openapi.json", "--url", f"http://{door.address}",
        "--checks", ",".join(checks), "--generation-deterministic", "--no-shrink",
        "--suppress-health-check", "all", "--warnings", "off", "--no-color", *options,
    ]  # fmt: skip
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " generated, " in ended.stdout


def served(door: Door, path: str) -> Any:
    answer = door.get(path)
    assert answer.status == 200
    return answer.json


def narrowed(document: Any) -> Any:
    """A model's document without what would find no fault of the door.

    iris' signature `classify` takes serialized tf.Examples, which JSON Schema cannot describe. TF Serving's API takes
    version 0 for the default one, and no body at all is an empty tensor where the header says that there is no JSON.
    """
    components = document["components"]
    for name, schema in components["schemas"].items():
        if name.endswith("Response"):
            components["schemas"][name] = answers(schema)
        elif name in ("InferRequest", "PredictRequest") and "anyOf" in schema:
            schema["anyOf"] = [form for form in schema["anyOf"] if "signature" not in form.get("title", "")]
    components["parameters"]["version"]["schema"]["enum"].append("0")
    components["parameters"]["json_length"]["schema"]["minimum"] = 1
    return document


def answers(node: Any) -> Any:
    """A schema as schemathesis can hold answers to it: NaN is no number to it, nor can it validate by `prefixItems`."""
    if isinstance(node, list):
        return [answers(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") == "number":
        return {"not": {"type": ["string", "boolean", "array", "object"]}}
    return {name: answers(entry) for name, entry in node.items() if name != "prefixItems"}


def test_everything(door: Door, tmp_path: Path) -> None:
    """Whatever is sent to any path of the whole document, the answer is one that it describes, and no failure."""
    document = served(door, "/openapi.json")
    parameters = document["components"]["parameters"]
    parameters["model"]["schema"] = {"enum": ["iris", "digits", "nothing"]}
    for name in ("version", "version_or_all"):
        parameters[name]["schema"] = {"enum": ["1", "1.0"]}
    conform(document, door, tmp_path, CONFORMANCE, "--phases", "examples,fuzzing", "--max-examples", "8")


@pytest.mark.parametrize("model", ["iris", "digits"])
def test_a_models_document(door: Door, tmp_path: Path, model: str) -> None:
    """The same for a model's own document; and what its schemas exclude is refused."""
    document = narrowed(served(door, f"/v2/models/{model}/openapi.json"))
    conform(document, door, tmp_path, (*CONFORMANCE, REFUSED), "--phases", "examples,coverage,fuzzing", "-n", "15")


def test_what_the_schemas_allow_is_answered(door: Door, tmp_path: Path) -> None:
    """Every JSON that iris' schemas for clients of TF Serving and of TorchServe allow is answered."""
    document = narrowed(served(door, "/v2/models/iris/openapi.json"))
    asked = {path: document["paths"][path]["post"] for path in ("/v1/models/iris:predict", "/predictions/iris")}
    for operation in asked.values():
        json_alone = {"application/json": operation["requestBody"]["content"]["application/json"]}
        operation["requestBody"] = {"required": True, "content": json_alone}
    document["paths"] = {path: {"post": operation} for path, operation in asked.items()}
    checks = (*CONFORMANCE, ACCEPTED)
    conform(document, door, tmp_path, checks, "--mode", "positive", "--phases", "examples,fuzzing", "-n", "50")
