"""Keep `sefa serve` under mixed load: python benchmarks/soak.py CHECKPOINT [--minutes 30] [-o RECORD.json]

Two models of the checkpoint, with different directions, are exported to a folder of their own. A server of one of them
and of the tests' smallest model, over HTTP and gRPC, runs in a process of its own. Clients on the same machine ask it
for images at addresses, sheets and sweeps, v2 inference in JSON, in binary tensors and over gRPC, the page and its
files, descriptions, health and metrics. Others send what is refused, leave in the middle of a request or an answer,
send and read slowly, or stall. In each of the `PARTS` of the time the model's file is replaced on disk by the other
model and put back, which must change no image.

After each part the clients leave, and the server is measured at rest: it may have no more threads and descriptors than
at the first rest after the warm-up, and its metrics must add up with what the clients counted. Resident memory is
sampled all along; after the warm-up, neither its trend nor its last quarter over its first may grow by more than
`MAX_GROWTH_PERCENT`.

Then the model is replaced as in production, `RELOADS` times: its file by another, and the server, which gets SIGTERM
under load, by a new one. A client that is refused meanwhile asks again; no request that was made before loses its
answer.

Every image must be equal to the Editor's, pixel for pixel. Exit code 1 if one is not, or if anything above does not
hold.
"""

import asyncio
import io
import json
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tritonclient.grpc as triton
import uvloop
from numpy.typing import NDArray
from PIL import Image
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

import sefa_runtime
from records import Record, make_parser
from sefa_runtime.images import enlarge

PARTS, WARM_UP_PARTS = 12, 3
RELOADS, RELOAD_S = 4, 8.0
SEEDS = 48  # different images of a model
PAUSE_S = 0.02  # of a client between two requests: the machine is kept busy, not drowned
SAMPLE_S = 1.0
MAX_GROWTH_PERCENT = 2.0
PATIENCE_S = 60.0
MODEL, SMALL = "soak", "tiny"
TINY = Path(__file__).parents[1] / "tests" / "golden" / "tiny.onnx"
GRPC_STATUS = {"StatusCode.INVALID_ARGUMENT": 400, "StatusCode.NOT_FOUND": 404}
LOST = (httpx.TransportError, ConnectionError, asyncio.IncompleteReadError)

Pixels = NDArray[np.uint8]


class NotAnsweredError(Exception):
    """A good request met a server that stops or starts; the client asks again."""


@dataclass
class Book:
    """What the clients asked, and what became of it.

    Attributes:
        answers: Complete answers by kind of request and status; over gRPC the status that HTTP would give.
        images: Images in good answers.
        left: Requests whose client left, and the images that they asked for.
        outside: Refusals of what is hardly HTTP, which no counter of the server has.
        asked_again: Good requests that met a server which stopped or started.
        errors: What went wrong.
    """

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    images: int = 0
    left: int = 0
    left_images: int = 0
    outside: int = 0
    asked_again: int = 0
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Question:
    """Inputs of one image of a model, and the image that each of the files at its place gives."""

    seed: int
    direction: int
    alpha: float
    arrays: dict[str, NDArray[Any]]
    images: tuple[Pixels, ...]  # each [H, W, C]

    @property
    def query(self) -> str:
        """The same inputs in an address."""
        return f"seed={self.seed}&edit={self.direction}:{self.alpha}"


def questions(editors: Sequence[sefa_runtime.Editor]) -> list[Question]:
    """Make questions for models of equal inputs."""
    rng = np.random.default_rng(0)
    made = []
    for seed in range(SEEDS):
        direction = int(rng.integers(len(editors[0].info.directions)))
        alpha = round(float(rng.uniform(-3, 3)), 3)
        arrays = {
            "z": sefa_runtime.latents_from_seeds([seed], editors[0].info.z_dim),
            "direction": np.array([[direction]]),
            "alpha": np.array([[alpha]], np.float32),
        }
        images = tuple(editor.edit(seed=seed, edits={direction: alpha})[0] for editor in editors)
        made.append(Question(seed, direction, alpha, arrays, images))
    return made


