"""What tools use beside inference: gRPC's health and reflection, by their own clients, and gRPC-Web from Node."""

import shutil
from pathlib import Path

import pytest
import third_party
from door import Door
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from portico.wire import health_pb2, tf_serving_pb2

SERVING = 1


def test_health_and_reflection_clients(door: Door) -> None:
    """grpcio's health client sees the gateway, models and services; its reflection client lists the services, and calls
    a model by what reflection told it alone."""
    told = third_party.run("health_and_reflection.py", door.address)
    assert set(told["checked"].values()) == {SERVING}
    assert (told["absent"], told["watched"]) == ("NOT_FOUND", SERVING)
    assert {"inference.GRPCInferenceService", "tensorflow.serving.PredictionService"} <= set(told["services"])
    assert (told["model"], told["outputs"]) == ("iris", ["probabilities", "species"])


@pytest.mark.skipif(shutil.which("npm") is None, reason="Node is not installed")
def test_grpc_web_from_node(door: Door, tmp_path: Path) -> None:
    """A gRPC-Web client calls the same services through the same port: unary, an error, a stream."""
    files = FileDescriptorSet()
    _collect(health_pb2.DESCRIPTOR, files, set())
    _collect(tf_serving_pb2.DESCRIPTOR, files, set())
    descriptors = tmp_path / "descriptors.binpb"
    descriptors.write_bytes(files.SerializeToString())
    told = third_party.run_node("grpc_web.mjs", f"http://{door.address}", str(descriptors))
    assert (told["status"], told["watched"]) == (SERVING, [SERVING])
    assert told["refused"]["code"] == "NotFound"
    assert "no model and no service named 'absent'" in told["refused"]["message"]
    assert (told["model"], told["outputs"]) == ("iris", ["probabilities", "species"])


def _collect(file: object, files: FileDescriptorSet, seen: set[str]) -> None:
    """Adds a file after those that it imports."""
    if file.name in seen:  # type: ignore[attr-defined]
        return
    seen.add(file.name)  # type: ignore[attr-defined]
    for imported in file.dependencies:  # type: ignore[attr-defined]
        _collect(imported, files, seen)
    file.CopyToProto(files.file.add())  # type: ignore[attr-defined]
