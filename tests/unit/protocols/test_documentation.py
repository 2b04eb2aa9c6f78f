"""The OpenAPI documents, of everything and of each model, and their pages."""

import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import product
from typing import Any
from urllib.parse import unquote

import jsonschema_rs
import pytest
import schemathesis

from asgi_client import Answer
from portico import __version__
from portico.codecs.json_values import tensor_from
from portico.edges.operations import operations
from portico.errors import InvalidRequest
from portico.protocols.documentation import whole
from portico.routing import (
    CallPolicy,
    LiveRoutes,
    Model,
    Route,
    RouteTable,
    Server,
    Signature,
    State,
    TensorSpec,
    Version,
    Wire,
)
from sample_gateway import PREDICT, SampleGateway, repository

METHODS = ("get", "put", "post", "delete", "options", "patch")
REFUSALS = {"/predictions/?", "/explanations/?", "/models/.*", "/models(?:/.*)?"}
"""Where TorchServe's clients are told in its words that there is nothing to call; an operation that is none."""

MODELS = sorted(repository().models)
SIGNED = ["half", "iris", "sum", "text"]
SHOWN = [(name, "") for name in MODELS] + [("iris", "1"), ("iris", "2"), ("digits", "1.1")]


@pytest.fixture
def gateway() -> SampleGateway:
    return SampleGateway()


async def fetched(gateway: SampleGateway, path: str) -> Any:
    answer = await gateway.rest("GET", path)
    assert answer.status == 200, answer.body
    return answer.json()


def path_of(model: str, version: str = "") -> str:
    return f"/v2/models/{model.replace(' ', '%20')}" + (f"/versions/{version}" if version else "")


def is_valid(document: Mapping[str, Any], schema: Any, value: Any) -> bool:
    """Whether `value` fits a schema of the document."""
    return jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]}).is_valid(value)


def component(document: Mapping[str, Any], reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for entry in node.values():
            yield from references(entry)
    elif isinstance(node, list):
        for entry in node:
            yield from references(entry)


def templates(pattern: str) -> list[str]:
    """The OpenAPI paths that a pattern matches, its unnamed parts as {}. Another spelling is no other path."""
    tree = re._parser.parse(pattern.removesuffix("/?").replace("(?::|%3[Aa])", ":"))  # type: ignore[attr-defined]
    names = {index: name for name, index in tree.state.groupdict.items()}

    def expand(items: Any) -> list[str]:
        return ["".join(parts) for parts in product(*(one(str(kind), value) for kind, value in items))]

    def one(kind: str, value: Any) -> list[str]:
        if kind in ("LITERAL", "ANY"):
            return [chr(value) if kind == "LITERAL" else "."]
        if kind == "SUBPATTERN":
            return [f"{{{names[value[0]]}}}"] if value[0] in names else expand(value[3])
        if kind == "BRANCH":
            return [text for branch in value[1] for text in expand(branch)]
        assert kind == "MAX_REPEAT", kind
        least, most, inside = value
        return ["", *expand(inside)] if (least, int(most)) == (0, 1) else ["{}"]

    return expand(tree)


def endpoints(gateway: SampleGateway) -> set[tuple[str, str]]:
    """(method, path template) of everything that answers."""
    found = {
        (endpoint.method.lower(), template)
        for group in gateway.rest_edge._by_root.values()  # type: ignore[attr-defined]
        for endpoint in group
        if endpoint.pattern not in REFUSALS
        for template in templates(endpoint.pattern)
    }
    for route in operations(LiveRoutes(), {}).routes:
        found |= {(method.lower(), route.path) for method in route.methods - {"HEAD"}}  # type: ignore[attr-defined]
    return found


def documented(document: Mapping[str, Any]) -> set[tuple[str, str]]:
    return {(method, path) for path, item in document["paths"].items() for method in METHODS if method in item}


def test_every_endpoint_is_documented_and_nothing_else(gateway: SampleGateway) -> None:
    """What answers is in the document, and what is in the document answers."""
    unnamed = {(method, re.sub("{[^}]*}", "{}", path)): (method, path) for method, path in documented(whole.document())}
    answering = {unnamed.get(found, found) if "{}" in found[1] else found for found in endpoints(gateway)}
    assert answering == documented(whole.document())


async def test_the_document(gateway: SampleGateway) -> None:
    """It is OpenAPI 3.1 of this release, whose references lead somewhere and whose operations can be told apart."""
    document = await fetched(gateway, "/openapi.json")
    assert (document["openapi"], document["info"]["version"]) == ("3.1.0", __version__)
    check_document(document)


def check_document(document: Any) -> None:
    for reference in references(document):
        component(document, reference)
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema | {"$schema": "https://json-schema.org/draft/2020-12/schema"})
    operations = [item[method] for item in document["paths"].values() for method in METHODS if method in item]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert {tag for operation in operations for tag in operation["tags"]} <= {tag["name"] for tag in document["tags"]}
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        found.ok()