class Server:
    """`sefa serve` in a process of its own, on the same ports each time it is started."""

    def __init__(self, model: Path, log: Path) -> None:
        self._model = model
        self._log = log
        self.port, self.grpc_port = _free_ports(2)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process."""
        assert self.process is not None
        return self.process.pid

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        command = [sys.executable, "-m", "sefa_cli", "serve", f"{MODEL}={self._model}", f"{SMALL}={TINY}"]
        command += ["--port", str(self.port), "--grpc-port", str(self.grpc_port), "--provider", "cpu"]
        said = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        end = time.monotonic() + PATIENCE_S
        while self._log.read_text()[said:].count(" is ready on ") < 2:
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the server did not get ready: {self._log.read_text()[-2000:]}")
            await asyncio.sleep(0.05)

    async def stop(self) -> int:
        """Send SIGTERM; return the exit code."""
        assert self.process is not None
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait, PATIENCE_S)

    def at_rest(self) -> dict[str, int]:
        """Count its threads and descriptors."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^Threads:\s+(\d+)", status, re.MULTILINE)
        assert found is not None
        return {"threads": int(found[1]), "descriptors": len(list(Path(f"/proc/{self.pid}/fd").iterdir()))}

    def resident_bytes(self) -> int:
        """Return the memory that it holds."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@dataclass
class Load:
    """Clients of a server.

    Attributes:
        served: Which of a question's images are right: one, or while models are replaced two.
        replacing: Whether a good request may be refused, and asked again.
        stopped_at: When the server was told to stop: what was asked before must be answered.
    """

    server: Server
    questions: dict[str, list[Question]]
    book: Book = field(default_factory=Book)
    served: tuple[int, ...] = (0,)
    replacing: bool = False
    stopped_at: float = 0.0
    rng: random.Random = field(default_factory=lambda: random.Random(0))

    async def run(self, seconds: float) -> None:
        """Let all clients ask for some time, and leave."""
        end = time.monotonic() + seconds
        await asyncio.gather(
            *(self._client(ask, end) for ask, count in CLIENTS.items() for _ in range(count)), self._stall(seconds)
        )

    async def _client(self, ask: "Ask", end: float) -> None:
        turns = 0
        while time.monotonic() < end:  # A new connection every 50 requests.
            async with (
                httpx.AsyncClient(base_url=self.server.url, timeout=PATIENCE_S) as http,
                InferenceServerClient(f"127.0.0.1:{self.server.grpc_port}") as grpc,
            ):
                while time.monotonic() < end:
                    turns += 1
                    await self._asked(ask, http, grpc)
                    await asyncio.sleep(PAUSE_S)
                    if turns % 50 == 0:
                        break

    async def _asked(self, ask: "Ask", http: httpx.AsyncClient, grpc: InferenceServerClient) -> None:
        """Ask once, and again as long as the server is being replaced."""
        patience = time.monotonic() + PATIENCE_S
        while True:
            began, was_replacing = time.monotonic(), self.replacing
            try:
                await ask(self, http, grpc)
            except NotAnsweredError as error:
                if (was_replacing or self.replacing) and began < patience:
                    self.book.asked_again += 1
                    await asyncio.sleep(0.1)
                    continue
                self._wrong(ask, str(error))
            except Exception as error:  # Whatever it is, it belongs into the record.
                self._wrong(ask, f"{type(error).__name__}: {error}")
            return

    def _wrong(self, ask: "Ask", what: str) -> None:
        self.book.errors.append(f"{ask.__name__}: {what}"[:300])

    def pick(self) -> tuple[str, Question]:
        """Return a model and a question for it; mostly the larger one."""
        model = MODEL if self.rng.random() < 0.7 else SMALL
        return model, self.rng.choice(self.questions[model])

    def check_image(self, model: str, question: Question, image: Pixels, scale: int = 1) -> None:
        """Check the pixels of an answer."""
        served = self.served if model == MODEL else (0,)
        if not any(np.array_equal(image, enlarge(question.images[one], scale)) for one in served):
            raise AssertionError(f"another image than the Editor's, of {model} and seed {question.seed}")
        self.book.images += 1

    async def fetch(
        self, http: httpx.AsyncClient, kind: str, method: str, path: str, status: int = 200, **options: Any
    ) -> httpx.Response:
        """Ask over HTTP and check the status."""
        asked_at = time.monotonic()
        try:
            answer = await http.request(method, path, **options)
        except LOST as error:
            if asked_at < self.stopped_at:
                raise AssertionError(f"asked before the server was told to stop, and lost: {error!r}") from error
            raise NotAnsweredError(f"no answer: {error!r}") from error
        self.count(kind, answer.status_code, status, answer.text[:100] if answer.status_code >= 400 else "")
        return answer

    def count(self, kind: str, got: int, wanted: int, message: str) -> None:
        """Count an answer, and check its status."""
        self.book.answers[kind, got] += 1
        if got == 503 and wanted != 503:
            raise NotAnsweredError(f"status 503: {message}")
        if got != wanted:
            raise AssertionError(f"status {got} where {wanted} was expected: {message}")

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection, for what no library sends."""
        try:
            return await asyncio.open_connection("127.0.0.1", self.server.port)
        except OSError as error:
            raise NotAnsweredError(f"no connection: {error!r}") from error

    async def _stall(self, seconds: float) -> None:
        """Begin a request and never end it: after 30 s the server closes the connection."""
        if seconds < 40 or self.replacing:
            return
        reader, writer = await self.connect()
        writer.write(b"GET /models HTTP/1.1\r\nHost: local")
        answer = await asyncio.wait_for(reader.read(), 40)
        writer.close()
        self.book.outside += 1
        if not answer.startswith(b"HTTP/1.1 408"):
            self.book.errors.append(f"a head that does not end got {answer[:60]!r}, not 408")


