"""MultiInference: several signatures of one model, asked with the same examples. Used by TF Serving's gRPC protocol.

Source: servables/tensorflow/multi_inference.cc, whose error texts are used here. TF Serving runs the tasks in one pass;
here each is a call of its own, so that each is cached.
"""

import asyncio
from collections.abc import Iterable

from portico.dispatch import Answer, Dispatcher
from portico.edges.grpc import Abort, Call
from portico.edges.status import GrpcCode
from portico.errors import InvalidRequest
from portico.freshness import CacheStatus
from portico.protocols import tf_serving_models as models
from portico.protocols.tf_serving_tasks import CLASSIFY, REGRESS, ask, task_signature
from portico.routing import DEFAULT_SIGNATURE, Route
from portico.wire import tf_serving_pb2 as tfs

_MISSING = "Requested signature not found in model graph: {name}"


async def multi_inference(
    dispatcher: Dispatcher, route: Route, request: tfs.MultiInferenceRequest, call: Call
) -> tuple[CacheStatus, tfs.MultiInferenceResponse]:
    """One result for each task, in their order. The first task's model and version are those of all.

    Raises any PorticoError, and Abort for a task that is neither of the two.
    """
    _check(route, request)

    async def result(task: tfs.InferenceTask) -> tuple[Answer, tfs.InferenceResult]:
        name = task.model_spec.signature_name
        spec = models.spec(route, name)
        if task.method_name == CLASSIFY.method:
            answer, classes = await ask(dispatcher, CLASSIFY, route, name, request.input, call.deadline, call)
            return answer, tfs.InferenceResult(model_spec=spec, classification_result=classes)
        answer, values = await ask(dispatcher, REGRESS, route, name, request.input, call.deadline, call)
        return answer, tfs.InferenceResult(model_spec=spec, regression_result=values)

    try:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(result(task)) for task in request.tasks]
    except ExceptionGroup as failed:  # not except*, which before Python 3.11.4 wraps what it raises
        raise failed.exceptions[0] from None
    results = [task.result() for task in asked]
    response = tfs.MultiInferenceResponse(results=[entry for _, entry in results])
    return _status(answer.cache for answer, _ in results), response


def _check(route: Route, request: tfs.MultiInferenceRequest) -> None:
    """Raises InvalidRequest or Abort before any task is asked."""
    names: set[str] = set()
    for task in request.tasks:
        if not task.model_spec.name:
            raise InvalidRequest("Found ModelSpec with an empty model name.")
        if task.model_spec.name != request.tasks[0].model_spec.name:
            raise InvalidRequest("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in names:
            raise InvalidRequest(f"Duplicate evaluation of signature: {name}")
        names.add(name)
        signature = task_signature(route, name, _MISSING)
        if task.method_name == CLASSIFY.method:
            CLASSIFY.outputs(signature)
        elif task.method_name == REGRESS.method:
            REGRESS.outputs(signature)
        else:
            raise Abort(GrpcCode.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")


def _status(found: Iterable[CacheStatus]) -> CacheStatus:
    """What is true of all: a hit only if each was one."""
    statuses = set(found)
    worst = (CacheStatus.BYPASS, CacheStatus.MISS, CacheStatus.COALESCED, CacheStatus.HIT)
    return next(status for status in worst if status in statuses)