def request_examples(document: Any) -> Iterator[tuple[str, Any, Any]]:
    """(path, schema of the body, example) of everything that is posted."""
    for path, item in document["paths"].items():
        for content in item.get("post", {}).get("requestBody", {}).get("content", {}).values():
            for example in content.get("examples", {}).values():
                yield path, content["schema"], component(document, example["$ref"])["value"]


def test_examples_fit_their_schemas() -> None:
    """Each example of the document is what the schema beside it says."""
    found = list(request_examples(whole.document()))
    assert {"/v2/models/{model}/infer", "/v1/models/{model}:predict"} <= {path for path, _, _ in found}
    for path, schema, example in found:
        assert schema is True or is_valid(whole.document(), schema, example), path


@pytest.mark.parametrize(("model", "version"), SHOWN)
async def test_a_models_document(gateway: SampleGateway, model: str, version: str) -> None:
    """It has this model's paths alone, its name and version filled in, and no component that it does not need."""
    document = await fetched(gateway, path_of(model, version) + "/openapi.json")
    check_document(document)
    name = model.replace(" ", "%20")
    assert document["paths"]
    for path in document["paths"]:
        assert re.match(rf"/(v[12]/models|predictions|explanations|models)/{name}(?=[/:]|$)", path), path
        assert "{model}" not in path
        assert not version or f"/{version}" in path
    named = set(references(document))
    for kind, entries in document["components"].items():
        assert {f"#/components/{kind}/{entry}" for entry in entries} <= named


async def test_versions_and_labels_are_those_there_are(gateway: SampleGateway) -> None:
    """The paths with a version or a label take those of the model; without labels there are no such paths."""
    document = await fetched(gateway, "/v2/models/iris/openapi.json")
    parameters = document["components"]["parameters"]
    assert parameters["version"]["schema"]["enum"] == ["1", "2"]
    assert parameters["label"]["schema"]["enum"] == ["canary", "stable"]
    document = await fetched(gateway, "/v2/models/half/openapi.json")
    assert [path for path in document["paths"] if "{label}" in path] == []


async def test_paths_are_those_that_the_model_can_answer(gateway: SampleGateway) -> None:
    """A model's document leaves out what only the other server's models answer, and tasks that no signature fits."""
    iris = set((await fetched(gateway, "/v2/models/iris/openapi.json"))["paths"])
    digits = set((await fetched(gateway, "/v2/models/digits/openapi.json"))["paths"])
    assert {"/v2/models/iris/infer", "/v1/models/iris:predict", "/predictions/iris", "/models/iris"} <= iris
    assert not [path for path in iris if path.startswith("/explanations")]
    assert not [path for path in iris if path.endswith((":classify", ":regress", ":explain"))]
    assert {"/v2/models/digits/infer", "/v1/models/digits:predict", "/explanations/digits"} <= digits
    assert not [path for path in digits if path.endswith((":classify", ":regress"))]