Ask = Callable[[Load, httpx.AsyncClient, InferenceServerClient], Awaitable[None]]


async def image(load: Load, http: httpx.AsyncClient, grpc: InferenceServerClient) -> None:
    """An image at an address; the same with the entity tag that came is not sent again."""
    model, question = load.pick()
    path = f"/models/{model}/image?{question.query}&format={load.rng.choice(['png', 'webp'])}"
    answer = await load.fetch(http, "image", "GET", path)
    load.check_image(model, question, _pixels(answer.content))
    if len(load.served) == 1:
        await load.fetch(http, "image", "GET", path, 304, headers={"If-None-Match": answer.headers["etag"]})


async def sheet(load: Load, http: httpx.AsyncClient, grpc: InferenceServerClient) -> None:
    """Two seeds with the same edit side by side, as a strip; or a sweep in motion."""
    model, question = load.pick()
    sweep: dict[str, Any] = {"direction": question.direction, "alphas": [question.alpha, question.alpha]}
    wanted: dict[str, Any] = {"seeds": [question.seed], "sweep": sweep, "format": "png"}
    answer = await load.fetch(http, "sheet", "POST", f"/models/{model}/edit", json=wanted)
    strip = _pixels(answer.content)
    width = question.images[0].shape[1]
    for start in (0, strip.shape[1] - width):  # Whatever is between them.
        load.check_image(model, question, strip[: question.images[0].shape[0], start : start + width])
    wanted = {"seeds": question.seed, "sweep": {**sweep, "alphas": None, "steps": 8}, "format": "gif"}
    answer = await load.fetch(http, "sheet", "POST", f"/models/{model}/edit", json=wanted)
    load.book.images += 8
    with Image.open(io.BytesIO(answer.content)) as moving:
        assert getattr(moving, "n_frames", 1) > 1, "a sweep that does not move"


async def v2_json(load: Load, http: httpx.AsyncClient, grpc: InferenceServerClient) -> None:
    """The Open Inference Protocol v2 with numbers in JSON."""
    model, question = load.pick()
    inputs = [_entry(name, array) | {"data": array.tolist()} for name, array in question.arrays.items()]
    answer = await load.fetch(http, "v2 JSON", "POST", f"/v2/models/{model}/infer", json={"inputs": inputs})
    (output,) = answer.json()["outputs"]
    load.check_image(model, question, np.array(output["data"], np.uint8).reshape(output["shape"])[0])


