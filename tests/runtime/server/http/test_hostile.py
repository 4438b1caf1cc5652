"""Requests that are meant ill or made wrong: refused, never a fault, and the next good one is answered."""

import json
import socket
import string
import struct
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sefa_runtime
from support.paths import GOLDEN
from support.patience import PATIENCE_S
from support.serving import Running, Start, image_in, infer_body

GOOD = {
    "z": np.linspace(-1, 1, 6, dtype=np.float32)[None],
    "direction": np.array([[0, 3]]),
    "alpha": np.array([[1.5, -2]], np.float32),
}
REFUSED = (400, 413, 415)
POST = b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def server(start: Start) -> Running:
    """A server of models with and without conditions."""
    return start(GOLDEN / "tiny.onnx", GOLDEN / "style_z.onnx")


@pytest.fixture(scope="module")
def expected() -> np.ndarray[Any, Any]:
    """The image of the good request."""
    return sefa_runtime.load(GOLDEN / "tiny.onnx", provider="cpu").run(**GOOD)


def check(server: Running, expected: np.ndarray[Any, Any], answer: httpx.Response) -> None:
    """The answer is an image or a refusal, and the server is well."""
    if answer.status_code != 200:
        assert list(answer.json()) == ["error"]
        # An alpha may be as large as a float32: then the image is not finite, and the answer says so.
        too_large = answer.status_code == 500 and answer.json()["error"].startswith("NaN or infinity in ")
        assert too_large or answer.status_code in REFUSED, (answer.status_code, answer.text)
    good = server.http.post("/v2/models/tiny/infer", json=infer_body(GOOD))
    np.testing.assert_array_equal(image_in(good), expected)


def send(server: Running, content: bytes, model: str = "tiny", **headers: str) -> httpx.Response:
    return server.http.post(f"/v2/models/{model}/infer", content=content, headers=headers)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 20)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["z", "direction", "alpha", "FP32", "INT64", "image"]),
    lambda values: st.lists(values, max_size=6) | st.dictionaries(st.text(max_size=8), values, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["z", "direction", "alpha", "label", "truncation", "w"]) | st.text(max_size=4)
SHAPES = st.lists(st.sampled_from([-1, 0, 1, 2, 6, 16, 17, 2**31, 2**63, 10**30]) | JSON, max_size=4) | JSON
PARAMETERS = (
    st.dictionaries(
        st.sampled_from(["binary_data_size", "binary_data", "binary_data_output", "shared_memory_region"]),
        st.integers(-5, 100) | st.booleans() | JSON,
        max_size=2,
    )
    | JSON
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": NAMES | JSON,
        "datatype": st.sampled_from(["FP32", "INT64", "UINT8", "BYTES", "FP16"]) | JSON,
        "shape": SHAPES,
        "data": st.lists(st.floats(width=32) | st.integers(-2, 9), max_size=14) | JSON,
        "parameters": PARAMETERS,
    },
)
REQUESTS = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=4) | JSON},
    optional={"id": JSON, "outputs": st.lists(TENSORS, max_size=2) | JSON, "parameters": PARAMETERS},
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "inference-header-content-length": st.integers(-3, 400).map(str)
        | st.text(string.printable.strip(), min_size=1, max_size=20),
        "content-type": st.sampled_from(["application/json", "application/octet-stream", "text/plain", "x", "a/b;c=d"]),
        "x-request-id": st.text(string.printable.strip(), max_size=140),
    },
)


@st.composite
def almost_good(draw: st.DrawFn) -> tuple[bytes, dict[str, str]]:
    """A good request with raw tensors, a few things of which are changed."""
    raw = b"".join(array.tobytes() for array in GOOD.values())
    body = infer_body(GOOD)
    for entry, array in zip(body["inputs"], GOOD.values(), strict=True):
        del entry["data"]
        entry["parameters"] = {"binary_data_size": array.nbytes}
    for _ in range(draw(st.integers(1, 3))):
        entry = draw(st.sampled_from(body["inputs"]))
        field = draw(
            st.sampled_from(["name", "datatype", "shape", "parameters", "data", "size", "raw", "again", "drop"])
        )
        match field:
            case "size":
                entry["parameters"] = {"binary_data_size": draw(st.integers(-8, 64) | st.just(2**70))}
            case "raw":
                at = draw(st.integers(0, len(raw)))
                raw = raw[:at] + draw(st.binary(max_size=9)) + raw[at + draw(st.integers(0, 9)) :]
            case "again":
                body["inputs"].append(entry)
            case "drop":
                body["inputs"] = [other for other in body["inputs"] if other is not entry] or [entry]
            case "shape":
                entry["shape"] = draw(SHAPES)
            case _:
                entry[field] = draw(JSON)
    text = json.dumps(body).encode()
    length = len(text) + draw(st.sampled_from([0, 0, 0, -1, 1, 30]))
    return text + raw, {"inference-header-content-length": str(length)}


ILL = st.one_of(
    almost_good(),
    st.tuples(REQUESTS.map(lambda body: json.dumps(body).encode()), st.just({"content-type": "application/json"})),
    st.tuples(REQUESTS.map(lambda body: json.dumps(body).encode()), HEADERS),
    st.tuples(st.binary(max_size=300), HEADERS),
)


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(ill=ILL)
def test_malformed_inference_requests(
    server: Running, expected: np.ndarray[Any, Any], ill: tuple[bytes, dict[str, str]]
) -> None:
    check(server, expected, send(server, ill[0], **ill[1]))


