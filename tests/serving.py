"""A real server on loopback, in a thread of the test's process."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from sefa_runtime.server.models import HostedModel, Models, parse_model
from sefa_runtime.server.run import Server, listen
from sefa_runtime.server.settings import Settings


@dataclass
class Running:
    """A server that answers."""

    server: Server
    models: Models
    http: httpx.Client
    port: int
    reports: list[str]

    @property
    def address(self) -> str:
        """As clients want it."""
        return f"127.0.0.1:{self.port}"


Start = Callable[..., Running]


def starting() -> Iterator[Start]:
    """Start servers and end them."""
    started: list[tuple[Running, threading.Thread]] = []

    def begin(*models: str | Path, ready: bool = True, **settings: Any) -> Running:
        chosen = replace(Settings(port=0, provider="cpu", threads=1), **settings)
        hosted = Models([HostedModel(*parse_model(str(model)), chosen) for model in models])
        reports: list[str] = []
        server = Server(hosted, chosen, reports.append)
        listener = listen("127.0.0.1", 0)
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
        running = Running(server, hosted, client, port, reports)
        started.append((running, thread))
        wait_until(lambda: server.started and not (ready and hosted.loading))
        return running

    yield begin
    for running, thread in started:
        running.http.close()
        running.server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def wait_until(true: Callable[[], object], seconds: float = 20) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never was"
        time.sleep(0.005)


@dataclass
class Door:
    """Holds up runs of graphs until it is opened."""

    opened: threading.Event = field(default_factory=threading.Event)
    runs: list[tuple[int, ...]] = field(default_factory=list)  # images and edits of each

    def close(self) -> None:
        """Hold up what runs from now on."""
        self.opened.clear()

    def open(self) -> None:
        """Let them run."""
        self.opened.set()


def infer_body(arrays: dict[str, np.ndarray[Any, Any]], **fields: Any) -> dict[str, Any]:
    """A v2 request with its numbers in JSON."""
    datatypes = {"f": "FP32", "i": "INT64"}
    inputs = [
        {"name": name, "datatype": datatypes[array.dtype.kind], "shape": list(array.shape), "data": array.tolist()}
        for name, array in arrays.items()
    ]
    return {"inputs": inputs, **fields}


def image_in(answer: httpx.Response) -> np.ndarray[Any, Any]:
    """The image in an answer, in JSON or behind it."""
    assert answer.status_code == 200, answer.text
    length = answer.headers.get("inference-header-content-length")
    head = json.loads(answer.content if length is None else answer.content[: int(length)])
    (output,) = head["outputs"]
    dtype = {"UINT8": np.uint8, "FP32": np.float32}[output["datatype"]]
    raw = b"" if length is None else answer.content[int(length) :]
    flat: np.ndarray[Any, Any] = np.array(output["data"], dtype) if length is None else np.frombuffer(raw, dtype)
    return flat.reshape(output["shape"])
