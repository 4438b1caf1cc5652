"""Ids and the log, the token, bodies and their limits, pages of elsewhere, a client that goes away."""

import http.client
import json
import logging
import socket
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from support.paths import GOLDEN
from support.patience import PATIENCE_S
from support.serving import Door, Running, Start, infer_body, wait_until

TINY = GOLDEN / "tiny.onnx"
BODY = infer_body({"z": np.zeros((1, 6), np.float32)})
INFER = "/v2/models/tiny/infer"
HEAD = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()


@pytest.fixture(scope="module")
def server(start: Start) -> Running:
    """A server with a small limit of bodies."""
    return start(TINY, max_body_mb=0.01)


@pytest.fixture(scope="module")
def closed(start: Start) -> Running:
    """A server that wants a token."""
    return start(TINY, token="se cret", cors=("https://page.example",))


@pytest.fixture
def log_lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What the log of requests gets."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("sefa.access")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_a_requests_id_comes_back_or_is_made(server: Running) -> None:
    assert server.http.get("/v2", headers={"X-Request-ID": "a/b.c-1"}).headers["x-request-id"] == "a/b.c-1"
    made = [server.http.get("/v2").headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    wrong = server.http.get("/v2", headers={"X-Request-ID": "a b"}).headers["x-request-id"]
    assert len(wrong) == 32


def test_each_request_is_a_line_of_json(server: Running, log_lines: list[str]) -> None:
    server.http.post(INFER, json=BODY, headers={"X-Request-ID": "one"})
    server.http.get("/nowhere")
    wait_until(lambda: len(log_lines) == 2)
    first, second = map(json.loads, log_lines)
    assert first["request_id"] == "one"
    assert (first["method"], first["path"], first["status"]) == ("POST", INFER, 200)
    assert (first["model"], first["images"], first["run_images"]) == ("tiny", 1, 1)
    assert first["ms"] >= first["run_ms"] > 0
    assert (second["path"], second["status"]) == ("/nowhere", 404)


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [
        (INFER, "application/json", 200),
        (INFER, "application/json; charset=utf-8", 200),
        (INFER, "application/octet-stream", 200),
        (INFER, None, 200),
        (INFER, "text/plain", 415),
        (INFER, "multipart/form-data; boundary=x", 415),
        (INFER, "application/x-www-form-urlencoded", 415),
        ("/models/tiny/edit", "application/json", 400),
        ("/models/tiny/edit", None, 415),
        ("/models/tiny/edit", "text/plain", 415),
        ("/models/tiny/edit", "application/octet-stream", 415),
    ],
)
def test_types_of_bodies(server: Running, path: str, kind: str | None, status: int) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = server.http.post(path, content=json.dumps(BODY), headers=headers)
    assert answer.status_code == status
    if status != 200:
        assert list(answer.json()) == ["error"]


