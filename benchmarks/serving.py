"""`sefa serve` under load: python benchmarks/serving.py MODEL.onnx [--minutes 10] [-o RECORD.json]

Server and clients share the machine; the clients talk HTTP/1.1 over loopback, binary tensors in both directions.

- One client: what a request costs beyond `Editor.run` on the same inputs, alternating.
- Closed loop: 32 clients, each asking again as soon as it is answered: for `--minutes` for one image, for a fifth of
  that for four. Images per second against the best that `sefa bench --scenario offline` gives before and after, and
  the server's memory.
- Open loop, for a fifth: requests for one image at random moments, at 70 % of the capacity for these; latency counts
  from the scheduled moment.

Every answer must be the Editor's, bit for bit. Exit code 1 if one is not, or a limit below does not hold.
"""

import argparse
import asyncio
import json
import os
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
from numpy.typing import NDArray

import sefa_runtime
from sefa_runtime.files import write_whole
from sefa_runtime.machine import describe_machine, describe_versions

CLIENTS = 32
MINUTES_SHARE = {1: 1.0, 4: 0.2}  # images per request -> of --minutes
SEEDS = 64  # different requests
PAIRS, WARM_UP = 500, 50
OPEN_LOAD = 0.7
WARM_UP_SHARE = 0.2  # of the closed loop, before memory is compared
MAX_OVERHEAD_MS, MIN_OF_OFFLINE, MAX_GROWTH_PERCENT = 2.0, 0.9, 2.0


@dataclass(frozen=True)
class Question:
    """A request as it goes over the wire, and the image bytes that are to come back."""

    request: bytes
    image: bytes


@dataclass
class Tally:
    """What came of the requests of one loop."""

    latencies_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def main() -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the longest loop")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()

    editor = sefa_runtime.load(arguments.model, "cpu")
    offline = [measure_offline(arguments.model)]
    closed = {}
    with serving(arguments.model) as (port, process):
        overhead = asyncio.run(measure_overhead(editor, port))
        for images, share in MINUTES_SHARE.items():
            questions = make_questions(editor, images)
            seconds = share * arguments.minutes * 60
            closed[images] = asyncio.run(closed_loop(questions, port, process.pid, images, seconds))
        offline.append(measure_offline(arguments.model))
        rate = OPEN_LOAD * closed[1]["images_per_second"]
        questions = make_questions(editor, 1)
        opened = asyncio.run(open_loop(questions, port, rate, arguments.minutes * 12))
    for figures in closed.values():
        figures["of_offline"] = round(figures["images_per_second"] / max(offline), 3)
    best = max(figures["of_offline"] for figures in closed.values())
    record = {
        "what": f"sefa serve {arguments.model.name}, server and clients on one machine, binary tensors",
        "one_client": overhead | {"limit_ms": MAX_OVERHEAD_MS},
        "offline_images_per_second": offline,
        "closed_loop": {"clients": CLIENTS, "images_per_request": closed},
        "open_loop": opened,
        "limits": {"of_offline": MIN_OF_OFFLINE, "memory_growth_percent": MAX_GROWTH_PERCENT},
        "machine": describe_machine(),
        "versions": describe_versions(),
    }
    print(json.dumps(record, indent=2))
    if arguments.output is not None:
        write_whole(arguments.output, (json.dumps(record, indent=2) + "\n").encode())
    within = (
        overhead["added_p50_ms"] <= MAX_OVERHEAD_MS
        and best >= MIN_OF_OFFLINE
        and all(figures["memory_growth_percent"] < MAX_GROWTH_PERCENT for figures in closed.values())
        and not any(figures["errors"] for figures in (*closed.values(), opened))
    )
    sys.exit(not within)


