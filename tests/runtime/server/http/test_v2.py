"""The Open Inference Protocol v2 with Triton's client and by hand."""

import asyncio
import json
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from sefa_runtime.server.http import v2_endpoints
from support.paths import GOLDEN
from support.patience import PATIENCE_S
from support.serving import Door, Running, Start, image_in, infer_body, some_inputs, wait_until

MODELS = ("tiny", "tiny_float32", "style_z", "style_w", "style_w+", "style_static")


@pytest.fixture(scope="module")
def server(start: Start) -> Running:
    """A server of all small models."""
    return start(*(GOLDEN / f"{name}.onnx" for name in MODELS))


@pytest.fixture(scope="module")
def client(server: Running) -> triton.InferenceServerClient:
    """Triton's client."""
    return triton.InferenceServerClient(server.address, connection_timeout=PATIENCE_S, network_timeout=PATIENCE_S)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("images", "edits"), [(1, 1), (3, 2), (2, 0), (5, 3)])
@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_gets_the_editors_images(
    client: triton.InferenceServerClient, model: str, images: int, edits: int, binary: bool
) -> None:
    editor, arrays = some_inputs(model, images, edits)
    inputs = []
    for name, array in arrays.items():
        tensor = triton.InferInput(name, list(array.shape), "INT64" if array.dtype == np.int64 else "FP32")
        tensor.set_data_from_numpy(array, binary_data=binary)
        inputs.append(tensor)
    outputs = [triton.InferRequestedOutput("image", binary_data=binary)]
    result = client.infer(model, inputs, outputs=outputs, request_id="mine")
    np.testing.assert_array_equal(result.as_numpy("image"), editor.run(**arrays))
    assert result.get_response()["id"] == "mine"


def test_tritons_client_asks_about_server_and_models(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata()["name"] == "sefa"
    for version in ("", "1"):
        metadata = client.get_model_metadata("style_z", version)
        assert [(entry["name"], entry["datatype"], entry["shape"]) for entry in metadata["inputs"]] == [
            ("z", "FP32", [-1, 24]),
            ("direction", "INT64", [-1, -1]),
            ("alpha", "FP32", [-1, -1]),
            ("label", "INT64", [-1]),
            ("truncation", "FP32", [-1]),
        ]
        assert metadata["outputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}]
        config = client.get_model_config("style_w+", version)
        assert config["max_batch_size"] == 16
        assert [entry["name"] for entry in config["input"]] == ["codes", "direction", "alpha"]
    with pytest.raises(triton.InferenceServerException, match="no model 'nobody' here: tiny, "):
        client.get_model_metadata("nobody")
    with pytest.raises(triton.InferenceServerException, match="model tiny has version 1, not '2'"):
        client.get_model_metadata("tiny", "2")


def test_statistics_count_requests_images_and_failures(start: Start) -> None:
    server = start(GOLDEN / "tiny.onnx", GOLDEN / "style_w.onnx")
    client = triton.InferenceServerClient(server.address, connection_timeout=PATIENCE_S, network_timeout=PATIENCE_S)
    _, arrays = some_inputs("tiny", 3, 1)
    for _ in range(2):
        image_in(server.http.post("/v2/models/tiny/infer", json=infer_body(arrays)))
    assert server.http.post("/v2/models/tiny/infer", json={"inputs": []}).status_code == 400
    (statistics,) = client.get_inference_statistics("tiny")["model_stats"]
    assert (statistics["inference_count"], statistics["execution_count"]) == (6, 2)
    counts = {name: entry["count"] for name, entry in statistics["inference_stats"].items()}
    assert (counts["success"], counts["fail"], counts["queue"], counts["compute_infer"]) == (2, 1, 2, 2)
    assert statistics["inference_stats"]["compute_infer"]["ns"] > 0
    assert [(entry["batch_size"], entry["compute_infer"]["count"]) for entry in statistics["batch_stats"]] == [(3, 2)]
    assert len(client.get_inference_statistics()["model_stats"]) == 2


def post(server: Running, body: dict[str, Any], model: str = "tiny") -> httpx.Response:
    return server.http.post(f"/v2/models/{model}/infer", json=body)


def test_one_edit_of_each_image_may_be_given_flat(server: Running) -> None:
    editor, arrays = some_inputs("tiny", 3, 1)
    flat = arrays | {"direction": arrays["direction"][:, 0], "alpha": arrays["alpha"][:, 0]}
    np.testing.assert_array_equal(image_in(post(server, infer_body(flat))), editor.run(**arrays))


def test_conditions_may_be_columns(server: Running) -> None:
    editor, arrays = some_inputs("style_z", 3, 1)
    columns = arrays | {name: arrays[name][:, None] for name in ("label", "truncation")}
    np.testing.assert_array_equal(image_in(post(server, infer_body(columns), "style_z")), editor.run(**arrays))


def test_edits_and_truncation_may_be_left_out(server: Running) -> None:
    editor, arrays = some_inputs("style_z", 2, 1)
    given = {name: arrays[name] for name in ("z", "label")}
    np.testing.assert_array_equal(image_in(post(server, infer_body(given), "style_z")), editor.run(**given))


def test_whole_numbers_and_flat_data_are_fine(server: Running) -> None:
    editor, _ = some_inputs("tiny", 1, 1)
    z = list(range(12))
    body = {"inputs": [{"name": "z", "datatype": "FP32", "shape": [2, 6], "data": z}]}
    expected = editor.run(z=np.arange(12, dtype=np.float32).reshape(2, 6))
    np.testing.assert_array_equal(image_in(post(server, body)), expected)


@pytest.mark.parametrize(
    "asked",
    [
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "image", "parameters": {"binary_data": True}}]},
    ],
)
def test_the_image_comes_as_raw_bytes_if_asked_for(server: Running, asked: dict[str, Any]) -> None:
    editor, arrays = some_inputs("tiny", 2, 1)
    answer = post(server, infer_body(arrays, **asked))
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "inference-header-content-length" in answer.headers
    np.testing.assert_array_equal(image_in(answer), editor.run(**arrays))


