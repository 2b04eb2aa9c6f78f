"""A small client for the command line: `python -m portico.local.call grpc|rest …`, as the demo prints it.

gRPC takes any method of the services in `portico.wire`, with the request as JSON; where a field holds bytes, "@path"
stands for a file's content.
"""

import argparse
import base64
import importlib
import json
import mimetypes
import pkgutil
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from portico import wire

TIMEOUT_SECONDS = 30.0
LIMIT_BYTES = 64 << 20
CHANNEL = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", LIMIT_BYTES),
    ("grpc.max_send_message_length", LIMIT_BYTES),
]


def main(arguments: list[str] | None = None) -> int:
    """Makes one call and prints its answer; 1 when it was refused."""
    parser = argparse.ArgumentParser(prog="python -m portico.local.call", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    by_grpc = kinds.add_parser("grpc", help="call a gRPC method")
    by_grpc.add_argument("address", help="host:port")
    by_grpc.add_argument("method", help="package.Service/Method")
    by_grpc.add_argument("request", help="the request message as JSON")
    by_rest = kinds.add_parser("rest", help="GET a URL, or POST to it when there is a body")
    by_rest.add_argument("url")
    by_rest.add_argument("body", nargs="?", help="text, or @path for a file's content")
    options = parser.parse_args(arguments)
    if options.kind == "rest":
        return rest(options.url, options.body)
    return unary(options.address, options.method, options.request)


def unary(address: str, method: str, request: str) -> int:
    """One unary gRPC call."""
    try:
        described = find(method)
        message = message_factory.GetMessageClass(described.input_type)()
        json_format.ParseDict(with_files(json.loads(request)), message)
    except (KeyError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    answer_type = message_factory.GetMessageClass(described.output_type)
    with grpc.insecure_channel(address, CHANNEL) as channel:
        call = channel.unary_unary(
            f"/{method}",
            request_serializer=type(message).SerializeToString,
            response_deserializer=answer_type.FromString,
        )
        try:
            answer, rpc = call.with_call(message, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            return 1
    print(json.dumps(readable(answer)))
    for key, value in [*rpc.initial_metadata(), *rpc.trailing_metadata()]:
        if key == "x-cache" and isinstance(value, str):
            print(f"{key}: {value}")
    return 0


def rest(url: str, body: str | None) -> int:
    """One REST call; like curl, but here where curl is not."""
    data = None if body is None else Path(body[1:]).read_bytes() if body.startswith("@") else body.encode()
    is_file = body is not None and body.startswith("@")
    content_type = mimetypes.guess_type(str(body))[0] if is_file else "application/json"
    headers = {"content-type": content_type or "application/octet-stream"}
    request = urllib.request.Request(url, data, headers)  # noqa: S310 - whoever runs this gives the URL
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    began = time.monotonic()
    try:
        with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
            print(response.read().decode(errors="replace"))
            print(f"seconds: {time.monotonic() - began:.6f}")
            if found := response.headers.get("x-cache"):
                print(f"x-cache: {found}")
            return 0
    except urllib.error.HTTPError as error:
        print(f"{error.code}: {error.read().decode(errors='replace')}", file=sys.stderr)
    except OSError as error:
        print(error, file=sys.stderr)
    return 1


def find(method: str) -> MethodDescriptor:
    """The method `package.Service/Method`. Raises KeyError when `portico.wire` has none of that name."""
    for module in pkgutil.iter_modules(wire.__path__):
        importlib.import_module(f"{wire.__name__}.{module.name}")
    service, _, name = method.partition("/")
    found = descriptor_pool.Default().FindServiceByName(service).methods_by_name.get(name)
    if found is None:
        raise KeyError(f"{service} has no method {name!r}")
    return found


def with_files(value: Any) -> Any:
    """JSON for json_format, in which bytes are base64: every string "@path" replaced by that file's content."""
    if isinstance(value, dict):
        return {key: with_files(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_files(inner) for inner in value]
    if isinstance(value, str) and value.startswith("@"):
        return base64.b64encode(Path(value[1:]).read_bytes()).decode()
    return value


def readable(message: Message) -> dict[str, Any]:
    """The fields that are set, for a person: bytes as the JSON or text they are, float32 with its own digits."""
    return {field.name: shown(field, value) for field, value in message.ListFields()}


def shown(field: FieldDescriptor, value: Any) -> Any:
    """One field's value as JSON."""
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        inner = entry.fields_by_name["value"]
        return {str(key): shown(inner, value[key]) for key in value}
    return [single(field, item) for item in value] if field.is_repeated else single(field, value)


def text_of(value: bytes) -> Any:
    """The JSON or the text that bytes are; what is no text keeps its bytes as escapes."""
    try:
        return json.loads(value)
    except ValueError:
        return value.decode(errors="backslashreplace")


def single(field: FieldDescriptor, value: Any) -> Any:
    """One value, of a field that may be repeated."""
    if isinstance(value, Message):
        return readable(value)
    if isinstance(value, bytes):
        return text_of(value)
    if field.type == FieldDescriptor.TYPE_FLOAT:
        return float(str(np.float32(value)))
    return field.enum_type.values_by_number[value].name if field.enum_type is not None else value


if __name__ == "__main__":
    sys.exit(main())