async def v2_binary(load: Load, http: httpx.AsyncClient, grpc: InferenceServerClient) -> None:
    """The same with binary tensors in both directions."""
    model, question = load.pick()
    body, headers = _binary(question)
    path = f"/v2/models/{model}/infer"
    answer = await load.fetch(http, "v2 binary", "POST", path, content=body, headers=headers)
    length = int(answer.headers["inference-header-content-length"])
    (output,) = json.loads(answer.content[:length])["outputs"]
    image = np.frombuffer(answer.content[length:], np.uint8).reshape(output["shape"])[0]
    load.check_image(model, question, image)


async def v2_grpc(load: Load, http: httpx.AsyncClient, grpc: InferenceServerClient) -> None:
    """The same over gRPC, with Triton's client."""
    model, question = load.pick()
    result = await _infer(load, grpc, model, _tensors(question), 200)
    load.check_image(model, question, result.as_numpy("image")[0])


async def page(load: Load, http: httpx.AsyncClient, grpc: InferenceServerClient) -> None:
    """The page and its files, the documents about the models, health and metrics."""
    answer = await load.fetch(http, "page", "GET", "/")
    found = re.findall(r'(?:src|href)="([\w.-]+\.(?:js|css))"', answer.text)
    for path in [*found, "docs", "openapi.json", "models", f"models/{MODEL}", f"v2/models/{MODEL}/stats"]:
        await load.fetch(http, "page", "GET", f"/{path}")
    for path in ("live", "ready"):
        await load.fetch(http, "health", "GET", f"/v2/health/{path}")
    answer = await load.fetch(http, "metrics", "GET", "/metrics")
    assert "sefa_requests_total" in answer.text, "metrics without requests"


async def refused(load: Load, http: httpx.AsyncClient, grpc: InferenceServerClient) -> None:
    """What cannot be answered: each has its status."""
    infer = f"/v2/models/{MODEL}/infer"
    json_type = {"Content-Type": "application/json"}
    cases: list[tuple[str, str, int, dict[str, Any]]] = [
        ("GET", "/models/none/image?seed=1", 404, {}),
        ("GET", "/nothing/here", 404, {}),
        ("GET", f"/models/{MODEL}/image?seed=-1", 400, {}),
        ("GET", f"/models/{MODEL}/image?seed=1&edit=none:1", 400, {}),
        ("GET", f"/models/{MODEL}/image?seed=1&scale=1000", 400, {}),
        ("DELETE", f"/models/{MODEL}/image", 405, {}),
        ("POST", infer, 400, {"content": b"{", "headers": json_type}),
        ("POST", infer, 400, {"content": b"[" * 5000, "headers": json_type}),
        (
            "POST",
            infer,
            400,
            {"json": {"inputs": [{"name": "z", "shape": [1, 3], "datatype": "FP32", "data": []}]}},
        ),
        ("POST", infer, 415, {"content": b"<a/>", "headers": {"Content-Type": "text/xml"}}),
        ("POST", infer, 413, {"content": bytes(9 * 2**20), "headers": json_type}),
        ("GET", "/models", 421, {"headers": {"Host": "attacker.example"}}),
    ]
    method, path, status, options = load.rng.choice(cases)
    answer = await load.fetch(http, "refused", method, path, status, **options)
    assert list(answer.json()) == ["error"], "a refusal that is not an error in JSON"
    await _infer(load, grpc, "none", _tensors(load.questions[SMALL][0]), 404)
    wrong = triton.InferInput("z", [1, 2], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 2), np.float32))
    await _infer(load, grpc, MODEL, [wrong], 400)


async def nonsense(load: Load, http: httpx.AsyncClient, grpc: InferenceServerClient) -> None:
    """What is hardly HTTP."""
    content = load.rng.choice(
        [
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"GET\r\n\r\n",
            load.rng.randbytes(200) + b"\r\n\r\n",
            b"G" * 70_000 + b"\r\n",
        ]
    )
    reader, writer = await load.connect()
    with suppress(OSError):
        writer.write(content)
        writer.write_eof()
        await writer.drain()
        await asyncio.wait_for(reader.read(), PATIENCE_S)
    writer.close()
    load.book.outside += 1


