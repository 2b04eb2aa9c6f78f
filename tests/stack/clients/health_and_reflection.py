"""The clients of grpcio-health-checking and grpcio-reflection. Called with host:port; prints JSON."""

import json
import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

PREDICTION = "tensorflow.serving.PredictionService"


def health(channel: grpc.Channel) -> dict[str, object]:
    """Statuses by Check, the code for what is not there, and the first answer of Watch."""
    stub = health_pb2_grpc.HealthStub(channel)
    checked = {
        service: stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status
        for service in ("", "iris", "digits", PREDICTION)
    }
    try:
        stub.Check(health_pb2.HealthCheckRequest(service="absent"), timeout=20)
        absent = "OK"
    except grpc.RpcError as error:
        absent = error.code().name
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="iris"), timeout=20)
    watched = next(watch).status
    watch.cancel()
    return {"checked": checked, "absent": absent, "watched": watched}


def reflection(channel: grpc.Channel) -> dict[str, object]:
    """The services, and a call of one that the client knew nothing of beforehand."""
    database = ProtoReflectionDescriptorDatabase(channel)
    services = sorted(database.get_services())
    pool = descriptor_pool.DescriptorPool(database)
    method = pool.FindServiceByName(PREDICTION).FindMethodByName("Predict")
    kinds = [message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type)]
    request = kinds[0]()
    request.model_spec.name = "iris"
    tensor = request.inputs["measurements"]
    tensor.dtype = 1
    for size in (1, 4):
        tensor.tensor_shape.dim.add().size = size
    tensor.float_val.extend([5.1, 3.5, 1.4, 0.2])
    encode, decode = kinds[0].SerializeToString, kinds[1].FromString
    call = channel.unary_unary(f"/{PREDICTION}/Predict", request_serializer=encode, response_deserializer=decode)
    answer = call(request, timeout=20)
    return {"services": services, "model": answer.model_spec.name, "outputs": sorted(answer.outputs)}


with grpc.insecure_channel(sys.argv[1]) as opened:
    print(json.dumps({**health(opened), **reflection(opened)}))
