"""Open Inference Protocol over REST, as its clients see it."""

import json
from typing import Any

import pytest

from asgi_client import Answer
from echo_models import EchoGateway
from portico import __version__
from portico.codecs.handler import raw_response, request_body
from portico.routing import RouteTable, Server, State
from sample_gateway import LIMIT, PAST_CACHE, SampleGateway, model

ROW = [0.5, 0.25, 1.0, 9.0]
EXTENSIONS = ["binary_tensor_data", "model_repository"]


def fp32(name: str, *shape: int, data: Any) -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "datatype": "FP32", "data": data}


IRIS: dict[str, Any] = {"inputs": [fp32("measurements", 1, 4, data=ROW)]}


async def infer(gateway: SampleGateway, model: str, body: Any, headers: Any = ()) -> Answer:
    return await gateway.rest("POST", f"/v2/models/{model}/infer", body, headers)


async def refusal(gateway: SampleGateway, model: str, body: Any) -> tuple[int, str]:
    status, answer = await gateway.refused("POST", f"/v2/models/{model}/infer", body)
    assert answer.keys() == {"error"}
    return status, answer["error"]


async def test_infer(gateway: SampleGateway) -> None:
    """A call is answered with the model, the version that answered, the id, and flat outputs with their shapes."""
    answer = await infer(gateway, "iris", IRIS | {"id": "42"})
    assert answer.status == 200
    assert answer.json() == {
        "model_name": "iris",
        "model_version": "2",
        "id": "42",
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [1, 3], "data": [0.5, 0.25, 1.0]},
            {"name": "species", "datatype": "INT64", "shape": [1], "data": [2]},
        ],
    }


@pytest.mark.parametrize("data", [[*ROW, *ROW], [ROW, ROW]], ids=["flat", "nested"])
async def test_data_flat_or_nested(gateway: SampleGateway, data: Any) -> None:
    """Data may be flat or nested as the shape is, and means the same."""
    answer = await infer(gateway, "iris", {"inputs": [fp32("measurements", 2, 4, data=data)]})
    assert answer.json()["outputs"][1] == {"name": "species", "datatype": "INT64", "shape": [2], "data": [2, 2]}
    assert "id" not in answer.json()


async def test_a_version(gateway: SampleGateway) -> None:
    """A call that names a version is answered by it."""
    answer = await gateway.rest("POST", "/v2/models/iris/versions/1/infer", IRIS)
    assert answer.json()["model_version"] == "1"
    assert [route.version for route, _, _ in gateway.tf_serving.calls] == ["1"]


@pytest.mark.parametrize("model", ["iris", "digits"])
async def test_wanted_outputs(gateway: SampleGateway, model: str) -> None:
    """Of the outputs only those asked for come back, from either model server."""
    wanted = {"iris": "species", "digits": "digit"}[model]
    answer = await infer(gateway, model, IRIS | {"outputs": [{"name": wanted}]})
    assert [output["name"] for output in answer.json()["outputs"]] == [wanted]


async def test_the_cache(gateway: SampleGateway) -> None:
    """`x-cache` tells a miss, a hit, and that a client wanted it fresh; the id is the call's own even in a hit."""
    answers = [await infer(gateway, "iris", IRIS | {"id": id_}, headers) for id_, headers in
               (("a", ()), ("b", ()), ("c", PAST_CACHE))]  # fmt: skip
    assert [answer.header(b"x-cache") for answer in answers] == ["MISS", "HIT", "BYPASS"]
    assert [answer.json()["id"] for answer in answers] == ["a", "b", "c"]
    assert len(gateway.tf_serving.calls) == 2


async def test_a_signature(gateway: SampleGateway) -> None:
    """The parameter `signature_name` chooses a signature, whose inputs then count."""
    status, text = await refusal(gateway, "iris", IRIS | {"parameters": {"signature_name": "classify"}})
    assert status == 400
    assert "Its inputs: 'examples' (BYTES [-1])" in text
    status, text = await refusal(gateway, "iris", IRIS | {"parameters": {"signature_name": "train"}})
    assert (status, "no signature 'train'" in text) == (400, True)


