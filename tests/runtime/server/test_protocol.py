"""Connections that take their time."""

import socket
import time
from pathlib import Path

import pytest

from sefa_runtime.server import protocol
from serving import Start

TINY = Path(__file__).parents[2] / "golden" / "tiny.onnx"


@pytest.mark.parametrize("sent", [b"", b"GET /v2 HT", b"GET /v2 HTTP/1.1\r\nX-A: b\r\n"])
def test_a_head_that_does_not_come_is_not_waited_for(
    start_once: Start, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(protocol, "MAX_HEAD_S", 0.3)
    server = start_once(TINY)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(sent)
        started = time.monotonic()
        assert connection.recv(100) == b""
        assert time.monotonic() - started < 5


def test_a_connection_between_two_requests_may_rest(start_once: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_HEAD_S", 0.3)
    server = start_once(TINY)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        for _ in range(2):
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.6)