@pytest.mark.parametrize("binary", [True, False])
def test_large_images_are_the_same(server: Running, monkeypatch: pytest.MonkeyPatch, binary: bool) -> None:
    monkeypatch.setattr(v2_endpoints, "LARGE", 10)
    editor, arrays = some_inputs("tiny", 3, 1)
    answer = post(server, infer_body(arrays, parameters={"binary_data_output": binary}))
    np.testing.assert_array_equal(image_in(answer), editor.run(**arrays))


@pytest.mark.parametrize("padding", range(8))
def test_raw_tensors_may_begin_anywhere_in_the_body(server: Running, padding: int) -> None:
    editor, arrays = some_inputs("tiny", 2, 1)
    inputs = [
        {"name": name, "datatype": datatype, "shape": array.shape, "parameters": {"binary_data_size": array.nbytes}}
        for (name, array), datatype in zip(arrays.items(), ("FP32", "INT64", "FP32"), strict=True)
    ]
    head = json.dumps({"inputs": inputs}).encode() + b" " * padding
    answer = server.http.post(
        "/v2/models/tiny/infer",
        content=head + b"".join(array.tobytes() for array in arrays.values()),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    np.testing.assert_array_equal(image_in(answer), editor.run(**arrays))


def test_an_answer_without_an_id_asked_for_has_the_requests(server: Running) -> None:
    _, arrays = some_inputs("tiny", 1, 1)
    answer = post(server, infer_body(arrays))
    assert answer.json()["id"] == answer.headers["x-request-id"]
    assert answer.json()["model_version"] == "1"


def z_input(**changes: Any) -> dict[str, Any]:
    return {"name": "z", "datatype": "FP32", "shape": [1, 6], "data": [0.0] * 6} | changes


def edit_inputs(direction: int = 0, alpha: float = 1.0, edits: int = 1) -> list[dict[str, Any]]:
    return [
        {"name": "direction", "datatype": "INT64", "shape": [1, edits], "data": [direction] * edits},
        {"name": "alpha", "datatype": "FP32", "shape": [1, edits], "data": [alpha] * edits},
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "inputs must be a list of objects"),
        ({"inputs": []}, "input 'z' is missing"),
        ({"inputs": [z_input(), z_input()]}, "input 'z' is given twice"),
        ({"inputs": [z_input(name="w")]}, "no input 'w': the inputs are z, direction, alpha"),
        ({"inputs": [z_input(datatype="FP64")]}, "input 'z' is FP32, got FP64"),
        ({"inputs": [z_input(datatype="UINT8", data=[1e300] * 6)]}, "input 'z' is FP32, got UINT8"),
        ({"inputs": [z_input(datatype="INT64", data=[0] * 6)]}, "input 'z' is FP32, got INT64"),
        ({"inputs": [z_input(shape=[1, 5])]}, "6 numbers do not fill the shape [1, 5]"),
        ({"inputs": [z_input(shape=[6, 1])]}, "z must have shape [batch, 6], got [6, 1]"),
        ({"inputs": [z_input(shape=[-1, -6])]}, "shape must be a list of at most 8 sizes"),
        ({"inputs": [z_input(shape=[10**12, 6])]}, "shape must be a list of at most 8 sizes"),
        ({"inputs": [z_input(shape=[0, *[2**31 - 1] * 4], data=[])]}, "0 numbers do not fill the shape"),
        ({"inputs": [z_input(shape=[1, True])]}, "shape must be a list of at most 8 sizes"),
        ({"inputs": [z_input(data=["0"] * 6)]}, "must be lists of numbers"),
        ({"inputs": [z_input(data=[None] * 6)]}, "must be lists of numbers"),
        ({"inputs": [z_input(data=[True] * 6)]}, "must be lists of numbers"),
        ({"inputs": [z_input(data=[[0, 0, 0], [0, 0]])]}, "rows of unequal length"),
        ({"inputs": [z_input(data=[10**400] * 6)]}, "must be numbers"),
        ({"inputs": [z_input(data=[1e39] * 6)]}, "must be finite"),
        ({"inputs": [z_input(), *edit_inputs(-1)]}, "direction must be in 0..3, got -1"),
        ({"inputs": [z_input(), *edit_inputs(4)]}, "direction must be in 0..3, got 4"),
        ({"inputs": [z_input(), edit_inputs()[0]]}, "direction and alpha belong together"),
        ({"inputs": [z_input(), *edit_inputs(edits=65)]}, "at most 64 edits of an image, got 65"),
        ({"inputs": [z_input(), *edit_inputs(edits=20_000)]}, "at most 64 edits of an image"),
        ({"inputs": [z_input(shape=[17, 6], data=[0] * 102)]}, "at most 16 images in a request, got 17"),
        ({"inputs": [z_input()], "outputs": [{"name": "z"}]}, "the only output is 'image', got 'z'"),
        ({"inputs": [z_input()], "id": 7}, "id must be a string"),
        (
            {"inputs": [z_input(parameters={"shared_memory_region": "/etc/passwd"})]},
            "shared memory is not offered here",
        ),
        (
            {"inputs": [z_input()], "outputs": [{"name": "image", "parameters": {"classification": 3}}]},
            "classification is not offered here",
        ),
    ],
)
def test_what_cannot_be_taken_is_refused_with_the_reason(server: Running, body: dict[str, Any], message: str) -> None:
    answer = post(server, body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert list(answer.json()) == ["error"]


def test_the_number_of_edits_of_a_model_of_static_shape_is_its_own(server: Running) -> None:
    _, arrays = some_inputs("style_static", 1, 4)
    answer = post(server, infer_body(arrays), "style_static")
    assert (answer.status_code, answer.json()["error"]) == (400, "at most 3 edits of an image, got 4")


def test_clients_at_the_same_time_get_their_own_images(start_once: Start, door: Door) -> None:
    server = start_once(*(GOLDEN / f"{name}.onnx" for name in MODELS), timeout_s=2 * PATIENCE_S)
    cases = [(model, images, edits) for model in MODELS for images in (1, 2) for edits in (0, 1, 3)]
    expected_images = {}
    for case in cases:
        editor, arrays = some_inputs(*case)
        expected_images[case] = editor.run(**arrays)
    door.close()  # Until they wait together.

    async def scenario() -> None:
        async with httpx.AsyncClient(base_url=f"http://{server.address}", timeout=PATIENCE_S) as http:

            async def ask(model: str, images: int, edits: int) -> None:
                _, arrays = some_inputs(model, images, edits)
                expected = expected_images[model, images, edits]
                for _ in range(4):
                    answer = await http.post(f"/v2/models/{model}/infer", json=infer_body(arrays))
                    np.testing.assert_array_equal(image_in(answer), expected)

            asking = asyncio.gather(*(ask(*case) for case in cases))
            await asyncio.to_thread(wait_until, lambda: server.models.get("tiny").active == 6 or asking.done())
            door.open()
            await asking

    asyncio.run(scenario())
    counted = server.models.get("tiny").statistics.runs_by_images
    assert max(counted) > 2  # Some did share a run.