async def test_strings(gateway: SampleGateway) -> None:
    """Strings go in and come out as JSON text; an output that is no text is refused by its name."""
    body = {"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["größe", ""]}]}
    answer = await infer(gateway, "text", body | {"outputs": [{"name": "upper"}]})
    assert answer.json()["outputs"] == [{"name": "upper", "datatype": "BYTES", "shape": [2], "data": ["GRößE", ""]}]
    status, text = await refusal(gateway, "text", body)
    assert (status, "'raw_bytes' is not UTF-8" in text) == (406, True)


async def test_a_handlers_answer_in_tensors(gateway: SampleGateway) -> None:
    """A TorchServe handler's JSON comes back as tensors, and its input as the JSON that the handler reads."""
    answer = await infer(gateway, "digits", {"inputs": [fp32("image", 2, data=[1, 2])]})
    assert answer.json()["model_version"] == "1.1"
    assert answer.json()["outputs"] == [
        {"name": "digit", "datatype": "INT64", "shape": [1], "data": [7]},
        {"name": "probabilities", "datatype": "FP64", "shape": [2], "data": [0.25, 0.75]},
    ]


async def test_a_handlers_text(gateway: SampleGateway) -> None:
    """What a handler answers in other forms than JSON is one BYTES tensor."""
    answer = await infer(gateway, "plain", IRIS)
    assert answer.json()["outputs"] == [{"name": "body", "datatype": "BYTES", "shape": [1], "data": ["größer"]}]


async def test_the_content_type_for_a_handler(gateway: SampleGateway) -> None:
    """The parameter `content_type` is the handler's to read, and part of the question; others make no difference."""
    for entry in (
        {"content_type": "image/png", "top": 3},
        {"content_type": "image/png"},
        {"content_type": "image/gif"},
    ):
        await infer(gateway, "digits", IRIS | {"parameters": entry})
    assert [request.content_type for _, request, _ in gateway.torchserve.calls] == ["image/png", "image/gif"]


@pytest.mark.parametrize("model", ["iris", "digits"])
async def test_parameters_at_every_level(gateway: SampleGateway, model: str) -> None:
    """Parameters may stand at the request, its inputs and its outputs; those that nobody defines mean nothing."""
    given = {"parameters": {"priority": 3, "timeout": 5.5, "sequence_id": 0, "sequence_start": False, "a": "b"}}
    output = {"iris": "species", "digits": "digit"}[model]
    plain = await infer(gateway, model, IRIS | {"outputs": [{"name": output}]})
    inputs = [tensor | given for tensor in IRIS["inputs"]]
    answer = await infer(gateway, model, {"inputs": inputs, "outputs": [{"name": output} | given]} | given)
    assert (answer.header(b"x-cache"), answer.json()) == ("HIT", plain.json())


@pytest.mark.parametrize("what", ["load", "unload"])
async def test_loading_by_a_call(gateway: SampleGateway, what: str) -> None:
    """Nobody loads or unloads a model but by its files, and a call that asks for it is 403 and told so."""
    status, body = await gateway.refused("POST", f"/v2/repository/models/iris/{what}", {})
    assert (status, "by their files" in body["error"]) == (403, True)


@pytest.mark.parametrize("model", ["iris", "digits"])
async def test_optional_fields_that_are_null(gateway: SampleGateway, model: str) -> None:
    """An optional field that is null is one that is not there, as clients write it that know their fields."""
    plain = await infer(gateway, model, IRIS)
    for nothing in (
        {"id": None, "parameters": None, "outputs": None},
        {"parameters": {"signature_name": None, "content_type": None}},
    ):
        answer = await infer(gateway, model, IRIS | nothing)
        assert (answer.header(b"x-cache"), answer.json()) == ("HIT", plain.json())


async def test_an_output_that_a_handler_has_not(gateway: SampleGateway) -> None:
    """An output that a handler's answer does not have is refused, with those that it has, from the cache as well."""
    for _ in range(2):
        status, text = await refusal(gateway, "digits", IRIS | {"outputs": [{"name": "digit"}, {"name": "letter"}]})
        assert (status, "no output 'letter'. Its outputs: digit, probabilities" in text) == (400, True)
    assert len(gateway.torchserve.calls) == 1


@pytest.mark.parametrize("model", ["iris", "digits"])
async def test_an_input_that_is_given_twice(gateway: SampleGateway, model: str) -> None:
    """An input that is given twice is refused, for a model that declares its inputs and for one that does not."""
    status, text = await refusal(gateway, model, {"inputs": IRIS["inputs"] * 2})
    assert (status, f"Model '{model}' was given input 'measurements' twice." in text) == (400, True)
    assert not gateway.torchserve.calls


async def test_an_image_as_an_answer(gateway: SampleGateway) -> None:
    """A PNG that a handler answers has no form in JSON: that is 406, and neither the client's fault nor the model's."""
    gateway.torchserve.servables["plain-1.0--loaded"] = lambda request: raw_response(b"\x89PNG\r\n", "image/png")
    for _ in range(2):
        status, text = await refusal(gateway, "plain", IRIS)
        assert (status, "'body' is not UTF-8 text" in text) == (406, True)


async def test_a_rank_that_no_tensor_has(gateway: SampleGateway) -> None:
    """A shape of thousands of dimensions is refused by their number, in a short text."""
    tensor = {"name": "measurements", "shape": [9] * 20_000, "datatype": "FP32", "data": [1]}
    status, text = await refusal(gateway, "iris", {"inputs": [tensor]})
    assert (status, text) == (400, "Input 'measurements': a shape has up to 64 dimensions, not 20000.")


async def test_a_content_type_that_is_none(gateway: SampleGateway) -> None:
    """A content type that is no string is refused by the parameter's name."""
    status, text = await refusal(gateway, "digits", IRIS | {"parameters": {"content_type": 1}})
    assert (status, text) == (400, "'content_type' has to be a string.")


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
async def test_numbers_that_json_has_not(datatype: str) -> None:
    """NaN and the infinities go in and come out as their words, in every datatype that has them."""
    tensor = {"name": "x", "shape": [4], "datatype": datatype, "data": [float("nan"), float("inf"), -float("inf"), 1]}
    answer = await infer(EchoGateway(), f"echo-{datatype}", json.dumps({"inputs": [tensor]}).encode())
    assert b'"data":[NaN,Infinity,-Infinity,1.0]' in answer.body


@pytest.mark.parametrize("word", ["nan", "+Infinity", "inf", '"NaN"', "null"])
async def test_words_that_are_no_numbers(word: str) -> None:
    """Other spellings of them, and their words as strings, are refused."""
    body = f'{{"inputs": [{{"name": "x", "shape": [1], "datatype": "FP32", "data": [{word}]}}]}}'
    status, text = await refusal(EchoGateway(), "echo-FP32", body.encode())
    assert (status, "not JSON" in text or "the model takes FP32" in text) == (400, True)


@pytest.mark.parametrize("datatype", ["INT32", "UINT8", "BOOL"])
async def test_infinities_among_whole_numbers(datatype: str) -> None:
    """A datatype that has no NaN takes none."""
    tensor = {"name": "x", "shape": [1], "datatype": datatype, "data": [float("nan")]}
    status, text = await refusal(EchoGateway(), f"echo-{datatype}", json.dumps({"inputs": [tensor]}).encode())
    assert (status, f"the model takes {datatype}" in text) == (400, True)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b'{"inputs": "\\ud800"}', "not JSON"),
        ([], "has to be a JSON object, it is a list"),
        ({}, "needs a list 'inputs'"),
        ({"inputs": {}}, "needs a list 'inputs'"),
        ({"inputs": [1]}, "an object with a 'name'"),
        ({"inputs": [{"name": 1}]}, "an object with a 'name'"),
        ({"inputs": [{"name": "x"}]}, "'x': 'shape' has to be a list of sizes"),
        ({"inputs": [{"name": "x", "shape": [-1]}]}, "'x': 'shape' has to be"),
        ({"inputs": [{"name": "x", "shape": [1.5]}]}, "'x': 'shape' has to be"),
        ({"inputs": [{"name": "x", "shape": [True]}]}, "'x': 'shape' has to be"),
        ({"inputs": [{"name": "x", "shape": [1]}]}, "'x' needs a 'datatype'"),
        ({"inputs": [{"name": "x", "shape": [1], "datatype": 1}]}, "'x' needs a 'datatype'"),
        ({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]}, "'x' needs 'data'"),
        ({"inputs": [{"name": "x", "shape": [1], "datatype": "float", "data": [1]}]}, "datatype 'float' is none of"),
        ({"inputs": [fp32("x", 2, data=[1])]}, "'x': shape [2] holds 2 elements, 1 were given"),
        ({"inputs": [fp32("x", 2, 2, data=[[1, 2], [3]])]}, "'x': its lists are ragged"),
        ({"inputs": [fp32("x", 1, data=["a"])]}, "'x': the model takes FP32, its data holds strings"),
        ({"inputs": [fp32("x", (1 << 63) + 1, 0, data=[])]}, "'x': shape"),
        (IRIS | {"outputs": {"name": "species"}}, "'outputs' has to be a list"),
        (IRIS | {"outputs": ["species"]}, "'outputs' has to be a list of objects with a 'name'"),
        (IRIS | {"parameters": [1]}, "'parameters' has to be an object"),
        (IRIS | {"parameters": {"signature_name": 1}}, "'signature_name' has to be a string"),
        (IRIS | {"parameters": {"x": {}}}, "parameter 'x' has to be a string, a number or a boolean"),
        (IRIS | {"parameters": {"x": [1]}}, "parameter 'x' has to be a string, a number or a boolean"),
        (IRIS | {"parameters": {"sequence_id": 42}}, "Portico keeps no sequences"),
        (IRIS | {"parameters": {"sequence_id": "a"}}, "Portico keeps no sequences"),
        (IRIS | {"parameters": {"sequence_start": True}}, "Portico keeps no sequences"),
        (IRIS | {"parameters": {"sequence_end": True}}, "Portico keeps no sequences"),
        (IRIS | {"parameters": {"sequence_id": 1.5}}, "'sequence_id' has to be a number or a string"),
        (IRIS | {"parameters": {"sequence_start": 1}}, "'sequence_start' has to be true or false"),
        (IRIS | {"parameters": {"binary_data_output": 1}}, "'binary_data_output' has to be true or false"),
        ({"inputs": [fp32("x", 1, data=[1]) | {"parameters": 1}]}, "Input 'x': 'parameters' has to be an object"),
        ({"inputs": [fp32("x", 1, data=[1]) | {"parameters": {"a": []}}]}, "Input 'x': parameter 'a' has to be"),
        (
            {"inputs": [{"name": "x", "parameters": {"shared_memory_region": "r"}}]},
            "Input 'x': Portico has no shared memory with its clients",
        ),
        (IRIS | {"outputs": [{"name": "species", "parameters": []}]}, "Output 'species': 'parameters' has to be"),
        (
            IRIS | {"outputs": [{"name": "species", "parameters": {"classification": 3}}]},
            "Output 'species': 'classification' is not supported",
        ),
        (
            IRIS | {"outputs": [{"name": "species", "parameters": {"shared_memory_region": "r"}}]},
            "Output 'species': Portico has no shared memory",
        ),
        (IRIS | {"outputs": [{"name": "species"}] * 2}, "Output 'species': it is asked for twice"),
        (IRIS | {"id": 1}, "'id' has to be a string"),
        (IRIS | {"outputs": [{"name": "petal"}]}, "no output 'petal'. Its outputs: probabilities, species"),
        ({"inputs": []}, "also takes input 'measurements' (FP32 [-1, 4])"),
        ({"inputs": [fp32("x", 1, 4, data=ROW)]}, "no input 'x'. Its inputs: 'measurements' (FP32 [-1, 4])"),
        (
            {"inputs": [fp32("measurements", 1, 3, data=[1, 2, 3])]},
            "'measurements' of model 'iris': given FP32 [1, 3], the model takes FP32 [-1, 4]",
        ),
        (
            {"inputs": [{"name": "measurements", "shape": [1, 4], "datatype": "INT64", "data": [1, 2, 3, 4]}]},
            "given INT64 [1, 4], the model takes FP32 [-1, 4]",
        ),
    ],
)
async def test_bad_requests(gateway: SampleGateway, body: Any, says: str) -> None:
    """A request that cannot be answered is 400, says what is wrong with it, and reaches no model server."""
    status, text = await refusal(gateway, "iris", body)
    assert status == 400
    assert says in text
    assert not gateway.tf_serving.calls


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("iriss", 404, "Did you mean iris?"),
        ("iris/versions/9", 404, "Versions of model 'iris': 1, 2"),
        ("iris/versions/latest", 404, "Specific(iris, latest)"),
        ("loading", 503, "it is being loaded"),
        ("refused", 503, "refused is failed for a reason"),
        ("damaged", 503, "damaged is quarantined for a reason"),
        ("%D0%BD%D0%B5%D1%82", 404, "no model named 'нет'"),
    ],
)
async def test_models_that_cannot_answer(gateway: SampleGateway, path: str, status: int, says: str) -> None:
    """A model that is not there is 404 with what there is; one that is not ready is 503 with the reason."""
    found, text = await refusal(gateway, path, IRIS)
    assert found == status
    assert says in text