async def leave(load: Load, http: httpx.AsyncClient, grpc: InferenceServerClient) -> None:
    """Leave: in the head, in the body, before the answer, in the answer, or in a call over gRPC."""
    model, question = load.pick()
    body, headers = _binary(question)
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    whole = (head + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n").encode() + body
    how = load.rng.randrange(5)
    load.book.left += 1
    load.book.left_images += 1
    if how == 4:
        call = asyncio.ensure_future(grpc.infer(model, _tensors(question)))
        await asyncio.sleep(load.rng.uniform(0, 0.01))
        call.cancel()
        with suppress(asyncio.CancelledError, InferenceServerException):
            await call
        return
    reader, writer = await load.connect()
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        writer.write(whole[: (20, len(whole) - 10, len(whole), len(whole))[how]])
        await writer.drain()
        if how == 3:
            await reader.readexactly(100)
        if load.rng.random() < 0.5:  # With a reset, as from a process that is killed.
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.close()


async def slow(load: Load, http: httpx.AsyncClient, grpc: InferenceServerClient) -> None:
    """Send a request in small pieces, and read a large answer in small pieces: it is right all the same."""
    model, question = load.pick()
    reader, writer = await load.connect()
    request = (
        f"GET /models/{model}/image?{question.query}&scale=16&format=png HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    )
    try:
        for start in range(0, len(request), 16):
            writer.write(request[start : start + 16])
            await writer.drain()
            await asyncio.sleep(0.05)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        length = int(re.findall(rb"(?i)content-length: (\d+)", head)[0])
        body = b""
        while len(body) < length:
            body += await reader.readexactly(min(4096, length - len(body)))
            await asyncio.sleep(0.002)
    except LOST as error:
        raise NotAnsweredError(f"no answer: {error!r}") from error
    finally:
        writer.close()
    load.count("slow", int(head.split()[1]), 200, body[:100].decode(errors="replace"))
    load.check_image(model, question, _pixels(body), scale=16)


CLIENTS: dict[Ask, int] = {
    image: 3,
    sheet: 1,
    v2_json: 2,
    v2_binary: 2,
    v2_grpc: 2,
    page: 1,
    refused: 1,
    nonsense: 1,
    leave: 2,
    slow: 2,
}


async def _infer(load: Load, grpc: InferenceServerClient, model: str, tensors: list[Any], wanted: int) -> Any:
    try:
        result = await grpc.infer(model, tensors)
    except InferenceServerException as error:
        status = GRPC_STATUS.get(str(error.status()), 503)
        load.count("gRPC", status, wanted, str(error)[:100])
        return None
    load.count("gRPC", 200, wanted, "")
    return result


def _tensors(question: Question) -> list[Any]:
    tensors = []
    for name, array in question.arrays.items():
        tensor = triton.InferInput(name, list(array.shape), _datatype(array))
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    return tensors


def _binary(question: Question) -> tuple[bytes, dict[str, str]]:
    inputs = [
        _entry(name, array) | {"parameters": {"binary_data_size": array.nbytes}}
        for name, array in question.arrays.items()
    ]
    header = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    body = header + b"".join(array.tobytes() for array in question.arrays.values())
    return body, {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(header)),
    }


def _entry(name: str, array: NDArray[Any]) -> dict[str, Any]:
    return {"name": name, "shape": list(array.shape), "datatype": _datatype(array)}


def _datatype(array: NDArray[Any]) -> str:
    return "INT64" if array.dtype == np.int64 else "FP32"


def _pixels(content: bytes) -> Pixels:
    with Image.open(io.BytesIO(content)) as opened:
        pixels = np.asarray(opened)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def growth(samples: Sequence[tuple[float, int]]) -> dict[str, float]:
    """Describe how memory changed over samples of seconds and bytes: by its trend, and from its first to last quarter.

    The trend is the median slope over pairs of samples (Theil and Sen), which single peaks do not move.
    """
    at, size = (np.array(column, float) for column in zip(*samples, strict=True))
    half = len(at) // 2
    slope = float(np.median((size[half:] - size[: len(size) - half]) / (at[half:] - at[: len(at) - half])))
    first, last = (float(np.median(part)) for part in (size[: len(size) // 4], size[-(len(size) // 4) :]))
    return {
        "first_mb": round(first / 1e6, 2),
        "last_mb": round(last / 1e6, 2),
        "most_mb": round(float(size.max()) / 1e6, 2),
        "growth_percent": round(100 * (last / first - 1), 2),
        "trend_mb_per_hour": round(slope * 3600 / 1e6, 2),
        "trend_percent": round(100 * slope * float(at[-1] - at[0]) / first, 2),
    }


def counted(metrics: str) -> tuple[Counter[int], int]:
    """Return a server's requests by status, and the images of its runs, from its metrics."""
    requests: Counter[int] = Counter()
    for status, number in re.findall(r'^sefa_requests_total\{.*status="(\d+)".*\} (\S+)$', metrics, re.MULTILINE):
        requests[int(status)] += int(float(number))
    images = sum(float(number) for number in re.findall(r"^sefa_run_images_sum\{.*\} (\S+)$", metrics, re.MULTILINE))
    return requests, int(images)


def differences(requests: Counter[int], images: int, book: Book) -> list[str]:
    """Return where the server's counters do not add up with what its clients counted.

    Whether a request whose client left was counted, and as what, depends on the moment: those are the tolerance.
    """
    found = []
    ours: Counter[int] = Counter()
    for (_, status), number in book.answers.items():
        ours[status] += number
    for status in sorted(ours | requests):
        more = requests[status] - ours[status]
        if not 0 <= more <= (book.left if status in (200, 400, 499) else 0):
            found.append(f"status {status}: {requests[status]} by the metrics, {ours[status]} by the clients")
    if requests.total() - ours.total() > book.left:
        found.append(f"{requests.total()} requests by the metrics, {ours.total()} and {book.left} by the clients")
    if not 0 <= images - book.images <= book.left_images:
        found.append(f"{images} images by the metrics, {book.images} and {book.left_images} by the clients")
    return found


async def soak(server: Server, load: Load, model: Path, files: Sequence[Path], minutes: float) -> dict[str, Any]:
    """Run all of it and return the record's results."""
    await server.start()
    started, seconds = time.monotonic(), minutes * 60 / PARTS
    memory: list[tuple[float, int]] = []
    ended = asyncio.Event()

    async def watch() -> None:
        while not ended.is_set():
            memory.append((time.monotonic() - started, server.resident_bytes()))
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), min(SAMPLE_S, seconds / 10))

    async def swap() -> None:
        for file in (files[1], files[0]):
            await asyncio.sleep(seconds / 3)
            _replace(model, file)

    watching = asyncio.ensure_future(watch())
    rests, sums = [], []
    for part in range(1, PARTS + 1):
        await asyncio.gather(load.run(seconds), swap())
        rests.append(await rest(server))
        async with httpx.AsyncClient(base_url=server.url) as http:
            text = (await http.get("/metrics")).text
        sums += [f"part {part}: {one}" for one in differences(*counted(text), load.book)]
        load.book.answers["metrics", 200] += 1  # Counted once it was answered.
        total, megabytes = load.book.answers.total(), memory[-1][1] / 1e6
        print(f"part {part} of {PARTS}: {total} answers, {rests[-1]}, {megabytes:.1f} MB", flush=True)
    ended.set()
    await watching
    warm = [sample for sample in memory if sample[0] >= WARM_UP_PARTS * seconds]
    results = {**_figures(load.book), "memory": growth(warm), "at_rest": rests[WARM_UP_PARTS - 1 :], "sums": sums}
    load.book = Book()
    stops = [await _replace_server(server, load, model, files, turn) for turn in range(RELOADS)]
    results["replaced_under_load"] = {**_figures(load.book), "asked_again": load.book.asked_again, "exit_codes": stops}
    results["last_exit_code"] = await server.stop()
    return results


async def rest(server: Server) -> dict[str, int]:
    """Return the server's threads and descriptors once they have not changed for a second."""
    found, since = server.at_rest(), time.monotonic()
    end = since + PATIENCE_S
    while time.monotonic() < min(since + 1.0, end):
        await asyncio.sleep(0.1)
        now = server.at_rest()
        if now != found:
            found, since = now, time.monotonic()
    return found


async def _replace_server(server: Server, load: Load, model: Path, files: Sequence[Path], turn: int) -> int:
    """Replace the file, then the server, under load; afterwards only the new images are right. Return the exit code."""
    old, new = turn % 2, 1 - turn % 2
    load.served, load.replacing = (old, new), True
    asking = asyncio.ensure_future(load.run(RELOAD_S))
    await asyncio.sleep(RELOAD_S / 4)
    _replace(model, files[new])
    load.stopped_at = time.monotonic()
    code = await server.stop()
    await server.start()
    await asking
    load.served, load.replacing, load.stopped_at = (new,), False, 0.0
    await load.run(RELOAD_S / 4)
    return code


def _replace(model: Path, file: Path) -> None:
    beside = model.with_suffix(".new")
    shutil.copyfile(file, beside)
    beside.replace(model)


def _figures(book: Book) -> dict[str, Any]:
    kinds = sorted({kind for kind, _ in book.answers})
    answers = {
        kind: {str(status): book.answers[kind, status] for kind_, status in sorted(book.answers) if kind_ == kind}
        for kind in kinds
    }
    return {
        "requests": book.answers.total() + book.left + book.outside,
        "answers": answers,
        "images": book.images,
        "left": book.left,
        "hardly_http": book.outside,
        "errors": len(book.errors),
        "first_errors": book.errors[:20],
    }


def problems(results: dict[str, Any]) -> list[str]:
    """Return what does not hold."""
    found = [*results["first_errors"], *results["replaced_under_load"]["first_errors"], *results["sums"]]
    for count in ("threads", "descriptors"):
        seen = [one[count] for one in results["at_rest"]]
        if max(seen) > seen[0]:
            found.append(f"{count} at rest grew from {seen[0]} to {max(seen)}")
    for figure in ("growth_percent", "trend_percent"):
        if results["memory"][figure] > MAX_GROWTH_PERCENT:
            found.append(f"memory: {figure} is {results['memory'][figure]}, at most {MAX_GROWTH_PERCENT} is allowed")
    codes = [*results["replaced_under_load"]["exit_codes"], results["last_exit_code"]]
    if any(codes):
        found.append(f"the server ended with the codes {codes}, not 0")
    return found


def main() -> None:
    """Run, print, and write the record."""
    parser = make_parser(__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    arguments = parser.parse_args()
    record = Record("sefa serve under mixed load, server and clients on one machine")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [folder / "first.onnx", folder / "second.onnx"]
        for file, normalize in zip(files, ("none", "rows"), strict=True):
            command = [
                sys.executable,
                "-m",
                "sefa_cli",
                "export",
                str(arguments.checkpoint),
                "--top",
                "8",
                "-o",
                str(file),
            ]
            subprocess.run([*command, "--normalize", normalize], check=True, stdout=subprocess.DEVNULL)
        model = folder / "model.onnx"
        _replace(model, files[0])
        editors = [sefa_runtime.load(file, "cpu", threads=1) for file in files]
        asked = {MODEL: questions(editors), SMALL: questions([sefa_runtime.load(TINY, "cpu", threads=1)])}
        server = Server(model, folder / "log")
        try:
            results = uvloop.run(soak(server, Load(server, asked), model, files, arguments.minutes))
        finally:
            if server.process is not None and server.process.poll() is None:
                server.process.kill()
    found = problems(results)
    figures = {
        "minutes": arguments.minutes,
        "clients": {ask.__name__: count for ask, count in CLIENTS.items()},
        **results,
        "limits": {"growth_percent": MAX_GROWTH_PERCENT},
        "problems": found,
    }
    record.finish(figures, arguments.output, found)


if __name__ == "__main__":
    main()