async def test_tasks_of_a_signature_that_fits() -> None:
    """A signature that Classify or Regress can ask is shown so."""
    examples = TensorSpec("inputs", "BYTES", (-1,))
    classify = Signature((examples,), (TensorSpec("scores", "FP32", (-1, 3)),), "tensorflow/serving/classify")
    regress = Signature((examples,), (TensorSpec("outputs", "FP32", (-1, 1)),), "tensorflow/serving/regress")
    gateway = SampleGateway(table=only(made("tasks", {"serving_default": classify, "value": regress})))
    paths = (await fetched(gateway, "/v2/models/tasks/openapi.json"))["paths"]
    assert {"/v1/models/tasks:classify", "/v1/models/tasks:regress"} <= set(paths)


def made(name: str, signatures: Mapping[str, Signature], server: Server = Server.TF_SERVING, **policy: Any) -> Model:
    """A model that is ready."""
    route = Route(name, "1", server, f"{name}-1--loaded", "1", "print", signatures, CallPolicy(**policy))
    return Model(name, server, "1", {"1": Version("1", State.READY, "", route)})


def only(model: Model) -> RouteTable:
    return RouteTable({model.name: model})


@pytest.mark.parametrize("model", SIGNED)
async def test_examples_are_ready_to_send(gateway: SampleGateway, model: str) -> None:
    """Each example of a model that declares its inputs is answered, and the answer is of the form that is promised."""
    document = await fetched(gateway, f"/v2/models/{model}/openapi.json")
    found = list(request_examples(document))
    paths = [f"/v2/models/{model}/infer", f"/v1/models/{model}:predict", f"/predictions/{model}"]
    assert [path for path, _, _ in found if "{" not in path] == sorted([*paths, paths[1]], key=paths.index)
    for path, schema, example in found:
        assert is_valid(document, schema, example)
        filled = path.replace("{version}", "1").replace("{label}", "stable")
        answer = await gateway.rest("POST", filled, example, [(b"content-type", b"application/json")])
        assert answer.status == 200, (path, answer.body)
        response = document["paths"][path]["post"]["responses"]["200"]
        response = component(document, response["$ref"]) if "$ref" in response else response
        promised = response["content"]["application/json"]["schema"]
        assert is_valid(document, promised, answer.json()), (path, answer.body)


INPUT = {"name": "measurements", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/models/iris/infer", {}),
        ("/v2/models/iris/infer", {"inputs": []}),
        ("/v2/models/iris/infer", {"inputs": [INPUT | {"name": "petals"}]}),
        ("/v2/models/iris/infer", {"inputs": [INPUT | {"datatype": "INT64"}]}),
        ("/v2/models/iris/infer", {"inputs": [INPUT | {"shape": [1, 5]}]}),
        ("/v2/models/iris/infer", {"inputs": [INPUT | {"shape": [4]}]}),
        ("/v2/models/iris/infer", {"inputs": [INPUT | {"data": ["1", "2", "3", "4"]}]}),
        ("/v2/models/iris/infer", {"inputs": [INPUT | {"data": [1e39, 2, 3, 4]}]}),
        ("/v2/models/iris/infer", {"inputs": [INPUT], "outputs": [{"name": "petals"}]}),
        ("/v2/models/iris/infer", {"inputs": [INPUT], "parameters": {"signature_name": "train"}}),
        ("/v2/models/iris/infer", {"inputs": [INPUT], "id": 7}),
        ("/v1/models/iris:predict", {}),
        ("/v1/models/iris:predict", {"instances": [[1, 2, 3, 4]], "inputs": [[1, 2, 3, 4]]}),
        ("/v1/models/iris:predict", {"instances": []}),
        ("/v1/models/iris:predict", {"instances": [[1, 2, 3]]}),
        ("/v1/models/iris:predict", {"instances": [{"petals": [1, 2, 3, 4]}]}),
        ("/v1/models/iris:predict", {"instances": [[1, 2, 3, True]]}),
        ("/v1/models/iris:predict", {"inputs": {"measurements": [1, 2, 3, 4]}}),
        ("/v1/models/sum:predict", {"inputs": {"a": [1]}}),
        ("/v1/models/sum:predict", {"instances": [{"a": 1, "b": 1.5}]}),
        ("/v1/models/sum:predict", {"instances": [{"a": 1, "b": 1 << 31}]}),
        ("/v1/models/text:predict", {"instances": [{"b64": "!"}]}),
        ("/predictions/iris", [1, 2, 3, 4]),
        ("/predictions/iris", {"petals": [[1, 2, 3, 4]]}),
        ("/predictions/sum", {"a": [1]}),
    ],
)
async def test_what_does_not_fit_is_refused(gateway: SampleGateway, path: str, body: Any) -> None:
    """What the schemas of a model exclude is refused by the model's endpoints as well."""
    model = path.removesuffix("/infer").split("/")[-1].split(":")[0]
    document = await fetched(gateway, f"/v2/models/{model}/openapi.json")
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert not is_valid(document, schema, body)
    assert (await gateway.refused("POST", path, body))[0] == 400