async def test_a_model_name_of_megabytes(gateway: SampleGateway) -> None:
    """A name of megabytes is 404 in a short text, which names the models there are."""
    status, text = await refusal(gateway, "x" * 2_000_000, IRIS)
    assert (status, "There are" in text, len(text) < 1000) == (404, True, True)


async def test_failures_behind(gateway: SampleGateway) -> None:
    """A model that fails is 500 with its text; a model server that is gone 503; one that hangs 504."""
    body = {"inputs": [fp32("x", 1, data=[1])]}
    assert await refusal(gateway, "fails", body) == (500, "the graph divided by zero")
    gateway.tf_serving.go_down()
    status, text = await refusal(gateway, "half", body)
    assert (status, "cannot be reached" in text) == (503, True)
    slow = SampleGateway(timeout=0.05)
    slow.tf_serving.hang()
    assert (await refusal(slow, "half", body))[0] == 504


async def test_too_large(gateway: SampleGateway) -> None:
    """A body over the limit is 413 with the limit."""
    status, text = await refusal(gateway, "iris", bytes(LIMIT + 1))
    assert (status, f"{LIMIT} bytes" in text) == (413, True)


async def test_model_metadata(gateway: SampleGateway) -> None:
    """Metadata tells versions, platform and the default signature."""
    expected = {
        "name": "iris",
        "versions": ["1", "2"],
        "platform": "tensorflow_savedmodel",
        "inputs": [{"name": "measurements", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "species", "datatype": "INT64", "shape": [-1]},
        ],
    }
    for path in ("/v2/models/iris", "/v2/models/iris/versions/1"):
        assert (await gateway.rest("GET", path)).json() == expected


