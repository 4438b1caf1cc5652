"""Measure `sefa serve` under load: python benchmarks/serving.py MODEL.onnx [--minutes 2] [-o RECORD.json]

Server and clients share the machine; the clients speak HTTP/1.1 over loopback. They are one process that sends prepared
bytes through sockets and compares what comes back, so that little of the cores is lost to the server; the record has
the CPU time of either side for each request.

There are two servers: one with the default settings, and one with as many `--instances` as there are cores. Each is
asked until its memory has levelled off, and only then measured: the first requests bring in code and grow the
allocator's pools.

- One client: what a request costs beyond `Editor.run` on the same inputs with as many threads, alternating.
- Closed loop: 32 clients, each of which asks again as soon as it is answered. With several instances, for `--minutes`
  with one image per request, as binary tensors, and a fifth of that from 64 clients, and with four images; a tenth with
  the image's own address, as WebP and PNG; with one instance, a fifth each. Compares images per second with the best of
  `sefa bench --scenario offline`, averaged over just before and just after; watches the server's memory. `cores_busy`
  is the share of the cores that server and clients used, and `of_offline_at_most` what the ratio would be had they used
  them all: the processor time that requests take beside the model, the clients' included, allows no more.
- Open loop, for a fifth of `--minutes`: requests for one image at random moments, at 70 % of the first loop's rate;
  latency counts from the scheduled moment.

Every answer must equal the Editor's, bit for bit. Exit code 1 if one does not, or if a limit below does not hold.
Takes twice `--minutes` and five minutes more; on Linux only.
"""

import json
import os
import re
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sefa_runtime
from records import Record, make_parser
from sefa_runtime.machine.cores import usable_cores
from sefa_runtime.server.http.image_encoding import Format, encode_sheet

CORES = usable_cores()
CLIENTS = 32
# Instances, clients, images per request, format, and how much of --minutes.
LOOPS = (
    (CORES, CLIENTS, 1, "tensors", 1.0),
    (CORES, 64, 1, "tensors", 0.2),
    (CORES, CLIENTS, 4, "tensors", 0.2),
    (CORES, CLIENTS, 1, "webp", 0.1),
    (CORES, CLIENTS, 1, "png", 0.1),
    (1, CLIENTS, 1, "tensors", 0.2),
    (1, CLIENTS, 4, "tensors", 0.2),
)
OPEN_SHARE = 0.2
SEEDS = 64  # different requests
ROUNDS, PAIRS, WARM_UP = 5, 500, 50
OPEN_LOAD = 0.7
WARM_UP_SHARE = 0.2  # of the closed loop, before memory is watched
# Before all loops: turns of so many seconds, at least and at most so many, until memory grows by less than this share.
WARM_UP_S, LEAST_TURNS, MOST_TURNS, LEVEL = 10.0, 2, 12, 0.005
OFFLINE_SECONDS = 2  # for each batch size
READ_BYTES = 1 << 16
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)")
MAX_OVERHEAD_MS, MIN_OF_OFFLINE, MAX_GROWTH_PERCENT = 2.0, 0.95, 2.0