@pytest.mark.parametrize(
    ("datatype", "fits", "not_fitting"),
    [
        ("BOOL", [True], [0, "true"]),
        ("UINT8", [0, 255], [-1, 256, 0.5, True]),
        ("INT64", [-(1 << 63)], [1 << 63, "1"]),
        ("FP16", [0.5, 65504], [65536, "0.5"]),
        ("BF16", [3.38e38], [3.4e38]),
        ("FP64", [1e308, 1], [None]),
        ("BYTES", ["", "ö", {"b64": "/w=="}], [1, {"b64": "?"}, {"text": ""}]),
        ("DT_COMPLEX64", [], [0, "0", None]),
    ],
)
async def test_values_of_a_datatype(datatype: str, fits: list[Any], not_fitting: list[Any]) -> None:
    """A value's schema takes what the datatype holds, and nothing else."""
    signature = Signature((TensorSpec("x", datatype, (-1,)),), (TensorSpec("y", "FP32", (-1,)),), PREDICT)
    gateway = SampleGateway(table=only(made("typed", {"serving_default": signature})))
    document = await fetched(gateway, "/v2/models/typed/openapi.json")
    schema = {"$ref": "#/components/schemas/PredictRequest"}
    assert [value for value in fits if not is_valid(document, schema, {"instances": [value]})] == []
    assert [value for value in not_fitting if is_valid(document, schema, {"instances": [value]})] == []


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32"])
async def test_the_largest_number(datatype: str) -> None:
    """A number that fits the schema of a floating-point input fits the input, to the last bit, the next does not."""
    signature = Signature((TensorSpec("x", datatype, (-1,)),), (TensorSpec("y", "FP32", (-1,)),), PREDICT)
    gateway = SampleGateway(table=only(made("typed", {"serving_default": signature})))
    document = await fetched(gateway, "/v2/models/typed/openapi.json")
    (item, _) = document["components"]["schemas"]["PredictRequest"]["anyOf"][0]["properties"]["instances"]["anyOf"]
    limit = item["items"]["exclusiveMaximum"]
    for sign in (1, -1):
        tensor_from("x", [sign * math.nextafter(limit, 0)], datatype)
        with pytest.raises(InvalidRequest, match="does not fit"):
            tensor_from("x", [sign * limit], datatype)