async def test_metadata_lists_versions_that_can_be_called(gateway: SampleGateway) -> None:
    """Metadata does not name versions that no call can reach; one that is away may come back any moment."""
    states = {"1": State.DRAINING, "2": State.UNAVAILABLE, "3": State.READY, "4": State.LOADING, "5": State.FAILED}
    gateway.routes.replace(RouteTable({"iris": model("iris", Server.TF_SERVING, states)}))
    assert (await gateway.rest("GET", "/v2/models/iris")).json()["versions"] == ["2", "3"]


async def test_model_metadata_without_a_default_signature(gateway: SampleGateway) -> None:
    """A model without a default signature is described by the one it has."""
    answer = (await gateway.rest("GET", "/v2/models/one%20named")).json()
    assert [entry["name"] for entry in answer["inputs"]] == ["x"]


async def test_model_metadata_of_any_rank(gateway: SampleGateway) -> None:
    """A tensor of any rank has a shape without sizes, and says that this is what is meant."""
    answer = (await gateway.rest("GET", "/v2/models/half")).json()
    expected = {"name": "x", "datatype": "FP32", "shape": [], "parameters": {"unknown_rank": True}}
    assert answer["inputs"] == [expected]


@pytest.mark.parametrize("path", ["digits", "away"])
async def test_model_metadata_of_a_handler(gateway: SampleGateway, path: str) -> None:
    """A TorchServe model has the input and the output that every one has: its handler's body, as it is."""
    answer = (await gateway.rest("GET", f"/v2/models/{path}")).json()
    body = [{"name": "body", "datatype": "BYTES", "shape": [1]}]
    assert (answer["platform"], answer["inputs"], answer["outputs"]) == ("pytorch_torchserve", body, body)


