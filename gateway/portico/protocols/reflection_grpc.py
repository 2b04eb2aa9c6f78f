"""gRPC server reflection, by which grpcurl, grpcui and the like find out what can be called.

The messages of v1 and v1alpha differ in nothing but their package, so both are answered alike. Source:
grpc/doc/server-reflection.md.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any

from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection, reflection_pb2

from portico.edges.grpc import Call, Method
from portico.errors import InvalidRequest

ALPHA = "grpc.reflection.v1alpha.ServerReflection"
_SERVICES = ("grpc.reflection.v1.ServerReflection", ALPHA)


class ReflectionGrpc:
    """`services` are the full names of those that can be called; their descriptors are in protobuf's default pool."""

    def __init__(self, services: Iterable[str]) -> None:
        # Listed is what can be described; of v1 there is no descriptor. The stubs take its generator for a coroutine.
        self._servicer: Any = reflection.aio.ReflectionServicer([*services, ALPHA])

    def methods(self) -> Iterable[Method]:
        for service in _SERVICES:
            yield Method(f"/{service}/ServerReflectionInfo", both=self.info, lasting=True)

    async def info(self, messages: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes]:
        async for response in self._servicer.ServerReflectionInfo(_requests(messages), None):
            yield response.SerializeToString()


async def _requests(messages: AsyncIterator[bytes]) -> AsyncGenerator[reflection_pb2.ServerReflectionRequest]:
    async for message in messages:
        try:
            yield reflection_pb2.ServerReflectionRequest.FromString(message)
        except DecodeError as error:
            raise InvalidRequest(f"The message is no ServerReflectionRequest: {error}.") from error
