"""Asks once before it is measured, so that it is known to be right, and how long the answer is."""

import http.client
import struct
import time
from typing import Any

import grpc
from bodies import NUMBER
from cases import Side
from loads import WrongAnswers
from stage import Target

PATIENCE = 30.0
"""Seconds until the answer has to be right."""
WORTH_TELLING = 2.0
PREFIX = 5
"""Bytes in front of each gRPC message."""
STATUSES = {"hit_memory": "HIT", "hit_redis": "HIT", "bypass": "BYPASS"}
"""The x-cache of what is asked for twice."""
RIGHT = str(2 * NUMBER).encode(), struct.pack("<f", 2 * NUMBER)
"""One of these is in every right answer."""


def answer_size(side: Side, target: Target) -> int:
    """Bytes of the answer's body. Raises WrongAnswers if it is not what it should be within `PATIENCE`."""
    if side.size is not None:
        return side.size
    wanted = {STATUSES[result] for result in side.expected if len(side.expected) == 1 and result in STATUSES}
    began = time.monotonic()
    while True:
        try:
            status, body = (_grpc if side.load.http == 2 else _http)(side, target)
            if not any(number in body for number in RIGHT):
                raise WrongAnswers(f"{side.name}: the answer is {body[:300]!r}")
            if wanted and status not in wanted:
                raise WrongAnswers(f"{side.name}: x-cache is {status}, not {wanted}")
            return len(body) + (PREFIX if side.load.http == 2 else 0)
        except WrongAnswers as error:
            waited = time.monotonic() - began
            if waited > PATIENCE:
                raise
            if waited > WORTH_TELLING:
                print(f"waiting since {waited:.0f} s: {error}", flush=True)
            time.sleep(0.5)


def _http(side: Side, target: Target) -> tuple[str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
    try:
        connection.request("POST", side.load.path, side.load.body.data, dict(side.load.all_headers))
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise WrongAnswers(f"{side.name}: {answer.status} {body[:300]!r}")
    return answer.getheader("x-cache", ""), body


def _grpc(side: Side, target: Target) -> tuple[str, bytes]:
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{target.port}", options) as channel:
        call: Any = channel.unary_unary(side.load.path)
        try:
            answer, done = call.with_call(side.load.body.data[PREFIX:], metadata=side.load.headers, timeout=60)
        except grpc.RpcError as error:
            raise WrongAnswers(f"{side.name}: {error}") from None
        return str(dict(done.initial_metadata()).get("x-cache", "")), answer
