"""Model servers for the contract tests of the controller's adapters: the real ones as processes, and fakes that
implement their management APIs in memory, as far as the adapters see them.

A fake takes a file that says "broken" for a model that cannot be loaded.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs
from portico.wire import torchserve_management_pb2 as ts

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 120.0
STOP_SECONDS = 30.0

Method = Callable[[Any, grpc.ServicerContext], Message]


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """A program that listens on a port; `log` gets what it says."""

    def __init__(self, port: int, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.address = f"127.0.0.1:{port}"
        self._port, self._command, self._environment, self._log = port, command, environment, log

    def start(self) -> None:
        """Returns when something listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env={**os.environ, **self._environment},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"{self._command[0]} did not start:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Ends it, and the workers it has started."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(STOP_SECONDS)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


def tf_serving(store: Path, scratch: Path) -> Process:
    """TF Serving's binary if it is on PATH, else the stand-in; it is told with each model where to look."""
    binary = shutil.which("tensorflow_model_server")
    python = os.environ.get("PORTICO_TF_PYTHON", str(ROOT / ".venv/tf-serving/bin/python"))
    config = scratch / "models.config"
    config.write_text("model_config_list {}\n")
    port = free_port()
    flags = [
        f"--port={port}",
        f"--rest_api_port={free_port()}",
        f"--model_config_file={config}",
        "--max_num_load_retries=0",
    ]
    environment = {"PYTHONPATH": str(ROOT / "tf-serving"), "TF_SERVING_STANDIN_BIND_ADDRESS": "127.0.0.1"}
    return Process(
        port, [*([binary] if binary else [python, "-m", "tf_serving_standin"]), *flags], environment, scratch / "log"
    )


def torchserve(store: Path, scratch: Path) -> Process:
    """TorchServe with the stack's own configuration and this model store, which need not exist yet."""
    python = os.environ.get("PORTICO_TORCH_PYTHON", str(ROOT / ".venv/torchserve/bin/python"))
    port = free_port()
    environment = {
        "TEMP": str(scratch),
        "TS_MODEL_STORE": str(store),
        "TS_INFERENCE_ADDRESS": f"http://127.0.0.1:{free_port()}",
        "TS_MANAGEMENT_ADDRESS": f"http://127.0.0.1:{free_port()}",
        "TS_METRICS_ADDRESS": f"http://127.0.0.1:{free_port()}",
        "TS_GRPC_INFERENCE_ADDRESS": "127.0.0.1",
        "TS_GRPC_MANAGEMENT_ADDRESS": "127.0.0.1",
        "TS_GRPC_INFERENCE_PORT": str(free_port()),
        "TS_GRPC_MANAGEMENT_PORT": str(port),
    }
    return Process(port, [python, str(ROOT / "torchserve/serve.py")], environment, scratch / "log")