async def test_inputs_too_large_to_show() -> None:
    """A picture's pixels are neither counted out in schemas, where a page would draw them, nor given as an example."""
    pixels = Signature((TensorSpec("image", "FP32", (-1, 224, 224, 3)),), (TensorSpec("y", "FP32", (-1,)),), PREDICT)
    gateway = SampleGateway(table=only(made("pixels", {"serving_default": pixels})))
    document = await fetched(gateway, "/v2/models/pixels/openapi.json")
    assert "minItems': 224" not in str(document)
    assert list(request_examples(document)) == []
    page = await gateway.rest("GET", "/v2/models/pixels/docs")
    assert (page.status, "too many values" in page.body.decode()) == (200, True)
    assert len(page.body) < 40_000


@pytest.mark.parametrize("wire", Wire)
async def test_a_handlers_document(wire: Wire) -> None:
    """A TorchServe model is told to declare nothing, and how its policy has tensors carried to it."""
    gateway = SampleGateway(table=only(made("digits", {}, Server.TORCHSERVE, wire=wire)))
    document = await fetched(gateway, "/v2/models/digits/openapi.json")
    check_document(document)
    assert "does not declare" in document["info"]["description"]
    schemas = document["components"]["schemas"]
    assert wire is Wire.AUTO or f"wire: {wire}" in schemas["InferRequest"]["description"]
    for path, schema, example in request_examples(document):
        assert is_valid(document, schema, example), path


async def test_unknown(gateway: SampleGateway) -> None:
    """A model, version or asset that is not there is the usual 404."""
    for path in ("/v2/models/iriss", "/v2/models/iris/versions/9"):
        for what in ("/openapi.json", "/docs"):
            status, body = await gateway.refused("GET", path + what)
            assert (status, "iris" in body["error"]) == (404, True)
    status, body = await gateway.refused("GET", "/docs/assets/..%2F..%2Fpage.py")
    assert (status, "page.js" in body["error"]) == (404, True)


async def test_before_the_first_routes() -> None:
    """What does not depend on models is there before any are known; what does is not ready."""
    gateway = SampleGateway(routed=False)
    assert (await gateway.rest("GET", "/openapi.json")).status == 200
    page = await gateway.rest("GET", "/docs")
    assert (page.status, "has not received its routes" in page.body.decode()) == (200, True)
    for what in ("/openapi.json", "/docs"):
        assert (await gateway.refused("GET", "/v2/models/iris" + what))[0] == 503


# Pages


