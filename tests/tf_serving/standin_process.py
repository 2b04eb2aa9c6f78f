"""Starts the stand-in as a process of its own and talks to it over gRPC and REST. Used by this folder's tests.

Speaks with Portico's own stubs, so the interpreter that runs the tests needs no TensorFlow.
"""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as wire

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("PORTICO_TF_PYTHON", str(ROOT / ".venv" / "tf-serving" / "bin" / "python"))
START_SECONDS = 60.0
CALL_SECONDS = 30.0

Response = TypeVar("Response", bound=Message)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(*flags: str) -> list[str]:
    """The command line of the stand-in."""
    return [PYTHON, "-m", "tf_serving_standin", *flags]


def environment() -> dict[str, str]:
    """The environment it runs in: its own package on the path, loopback only."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT / "tf-serving"),
        "TF_SERVING_STANDIN_BIND_ADDRESS": "127.0.0.1",
        "PYTHONWARNINGS": "default",
    }


class StandIn:
    """A running stand-in; `flags` come after the ports, `log` is a file that gets its stderr and stdout."""

    def __init__(self, log: Path, *flags: str) -> None:
        self.port, self.rest_port = free_port(), free_port()
        self.log_file = log
        ports = (f"--port={self.port}", f"--rest_api_port={self.rest_port}")
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command(*ports, *flags), stdout=output, stderr=output, env=environment(), cwd=log.parent
            )
        self._channel = grpc.insecure_channel(
            f"127.0.0.1:{self.port}",
            options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
        )

    def log(self) -> str:
        """All that it wrote so far."""
        return self.log_file.read_text(errors="replace")

    def wait_for_log(self, pattern: str, seconds: float = START_SECONDS) -> str:
        """Wait until a line matches `pattern`; return the log."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.log()):
            ended = self.process.poll() is not None
            if (ended and not re.search(pattern, self.log())) or time.monotonic() > deadline:
                raise AssertionError(f"no {pattern!r} after {seconds} s, ended: {ended}; log:\n{self.log()}")
            time.sleep(0.02)
        return self.log()

    def wait_ready(self) -> "StandIn":
        """Wait until both ports are open."""
        self.wait_for_log("REST API at")
        return self

    def stop(self) -> int:
        """End it as an operator would; return its exit code."""
        self._channel.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"did not end within 15 s of SIGTERM; log:\n{self.log()}") from None

    def call(
        self, method: str, request: Message, response: type[Response], *, seconds: float = CALL_SECONDS
    ) -> Response:
        """One unary call; `method` is Service/Method within package tensorflow.serving."""
        stub = self._channel.unary_unary(
            f"/tensorflow.serving.{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        answer: Response = stub(request, timeout=seconds)
        return answer

    def predict(self, request: wire.PredictRequest) -> wire.PredictResponse:
        """PredictionService.Predict."""
        return self.call("PredictionService/Predict", request, wire.PredictResponse)

    def half(self, value: float, spec: wire.ModelSpec) -> tuple[float, int]:
        """Predict on one of the half models: the value and the version that answered."""
        response = self.predict(predict_request(spec, x=floats([value])))
        return response.outputs["y"].float_val[0], response.model_spec.version.value

    def states(self, name: str) -> dict[int, str]:
        """Version → state of a model, as GetModelStatus tells it."""
        return {version: state.name for version, state in self.statuses(name).items()}

    def statuses(self, name: str) -> "dict[int, VersionStatus]":
        """Version → state and error of a model; empty when the server never heard of it."""
        request = wire.GetModelStatusRequest(model_spec=wire.ModelSpec(name=name))
        try:
            response = self.call("ModelService/GetModelStatus", request, wire.GetModelStatusResponse)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return {}
            raise
        return {version.version: VersionStatus(version) for version in response.model_version_status}

    def wait_for_states(self, name: str, wanted: Mapping[int, str], seconds: float = 30.0) -> None:
        """Wait until GetModelStatus tells exactly `wanted`."""
        deadline = time.monotonic() + seconds
        while (states := self.states(name)) != dict(wanted):
            if time.monotonic() > deadline:
                raise AssertionError(f"{name} is {states}, not {wanted}, after {seconds} s; log:\n{self.log()}")
            time.sleep(0.02)

    def reload(self, *models: wire.ModelConfig, seconds: float = CALL_SECONDS) -> wire.ReloadConfigResponse:
        """ModelService.HandleReloadConfigRequest with these models and no others."""
        request = wire.ReloadConfigRequest()
        request.config.model_config_list.config.extend(models)
        return self.call("ModelService/HandleReloadConfigRequest", request, wire.ReloadConfigResponse, seconds=seconds)

    def rest(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """One REST request; a body that is no bytes is sent as JSON. HTTP code and text of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=CALL_SECONDS)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        try:
            connection.request(method, path, data, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def rest_json(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Like `rest`, with the answer parsed."""
        code, text = self.rest(method, path, body)
        return code, json.loads(text)


Start = Callable[..., StandIn]


class VersionStatus:
    """State, error code and error message of one version."""

    def __init__(self, version: wire.ModelVersionStatus) -> None:
        self.name = wire.ModelVersionStatus.State.Name(version.state)
        self.code = int(version.status.error_code)
        self.message = version.status.error_message


def spec(name: str, *, version: int | None = None, label: str = "", signature: str = "") -> wire.ModelSpec:
    """A ModelSpec."""
    found = wire.ModelSpec(name=name, signature_name=signature)
    if version is not None:
        found.version.value = version
    if label:
        found.version_label = label
    return found


def predict_request(model_spec: wire.ModelSpec, /, **inputs: tf.TensorProto) -> wire.PredictRequest:
    """A PredictRequest for all outputs."""
    return wire.PredictRequest(model_spec=model_spec, inputs=inputs)


def shape(*sizes: int) -> tf.TensorShapeProto:
    """A full shape."""
    return tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=size) for size in sizes])


def floats(values: Sequence[float], *sizes: int) -> tf.TensorProto:
    """A float32 tensor, a vector when no sizes are given."""
    return tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=shape(*(sizes or (len(values),))), float_val=values)


def texts(*values: bytes) -> tf.TensorProto:
    """A vector of strings."""
    return tf.TensorProto(dtype=tf.DT_STRING, tensor_shape=shape(len(values)), string_val=values)


def model_config(name: str, base_path: Path, policy: str = "", **labels: int) -> wire.ModelConfig:
    """A ModelConfig; `policy` is "", "all", "latest 2" or "specific 1 3"."""
    config = wire.ModelConfig(name=name, base_path=str(base_path), model_platform="tensorflow")
    kind, *numbers = policy.split() or [""]
    if kind == "all":
        config.model_version_policy.all.SetInParent()
    elif kind == "latest":
        config.model_version_policy.latest.num_versions = int(numbers[0])
    elif kind == "specific":
        config.model_version_policy.specific.versions.extend(map(int, numbers))
    for label, version in labels.items():
        config.version_labels[label] = version
    return config


def put_version(models: Path, base_path: Path, version: int) -> None:
    """Copy a version of half into `base_path`, complete at the moment it appears."""
    staged = base_path.with_name(f"{base_path.name}-staged-{version}")
    shutil.copytree(models / "half" / str(version), staged)
    staged.rename(base_path / str(version))
