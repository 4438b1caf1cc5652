"""What a request costs the server, counted: functions called in the event loop, and pieces sent."""

import asyncio
import json
import sys
from types import FrameType
from typing import Any

import httpx
import numpy as np
import pytest

from sefa_runtime.server.network import bounded_http
from support.paths import TINY
from support.serving import Running, Start, some_inputs

INFER, IMAGE = "/v2/models/tiny/infer", "/models/tiny/image?seed=7&edit=0:1&format=png"


def ask(server: Running, method: str, path: str) -> httpx.Response:
    """Send a request; one for tensors has them after its JSON."""
    if path != INFER:
        return server.http.request(method, path)
    _, arrays = some_inputs("tiny", 1, 1)
    inputs = [
        {
            "name": name,
            "datatype": "INT64" if array.dtype == np.int64 else "FP32",
            "shape": array.shape,
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in arrays.items()
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    body = head + b"".join(array.tobytes() for array in arrays.values())
    return server.http.request(method, path, content=body, headers={"Inference-Header-Content-Length": str(len(head))})


# A tenth more than are called with uvicorn 0.54 and Starlette 1.10.
@pytest.mark.parametrize(("method", "path", "most"), [("POST", INFER, 242), ("GET", IMAGE, 356)])
def test_few_functions_are_called(start: Start, method: str, path: str, most: int) -> None:
    server, calls = start(TINY), 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    for counting in (None, count, None):
        server.server.loop.call_soon_threadsafe(sys.setprofile, counting)
        for _ in range(10):
            assert ask(server, method, path).status_code == 200
        if counting is not None:
            counted = calls
    assert counted / 10 <= most


class Counting:
    """A transport that notes the pieces that are sent."""

    def __init__(self, transport: asyncio.Transport, sent: list[str]) -> None:
        self._transport, self._sent = transport, sent

    def __getattr__(self, name: str) -> Any:
        if name in ("write", "writelines"):
            self._sent.append(name)
        return getattr(self._transport, name)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pieces that are sent over connections made from now on."""
    pieces: list[str] = []
    made = bounded_http.BoundedHttp.connection_made
    monkeypatch.setattr(
        bounded_http.BoundedHttp,
        "connection_made",
        lambda self, transport: made(self, Counting(transport, pieces)),  # type: ignore[arg-type]
    )
    return pieces


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", INFER, 200), ("GET", IMAGE, 200), ("HEAD", IMAGE, 200), ("GET", "/models/none", 404)],
)
def test_an_answer_is_sent_in_one_piece(
    start_once: Start, sent: list[str], method: str, path: str, status: int
) -> None:
    server = start_once(TINY)
    for count in (1, 2, 3):
        assert ask(server, method, path).status_code == status
        assert len(sent) == count