@dataclass(frozen=True)
class Question:
    """A request as sent over the wire, and the image bytes with which the answer must end."""

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
    parser.add_argument("--minutes", type=float, default=2.0, help="of the longest loop")
    arguments = parser.parse_args()

    model: Path = arguments.model
    record = Record(f"sefa serve {model.name}, server and clients on one machine")
    editor = sefa_runtime.load(model, "cpu")
    with serving(model, instances=1) as single, serving(model, CORES) as shared:
        turn_s = min(WARM_UP_S, arguments.minutes * 60)
        warm = {
            instances: warm_up(make_questions(editor, 1, "tensors"), server, turn_s)
            for instances, server in {1: single, CORES: shared}.items()
        }
        alone = measure_alone(model, {1: single, CORES: shared})
        offline = [measure_offline(model)]
        closed = []
        for instances, clients, images, kind, share in LOOPS:
            server = shared if instances == CORES else single
            questions = make_questions(editor, images, kind)
            figures = closed_loop(questions, server, clients, images, share * arguments.minutes * 60)
            offline.append(measure_offline(model))
            of_offline = figures["images_per_second"] / float(np.mean(offline[-2:]))
            figures["of_offline"] = round(of_offline, 3)
            figures["of_offline_at_most"] = round(of_offline / figures["cores_busy"], 3)
            what = {"instances": instances, "clients": clients, "images_per_request": images, "format": kind}
            closed.append({**what, **figures})
        rate = OPEN_LOAD * closed[0]["images_per_second"]
        opened = open_loop(make_questions(editor, 1, "tensors"), shared, rate, OPEN_SHARE * arguments.minutes * 60)
    results = {
        "warm_up": [{"instances": instances, "memory_mb": sizes} for instances, sizes in warm.items()],
        "one_client": alone,
        "offline_images_per_second": offline,
        "closed_loop": closed,
        "open_loop": {"instances": CORES, **opened},
        "limits": {
            "added_p50_ms": MAX_OVERHEAD_MS,
            "of_offline_one_by_one": MIN_OF_OFFLINE,
            "memory_growth_percent": MAX_GROWTH_PERCENT,
        },
    }
    within = (
        all(figures["added_p50_ms"] <= MAX_OVERHEAD_MS for figures in alone)
        and closed[0]["of_offline"] >= MIN_OF_OFFLINE
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
            wait_until_ready(port, process)
            yield Server(port, process.pid)
        finally:
            process.terminate()
            assert process.wait(60) == 0, "the server did not end with exit code 0"


def wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server says that it is ready."""
    question = Question(b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n", b'{"ready":true}')
    while process.poll() is None:
        time.sleep(0.1)
        tally = Tally()
        try:
            client = Client(port)
        except OSError:
            continue
        client.ask(question, time.perf_counter())
        client.wait(tally)
        client.close()
        if not tally.errors:
            return
    raise SystemExit("the server ended")


class Client:
    """One connection that sends one request after another, at a cost of a few tens of microseconds of CPU time each.

    It must be cheap: CPU time that the clients use is missing for the server.
    """

    def __init__(self, port: int) -> None:
        """Open a connection over loopback."""
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._socket.fileno()

    def ask(self, question: Question, since: float) -> None:
        """Send a question, whose time counts from `since`, a moment in seconds."""
        self._question, self._since, self._received = question, since, b""
        self._socket.sendall(question.request)

    def receive(self, tally: Tally) -> bool:
        """Read what has arrived; once the answer is complete, check and record it, and return True."""
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise SystemExit("the server closed a connection")
        self._received = received = self._received + data
        end = received.find(b"\r\n\r\n")
        length = LENGTH.search(received, 0, end) if end >= 0 else None
        if length is None or len(received) < end + 4 + int(length[1]):
            return False
        tally.latencies_ms.append((time.perf_counter() - self._since) * 1e3)
        if not received.startswith(b"HTTP/1.1 200"):
            tally.errors.append(received[:12].decode())
        elif not received.endswith(self._question.image):
            tally.errors.append("another image than the Editor's")
        return True

    def wait(self, tally: Tally) -> None:
        """Receive the whole answer."""
        while not self.receive(tally):
            pass

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def make_questions(editor: sefa_runtime.Editor, images: int, kind: str) -> list[Question]:
    """Make requests for this many images each, all with different latents and edits.

    Args:
        editor: Makes the images expected.
        images: How many in a request; 1 unless they are tensors.
        kind: "tensors", or the format of an image.
    """
    random = np.random.default_rng(0)
    questions = []
    for seed in range(SEEDS):
        z = sefa_runtime.latents_from_seeds(range(seed * images, (seed + 1) * images), editor.info.z_dim)
        direction = random.integers(len(editor.info.directions), size=(images, 1))
        alpha = random.uniform(-3, 3, (images, 1)).astype(np.float32)
        image = editor.run(z, direction, alpha)
        if kind == "tensors":
            questions.append(Question(encode({"z": z, "direction": direction, "alpha": alpha}), image.tobytes()))
        else:
            query = f"seed={seed}&edit={direction[0, 0]}:{alpha[0, 0]}&format={kind}"
            request = f"GET /models/model/image?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            questions.append(Question(request.encode(), encode_sheet(image[None], 1, Format(kind))))
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
        {instances: measure_overhead(editors[instances], server.port) for instances, server in servers.items()}
        for _ in range(ROUNDS)
    ]
    return [
        {"instances": instances, **sorted((found[instances] for found in rounds), key=added)[ROUNDS // 2]}
        for instances in servers
    ]


def added(figures: dict[str, float]) -> float:
    """Return what a request costs beyond the run, in milliseconds."""
    return figures["added_p50_ms"]


def measure_overhead(editor: sefa_runtime.Editor, port: int) -> dict[str, float]:
    """Time one client's requests against `Editor.run`, alternating."""
    z = sefa_runtime.latents_from_seeds([0], editor.info.z_dim)
    direction, alpha = np.array([[1]]), np.array([[2.0]], np.float32)
    question = Question(
        encode({"z": z, "direction": direction, "alpha": alpha}), editor.run(z, direction, alpha).tobytes()
    )
    client = Client(port)
    served, bare_ms = Tally(), []
    for _ in range(WARM_UP + PAIRS):
        client.ask(question, time.perf_counter())
        client.wait(served)
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


def warm_up(questions: Sequence[Question], server: Server, seconds: float) -> list[float]:
    """Ask in turns of so many seconds until the server's memory has levelled off; return it after each, in MB."""
    sizes: list[float] = []
    while len(sizes) < LEAST_TURNS or (sizes[-1] > (1 + LEVEL) * sizes[-2] and len(sizes) < MOST_TURNS):
        closed_loop(questions, server, CLIENTS, 1, seconds)
        sizes.append(round(resident_bytes(server.pid) / 1e6, 1))
    return sizes


def closed_loop(
    questions: Sequence[Question], server: Server, num_clients: int, images: int, seconds: float
) -> dict[str, Any]:
    """Run clients that ask without a pause."""
    tally, memory = Tally(), list[tuple[float, int]]()
    clients = [Client(server.port) for _ in range(num_clients)]
    turns = {client.fileno(): (client, number) for number, client in enumerate(clients)}
    interval = min(1.0, seconds / 50)
    with select.epoll() as poll, cpu_seconds(server) as cpu:
        started = time.perf_counter()
        end, watch_at = started + seconds, started
        for client, turn in turns.values():
            poll.register(client, select.EPOLLIN)
            client.ask(questions[turn % len(questions)], time.perf_counter())
        busy = num_clients
        while busy:
            for descriptor, _ in poll.poll():
                client, turn = turns[descriptor]
                if not client.receive(tally):
                    continue
                now = time.perf_counter()
                if now >= end:
                    busy -= 1
                    continue
                turn += num_clients + 1
                turns[descriptor] = client, turn
                client.ask(questions[turn % len(questions)], now)
            now = time.perf_counter()
            if watch_at <= now < end:
                memory.append((now - started, resident_bytes(server.pid)))
                watch_at += interval
        elapsed = time.perf_counter() - started
    for client in clients:
        client.close()
    warm = np.array([size for at, size in memory if at >= WARM_UP_SHARE * seconds])
    first, last = (float(np.median(part)) for part in (warm[: len(warm) // 4], warm[-(len(warm) // 4) :]))
    requests = len(tally.latencies_ms)
    return {
        "minutes": round(seconds / 60, 2),
        "requests": requests,
        "errors": len(tally.errors),
        "images_per_second": round(requests * images / elapsed, 1),
        **percentiles(tally),
        **{f"{side}_cpu_us_per_request": round(1e6 * used / requests) for side, used in cpu.items()},
        "cores_busy": round(sum(cpu.values()) / elapsed / CORES, 3),
        "memory_mb": round(last / 1e6, 1),
        "memory_growth_percent": round(100 * (last / first - 1), 2),
    }


def open_loop(questions: Sequence[Question], server: Server, rate: float, seconds: float) -> dict[str, Any]:
    """Send requests as a Poisson process, whether or not earlier ones are answered."""
    moments = np.cumsum(np.random.default_rng(0).exponential(1 / rate, round(rate * seconds)))
    tally = Tally()
    idle: list[Client] = []
    clients: dict[int, Client] = {}
    with select.epoll() as poll, cpu_seconds(server) as cpu:
        dues = (time.perf_counter() + moments).tolist()
        turn = 0
        while len(tally.latencies_ms) < len(dues):
            now = time.perf_counter()
            while turn < len(dues) and dues[turn] <= now:
                if not idle:
                    idle.append(client := Client(server.port))
                    clients[client.fileno()] = client
                    poll.register(client, select.EPOLLIN)
                idle.pop().ask(questions[turn % len(questions)], dues[turn])
                turn += 1
            for descriptor, _ in poll.poll(max(0.0, dues[turn] - now) if turn < len(dues) else None):
                if clients[descriptor].receive(tally):
                    idle.append(clients[descriptor])
    for client in clients.values():
        client.close()
    return {
        "rate": round(rate, 1),
        "load": OPEN_LOAD,
        "seconds": round(seconds, 1),
        "requests": len(tally.latencies_ms),
        "errors": len(tally.errors),
        "connections": len(clients),
        **percentiles(tally),
        **{f"{side}_cpu_us_per_request": round(1e6 * used / len(dues)) for side, used in cpu.items()},
    }


@contextmanager
def cpu_seconds(server: Server) -> Iterator[dict[str, float]]:
    """Measure what the block costs the server and the clients, which are this process, in seconds of CPU time."""
    used: dict[str, float] = {}
    before = used_by(server.pid), time.process_time()
    yield used
    used |= {"server": used_by(server.pid) - before[0], "client": time.process_time() - before[1]}


def used_by(pid: int) -> float:
    """Return the CPU time that a process has used so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentiles(tally: Tally) -> dict[str, float]:
    """Return percentiles of the latencies."""
    values = np.percentile(tally.latencies_ms, (50, 90, 99))
    return {f"p{rank}_ms": round(float(value), 2) for rank, value in zip((50, 90, 99), values, strict=True)}


def measure_offline(model: Path) -> float:
    """Return the most images per second that `sefa bench` reaches."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder, "offline.json")
        command = [sys.executable, "-m", "sefa_cli", "bench", str(model), "--scenario", "offline"]
        command += ["--seconds", str(OFFLINE_SECONDS)]
        subprocess.run([*command, "--provider", "cpu", "-o", str(record)], check=True, stdout=subprocess.DEVNULL)
        results = json.loads(record.read_text())["results"]
    return float(max(result["images_per_second"] for result in results))


def resident_bytes(pid: int) -> int:
    """Return the memory that a process holds now; on Linux only."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
