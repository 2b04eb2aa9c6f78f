"""Puts a load on a port, with wrk for HTTP/1.1 and h2load for HTTP/2 where this machine has them, else with the
generator of our own, `load.py`; and tells what came of it. Raises WrongAnswers rather than counting errors.
"""

import json
import math
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bodies import Body
from load import Plan
from machine import pin

HERE = Path(__file__).parent
PATIENCE = 60
HTTP2_CONNECTIONS = 1
"""Over so many connections the calls of a load over HTTP/2 go: a gRPC client has one for all of its calls."""
NUMBERS = range(1_000_001, 4_900_000)
"""Those of requests that are each another: FP32 has them exactly, and all of them twice are as long as text."""
LONG_ENOUGH = 0.1
"""Seconds that tell what a rate is."""
MOST_ANSWERS = 10_000
"""A second, where each request has a number of its own."""
HEADS_VARY = 16
"""By so many bytes at most: an age, an id, and what the cache has done."""


class WrongAnswers(Exception):
    """What was measured was not what was meant; the text says how."""


@dataclass(frozen=True)
class Load:
    """One request again and again, `in_flight` at a time. `http` is 1, 2, or 0 for Redis' own protocol.

    With `unique` each request has a number of its own, or `together` of them the same one.
    """

    path: str
    body: Body
    http: int = 1
    in_flight: int = 32
    headers: tuple[tuple[str, str], ...] = ()
    unique: bool = False
    together: int = 1
    drained: bool = False
    """Until the last answer has come, where the end of the time would cut off too much: of few long ones too many, and
    some peers do not survive it."""

    @property
    def all_headers(self) -> tuple[tuple[str, str], ...]:
        """With those that the body needs."""
        return (("content-type", self.body.content_type), *self.body.headers, *self.headers)

    def at_a_time(self, in_flight: int) -> "Load":
        """The same with another concurrency; identical requests come as many at once."""
        return replace(self, in_flight=in_flight, together=in_flight if self.together > 1 else 1)


@dataclass(frozen=True)
class Result:
    """Answers per second, and latencies in ms."""

    rate: float
    p50: float
    p99: float
    answers: int
    seconds: float