class Links(HTMLParser):
    """What a page loads, what it leads to, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.codes: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "data-document") or (tag == "link" and name == "href"):
                self.loads.append(value or "")
            elif name in ("href", "action", "formaction"):
                self.leads.append(value or "")
            else:
                assert not name.startswith("on")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.tags[-1:] == ["code"]:
            self.codes.append(data)


async def page(gateway: SampleGateway, path: str, host: str = "door:8080") -> tuple[Answer, Links]:
    answer = await gateway.rest("GET", path, headers=[(b"host", host.encode())])
    assert (answer.status, answer.header(b"content-type")) == (200, "text/html; charset=utf-8")
    return answer, Links(answer.body.decode())


@pytest.mark.parametrize("path", ["/", "/docs", *(path_of(*shown) + "/docs" for shown in SHOWN)])
async def test_pages_need_nothing_from_elsewhere(gateway: SampleGateway, path: str) -> None:
    """A page loads and leads to what this door answers, and forbids the browser anything else."""
    answer, links = await page(gateway, path)
    assert len(links.loads) == 5
    for link in links.loads + links.leads:
        assert link.startswith("/")
        assert not link.startswith("//")
        found = await gateway.rest("GET", link)
        assert found.status == 200, link
        assert found.header(b"content-type").split(";")[0] in (
            "text/html", "text/css", "text/javascript", "image/png", "application/json"
        )  # fmt: skip
    policy = answer.header(b"content-security-policy")
    assert "default-src 'none'" in policy
    assert set(re.findall(r"'[^']*'|\S+:", policy)) == {"'none'", "'self'", "'unsafe-inline'", "data:"}
    style = answer.body.decode().split("<style>")[1].split("</style>")[0]
    assert not re.search(r"url\(|@import|//", style)


async def test_assets_need_nothing_from_elsewhere(gateway: SampleGateway) -> None:
    """Neither do the styles that a page loads, and its script sends the document to no service that checks it."""
    style = (await gateway.rest("GET", "/docs/assets/swagger-ui.css")).body.decode()
    assert set(re.findall(r"url\(['\"]?([a-z]*:?)", style)) <= {"data:"}
    assert "@import" not in style
    script = (await gateway.rest("GET", "/docs/assets/page.js")).body.decode()
    assert "validatorUrl: null" in script
    assert "://" not in script


def test_assets_are_of_a_pinned_package() -> None:
    """swagger-ui is the one of version 5, which knows OpenAPI 3.1 and dark pages."""
    bundle = (files("fastapi_swagger") / "resources/swagger-ui-bundle.js").read_text()
    style = (files("fastapi_swagger") / "resources/swagger-ui.css").read_text()
    assert "SwaggerUIBundle" in bundle
    assert "html.dark-mode" in style


async def test_a_models_page(gateway: SampleGateway) -> None:
    """It says which model this is, how it stands, which labels lead to it, and what it takes and gives."""
    _, links = await page(gateway, "/v2/models/iris/docs")
    for text in (
        "iris",
        "version 2",
        "READY",
        "TF Serving",
        "label canary",
        "measurements",
        "[-1, 4]",
        "FP32",
        "INT64",
    ):
        assert text in links.text, text
    _, links = await page(gateway, "/v2/models/iris/versions/1/docs")
    assert "label stable" in links.text
    assert "/v2/models/iris/versions/2/docs" in links.leads


@pytest.mark.parametrize("model", ["away", "damaged", "loading", "refused"])
async def test_the_page_of_a_model_that_is_not_ready(gateway: SampleGateway, model: str) -> None:
    """It says the state and the reason."""
    _, links = await page(gateway, f"/v2/models/{model}/docs")
    status = repository().models[model].status()
    assert status.state.value in links.text
    assert (status.reason or "it is being loaded") in links.text


async def test_the_page_of_everything(gateway: SampleGateway) -> None:
    """It leads to the page of each model."""
    _, links = await page(gateway, "/docs")
    assert {path_of(name) + "/docs" for name in MODELS} <= set(links.leads)
    gateway = SampleGateway(table=RouteTable())
    assert "no models yet" in (await page(gateway, "/docs"))[1].text


def curls(links: Links) -> Iterator[tuple[str, Any]]:
    """(path, body) of each line for a shell, which goes to the door; None for a file."""
    for code in links.codes:
        if not code.startswith("curl "):
            continue
        words = shlex.split(code.replace("\\\n", " "))
        assert words[2].startswith("http://door:8080/")
        given = dict(zip(words[3::2], words[4::2], strict=True))
        yield words[2].removeprefix("http://door:8080"), json.loads(given["-d"]) if "-d" in given else None


@pytest.mark.parametrize("model", [*SIGNED, "digits", "plain"])
@pytest.mark.parametrize("versioned", [False, True])
async def test_calls_to_copy(gateway: SampleGateway, model: str, versioned: bool) -> None:
    """Each line for a shell is a call that is answered, and each piece of Python can be compiled."""
    version = list(repository().models[model].versions)[-1] if versioned else ""
    _, links = await page(gateway, path_of(model, version) + "/docs")
    paths = []
    for path, body in curls(links):
        paths.append(path)
        kind = b"application/octet-stream" if body is None else b"application/json"
        answer = await gateway.rest("POST", path, b"a file" if body is None else body, [(b"content-type", kind)])
        # A handler that answers text is no KServe V1 model, and only its author knows.
        assert answer.status == (406 if (model, path.split(":")[-1]) == ("plain", "predict") else 200), (
            path,
            answer.body,
        )
        assert not version or f"/{version}" in path
    assert len(paths) == 4
    snippets = [code for code in links.codes if code.startswith("import")]
    # TF Serving's versions are whole numbers, and TorchServe's are texts.
    assert len(snippets) == (2 if "." in version else 3)
    for code in snippets:
        compile(code, "snippet", "exec")
        assert "door:8080" in code
        assert repr(model) in code


@pytest.mark.parametrize("datatype", ["BOOL", "UINT8", "INT64", "FP16", "BF16", "FP64", "BYTES"])
async def test_python_of_a_datatype(datatype: str) -> None:
    """The arrays in the Python of a page are of the model's datatype and shape, too large ones as well."""
    import numpy as np

    specs = (TensorSpec("x", datatype, (-1, 2)), TensorSpec("large", datatype, (-1, 4096)))
    for spec, shape in zip(specs, ((1, 2), (1, 4096)), strict=True):
        signature = Signature((spec,), (TensorSpec("y", "FP32", (-1,)),), PREDICT)
        gateway = SampleGateway(table=only(made("typed", {"serving_default": signature})))
        _, links = await page(gateway, "/v2/models/typed/docs")
        (code,) = [code for code in links.codes if "tritonclient" in code]
        (array,) = re.findall(r"set_data_from_numpy\((np\..*)\)$", code, re.M)
        made_array = eval(array, {"np": np})  # noqa: S307 - our own
        wanted = {"BYTES": "object", "BF16": "float32", "BOOL": "bool"}.get(
            datatype, datatype.lower().replace("fp", "float")
        )
        assert (made_array.shape, str(made_array.dtype)) == (shape, wanted)


