"""The command line of tensorflow_model_server: every flag it has, with its default, and what becomes of each here.

Parsed before TensorFlow is imported, so that a mistake is reported at once (model_servers/main.cc, server.h).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

_CPUS = os.cpu_count() or 1


class FlagError(Exception):
    """The command line is wrong; the text names the flag."""


def _flag(default: Any, text: str, *, ignored: bool = False) -> Any:
    return field(default=default, metadata={"help": text, "ignored": ignored})


@dataclass(frozen=True)
class Flags:
    """One field per flag, of the same name; `ignored` ones are accepted, because deployments pass them."""

    port: int = _flag(8500, "port for gRPC; 0 for none")
    grpc_socket_path: str = _flag("", "UNIX socket for gRPC")
    rest_api_port: int = _flag(0, "port for REST; 0 for none")
    rest_api_num_threads: int = _flag(4 * _CPUS, "threads that answer REST requests")
    rest_api_timeout_in_ms: int = _flag(30000, "time limit of one model run over REST")
    rest_api_enable_cors_support: bool = _flag(False, "send CORS headers")
    model_name: str = _flag("default", "name of the model; not used with --model_config_file")
    model_base_path: str = _flag("", "directory of the model's versions; not used with --model_config_file")
    model_config_file: str = _flag("", "ModelServerConfig in text format")
    model_config_file_poll_wait_seconds: int = _flag(0, "seconds between reads of that file; 0 reads it once")
    file_system_poll_wait_seconds: int = _flag(1, "seconds between looks for versions; 0 looks once")
    num_load_threads: int = _flag(0, "threads that load; 0 loads one after the other")
    num_unload_threads: int = _flag(0, "threads that unload; 0 unloads one after the other")
    max_num_load_retries: int = _flag(5, "how often a failed load is tried again")
    load_retry_interval_micros: int = _flag(60_000_000, "microseconds between tries")
    allow_version_labels_for_unavailable_models: bool = _flag(False, "allow new labels on versions not yet available")
    grpc_channel_arguments: str = _flag("", "comma separated key=value pairs for the gRPC server")
    grpc_max_threads: int = _flag(4 * _CPUS, "threads that answer gRPC calls")
    enable_grpc_healthcheck_service: bool = _flag(False, "offer grpc.health.v1.Health")
    ssl_config_file: str = _flag("", "refused when set")
    saved_model_tags: str = _flag("serve", "comma separated tags of the meta graph to load")
    enable_model_warmup: bool = _flag(True, "replay assets.extra/tf_serving_warmup_requests at load")
    num_request_iterations_for_warmup: int = _flag(0, "how often each warm-up request is run, when above 0")
    enable_signature_method_name_check: bool = _flag(False, "check method_name of signatures")
    enable_serialization_as_tensor_content: bool = _flag(False, "answer Predict with tensor_content")
    tensorflow_session_parallelism: int = _flag(0, "threads of a session, intra and inter op")
    tensorflow_intra_op_parallelism: int = _flag(0, "threads within an op")
    tensorflow_inter_op_parallelism: int = _flag(0, "ops at the same time")
    tensorflow_session_config_file: str = _flag("", "ConfigProto in text format")
    enable_batching: bool = _flag(False, "batching: requests are run one by one", ignored=True)
    batching_parameters_file: str = _flag("", "BatchingParameters; needs --enable_batching", ignored=True)
    enable_per_model_batching_parameters: bool = _flag(False, "batching", ignored=True)
    version: bool = _flag(False, "print the version and exit")
    flush_filesystem_caches: bool = _flag(True, "no cache to flush", ignored=True)
    use_alts_credentials: bool = _flag(False, "refused when true")
    platform_config_file: str = _flag("", "refused when set")
    per_process_gpu_memory_fraction: float = _flag(0.0, "there is no GPU", ignored=True)
    monitoring_config_file: str = _flag("", "no Prometheus endpoint", ignored=True)
    remove_unused_fields_from_bundle_metagraph: bool = _flag(True, "memory", ignored=True)
    prefer_tflite_model: bool = _flag(False, "refused when true")
    num_tflite_pools: int = _flag(_CPUS, "TFLite", ignored=True)
    num_tflite_interpreters_per_pool: int = _flag(1, "TFLite", ignored=True)
    xla_cpu_compilation_enabled: bool = _flag(False, "XLA", ignored=True)
    xla_gpu_compilation_enabled: bool = _flag(False, "XLA", ignored=True)
    enable_profiler: bool = _flag(True, "no profiler service", ignored=True)
    thread_pool_factory_config_file: str = _flag("", "thread pools", ignored=True)
    mixed_precision: str = _flag("", "mixed precision", ignored=True)
    skip_initialize_tpu: bool = _flag(False, "there is no TPU", ignored=True)


def usage() -> str:
    """All flags with their defaults."""
    lines = ["usage: tensorflow_model_server [--flag=value ...]", "Flags:"]
    for entry in fields(Flags):
        ignored = " (accepted, without effect)" if entry.metadata["ignored"] else ""
        lines.append(f"  --{entry.name}={entry.default}\t{entry.metadata['help']}{ignored}")
    return "\n".join(lines)


def parse_flags(arguments: Sequence[str]) -> Flags:
    """Read `--flag=value`, `--flag value`, and `--flag` alone for a boolean; the last of a kind counts.

    Raises FlagError, which names the flag, for what is unknown, malformed, contradictory or not offered here.
    """
    types = {entry.name: type(entry.default) for entry in fields(Flags)}
    values: dict[str, Any] = {}
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name, equals, value = argument.removeprefix("-").removeprefix("-").partition("=")
        if not argument.startswith("-") or name not in types:
            raise FlagError(f"unknown argument: {argument}")
        if not equals:
            takes_next = bool(waiting) and not (types[name] is bool and waiting[0].lower() not in ("true", "false"))
            if not takes_next and types[name] is not bool:
                raise FlagError(f"--{name} needs a value: --{name}=<{types[name].__name__}>")
            value = waiting.pop(0) if takes_next else "true"
        values[name] = _convert(name, types[name], value)
    flags = Flags(**values)
    _check(flags)
    return flags


def _convert(name: str, kind: type, value: str) -> Any:
    if kind is bool:
        if value.lower() not in ("true", "false", "1", "0"):
            raise FlagError(f"--{name} takes true or false, not {value!r}")
        return value.lower() in ("true", "1")
    try:
        return kind(value)
    except ValueError as error:
        raise FlagError(f"--{name} takes a value of type {kind.__name__}, not {value!r}") from error


def _check(flags: Flags) -> None:
    if flags.version:
        return
    if flags.port == 0 and not flags.grpc_socket_path:
        raise FlagError("At least one of --port or --grpc_socket_path must be set.")
    if flags.port == flags.rest_api_port:
        raise FlagError("--rest_api_port cannot be the same as --port.")
    if not flags.model_base_path and not flags.model_config_file:
        raise FlagError("Both --model_base_path and --model_config_file are empty!")
    if flags.batching_parameters_file and not flags.enable_batching:
        raise FlagError("--batching_parameters_file is set without setting --enable_batching to true.")
    channel_arguments(flags.grpc_channel_arguments)
    parallelism = (flags.tensorflow_intra_op_parallelism, flags.tensorflow_inter_op_parallelism)
    if all(threads > 0 for threads in (*parallelism, flags.tensorflow_session_parallelism)):
        raise FlagError(
            "Either configure --tensorflow_session_parallelism or (--tensorflow_intra_op_parallelism, "
            "--tensorflow_inter_op_parallelism) separately. You cannot configure all."
        )
    for name in ("use_alts_credentials", "ssl_config_file", "platform_config_file", "prefer_tflite_model"):
        if getattr(flags, name):
            raise FlagError(f"--{name} is not offered by this stand-in; use the real tensorflow_model_server")


def channel_arguments(text: str) -> dict[str, int | str]:
    """`key=value,key=value` as gRPC wants it: whole numbers as int, anything else as text."""
    found: dict[str, int | str] = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise FlagError(f"--grpc_channel_arguments wants key=value pairs, not {pair!r}")
        try:
            found[key] = int(value)
        except ValueError:
            found[key] = value
    return found
