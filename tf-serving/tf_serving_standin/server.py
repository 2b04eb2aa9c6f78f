"""The composition root: flags in, a running server out, and its orderly end.

Called by the command line after TensorFlow is imported; the only module that knows all the others.
"""

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING

import grpc
from google.protobuf import text_format
from tensorflow.core.protobuf.config_pb2 import ConfigProto
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tf_serving_standin.core import CoreOptions, ServerCore
from tf_serving_standin.errors import Code, ServingError, invalid_argument
from tf_serving_standin.flags import Flags, channel_arguments
from tf_serving_standin.grpc_edge import build_grpc_server
from tf_serving_standin.lifecycle import RetryPolicy
from tf_serving_standin.model_config import read_model_config, single_model_config
from tf_serving_standin.ports import bind_address, port_complaint
from tf_serving_standin.saved_model import SavedModel
from tf_serving_standin.service import Service
from tf_serving_standin.states import ServableId
from tf_serving_standin.warmup import warm_up

if TYPE_CHECKING:
    from tf_serving_standin.rest_edge import RestServer

_log = logging.getLogger(__name__)


class ModelServer:
    """Both protocols over one core; `run` serves until `stop` is called from a signal handler or another thread."""

    def __init__(self, flags: Flags) -> None:
        self._flags = flags
        self._host = bind_address()
        self._stopping = threading.Event()
        self._core: ServerCore[SavedModel] = ServerCore(partial(_load, flags, _session_config(flags)), _options(flags))
        self._service = Service(
            self._core,
            tensors_as_content=flags.enable_serialization_as_tensor_content,
            check_method_names=flags.enable_signature_method_name_check,
        )

    def request_stop(self) -> None:
        """Make `run` end; safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Load the initial models, open the ports, serve until stopped.

        Like the real server it waits for the initial models without a time limit and opens no port before.
        Raises ServingError when the config is refused, an initial model cannot be loaded, or a port cannot be had.
        """
        watcher = threading.Thread(target=self._stop_core_when_asked, name="stop", daemon=True)
        watcher.start()
        try:
            self._core.reload(self._initial_config())
        except ServingError:
            if self._stopping.is_set():
                return
            raise
        grpc_server = self._start_grpc()
        try:
            self._serve(grpc_server)
        finally:
            grpc_server.stop(grace=1).wait(timeout=3)
            self._stopping.set()
            watcher.join(timeout=6)

    def _stop_core_when_asked(self) -> None:
        self._stopping.wait()
        self._core.stop()

    def _serve(self, grpc_server: grpc.Server) -> None:
        rest = self._start_rest()
        try:
            poll_seconds = self._flags.model_config_file_poll_wait_seconds
            if self._flags.model_config_file and poll_seconds > 0:
                while not self._stopping.is_set():
                    self._poll_config()
                    self._stopping.wait(poll_seconds)
            self._stopping.wait()
        finally:
            if rest is not None:
                rest.stop()

    def _initial_config(self) -> ModelServerConfig:
        if self._flags.model_config_file:
            return read_model_config(self._flags.model_config_file)
        return single_model_config(self._flags.model_name, self._flags.model_base_path)

    def _poll_config(self) -> None:
        try:
            self._core.reload(read_model_config(self._flags.model_config_file), abandoned=self._stopping.is_set)
        except ServingError as error:
            if not self._stopping.is_set():
                _log.error("PollFilesystemAndReloadConfig failed to ReloadConfig: %s", error.message)

    def _start_grpc(self) -> grpc.Server:
        server = build_grpc_server(
            self._service,
            threads=max(2, self._flags.grpc_max_threads),
            channel_arguments=channel_arguments(self._flags.grpc_channel_arguments),
            health=self._flags.enable_grpc_healthcheck_service,
        )
        addresses = [f"{self._host}:{self._flags.port}"] if self._flags.port else []
        if self._flags.grpc_socket_path:
            addresses.append(f"unix:{self._flags.grpc_socket_path}")
        for address in addresses:
            try:
                server.add_insecure_port(address)
            except RuntimeError as error:
                raise _unavailable(port_complaint("gRPC", "--port", self._flags.port, error)) from error
        server.start()
        for address in addresses:
            _log.info("Running gRPC ModelServer at %s ...", address)
        return server

    def _start_rest(self) -> "RestServer | None":
        flags = self._flags
        if flags.rest_api_port == 0:
            return None
        # Imported here because a server without REST needs no HTTP server.
        from tf_serving_standin.rest_edge import RestHandler, RestOptions, RestServer

        timeout_ms = max(0, flags.rest_api_timeout_in_ms)
        options = RestOptions(
            self._host,
            flags.rest_api_port,
            max(1, flags.rest_api_num_threads),
            timeout_ms,
            flags.rest_api_enable_cors_support,
        )
        server = RestServer(RestHandler(self._service, timeout_ms), options)
        try:
            server.start()
        except OSError as error:
            raise _unavailable(port_complaint("REST", "--rest_api_port", flags.rest_api_port, error)) from error
        _log.info("Exporting HTTP/REST API at:%s:%d ...", self._host, flags.rest_api_port)
        return server


def _unavailable(text: str) -> ServingError:
    return ServingError(Code.UNAVAILABLE, text)


def _options(flags: Flags) -> CoreOptions:
    return CoreOptions(
        file_system_poll_seconds=flags.file_system_poll_wait_seconds,
        load_threads=flags.num_load_threads,
        unload_threads=flags.num_unload_threads,
        retries=RetryPolicy(flags.max_num_load_retries, flags.load_retry_interval_micros / 1e6),
        labels_for_unavailable_models=flags.allow_version_labels_for_unavailable_models,
    )


def _session_config(flags: Flags) -> ConfigProto:
    config = ConfigProto()
    if flags.tensorflow_session_config_file:
        try:
            with open(flags.tensorflow_session_config_file, encoding="utf-8") as file:
                text_format.Parse(file.read(), config)
        except (OSError, text_format.ParseError) as error:
            raise invalid_argument(f"--tensorflow_session_config_file: {error}") from error
    both = flags.tensorflow_session_parallelism
    config.intra_op_parallelism_threads = flags.tensorflow_intra_op_parallelism or both
    config.inter_op_parallelism_threads = flags.tensorflow_inter_op_parallelism or both
    return config


def _load(flags: Flags, session_config: ConfigProto, servable_id: ServableId, path: str) -> SavedModel:
    model = SavedModel.load(path, flags.saved_model_tags.split(","), session_config)
    try:
        if flags.enable_model_warmup:
            warm_up(model, path, max(1, flags.num_request_iterations_for_warmup))
    except Exception:
        model.close()
        raise
    _log.info("Loaded %s from %s", servable_id, path)
    return model
