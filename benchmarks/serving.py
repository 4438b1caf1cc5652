"""Measure `sefa serve` under load: python benchmarks/serving.py MODEL.onnx [--minutes 10] [-o RECORD.json]

Server and clients share the machine; the clients speak HTTP/1.1 over loopback, with binary tensors in both directions.

There are two servers: one with the default settings, and one with as many `--instances` as there are cores.

- One client: what a request costs beyond `Editor.run` on the same inputs with as many threads, alternating.
- Closed loop: 32 clients, each of which asks again as soon as it is answered. With several instances, for `--minutes`
  with one image per request and a fifth of that with four; with one instance, a fifth each. Compares images per second
  with the best of `sefa bench --scenario offline`, averaged over just before and just after; watches the server's
  memory.
- Open loop, for a fifth of `--minutes`: requests for one image at random moments, at 70 % of the first loop's rate;
  latency counts from the scheduled moment.

Every answer must equal the Editor's, bit for bit. Exit code 1 if one does not, or if a limit below does not hold.
"""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from numpy.typing import NDArray

import sefa_runtime
from records import Record, make_parser
from sefa_runtime.machine.cores import usable_cores

CLIENTS = 32
CORES = usable_cores()
# Instances, images per request, and how much of --minutes.
LOOPS = ((CORES, 1, 1.0), (CORES, 4, 0.2), (1, 1, 0.2), (1, 4, 0.2))
OPEN_SHARE = 0.2
SEEDS = 64  # different requests
ROUNDS, PAIRS, WARM_UP = 5, 500, 50
OPEN_LOAD = 0.7
WARM_UP_SHARE = 0.2  # of the closed loop, before memory is watched
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)")
TEXT_LENGTH = re.compile(rb"\r\ninference-header-content-length: (\d+)")
MAX_OVERHEAD_MS, MIN_OF_OFFLINE, MAX_GROWTH_PERCENT = 2.0, 0.9, 2.0


@dataclass(frozen=True)
class Question:
    """A request as sent over the wire, and the image bytes expected in the answer."""

    request: bytes
    image: bytes


