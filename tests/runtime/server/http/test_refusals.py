"""What is refused before any route sees it is refused as everything else: a status that fits, and one JSON document."""

import json
import socket
from http.client import HTTPResponse
from typing import Any

import numpy as np
import pytest

from support.paths import TINY
from support.patience import PATIENCE_S
from support.serving import Running, Start, image_in, infer_body

BODY = infer_body({"z": np.zeros((1, 6), np.float32)})
INFER = "/v2/models/tiny/infer"
LONG = b"a" * 70_000


@pytest.fixture(scope="module")
def server(start: Start) -> Running:
    """A server with a small limit of bodies."""
    return start(TINY, max_body_mb=0.01, cors=("https://page.example",))


def raw(server: Running, sent: bytes) -> tuple[int, Any]:
    """The status and the document that bytes on a connection are answered with."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(sent)
        answer = HTTPResponse(connection)
        answer.begin()
        assert answer.getheader("content-type") == "application/json"
        return answer.status, json.loads(answer.read())


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),  # TLS
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"NONSENSE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nbad header: y\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /models/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET //models HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /models/gesicht%C3%A9 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /v2/models/%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.0\r\n\r\n", 404),
        (b"DELETE /models/tiny HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"PUT /v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Type: text/plain\r\n\r\na", 405),
        (b"OPTIONS /models HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET " + INFER.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\r\n", 405),
        (b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n", 413),
        (b"GET /" + LONG + b" HTTP/1.1\r\nHost: localhost\r\n", 431),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nX-A: " + LONG, 431),
    ],
    ids=range(24),
)
def test_whatever_is_sent_is_answered_in_json(server: Running, sent: bytes, status: int) -> None:
    found, document = raw(server, sent)
    assert found == status
    assert list(document) == ["error"]
    assert "\n" not in document["error"]
    assert server.http.get("/v2/health/live").status_code == 200


# Calls of Triton's clients, which come without a type, that this server has not.
NOT_OFFERED = (
    "/v2/repository/index",
    "/v2/repository/models/tiny/load",
    "/v2/repository/models/tiny/unload",
    "/v2/systemsharedmemory/region/images/register",
    "/v2/cudasharedmemory/unregister",
    "/v2/trace/setting",
    "/v2/logging",
    "/v2/models/tiny/generate",
)


@pytest.mark.parametrize("path", NOT_OFFERED)
@pytest.mark.parametrize("kind", [None, "application/json", "text/plain"])
def test_what_is_not_offered_is_not_blamed_on_the_type(server: Running, path: str, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = server.http.post(path, content=b'{"a": 1}', headers=headers)
    assert (answer.status_code, answer.json()) == (404, {"error": "there is nothing at this address"})


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_another_method_is_not_blamed_on_the_type(server: Running, method: str) -> None:
    answer = server.http.request(method, INFER, content=b"a", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_tritons_client_is_told_what_is_not_offered(server: Running) -> None:
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException

    with triton.InferenceServerClient(server.address) as client:
        for call in (
            client.get_model_repository_index,
            client.get_system_shared_memory_status,
            client.get_log_settings,
        ):
            with pytest.raises(InferenceServerException, match="there is nothing at this address"):
                call()
        with pytest.raises(InferenceServerException, match="there is nothing at this address"):
            client.load_model("tiny")


def test_a_page_of_elsewhere_is_refused_in_json(server: Running) -> None:
    asking = {"Origin": "https://other.example", "Access-Control-Request-Method": "POST"}
    answer = server.http.options("/models", headers=asking)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert "Origin" in answer.headers["vary"]
    allowed = server.http.options("/models", headers=asking | {"Origin": "https://page.example"})
    assert allowed.status_code == 200


@pytest.mark.parametrize(("name", "wanted"), [("z", "FP32"), ("direction", "INT64"), ("alpha", "FP32")])
@pytest.mark.parametrize("datatype", ["FP64", "FP32", "INT64", "BYTES", None, 7])
def test_the_one_type_that_an_input_wants_is_named(server: Running, name: str, wanted: str, datatype: Any) -> None:
    body = infer_body(
        {
            "z": np.zeros((1, 6), np.float32),
            "direction": np.zeros((1, 1), np.int64),
            "alpha": np.zeros((1, 1), np.float32),
        }
    )
    (entry,) = (entry for entry in body["inputs"] if entry["name"] == name)
    entry["datatype"] = datatype
    answer = server.http.post(INFER, json=body)
    if datatype == wanted:
        assert image_in(answer).size
    else:
        assert (answer.status_code, answer.json()["error"]) == (400, f"input {name!r} is {wanted}, got {datatype}")


def test_an_input_that_there_is_not_has_no_type(server: Running) -> None:
    body = infer_body({"z": np.zeros((1, 6), np.float32), "label": np.zeros(1, np.int64)})
    body["inputs"][1]["datatype"] = "FP64"
    answer = server.http.post(INFER, json=body)
    assert answer.json()["error"] == "no input 'label': the inputs are z, direction, alpha"


@pytest.mark.parametrize("accept", ["image/avif", "*/*;q=0", "text/html", "nonsense", ""])
def test_what_a_client_would_rather_have_changes_nothing(server: Running, accept: str) -> None:
    answer = server.http.get("/models/tiny/image?format=png", headers={"Accept": accept, "Range": "bytes=0-10"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content.startswith(b"\x89PNG")


def test_chunked_bodies_and_those_that_ask_first(server: Running) -> None:
    body = json.dumps(BODY).encode()
    head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:9], body[9:])) + b"0\r\n\r\n"
    status, document = raw(server, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert (status, document["model_name"]) == (200, "tiny")
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert connection.recv(25).startswith(b"HTTP/1.1 100 Continue\r\n")
        connection.sendall(body)
        answer = HTTPResponse(connection)
        answer.begin()
        assert answer.status == 200