async def test_a_call_as_the_metadata_of_a_handler_says(gateway: SampleGateway) -> None:
    """What the metadata of a TorchServe model describes can be sent, and comes back when it is asked for by name."""
    raw = {"name": "body", "datatype": "BYTES", "shape": [1], "data": ["[1, 2]"]}
    answer = await infer(gateway, "digits", {"inputs": [raw], "outputs": [{"name": "body"}]})
    assert answer.json()["outputs"] == [raw | {"data": ['{"digit": 7, "probabilities": [0.25, 0.75]}']}]
    assert request_body(gateway.torchserve.calls[0][1])[0] == b"[1, 2]"


@pytest.mark.parametrize(
    ("name", "platform"), [("refused", "pytorch_torchserve"), ("damaged", ""), ("loading", "tensorflow_savedmodel")]
)
async def test_model_metadata_of_what_is_not_ready(gateway: SampleGateway, name: str, platform: str) -> None:
    """A model that has never been ready has metadata without tensors."""
    answer = (await gateway.rest("GET", f"/v2/models/{name}")).json()
    assert (answer["platform"], answer["inputs"], answer["outputs"]) == (platform, [], [])


@pytest.mark.parametrize("path", ["/v2/models/iriss", "/v2/models/iris/versions/9", "/v2/models/iriss/ready"])
async def test_metadata_of_what_is_not_there(gateway: SampleGateway, path: str) -> None:
    """Metadata and readiness of what is not there are 404."""
    status, body = await gateway.refused("GET", path)
    assert (status, list(body)) == (404, ["error"])


