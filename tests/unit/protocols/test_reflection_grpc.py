"""gRPC reflection, as grpcurl asks it."""

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from asgi_client import grpc_exchange
from sample_gateway import SampleGateway

SERVICES = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
    "inference.GRPCInferenceService",
    "org.pytorch.serve.grpc.inference.InferenceAPIsService",
    "tensorflow.serving.ModelService",
    "tensorflow.serving.PredictionService",
}
BOTH = pytest.mark.parametrize("version", ["v1", "v1alpha"])


async def ask(
    gateway: SampleGateway, version: str, *requests: ServerReflectionRequest
) -> list[ServerReflectionResponse]:
    path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    answer = await grpc_exchange(path, [request.SerializeToString() for request in requests]).run(gateway.grpc_edge)
    return [ServerReflectionResponse.FromString(message) for message in answer.messages]


@BOTH
async def test_services_are_listed_and_each_can_be_described(gateway: SampleGateway, version: str) -> None:
    """Everything that can be called is listed, and nothing is listed whose description is missing."""
    (listed,) = await ask(gateway, version, ServerReflectionRequest(list_services="*"))
    names = {service.name for service in listed.list_services_response.service}
    assert names == SERVICES
    asked = [ServerReflectionRequest(file_containing_symbol=name) for name in sorted(names)]
    for name, response in zip(sorted(names), await ask(gateway, version, *asked), strict=True):
        raw = response.file_descriptor_response.file_descriptor_proto
        files = [FileDescriptorProto.FromString(data) for data in raw]
        assert name in {f"{file.package}.{service.name}" for file in files for service in file.service}
        known = {file.name for file in files}
        assert all(set(file.dependency) <= known for file in files), "a file's imports come with it"


@BOTH
async def test_what_is_not_there(gateway: SampleGateway, version: str) -> None:
    """A symbol that there is not is an error in its own answer, and the stream goes on."""
    absent, empty, listed = await ask(
        gateway,
        version,
        ServerReflectionRequest(file_containing_symbol="absent.Service"),
        ServerReflectionRequest(),
        ServerReflectionRequest(list_services="*"),
    )
    assert (absent.error_response.error_code, empty.error_response.error_code) == (5, 3)
    assert len(listed.list_services_response.service) == len(SERVICES)