HOSTILE = "<script>alert(1)</script>'\"&`$(id)"


async def test_names_cannot_write_into_a_page() -> None:
    """Whatever a model's files, and a model server's reasons, call things, is shown and does nothing."""
    signature = Signature((TensorSpec(HOSTILE, "FP32", (-1,)),), (TensorSpec(HOSTILE + "out", "FP32", (-1,)),), PREDICT)
    model = made("hostile", {"serving_default": signature, HOSTILE: signature})
    ready = model.versions["1"]
    versions = {"1": ready, HOSTILE: Version(HOSTILE, State.FAILED, HOSTILE)}
    model = replace(model, name=HOSTILE, versions=versions, labels={HOSTILE: "1"})
    gateway = SampleGateway(table=only(model))
    quoted = "".join(f"%{ord(c):02X}" for c in HOSTILE)
    usual = len([tag for tag in (await page(SampleGateway(), "/v2/models/iris/docs"))[1].tags if tag == "script"])
    for path in ("/docs", f"/v2/models/{quoted}/docs", f"/v2/models/{quoted}/versions/{quoted}/docs"):
        _, links = await page(gateway, path)
        assert HOSTILE in links.text
        assert links.tags.count("script") == usual
    _, links = await page(gateway, f"/v2/models/{quoted}/docs")
    ((path, body), *_) = curls(links)
    assert body["inputs"][0]["name"] == HOSTILE
    assert unquote(path) == f"/v2/models/{HOSTILE}/infer"
    for code in links.codes:
        if code.startswith("import"):
            compile(code, "snippet", "exec")


@pytest.mark.parametrize("host", ["", "a b", "$(id)", "'; id #", "x" * 300, "door:port", "<script>"])
async def test_hosts_that_are_none(gateway: SampleGateway, host: str) -> None:
    """A host header that is no address does not get into the calls to copy."""
    _, links = await page(gateway, "/v2/models/iris/docs", host)
    lines = [code for code in links.codes if code.startswith("curl ")]
    assert len(lines) == 4
    assert all(line.startswith("curl -s http://127.0.0.1:8080/") for line in lines)
    _, links = await page(gateway, "/v2/models/iris/docs", "[::1]:9090")
    assert any("http://[::1]:9090/" in code for code in links.codes)