@pytest.mark.slow
@settings(max_examples=10_000, suppress_health_check=list(HealthCheck))
@given(ill=ILL, model=st.sampled_from(["tiny", "style_z"]))
def test_very_many_malformed_inference_requests(
    server: Running, expected: np.ndarray[Any, Any], ill: tuple[bytes, dict[str, str]], model: str
) -> None:
    check(server, expected, send(server, ill[0], model, **ill[1]))


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(
    body=st.fixed_dictionaries(
        {},
        optional={
            "seeds": st.integers(-1, 2**33) | JSON,
            "z": st.lists(st.floats(), min_size=6, max_size=6) | JSON,
            "codes": JSON,
            "edits": st.dictionaries(st.sampled_from(["pose", "0", "9", "-1", "٣"]) | st.text(max_size=3), JSON) | JSON,
            "label": JSON,
            "truncation": JSON,
            "sweep": st.fixed_dictionaries({"direction": JSON}, optional={"alphas": JSON, "steps": JSON}) | JSON,
            "format": st.sampled_from(["png", "gif", "webp", "jpeg"]) | JSON,
            "animate": JSON,
            "frames_per_second": JSON,
            "scale": st.integers(0, 40) | JSON,
        },
    )
    | JSON
)
def test_malformed_bodies_of_edits(server: Running, expected: np.ndarray[Any, Any], body: Any) -> None:
    headers = {"content-type": "application/json"}
    check(server, expected, server.http.post("/models/tiny/edit", content=json.dumps(body), headers=headers))


DEEP = 100_000


@pytest.mark.parametrize("path", ["/v2/models/tiny/infer", "/models/tiny/edit"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"\xff\xfe{}",
        b"[" * DEEP,
        b"[" * DEEP + b"]" * DEEP,
        b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        b'{"inputs":[{"name":"z","datatype":"FP32","shape":[1,6],"data":' + b"[" * 500 + b"]" * 500 + b"}]}",
        b'{"z":' + b"[" * 500 + b"1" + b"]" * 500 + b"}",
        b'{"id":"\\ud800","inputs":[{"name":"\\ud800"}]}',
        b'{"edits":{"\\ud800":1}}',
        b"1" * 100_000,
        b'{"inputs":NaN}',
        b'{"seeds":' + b"9" * 5000 + b"}",
        b'{"inputs":[{"name":"z","datatype":"FP32","shape":[1,6],"data":["'
        + b"x" * 3_000_000
        + b'"'
        + b',"a"' * 900_000
        + b"]}]}",
        b'{"z":["' + b"x" * 3_000_000 + b'"' + b',"a"' * 900_000 + b"]}",
        b'{"edits":{' + b",".join(b'"%d":"x"' % number for number in range(200_000)) + b"}}",
        b'{"edits":{"pose":[' + b"0," * 2_000_000 + b"0]}}",
        b'{"seeds":[' + b'"a",' * 1_000_000 + b"0]}",
        b'{"inputs":[' + b"{}," * 1_000_000 + b"{}]}",
        b" " * 7_999_000 + b"{",
    ],
    ids=range(20),
)
def test_bodies_that_are_deep_long_or_nonsense(
    server: Running, expected: np.ndarray[Any, Any], path: str, content: bytes
) -> None:
    check(server, expected, server.http.post(path, content=content, headers={"content-type": "application/json"}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["z", "alpha"])
def test_what_is_not_finite_in_raw_tensors(
    server: Running, expected: np.ndarray[Any, Any], name: str, value: float
) -> None:
    arrays = {key: array.copy() for key, array in GOOD.items()}
    arrays[name][0, 1] = value
    body = infer_body(GOOD)
    for entry, array in zip(body["inputs"], arrays.values(), strict=True):
        del entry["data"]
        entry["parameters"] = {"binary_data_size": array.nbytes}
    text = json.dumps(body).encode()
    raw = b"".join(array.tobytes() for array in arrays.values())
    answer = send(server, text + raw, **{"inference-header-content-length": str(len(text))})
    assert (answer.status_code, answer.json()["error"]) == (400, f"{name} must be finite, got NaN or infinity")
    check(server, expected, answer)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        POST + b"Content-Length: -5\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzzz\r\n",
        POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        struct.pack("<512I", *range(512)),
    ],
    ids=range(11),
)
def test_what_is_hardly_http(server: Running, expected: np.ndarray[Any, Any], raw: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(4096)
    assert not answer.startswith(b"HTTP/1.1 5")
    good = server.http.post("/v2/models/tiny/infer", json=infer_body(GOOD))
    np.testing.assert_array_equal(image_in(good), expected)


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/docs/../run.py",
        "/docs/%2e%2e%2fcore.py",
        "/models/..%2f..%2fetc%2fpasswd",
        "/models/%00/image",
        "/models/\N{SNOWMAN}",
        "/v2/models/%ff/infer",
        "/v2/models/" + "a" * 5000,
        "/models/tiny/",
    ],
)
def test_paths_lead_nowhere(server: Running, path: str) -> None:
    answer = server.http.get(path)
    assert answer.status_code in (404, 405)
    assert list(answer.json()) == ["error"]
    assert server.http.request("PATCH", "/v2").status_code == 405