@dataclass
class Generators:
    """The programs there are. `core` is the one they are kept on, None for all."""

    core: int | None = None
    wrk: str | None = field(default_factory=lambda: shutil.which("wrk"))
    h2load: str | None = field(default_factory=lambda: shutil.which("h2load"))
    _next: int = NUMBERS.start
    _rates: dict[tuple[Load, int], float] = field(default_factory=dict)
    _heads: dict[tuple[Load, int], int] = field(default_factory=dict)

    def describe(self) -> str:
        """For people."""
        used = [name for name, path in (("wrk (HTTP/1.1)", self.wrk), ("h2load (HTTP/2)", self.h2load)) if path]
        rest = "Redis, gRPC requests that are each another, REST requests of 1 MB and more"
        return ", ".join([*used, f"our own (bench/load.py) for all else, as there are {rest}"])

    def run(self, load: Load, port: int, seconds: float, size: int) -> Result:
        """`size` is the length of each answer's body in bytes. Raises WrongAnswers."""
        first = self._next
        if load.unique:
            self._next += MOST_ANSWERS * math.ceil(seconds)
            if self._next not in NUMBERS:
                raise SystemExit(
                    "There are no more numbers for requests that are each another: measure less at a time."
                )
        with tempfile.NamedTemporaryFile(prefix="portico-load-") as file:
            file.write(load.body.data)
            file.flush()
            if self._is_for_wrk(load):
                return self._wrk(load, port, seconds, size, file.name, first)
            if load.http == 2 and self.h2load and not load.unique:
                return self._h2load(load, port, seconds, size, file.name)
            return self._own(load, port, seconds, size, file.name, first)

    def warm_up(self, load: Load, port: int, size: int) -> None:
        """Before it is measured: finds out how long the head of an answer is, where wrk counts it with the body; and
        how many calls there are to a second, where a number has to be given.
        """
        if self._is_for_wrk(load):
            self._heads[load, port] = _head_size(load, port)
        while load.drained and load.http == 2 and self.h2load:
            result = self.run(load, port, 0.0, size)
            if result.seconds > LONG_ENOUGH or result.answers > MOST_ANSWERS:
                break

    def _is_for_wrk(self, load: Load) -> bool:
        return load.http == 1 and self.wrk is not None and not load.drained

    def _count(self, load: Load, port: int, seconds: float) -> int:
        """How many calls there are to that time; and four times as many as were found to be too few."""
        rate = self._rates.get((load, port), 0.0)
        return max(round(rate * (seconds or 4 * LONG_ENOUGH)), 2 * load.in_flight)

    def _call(self, command: Sequence[str], seconds: float, given: str = "") -> str:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if self.core is not None:
            pin(process.pid, (self.core,))
        try:
            said, complaint = process.communicate(given, timeout=seconds + PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise WrongAnswers(f"{command[0]} did not end") from None
        if process.returncode:
            raise WrongAnswers(f"{Path(command[0]).name} failed: {complaint or said}")
        return said

    def _wrk(self, load: Load, port: int, seconds: float, size: int, file: str, first: int) -> Result:
        words = [f"-t1 -c{load.in_flight} -d{math.ceil(seconds)}s --timeout 30s -s", str(HERE / "wrk.lua")]
        command = [str(self.wrk), *words[0].split(), words[1]]
        for name, value in load.all_headers:
            command += ["-H", f"{name}: {value}"]
        command += [f"http://127.0.0.1:{port}{load.path}", "--", file]
        if load.unique:
            mark = load.body.mark
            command += [str(mark.offset), str(mark.length), mark.form, str(first), str(load.together)]
        said = self._call(command, seconds)
        told = json.loads(said.split("RESULT ", 1)[1])
        least = size + max(self._heads.get((load, port), 0) - HEADS_VARY, 0)
        if told["failed"] or not told["answers"] or told["bytes"] < told["answers"] * least:
            raise WrongAnswers(f"of wrk's {told['answers']} answers {told['failed']} failed; {told['bytes']} bytes")
        return Result(told["answers"] / told["seconds"], told["p50"], told["p99"], told["answers"], told["seconds"])

    def _h2load(self, load: Load, port: int, seconds: float, size: int, file: str) -> Result:
        connections = min(HTTP2_CONNECTIONS, load.in_flight)
        with tempfile.NamedTemporaryFile("r", prefix="portico-load-", suffix=".log") as log:
            command = [str(self.h2load), "-t1", f"-c{connections}", f"-m{load.in_flight // connections}"]
            until = f"-n{self._count(load, port, seconds)}" if load.drained else f"-D{seconds:g}"
            command += [until, "-d", file, f"--log-file={log.name}"]
            for name, value in load.all_headers:
                command += ["-H", f"{name}: {value}"]
            said = self._call([*command, f"http://127.0.0.1:{port}{load.path}"], seconds)
            lines = [line.split("\t") for line in log]
        counts = {word: int(count) for count, word in re.findall(r"(\d+) (done|failed|errored|timeout|2xx)", said)}
        data = int(re.search(r"\((\d+)\) data", said)[1])  # type: ignore[index]
        done = counts["done"]
        bad = counts["failed"] + counts["errored"] + counts["timeout"] + max(done - counts["2xx"], 0)
        if bad or not done or not done * size <= data <= (done + load.in_flight) * size:
            raise WrongAnswers(f"h2load's {done} answers of {size} bytes have {data} bytes, {bad} failed:\n{said}")
        took = sorted(int(line[2]) for line in lines if line[1] == "200")
        p50, p99 = (took[int(len(took) * part)] / 1000 for part in (0.5, 0.99))
        self._rates[load, port] = rate = float(re.search(r"([\d.]+) req/s", said)[1])  # type: ignore[index]
        return Result(rate, p50, p99, done, done / rate)

    def _own(self, load: Load, port: int, seconds: float, size: int, file: str, first: int) -> Result:
        mark = load.body.mark if load.unique else None
        plan = Plan(
            port=port,
            http=load.http,
            path=load.path,
            headers=load.all_headers,
            body=file,
            size=size,
            in_flight=load.in_flight,
            connections=load.in_flight if load.http < 2 else min(HTTP2_CONNECTIONS, load.in_flight),
            seconds=seconds,
            mark=(mark.offset, mark.length, mark.form) if mark else None,
            first=first,
            together=load.together,
        )
        told = json.loads(self._call([sys.executable, str(HERE / "load.py")], seconds, plan.to_json()))
        if told["failed"] or not told["answers"]:
            raise WrongAnswers(
                f"of {told['answers'] + told['failed']} answers {told['failed']} failed: {told['first']}"
            )
        return Result(told["rate"], told["p50"], told["p99"], told["answers"], told["seconds"])


def _head_size(load: Load, port: int) -> int:
    """Bytes in front of the body of one answer. Raises WrongAnswers."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in load.all_headers)
    head = f"POST {load.path} HTTP/1.1\r\nhost: bench\r\n{lines}content-length: {len(load.body.data)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection, connection.makefile("rb") as answer:
        connection.sendall(head.encode() + load.body.data)
        size = 0
        while line := answer.readline():
            size += len(line)
            if line == b"\r\n":
                return size
    raise WrongAnswers(f"port {port} closed the connection in the head of its answer")
