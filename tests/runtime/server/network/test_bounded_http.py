"""Connections that take their time."""

import asyncio
import json
import socket

import pytest

from sefa_runtime.server.network import bounded_http
from support.paths import TINY
from support.patience import PATIENCE_S
from support.serving import Start


@pytest.mark.parametrize("sent", [b"", b"GET /v2 HT", b"GET /v2 HTTP/1.1\r\nX-A: b\r\n"])
def test_a_head_that_does_not_come_is_not_waited_for(
    start_once: Start, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(bounded_http, "MAX_HEAD_S", 0.3)
    server = start_once(TINY)
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(sent)
        answer = connection.makefile("rb").read()
    if not sent:  # Nothing was asked, and nothing is answered.
        assert answer == b""
    else:
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": "the headers did not arrive within 0.3 s"}


def test_nor_is_a_later_one_that_does_not_come(start_once: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_http, "MAX_HEAD_S", 0.3)
    server = start_once(TINY)
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /v2 HT")
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 408 ")


def test_a_connection_between_two_requests_may_rest(start_once: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[asyncio.TimerHandle | None] = []
    complete = bounded_http.BoundedHttp.on_message_complete

    def noted(self: bounded_http.BoundedHttp) -> None:
        complete(self)
        timers.append(self._timer)

    monkeypatch.setattr(bounded_http.BoundedHttp, "on_message_complete", noted)
    server = start_once(TINY)
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        for _ in range(2):
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert timers == [None, None]  # Nothing is left that would close it.


def test_a_wish_for_websockets_is_passed_over_in_silence(start_once: Start, caplog: pytest.LogCaptureFixture) -> None:
    server = start_once(TINY)
    wish = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "a"}
    assert server.http.get("/models", headers=wish).status_code == 200
    assert caplog.messages == []


@pytest.mark.parametrize("path", ["/models?" + "a" * 70_000, "/" + "a" * 70_000])
def test_an_address_that_is_too_long_is_told_so(start_once: Start, path: str) -> None:
    server = start_once(TINY)
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": bounded_http.HEAD_TOO_LONG}


def test_a_body_that_is_no_json_is_told_so(start_once: Start) -> None:
    server = start_once(TINY)
    answer = server.http.post(
        "/models/tiny/edit", content=b'{"seeds": [1', headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert "not JSON: Expecting ',' delimiter" in answer.json()["error"]
    assert "12" in answer.json()["error"]


@pytest.mark.parametrize(
    "head", [b"Content-Length: 20000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nffffff0\r\n"]
)
def test_a_client_that_sends_too_much_gets_to_read_why(start_once: Start, head: bytes) -> None:
    server = start_once(TINY)
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\n" + head)
        connection.sendall(bytes(15_000_000))  # Before it reads anything.
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": "at most 8 MB in a request"}


def test_a_client_that_never_ends_is_read_for_a_while_only(start_once: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_http, "LINGER_S", 0.3)
    server = start_once(TINY)
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(
            b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000\r\n\r\n"
        )
        with pytest.raises(ConnectionError):
            send_for_ever(connection)


def send_for_ever(connection: socket.socket) -> None:
    while True:
        connection.sendall(bytes(1000))
