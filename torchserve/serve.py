"""Becomes TorchServe: replaces this process by its Java frontend, configured by the files beside this one.

Run in the container and by `make run` with the Python that has TorchServe installed (3.9 or later). TorchServe's own
launcher stays in front as a parent that passes no signal on: stopped, it leaves Java and the workers behind.

Environment: TEMP is required, an existing folder for this instance alone; JAVA_HOME, else `java` on PATH, 11 or later;
every TS_* setting (see config.properties); JDK_JAVA_OPTIONS for more JVM flags; MANAGEMENT_HOST, a name that stands for
this machine in the one network that management by gRPC is to answer in, without which it answers on loopback alone.
"""

import fcntl
import importlib.util
import os
import shutil
import socket
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CONFIG = HERE / "config.properties"
LOGGING = HERE / "log4j2.xml"
# Linux takes 107 bytes for the path of a socket, and workers listen on <scratch>/.ts.sock.<number>.
LONGEST_SCRATCH = 107 - len("/.ts.sock.65535")


def main() -> None:
    """Never returns; exits with a message that says what to do when something needed is missing."""
    scratch = claim_scratch()
    java = find_java()
    home = packages_folder()
    environment = {
        **os.environ,
        **management(os.environ.get("MANAGEMENT_HOST", "")),
        "TEMP": str(scratch),
        "TMPDIR": str(scratch),
        # By default idle OpenMP threads spin, which costs a worker most of its CPU time when cores are shared.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }
    os.chdir(scratch)
    os.execve(  # noqa: S606 - becoming it is the point
        java,
        [
            str(java),
            *vm_flags(CONFIG),
            f"-Dmodel_server_home={home}",
            f"-Djava.io.tmpdir={scratch}",
            f"-Dlog4j.configurationFile={LOGGING.as_uri()}",
            "-cp",
            str(home / "ts" / "frontend" / "*"),
            "org.pytorch.serve.ModelServer",
            "--python",
            sys.executable,
            "--ts-config-file",
            str(CONFIG),
            # Otherwise it writes what is registered to a file, and a restart registers it again behind our back.
            "--no-config-snapshot",
        ],
        environment,
    )


def claim_scratch() -> Path:
    """An empty folder in TEMP, locked while this process lives; what an earlier one unpacked there is removed."""
    if not os.environ.get("TEMP"):
        raise SystemExit("set TEMP to a folder that belongs to this TorchServe alone")
    scratch = Path(os.environ["TEMP"]).resolve() / "torchserve"
    if len(os.fsencode(scratch)) > LONGEST_SCRATCH:
        raise SystemExit(f"TEMP is too long for the workers' sockets: {scratch} has more than {LONGEST_SCRATCH} bytes")
    try:
        lock = os.open(scratch.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SystemExit(f"TEMP must be a folder that can be written to: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(f"another TorchServe uses {scratch}: give this one a TEMP of its own") from None
    os.set_inheritable(lock, True)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    return scratch


def find_java() -> Path:
    """JAVA_HOME's java, else the one on PATH."""
    home = os.environ.get("JAVA_HOME")
    if home:
        java = Path(home) / "bin" / "java"
        if not os.access(java, os.X_OK):
            raise SystemExit(f"JAVA_HOME is set, but there is no {java}")
        return java
    on_path = shutil.which("java")
    if not on_path:
        raise SystemExit("there is no java on PATH: install Java 11 or later, or set JAVA_HOME")
    return Path(on_path)


def packages_folder() -> Path:
    """Where TorchServe's package `ts` is installed, found without importing it, which would load PyTorch."""
    spec = importlib.util.find_spec("ts")
    if spec is None or spec.origin is None:
        raise SystemExit(f"{sys.executable} has no TorchServe: install torchserve/requirements.lock for it")
    return Path(spec.origin).parents[1]


def management(name: str) -> "dict[str, str]":
    """Settings that let management answer at that of a name's addresses which is this machine's, if there is a name."""
    if not name:
        return {}
    try:
        found = sorted({entry[4][0] for entry in socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)})
    except OSError as error:
        raise SystemExit(f"MANAGEMENT_HOST is {name}, which cannot be resolved: {error}") from error
    for address in found:
        with socket.socket() as probe:
            try:
                probe.bind((address, 0))
            except OSError:  # another replica's
                continue
            return {"TS_GRPC_MANAGEMENT_ADDRESS": address}
    raise SystemExit(f"MANAGEMENT_HOST is {name}, and none of its addresses is this machine's: {', '.join(found)}")


def vm_flags(config: Path) -> "list[str]":
    """The JVM flags of the file's `vmargs`, which TorchServe leaves to its launcher."""
    for line in config.read_text().splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "vmargs":
            return value.split()
    return []


if __name__ == "__main__":
    main()
