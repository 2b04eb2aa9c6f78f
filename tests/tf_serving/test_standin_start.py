"""Starting and ending: flags, ports, what an initial model can do to the start, polling of the config file."""

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from standin_process import StandIn, Start, command, environment, free_port, model_config, put_version, spec

Half = Callable[..., Path]


def run(*flags: str) -> tuple[int, str]:
    """Run the stand-in to its end; exit code and all that it wrote."""
    done = subprocess.run(
        command(*flags), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, text=True
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--no_such_flag=1", "--model_base_path=/x"), "unknown argument: --no_such_flag=1"),
        (("model",), "unknown argument: model"),
        (("--port=eight", "--model_base_path=/x"), "--port takes a value of type int, not 'eight'"),
        (("--model_base_path",), "--model_base_path needs a value"),
        (("--enable_batching=perhaps", "--model_base_path=/x"), "--enable_batching takes true or false"),
        ((), "Both --model_base_path and --model_config_file are empty!"),
        (("--port=0", "--model_base_path=/x"), "At least one of --port or --grpc_socket_path must be set."),
        (("--batching_parameters_file=/x", "--model_base_path=/x"), "without setting --enable_batching"),
        (("--platform_config_file=/x", "--model_base_path=/x"), "--platform_config_file is not offered"),
        (("--port=9", "--rest_api_port=9", "--model_base_path=/x"), "--rest_api_port cannot be the same as --port"),
        (("--ssl_config_file=/x", "--model_base_path=/x"), "--ssl_config_file is not offered"),
        (("--grpc_channel_arguments=x", "--model_base_path=/x"), "--grpc_channel_arguments wants key=value pairs"),
    ],
)
def test_wrong_flags_are_named(flags: tuple[str, ...], text: str) -> None:
    """A command line that cannot work ends at once with exit code 1 and names the flag."""
    code, output = run(*flags)
    assert (code, text in output) == (1, True), output


def test_help_lists_every_flag() -> None:
    """--help tells the flags with their defaults."""
    code, output = run("--help")
    assert code == 0
    assert "--port=8500" in output
    assert "--file_system_poll_wait_seconds=1" in output


def test_flags_that_deployments_pass_are_taken(start: Start, half: Half) -> None:
    """One model by name and path, flags in both forms, and those that tune the real server do no harm."""
    server = start(
        "--model_name", "named", "--model_base_path", str(half(1, 2)), "--enable_batching", "--version=false",
        "--grpc_channel_arguments=grpc.max_receive_message_length=100000,grpc.max_connection_age_ms=600000",
        "--tensorflow_session_parallelism=1", "--max_num_load_retries=0", "--load_retry_interval_micros=1000",
        "--rest_api_timeout_in_ms=5000", "--grpc_max_threads=4", "--rest_api_num_threads=2",
        "--allow_version_labels_for_unavailable_models=true", "--enable_grpc_healthcheck_service",
        "--rest_api_enable_cors_support",
    ).wait_ready()  # fmt: skip
    assert server.half(1, spec("named")) == (3.5, 2)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        # HealthCheckRequest for PredictionService, and status SERVING, as bytes on the wire
        health = channel.unary_unary("/grpc.health.v1.Health/Check")(b"\x0a\x11PredictionService", timeout=10)
        assert health == b"\x08\x01"
    labelled = model_config("named", half(), "specific 1", old=1)
    assert server.reload(labelled).status.error_code == 0
    server.wait_for_states("named", {2: "END", 1: "AVAILABLE"})
    assert server.half(1, spec("named", label="old")) == (2.5, 1)
    assert server.stop() == 0
    assert "Traceback" not in server.log()


def test_initial_model_that_cannot_be_loaded_ends_the_server(start: Start, models: Path) -> None:
    """After its retries a bad initial model ends the server with exit code 1 and the reason."""
    server = start(
        f"--model_base_path={models / 'broken'}", "--max_num_load_retries=1", "--load_retry_interval_micros=1000"
    )
    log = server.wait_for_log("Failed to start server")
    assert "Retrying of Loading servable: {name: default version: 1} retry: 1" in log
    assert "1 servable(s) did not become available: {{{name: default version: 1} due to error: " in log
    assert server.process.wait(timeout=15) == 1


@pytest.mark.parametrize("exists", [False, True])
def test_initial_model_without_versions_is_awaited(start: Start, half: Half, models: Path, exists: bool) -> None:
    """With no version, or no base path, yet, no port is open; the server starts once there is one."""
    base = half()
    if not exists:
        base.rmdir()
    server = start(f"--model_base_path={base}")
    server.wait_for_log("No versions of servable default" if exists else "Could not find base path")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
    base.mkdir(exist_ok=True)
    put_version(models, base, 1)
    server.wait_ready()
    assert server.half(1, spec("default")) == (2.5, 1)


def test_config_file_is_read_again(start: Start, half: Half, tmp_path: Path) -> None:
    """With a poll interval a changed config file is taken over, and one that is wrong changes nothing."""
    base, file = half(1), tmp_path / "models.config"
    entry = f'config {{ name: "%s" base_path: "{base}" model_platform: "tensorflow" }}'
    file.write_text(f"model_config_list {{ {entry % 'first'} }}")
    server = start(f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=1").wait_ready()
    file.write_text("model_config_list {")
    server.wait_for_log("PollFilesystemAndReloadConfig failed to ReloadConfig")
    assert server.half(1, spec("first")) == (2.5, 1)
    file.write_text(f"model_config_list {{ {entry % 'second'} }}")
    server.wait_for_states("second", {1: "AVAILABLE"})
    server.wait_for_states("first", {1: "END"})


def test_ports_in_use_are_named(server: StandIn, models: Path) -> None:
    """A port that is taken, gRPC's or REST's, ends the server with exit code 1 and names the flag."""
    base = f"--model_base_path={models / 'half'}"
    code, output = run(base, f"--port={server.port}")
    assert (code, f"Cannot listen for gRPC at 127.0.0.1:{server.port}" in output) == (1, True), output
    code, output = run(base, f"--port={free_port()}", f"--rest_api_port={server.rest_port}")
    assert (code, f"Cannot listen for REST at 127.0.0.1:{server.rest_port}" in output) == (1, True), output


def test_sigterm_ends_a_server_that_waits(start: Start, half: Half) -> None:
    """SIGTERM ends the server cleanly, also while it still waits for its initial model."""
    server = start(f"--model_base_path={half()}")
    server.wait_for_log("No versions of servable default")
    assert server.stop() == 0
