"""A real server on loopback, in a thread of the test's process."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np

from sefa_runtime.editor import Editor, load
from sefa_runtime.machine.packages import EXPORT_PACKAGES
from sefa_runtime.server.models import HostedModel, Models, parse_model
from sefa_runtime.server.network.addresses import listen
from sefa_runtime.server.run import Server
from sefa_runtime.server.settings import Settings
from support.paths import GOLDEN
from support.patience import PATIENCE_S
from support.patience import wait_until as wait_until


@dataclass
class Running:
    """A server that answers."""

    server: Server
    models: Models
    http: httpx.Client
    port: int
    reports: list[str]
    connections: list[HTTPConnection] = field(default_factory=list)  # of `ask`

    @property
    def address(self) -> str:
        """As clients want it."""
        return f"127.0.0.1:{self.port}"

    def ask(self, path: str, document: object) -> HTTPConnection:
        """Post a document, on a connection of its own, and wait for no answer; it is closed with the server."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        self.connections.append(connection)
        connection.request("POST", path, json.dumps(document), {"Content-Type": "application/json"})
        return connection

    def close(self) -> None:
        """Close everything that asks it."""
        self.http.close()
        for connection in self.connections:
            connection.close()


Start = Callable[..., Running]


def starting() -> Iterator[Start]:
    """Start servers and end them."""
    started: list[tuple[Running, threading.Thread]] = []

    def begin(*models: str | Path, ready: bool = True, **settings: Any) -> Running:
        chosen = replace(Settings(port=0, provider="cpu", threads=1, timeout_s=PATIENCE_S), **settings)
        hosted = Models([HostedModel(*parse_model(str(model)), chosen) for model in models])
        reports: list[str] = []
        server = Server(hosted, chosen, reports.append)
        listeners = listen(chosen.host, 0)
        port = listeners[0].getsockname()[1]
        thread = threading.Thread(target=server.run, args=(listeners,), daemon=True)
        thread.start()
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S)
        running = Running(server, hosted, client, port, reports)
        started.append((running, thread))

        def answers() -> bool:
            assert thread.is_alive(), "it ended"
            return server.started and not (ready and hosted.loading)

        wait_until(answers)
        return running

    yield begin
    for running, _ in started:  # All of them, whatever becomes of one.
        running.close()
        running.server.should_exit = True
    for _, thread in started:
        thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for _, thread in started)


@dataclass
class Door:
    """Holds up runs of graphs until it is opened."""

    opened: threading.Event = field(default_factory=threading.Event)
    begun: int = 0  # runs that came to the door
    runs: list[tuple[int, ...]] = field(default_factory=list)  # images and edits of each that went through

    def close(self) -> None:
        """Hold up what runs from now on."""
        self.opened.clear()

    def open(self) -> None:
        """Let them run."""
        self.opened.set()


# A server that needs no torch. No graph runs while the gate, a file, is there; another file says that one waits.
PROGRAM = """
import sys, time
from pathlib import Path
gate, *sys.argv[1:] = sys.argv[1:]
sys.modules.update(dict.fromkeys(PACKAGES))
from sefa_runtime.editor import Editor
infer = Editor.infer

def held(self, feeds):
    while Path(gate).exists():
        Path(gate + ".held").touch()
        time.sleep(0.005)
    return infer(self, feeds)

Editor.infer = held
from sefa_cli import main
main()
"""


@dataclass
class Served:
    """`sefa serve` in a process of its own."""

    process: "subprocess.Popen[str]"
    url: str
    gate: Path

    def close_gate(self) -> None:
        """Hold up what runs from now on."""
        self.gate.touch()

    def open_gate(self) -> None:
        """Let them run."""
        self.gate.unlink()

    def wait_for_run(self) -> None:
        """Wait until a run is held up; what is asked from now on waits for it."""
        wait_until(self.gate.with_name(self.gate.name + ".held").exists)

    def read_line(self) -> str:
        """Read a line of what it says."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()


@contextmanager
def serve(*arguments: str | Path, gate_open: bool = True) -> Iterator[Served]:
    """Run `sefa serve` with these arguments, and end it."""
    with TemporaryDirectory() as folder:
        gate = Path(folder) / "gate"
        if not gate_open:
            gate.touch()
        program = PROGRAM.replace("PACKAGES", repr(EXPORT_PACKAGES))
        options = ["--port", "0", *(() if "--tuned" in arguments else ("--provider", "cpu"))]
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program, str(gate), "serve", *map(str, arguments), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        served = Served(process, "", gate)
        try:
            line = served.read_line()
            assert line.startswith("sefa serves at http://127.0.0.1:"), line
            served.url = line.split()[-1]
            yield served
        finally:
            process.kill()
            process.communicate()


def infer_body(arrays: dict[str, np.ndarray[Any, Any]], **fields: Any) -> dict[str, Any]:
    """Return a v2 request with its numbers in JSON."""
    datatypes = {"f": "FP32", "i": "INT64"}
    inputs = [
        {"name": name, "datatype": datatypes[array.dtype.kind], "shape": list(array.shape), "data": array.tolist()}
        for name, array in arrays.items()
    ]
    return {"inputs": inputs, **fields}


def image_in(answer: httpx.Response) -> np.ndarray[Any, Any]:
    """Return the image in an answer, in JSON or after it."""
    assert answer.status_code == 200, answer.text
    length = answer.headers.get("inference-header-content-length")
    head = json.loads(answer.content if length is None else answer.content[: int(length)])
    (output,) = head["outputs"]
    dtype = {"UINT8": np.uint8, "FP32": np.float32}[output["datatype"]]
    raw = b"" if length is None else answer.content[int(length) :]
    flat: np.ndarray[Any, Any] = np.array(output["data"], dtype) if length is None else np.frombuffer(raw, dtype)
    return flat.reshape(output["shape"])


def some_inputs(model: str, images: int, edits: int) -> tuple[Editor, dict[str, np.ndarray[Any, Any]]]:
    """Return the Editor of a golden model, and random inputs for it, written by hand rather than from its signature."""
    editor = load(GOLDEN / f"{model}.onnx", provider="cpu")
    info, random = editor.info, np.random.default_rng(images * 10 + edits)
    arrays: dict[str, np.ndarray[Any, Any]] = {
        info.latent_name: random.standard_normal((images, *info.latent_shape), np.float32),
        "direction": random.integers(0, len(info.directions), (images, edits)),
        "alpha": random.uniform(-3, 3, (images, edits)).astype(np.float32),
    }
    if info.takes_label:
        arrays["label"] = random.integers(0, info.num_classes, images)
    if info.truncation is None:
        arrays["truncation"] = random.uniform(0.5, 1, images).astype(np.float32)
    return editor, arrays
