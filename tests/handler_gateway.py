"""A gateway of one TorchServe model, `m`, and what tests of the JSON protocols give its handler."""

import base64
from dataclasses import replace
from typing import Any

from portico.codecs.handler import raw_response
from portico.routing import CallPolicy, Model, RouteTable, Server, State, Wire
from sample_gateway import SampleGateway, model


def answering(body: bytes, content_type: str = "application/json") -> Any:
    return lambda request: raw_response(body, content_type)


def gateway_with(wire: Wire = Wire.AUTO) -> SampleGateway:
    """One TorchServe model, whose handler answers with JSON, and which takes its inputs as `wire` says."""
    made: Model = model("m", Server.TORCHSERVE, {"1.0": State.READY, "2.0": State.READY})
    versions = {}
    for number, version in made.versions.items():
        assert version.route is not None
        versions[number] = replace(version, route=replace(version.route, policy=CallPolicy(wire=wire)))
    gateway = SampleGateway(table=RouteTable({"m": replace(made, versions=versions, labels={"stable": "1.0"})}))
    gateway.torchserve.servables = {f"m-{version}--loaded": answering(b"[0.10, 7]") for version in versions}
    return gateway


def b64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}