def test_a_packed_body_is_refused(server: Running) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = server.http.post(INFER, content=b"x", headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (415, "Content-Encoding 'gzip' is not read here")


def test_a_body_over_the_limit_is_refused(server: Running) -> None:
    headers = {"Content-Type": "application/json"}
    answer = server.http.post(INFER, content=b" " * 10_001, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (413, "at most 0.01 MB in a request")
    padded = json.dumps(BODY).ljust(10_000)
    assert server.http.post(INFER, content=padded, headers=headers).status_code == 200


def test_a_body_over_the_limit_without_a_length_is_refused(server: Running) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b" " * 1000

    with httpx.Client(base_url=f"http://{server.address}", timeout=PATIENCE_S) as http:
        answer = http.post(INFER, content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_a_declared_length_over_the_limit_is_refused_before_the_body_comes(server: Running) -> None:
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as connection:
        connection.sendall(HEAD + b"Content-Length: 99999999\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_come_is_not_waited_for_forever(start_once: Start) -> None:
    server = start_once(TINY, timeout_s=0.2)
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as connection:
        connection.sendall(HEAD + b"Content-Length: 50\r\n\r\n{")
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_head_that_is_too_long_is_refused(server: Running) -> None:
    for part in (b"X-A: b\r\n" * 20_000, b"X-A: " + b"b" * 200_000):
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as connection:
            answer = b""
            try:
                connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n" + part)
                answer = connection.recv(100)
            except ConnectionError:  # It was closed while we wrote.
                continue
            assert answer.startswith(b"HTTP/1.1 431 ")
    assert server.http.get("/v2").status_code == 200


def test_many_requests_of_one_connection_may_together_be_longer_than_a_head(server: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    for _ in range(100):
        connection.request("GET", "/v2", headers={"X-A": "b" * 2000})
        with connection.getresponse() as answer:
            assert answer.status == 200
            answer.read()
    connection.close()


@pytest.mark.parametrize(
    "header",
    [None, "se cret", "Bearer", "Bearer se", "Bearer se cret2", "Basic se cret", "Bearer SE CRET", "Bearer \xe9"],
)
def test_without_the_token_there_is_nothing_to_see(closed: Running, header: str | None) -> None:
    headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
    for path in ("/models", "/models/tiny/image", "/v2/models/tiny", "/metrics", "/v2", "/nowhere", "/v2/health"):
        answer = closed.http.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert list(answer.json()) == ["error"]
    assert closed.http.post(INFER, json=BODY, headers=headers).status_code == 401


def test_with_the_token_all_is_open(closed: Running) -> None:
    for header in ("Bearer se cret", "bearer se cret"):
        headers = {"Authorization": header}
        for path in ("/models", "/models/tiny/image", "/v2/models/tiny", "/metrics", "/v2"):
            assert closed.http.get(path, headers=headers).status_code == 200
        assert closed.http.post(INFER, json=BODY, headers=headers).status_code == 200


def test_health_and_descriptions_need_no_token(closed: Running) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/docs", "/openapi.json"):
        assert closed.http.get(path).status_code == 200
    assert closed.http.get("/").status_code in (200, 307)
    assert "tiny" not in closed.http.get("/openapi.json").text


def test_pages_of_elsewhere_may_not_ask_unless_told(server: Running, closed: Running) -> None:
    asking = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in server.http.options("/models", headers=asking).headers
    assert "access-control-allow-origin" not in server.http.get("/models", headers=asking).headers
    allowed = closed.http.options("/models", headers=asking)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "https://page.example")
    other = closed.http.options("/models", headers=asking | {"Origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers


def test_a_full_queue_is_503(start_once: Start, door: Door) -> None:
    server = start_once(TINY, max_queue=1, timeout_s=2 * PATIENCE_S, max_batch=1)
    model = server.models.get("tiny")
    door.close()
    begun = door.begun
    asked = [server.ask(INFER, BODY)]
    wait_until(lambda: door.begun == begun + 1)  # It runs.
    asked.append(server.ask(INFER, BODY))
    wait_until(lambda: model.waiting_images == 1)
    answer = server.http.post(INFER, json=BODY)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json() == {"error": "1 images are waiting: try again later"}
    door.open()
    for connection in asked:
        with connection.getresponse() as answered:
            assert answered.status == 200


def test_a_late_answer_is_504(start_once: Start, door: Door) -> None:
    server = start_once(TINY, timeout_s=0.2)
    door.close()
    late = server.http.post(INFER, json=BODY)
    assert (late.status_code, late.json()) == (504, {"error": "no answer within 0.2 s"})
    door.open()
    wait_until(lambda: server.http.post(INFER, json=BODY).status_code == 200)


def test_a_client_that_goes_away_leaves_the_queue(start_once: Start, door: Door, log_lines: list[str]) -> None:
    server = start_once(TINY, max_batch=1)
    model = server.models.get("tiny")
    door.runs.clear()
    door.close()
    begun = door.begun
    connections = [server.ask(INFER, BODY)]
    wait_until(lambda: door.begun == begun + 1)  # It runs.
    connections += [server.ask(INFER, BODY) for _ in range(2)]
    wait_until(lambda: model.waiting_images == 2)
    for connection in connections[1:]:
        connection.close()
    wait_until(lambda: model.waiting_images == 0)
    door.open()
    with connections[0].getresponse() as answer:
        assert answer.status == 200
        answer.read()
    assert len(door.runs) == 1
    wait_until(lambda: len(log_lines) == 3)
    assert sorted(json.loads(line)["status"] for line in log_lines) == [200, 499, 499]


def test_a_client_that_sends_two_requests_at_once_and_goes_away_leaves_the_queue(start_once: Start, door: Door) -> None:
    server = start_once(TINY, max_batch=1)
    model = server.models.get("tiny")
    door.close()
    begun = door.begun
    server.ask(INFER, BODY)
    wait_until(lambda: door.begun == begun + 1)  # It runs.
    body = json.dumps(BODY)
    head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as connection:
        connection.sendall(f"{head}\r\n\r\n{body}".encode() * 2)
        wait_until(lambda: model.waiting_images == 1)
    wait_until(lambda: model.waiting_images == 0)
    door.open()


def test_an_address_that_was_found_before_is_found_for_its_method_alone(server: Running) -> None:
    for _ in range(2):
        assert server.http.get("/v2/models/tiny").json()["name"] == "tiny"
        assert server.http.post("/v2/models/tiny").status_code == 405
        assert server.http.get("/v2/models/none").status_code == 404
        assert server.http.get("/v2/models/tiny/versions/1").json()["name"] == "tiny"