@pytest.mark.parametrize(
    ("path", "status", "version", "error"),
    [
        ("iris", 200, "2", None),
        ("iris/versions/1", 200, "1", None),
        ("loading", 503, "1", "it is being loaded"),
        ("away", 503, "1.0", "away is unavailable for a reason"),
        ("refused", 503, "1.0", "refused is failed for a reason"),
        ("damaged", 503, "3", "damaged is quarantined for a reason"),
    ],
)
async def test_model_ready(gateway: SampleGateway, path: str, status: int, version: str, error: str | None) -> None:
    """A model is ready when it can answer; otherwise it is 503 with the reason."""
    answer = await gateway.rest("GET", f"/v2/models/{path}/ready")
    expected: dict[str, Any] = {"name": path.split("/")[0], "version": version, "ready": status == 200}
    assert answer.status == status
    assert answer.json() == expected | ({} if error is None else {"error": error})


async def test_server(gateway: SampleGateway) -> None:
    """The server tells its name, version and extensions, and lives whatever its models do."""
    answer = await gateway.rest("GET", "/v2")
    assert answer.json() == {"name": "portico", "version": __version__, "extensions": EXTENSIONS}
    assert (await gateway.rest("GET", "/v2/health/live")).json() == {"live": True}


async def test_server_ready(gateway: SampleGateway) -> None:
    """The server is ready when every model is that is to stay; until then it is 503 and names those it waits for."""
    answer = await gateway.rest("GET", "/v2/health/ready")
    assert (answer.status, answer.json()) == (
        503,
        {"ready": False, "waiting_for": ["loading", "away", "refused", "damaged"]},
    )
    leaving = model("old", Server.TORCHSERVE, {"1.0": State.DRAINING})
    ready = {name: gateway.routes.table.models[name] for name in ("iris", "digits")}
    gateway.routes.replace(RouteTable(ready | {"old": leaving}))
    answer = await gateway.rest("GET", "/v2/health/ready")
    assert (answer.status, answer.json()) == (200, {"ready": True})


@pytest.mark.parametrize("path", ["/v2/health/ready", "/v2/models/iris", "/v2/models/iris/ready"])
async def test_before_the_first_snapshot(path: str) -> None:
    """Before any routes have come, nothing is ready and nothing is unknown, but the server lives."""
    gateway = SampleGateway(routed=False)
    status, body = await gateway.refused("GET", path)
    assert (status, "controller" in body["error"]) == (503, True)
    assert (await gateway.rest("GET", "/v2/health/live")).status == 200


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v2/models/iris/infer", "POST"),
        ("POST", "/v2/models/iris", "GET"),
        ("GET", "/v2/repository/index", "POST"),
        ("DELETE", "/v2", "GET"),
        ("GET", "/v2/repository/models/iris/load", "POST"),
    ],
)
async def test_wrong_methods(gateway: SampleGateway, method: str, path: str, allow: str) -> None:
    """Another method is 405 in the protocol's form, with the one that is allowed."""
    answer = await gateway.rest(method, path)
    assert (answer.status, answer.header(b"allow")) == (405, allow)
    assert allow in answer.json()["error"]


async def test_unknown_paths(gateway: SampleGateway) -> None:
    """A path that the protocol does not have is left to the application behind."""
    for path in ("/v2//", "/v2/models", "/v2/models/iris/explain", "/v2/models/iris/versions"):
        assert (await gateway.rest("GET", path)).body == b"fallback"