@dataclass
class Tally:
    """The outcome of one loop's requests."""

    latencies_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def main() -> None:
    """Measure, print, and write the record."""
    parser = make_parser(__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the longest loop")
    arguments = parser.parse_args()

    model: Path = arguments.model
    record = Record(f"sefa serve {model.name}, server and clients on one machine, binary tensors")
    editor = sefa_runtime.load(model, "cpu")
    with serving(model, instances=1) as single, serving(model, CORES) as shared:
        alone = measure_alone(model, {1: single, CORES: shared})
        offline = [measure_offline(model)]
        closed = []
        for instances, images, share in LOOPS:
            server = shared if instances == CORES else single
            questions = make_questions(editor, images)
            figures = uvloop.run(closed_loop(questions, server, images, share * arguments.minutes * 60))
            offline.append(measure_offline(model))
            figures["of_offline"] = round(figures["images_per_second"] / np.mean(offline[-2:]), 3)
            closed.append({"instances": instances, "images_per_request": images, **figures})
        rate = OPEN_LOAD * closed[0]["images_per_second"]
        opened = uvloop.run(open_loop(make_questions(editor, 1), shared, rate, OPEN_SHARE * arguments.minutes * 60))
    best = max(figures["of_offline"] for figures in closed)
    results = {
        "one_client": alone,
        "offline_images_per_second": offline,
        "clients": CLIENTS,
        "closed_loop": closed,
        "open_loop": {"instances": CORES, **opened},
        "limits": {
            "added_p50_ms": MAX_OVERHEAD_MS,
            "best_of_offline": MIN_OF_OFFLINE,
            "memory_growth_percent": MAX_GROWTH_PERCENT,
        },
    }
    within = (
        all(figures["added_p50_ms"] <= MAX_OVERHEAD_MS for figures in alone)
        and best >= MIN_OF_OFFLINE
        and all(figures["memory_growth_percent"] < MAX_GROWTH_PERCENT for figures in closed)
        and not any(figures["errors"] for figures in (*closed, opened))
    )
    record.finish(results, arguments.output, [] if within else ["a limit does not hold"])


@dataclass(frozen=True)
class Server:
    """A running server that is ready."""

    port: int
    pid: int


@contextmanager
def serving(model: Path, instances: int) -> Iterator[Server]:
    """Serve the model for the duration of the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [sys.executable, "-m", "sefa_cli", "serve", f"model={model}", "--port", str(port), "--provider", "cpu"]
    command += ["--instances", str(instances)]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            uvloop.run(until_ready(port, process))
            yield Server(port, process.pid)
        finally:
            process.terminate()
            assert process.wait(60) == 0, "the server did not end with exit code 0"


async def until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server says that it is ready."""
    while process.poll() is None:
        await asyncio.sleep(0.1)
        try:
            client = await Client.connect(port)
        except OSError:
            continue
        status, _ = await client.ask(b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.close()
        if status == 200:
            return
    raise SystemExit("the server ended")


class Client(asyncio.Protocol):
    """One connection that sends one request after another, at a cost of a tenth of a millisecond of CPU time each.

    It must be cheap: CPU time that the clients use is missing for the server.
    """

    _answer: "asyncio.Future[tuple[int, bytes]] | None" = None

    @classmethod
    async def connect(cls, port: int) -> "Client":
        """Open a connection over loopback."""
        _, client = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return client

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Collect the answer until it is complete."""
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._received[:end].lower()
        length, text = (int(found[1]) if found else 0 for found in (LENGTH.search(head), TEXT_LENGTH.search(head)))
        if self._answer is not None and len(self._received) == end + 4 + length:
            self._answer.set_result((int(head.split(b" ", 2)[1]), self._received[end + 4 + text :]))

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the request that waits for an answer."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("the server closed the connection"))

    def ask(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        """Send a request; the result is the answer's status, and its bytes after the JSON header, if there is one."""
        self._received = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    async def ask_timed(self, question: Question, tally: Tally, since: float) -> None:
        """Send a question, check the answer, and record the time since `since`, a moment in seconds."""
        status, image = await self.ask(question.request)
        tally.latencies_ms.append((time.perf_counter() - since) * 1e3)
        if status != 200 or image != question.image:
            tally.errors.append(f"status {status}" if status != 200 else "another image than the Editor's")

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


def make_questions(editor: sefa_runtime.Editor, images: int) -> list[Question]:
    """Make requests for this many images each, all with different latents and edits."""
    random = np.random.default_rng(0)
    questions = []
    for seed in range(SEEDS):
        z = sefa_runtime.latents_from_seeds(range(seed * images, (seed + 1) * images), editor.info.z_dim)
        direction = random.integers(len(editor.info.directions), size=(images, 1))
        alpha = random.uniform(-3, 3, (images, 1)).astype(np.float32)
        image = editor.run(z, direction, alpha)
        questions.append(Question(encode({"z": z, "direction": direction, "alpha": alpha}), image.tobytes()))
    return questions


def encode(arrays: dict[str, NDArray[Any]]) -> bytes:
    """Encode a v2 request with binary tensors that asks for a binary answer."""
    inputs = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": "INT64" if array.dtype == np.int64 else "FP32",
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in arrays.items()
    ]
    header = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    body = header + b"".join(array.tobytes() for array in arrays.values())
    head = (
        "POST /v2/models/model/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
        f"Inference-Header-Content-Length: {len(header)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def measure_alone(model: Path, servers: dict[int, Server]) -> list[dict[str, Any]]:
    """Compare one client of each server, in turn, with an Editor of as many threads; return each one's median round."""
    editors = {instances: sefa_runtime.load(model, "cpu", threads=CORES // instances) for instances in servers}
    rounds = [
        {
            instances: uvloop.run(measure_overhead(editors[instances], server.port))
            for instances, server in servers.items()
        }
        for _ in range(ROUNDS)
    ]
    return [
        {"instances": instances, **sorted((found[instances] for found in rounds), key=added)[ROUNDS // 2]}
        for instances in servers
    ]


def added(figures: dict[str, float]) -> float:
    """Return what a request costs beyond the run, in milliseconds."""
    return figures["added_p50_ms"]


async def measure_overhead(editor: sefa_runtime.Editor, port: int) -> dict[str, float]:
    """Time one client's requests against `Editor.run`, alternating."""
    z = sefa_runtime.latents_from_seeds([0], editor.info.z_dim)
    direction, alpha = np.array([[1]]), np.array([[2.0]], np.float32)
    question = Question(
        encode({"z": z, "direction": direction, "alpha": alpha}), editor.run(z, direction, alpha).tobytes()
    )
    client = await Client.connect(port)
    served, bare_ms = Tally(), []
    for _ in range(WARM_UP + PAIRS):
        await client.ask_timed(question, served, time.perf_counter())
        started = time.perf_counter()
        editor.run(z, direction, alpha)
        bare_ms.append((time.perf_counter() - started) * 1e3)
    client.close()
    assert not served.errors, served.errors[0]
    served_p50_ms = float(np.median(served.latencies_ms[WARM_UP:]))
    bare_p50_ms = float(np.median(bare_ms[WARM_UP:]))
    return {
        "request_p50_ms": round(served_p50_ms, 3),
        "editor_run_p50_ms": round(bare_p50_ms, 3),
        "added_p50_ms": round(served_p50_ms - bare_p50_ms, 3),
    }


async def closed_loop(questions: list[Question], server: Server, images: int, seconds: float) -> dict[str, Any]:
    """Run `CLIENTS` clients that ask without a pause."""
    tally = Tally()
    started = time.perf_counter()
    end = started + seconds

    async def work(number: int) -> None:
        client = await Client.connect(server.port)
        turn = number
        while time.perf_counter() < end:
            await client.ask_timed(questions[turn % len(questions)], tally, time.perf_counter())
            turn += CLIENTS + 1
        client.close()

    memory: list[tuple[float, int]] = []

    async def watch() -> None:
        while time.perf_counter() < end:
            memory.append((time.perf_counter() - started, resident_bytes(server.pid)))
            await asyncio.sleep(min(1.0, seconds / 50))

    await asyncio.gather(watch(), *(work(number) for number in range(CLIENTS)))
    elapsed = time.perf_counter() - started
    warm = np.array([size for at, size in memory if at >= WARM_UP_SHARE * seconds])
    first, last = (float(np.median(part)) for part in (warm[: len(warm) // 4], warm[-(len(warm) // 4) :]))
    return {
        "minutes": round(seconds / 60, 2),
        "requests": len(tally.latencies_ms),
        "errors": len(tally.errors),
        "images_per_second": round(len(tally.latencies_ms) * images / elapsed, 1),
        **percentiles(tally),
        "memory_mb": round(last / 1e6, 1),
        "memory_growth_percent": round(100 * (last / first - 1), 2),
    }


async def open_loop(questions: list[Question], server: Server, rate: float, seconds: float) -> dict[str, Any]:
    """Send requests as a Poisson process, whether or not earlier ones are answered."""
    moments = np.cumsum(np.random.default_rng(0).exponential(1 / rate, round(rate * seconds)))
    tally = Tally()
    idle: list[Client] = []
    started = time.perf_counter()

    async def one(turn: int, due: float) -> None:
        client = idle.pop() if idle else await Client.connect(server.port)
        await client.ask_timed(questions[turn % len(questions)], tally, due)
        idle.append(client)

    async with asyncio.TaskGroup() as group:
        for turn, moment in enumerate(moments):
            await asyncio.sleep(started + moment - time.perf_counter())
            group.create_task(one(turn, started + moment))
    for client in idle:
        client.close()
    return {
        "rate": round(rate, 1),
        "load": OPEN_LOAD,
        "seconds": round(seconds, 1),
        "requests": len(tally.latencies_ms),
        "errors": len(tally.errors),
        "connections": len(idle),
        **percentiles(tally),
    }


def percentiles(tally: Tally) -> dict[str, float]:
    """Return percentiles of the latencies."""
    values = np.percentile(tally.latencies_ms, (50, 90, 99))
    return {f"p{rank}_ms": round(float(value), 2) for rank, value in zip((50, 90, 99), values, strict=True)}


def measure_offline(model: Path) -> float:
    """Return the most images per second that `sefa bench` reaches."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder, "offline.json")
        command = [sys.executable, "-m", "sefa_cli", "bench", str(model), "--scenario", "offline", "--seconds", "5"]
        subprocess.run([*command, "--provider", "cpu", "-o", str(record)], check=True, stdout=subprocess.DEVNULL)
        results = json.loads(record.read_text())["results"]
    return float(max(result["images_per_second"] for result in results))


def resident_bytes(pid: int) -> int:
    """Return the memory that a process holds now; on Linux only."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