@contextmanager
def serving(model: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server of the model, ready: its port and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [sys.executable, "-m", "sefa.cli", "serve", f"model={model}", "--port", str(port), "--provider", "cpu"]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            asyncio.run(until_ready(port, process))
            yield port, process
        finally:
            process.terminate()
            assert process.wait(60) == 0, "the server did not end with exit code 0"


async def until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait for the server's word."""
    while process.poll() is None:
        await asyncio.sleep(0.1)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            continue
        status, _ = await ask(reader, writer, b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
        writer.close()
        if status == 200:
            return
    raise SystemExit("the server ended")


def make_questions(editor: sefa_runtime.Editor, images: int) -> list[Question]:
    """Requests of as many images, each with its own latents and edits."""
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
    """A v2 request with binary tensors, and a binary answer wanted."""
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


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, bytes]:
    """Send a request; the answer's status, and the bytes behind its JSON header if it has one."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    headers = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    body = await reader.readexactly(int(headers[b"content-length"]))
    return int(head.split(b" ", 2)[1]), body[int(headers.get(b"inference-header-content-length", 0)) :]


async def ask_timed(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, question: Question, tally: Tally, since: float
) -> None:
    """Ask, check the answer, note the time since `since`, in seconds."""
    status, image = await ask(reader, writer, question.request)
    tally.latencies_ms.append((time.perf_counter() - since) * 1e3)
    if status != 200 or image != question.image:
        tally.errors.append(f"status {status}" if status != 200 else "another image than the Editor's")


async def measure_overhead(editor: sefa_runtime.Editor, port: int) -> dict[str, float]:
    """One client: a request against `Editor.run`, in turn."""
    z = sefa_runtime.latents_from_seeds([0], editor.info.z_dim)
    direction, alpha = np.array([[1]]), np.array([[2.0]], np.float32)
    question = Question(
        encode({"z": z, "direction": direction, "alpha": alpha}), editor.run(z, direction, alpha).tobytes()
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    served, bare_ms = Tally(), []
    for _ in range(WARM_UP + PAIRS):
        await ask_timed(reader, writer, question, served, time.perf_counter())
        started = time.perf_counter()
        editor.run(z, direction, alpha)
        bare_ms.append((time.perf_counter() - started) * 1e3)
    writer.close()
    assert not served.errors, served.errors[0]
    served_p50_ms = float(np.median(served.latencies_ms[WARM_UP:]))
    bare_p50_ms = float(np.median(bare_ms[WARM_UP:]))
    return {
        "request_p50_ms": round(served_p50_ms, 3),
        "editor_run_p50_ms": round(bare_p50_ms, 3),
        "added_p50_ms": round(served_p50_ms - bare_p50_ms, 3),
    }


async def closed_loop(questions: list[Question], port: int, pid: int, images: int, seconds: float) -> dict[str, Any]:
    """`CLIENTS` clients that ask without a pause."""
    tally = Tally()
    started = time.perf_counter()
    end = started + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = number
        while time.perf_counter() < end:
            await ask_timed(reader, writer, questions[turn % len(questions)], tally, time.perf_counter())
            turn += CLIENTS + 1
        writer.close()

    memory: list[tuple[float, int]] = []

    async def watch() -> None:
        while time.perf_counter() < end:
            memory.append((time.perf_counter() - started, resident_bytes(pid)))
            await asyncio.sleep(min(1.0, seconds / 50))

    await asyncio.gather(watch(), *(client(number) for number in range(CLIENTS)))
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


async def open_loop(questions: list[Question], port: int, rate: float, seconds: float) -> dict[str, Any]:
    """Requests of a Poisson process, whether or not those before are answered."""
    moments = np.cumsum(np.random.default_rng(0).exponential(1 / rate, round(rate * seconds)))
    tally = Tally()
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    started = time.perf_counter()

    async def one(turn: int, due: float) -> None:
        connection = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        await ask_timed(*connection, questions[turn % len(questions)], tally, due)
        idle.append(connection)

    async with asyncio.TaskGroup() as group:
        for turn, moment in enumerate(moments):
            await asyncio.sleep(started + moment - time.perf_counter())
            group.create_task(one(turn, started + moment))
    for _, writer in idle:
        writer.close()
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
    """Of the latencies."""
    values = np.percentile(tally.latencies_ms, (50, 90, 99))
    return {f"p{rank}_ms": round(float(value), 2) for rank, value in zip((50, 90, 99), values, strict=True)}


def measure_offline(model: Path) -> float:
    """The most images per second that `sefa bench` gets."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder, "offline.json")
        command = [sys.executable, "-m", "sefa.cli", "bench", str(model), "--scenario", "offline", "--seconds", "5"]
        subprocess.run([*command, "--provider", "cpu", "-o", str(record)], check=True, stdout=subprocess.DEVNULL)
        results = json.loads(record.read_text())["results"]
    return float(max(result["images_per_second"] for result in results))


def resident_bytes(pid: int) -> int:
    """Memory that a process holds now; of Linux."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
