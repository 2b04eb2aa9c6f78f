"""What upstream publishes about its wire, as file descriptors; read by test_wire.py. Upstream's modules are read and
never imported: they would claim the same names in the descriptor pool as ours, and TensorFlow takes seconds to load.
"""

import ast
import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

from google.protobuf import any_pb2, wrappers_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

ROOT = Path(__file__).resolve().parents[2]
WELL_KNOWN = (any_pb2.DESCRIPTOR, wrappers_pb2.DESCRIPTOR)
TENSORFLOW_FOLDERS = (
    "tensorflow_serving",
    "tensorflow/core/example",
    "tensorflow/core/framework",
    "tensorflow/core/protobuf",
    # Installed under tensorflow/compiler, though its files call themselves xla/tsl/protobuf/….
    "tensorflow/compiler/xla/tsl/protobuf",
)


def tf_serving() -> list[FileDescriptorProto]:
    """The files behind TF Serving's two services, from the environment of the stand-in (or PORTICO_TF_PYTHON)."""
    packages = site_packages("PORTICO_TF_PYTHON", ".venv/tf-serving/bin/python")
    known = generated(packages / folder for folder in TENSORFLOW_FOLDERS)
    services = ("prediction_service", "model_service")
    return closure(known, [f"tensorflow_serving/apis/{service}.proto" for service in services])


def torchserve(scratch: Path) -> list[FileDescriptorProto]:
    """The files of both TorchServe APIs, from the jar in its environment (or PORTICO_TORCH_PYTHON)."""
    packages = site_packages("PORTICO_TORCH_PYTHON", ".venv/torchserve/bin/python")
    with zipfile.ZipFile(packages / "ts/frontend/model-server.jar") as jar:
        jar.extractall(scratch, [name for name in jar.namelist() if name.endswith(".proto")])
    return compiled(scratch, ["proto/inference.proto", "proto/management.proto"])


def open_inference() -> list[FileDescriptorProto]:
    """The files behind Triton's service, from tritonclient in this environment."""
    return closure(generated([installed("tritonclient") / "grpc"]), ["grpc_service.proto"])


def health() -> list[FileDescriptorProto]:
    """The file of gRPC's health service, from grpcio-health-checking in this environment."""
    return closure(generated([installed("grpc_health") / "v1"]), ["grpc_health/v1/health.proto"])


def compiled(folder: Path, names: Iterable[str]) -> list[FileDescriptorProto]:
    """The .proto files `names` of `folder` and everything they import, imports first."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", "--include_imports"]
    command += ["--descriptor_set_out=/dev/stdout", *names]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return list(FileDescriptorSet.FromString(done.stdout).file)


def site_packages(variable: str, default: str) -> Path:
    """The folder of packages of the Python that `variable` names, or else `default` below the repository's root."""
    python = Path(os.environ.get(variable) or ROOT / default)
    assert python.exists(), f"there is no Python at {python}: run `make setup`, or set {variable} to one"
    ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"]
    return Path(subprocess.run(ask, capture_output=True, timeout=60, check=True, text=True).stdout.strip())


def installed(package: str) -> Path:
    """The folder of a package of this environment, found without importing it."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is not installed: run `make setup`"
    return Path(str(spec.origin)).parent


def generated(folders: Iterable[Path]) -> dict[str, FileDescriptorProto]:
    """The files from which the `*_pb2.py` modules in and below `folders` were generated, by name."""
    files = [embedded(module) for folder in folders for module in sorted(folder.rglob("*_pb2.py"))]
    return {file.name: file for file in files}


def embedded(module: Path) -> FileDescriptorProto:
    """The file descriptor that protoc wrote into a generated module as a literal."""
    for node in ast.walk(ast.parse(module.read_bytes())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".AddSerializedFile"):
            return FileDescriptorProto.FromString(ast.literal_eval(node.args[0]))
    raise AssertionError(f"{module} holds no descriptor: does this protoc write its modules in another form?")


def closure(known: dict[str, FileDescriptorProto], names: Iterable[str]) -> list[FileDescriptorProto]:
    """The files `names` and everything they import, imports first."""
    well_known = {file.name: FileDescriptorProto.FromString(file.serialized_pb) for file in WELL_KNOWN}
    found: dict[str, FileDescriptorProto] = {}

    def visit(name: str) -> None:
        if name not in found:
            file = (known | well_known)[name]
            for imported in file.dependency:
                visit(imported)
            found[name] = file

    for name in names:
        visit(name)
    return list(found.values())