class FakeServer:
    """Runs a fake's methods in a gRPC server."""

    def __init__(self, store: Path, scratch: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.store = store

    def services(self) -> dict[str, dict[str, tuple[type[Message], Method]]]:
        """Service → method → (request, implementation)."""
        raise NotImplementedError

    def forget(self) -> None:
        """What a restart does to what is loaded."""
        raise NotImplementedError

    def start(self) -> None:
        """Returns when it listens."""
        self.forget()
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        for service, methods in self.services().items():
            handlers = {
                name: grpc.unary_unary_rpc_method_handler(
                    method,
                    request_deserializer=request.FromString,
                    response_serializer=lambda message: message.SerializeToString(),
                )
                for name, (request, method) in methods.items()
            }
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self._server.add_insecure_port(self.address)
        self._server.start()

    def stop(self) -> None:
        """Ends it."""
        self._server.stop(None).wait(STOP_SECONDS)


def is_broken(file: Path) -> bool:
    """Whether a fake takes the model in `file` for one that cannot be loaded."""
    return not file.is_file() or b"broken" in file.read_bytes()


class FakeTFServing(FakeServer):
    """One list of models, replaced whole; a model without a base path stops every load (server_core.cc), and one whose
    version is not listed there any more is unloaded (file_system_storage_path_source.cc).
    """

    def forget(self) -> None:
        self._models: dict[str, tfs.ModelVersionStatus] = {}
        self._configs: dict[str, tfs.ModelConfig] = {}
        self._busy = threading.Lock()

    def services(self) -> dict[str, dict[str, tuple[type[Message], Method]]]:
        return {
            "tensorflow.serving.ModelService": {
                "HandleReloadConfigRequest": (tfs.ReloadConfigRequest, self._reload),
                "GetModelStatus": (tfs.GetModelStatusRequest, self._status),
            },
            "tensorflow.serving.PredictionService": {"GetModelMetadata": (tfs.GetModelMetadataRequest, self._metadata)},
        }

    def _reload(self, request: tfs.ReloadConfigRequest, context: grpc.ServicerContext) -> Message:
        with self._busy:
            configs = {config.name: config for config in request.config.model_config_list.config}
            for name in self._models.keys() - configs.keys():
                self._models[name].state = tfs.ModelVersionStatus.END
                self._models[name].status.error_code = tfs.StatusProto().error_code
            new = [
                config
                for name, config in configs.items()
                if name not in self._models or self._models[name].state == tfs.ModelVersionStatus.END
            ]
            while not all(Path(config.base_path).is_dir() for config in configs.values()):
                time.sleep(0.05)
            self._configs = configs
            failed = [config.name for config in new if not self._load(config)]
            if failed:
                context.abort(grpc.StatusCode.UNKNOWN, f"1 model(s) did not become available: {failed}")
        return tfs.ReloadConfigResponse()

    def _poll(self) -> None:
        if not all(Path(config.base_path).is_dir() for config in self._configs.values()):
            return
        for name, config in self._configs.items():
            status = self._models[name]
            listed = str(status.version) in os.listdir(config.base_path)
            if status.state == tfs.ModelVersionStatus.AVAILABLE and not listed:
                status.state = tfs.ModelVersionStatus.END

    def _load(self, config: tfs.ModelConfig) -> bool:
        (version,) = config.model_version_policy.specific.versions
        status = tfs.ModelVersionStatus(version=version, state=tfs.ModelVersionStatus.AVAILABLE)
        if is_broken(Path(config.base_path, str(version), "saved_model.pb")):
            status = tfs.ModelVersionStatus(version=version, state=tfs.ModelVersionStatus.END)
            status.status.error_code = 3  # type: ignore[assignment]
            status.status.error_message = f"{config.name} is broken"
        self._models[config.name] = status
        return status.state == tfs.ModelVersionStatus.AVAILABLE

    def _status(self, request: tfs.GetModelStatusRequest, context: grpc.ServicerContext) -> Message:
        self._poll()
        found = self._models.get(request.model_spec.name)
        if found is None or found.version != request.model_spec.version.value:
            context.abort(grpc.StatusCode.NOT_FOUND, "Could not find any versions of model")
        return tfs.GetModelStatusResponse(model_version_status=[found])

    def _metadata(self, request: tfs.GetModelMetadataRequest, context: grpc.ServicerContext) -> Message:
        signatures = tfs.SignatureDefMap()
        signatures.signature_def["serving_default"].inputs["x"].dtype = tf.DT_FLOAT
        response = tfs.GetModelMetadataResponse()
        response.metadata["signature_def"].Pack(signatures)
        return response


@dataclass
class _Registered:
    """A model, its own settings in TorchServe's words."""

    settings: dict[str, int]
    workers: list[dict[str, str]] = field(default_factory=list)

    def scale(self, workers: int) -> None:
        self.settings |= {"minWorkers": workers, "maxWorkers": workers}
        self.workers[:] = [{"id": str(9000 + number), "status": "READY"} for number in range(workers)]


class FakeTorchServe(FakeServer):
    """Models by name, listed in pages; a handler that fails leaves its model without a worker (ApiUtils.java)."""

    def forget(self) -> None:
        self.models: dict[str, _Registered] = {}

    def services(self) -> dict[str, dict[str, tuple[type[Message], Method]]]:
        return {
            "org.pytorch.serve.grpc.management.ManagementAPIsService": {
                "RegisterModel": (ts.RegisterModelRequest, self._register),
                "UnregisterModel": (ts.UnregisterModelRequest, self._unregister),
                "DescribeModel": (ts.DescribeModelRequest, self._describe),
                "ListModels": (ts.ListModelsRequest, self._list),
                "ScaleWorker": (ts.ScaleWorkerRequest, self._scale),
            }
        }

    def _register(self, request: ts.RegisterModelRequest, context: grpc.ServicerContext) -> Message:
        archive = self.store / request.url
        if "/" in request.url or not archive.is_file():
            context.abort(grpc.StatusCode.NOT_FOUND, f"Model not found at: {request.url}\nModelNotFoundException")
        if request.model_name in self.models:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Model version 1.0 is already registered")
        # As in ModelManager and ApiUtils: what is not asked for is as the archive says.
        with zipfile.ZipFile(archive) as packed:
            own = json.loads(packed.read("config.yaml")) if "config.yaml" in packed.namelist() else {}
        settings = {
            "batchSize": request.batch_size or own.get("batchSize", 1),
            "maxBatchDelay": request.max_batch_delay or own.get("maxBatchDelay", 100),
        }
        self.models[request.model_name] = registered = _Registered(settings)
        if is_broken(archive):
            context.abort(grpc.StatusCode.INTERNAL, f"Failed to start workers for model {request.model_name}")
        registered.scale(own.get("minWorkers") or request.initial_workers or 1)
        return ts.ManagementResponse(msg=f'Model "{request.model_name}" registered with 1 initial workers')

    def _unregister(self, request: ts.UnregisterModelRequest, context: grpc.ServicerContext) -> Message:
        if self.models.pop(request.model_name, None) is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Model not found: {request.model_name}")
        return ts.ManagementResponse(msg=f'Model "{request.model_name}" unregistered')

    def _describe(self, request: ts.DescribeModelRequest, context: grpc.ServicerContext) -> Message:
        found = self.models.get(request.model_name)
        if found is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Model not found: {request.model_name}")
        assert found
        described = {"modelName": request.model_name, **found.settings, "workers": found.workers}
        return ts.ManagementResponse(msg=json.dumps([described]))

    def _scale(self, request: ts.ScaleWorkerRequest, context: grpc.ServicerContext) -> Message:
        assert request.min_worker == request.max_worker
        self.models[request.model_name].scale(request.min_worker)
        return ts.ManagementResponse(msg=f"Workers scaled to {request.min_worker} for model: {request.model_name}")

    def _list(self, request: ts.ListModelsRequest, context: grpc.ServicerContext) -> Message:
        start, limit = request.next_page_token, min(request.limit, 100)
        page = sorted(self.models)[start : start + limit]
        answer: dict[str, Any] = {"models": [{"modelName": name} for name in page]}
        if start + limit < len(self.models):
            answer["nextPageToken"] = str(start + limit)
        return ts.ManagementResponse(msg=json.dumps(answer))
