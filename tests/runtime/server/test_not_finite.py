"""Images that are not numbers: an error for who asked for them, and for nobody else."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as protocol
from tritonclient.grpc import service_pb2_grpc

import sefa_runtime
from support.paths import GOLDEN
from support.patience import PATIENCE_S, wait_until
from support.serving import Door, Running, Start, image_in, infer_body

strange_graphs = pytest.importorskip("support.strange_graphs", reason="its graphs are made with onnx")
LIMIT, with_nan = strange_graphs.LIMIT, strange_graphs.with_nan

TINY = GOLDEN / "tiny_float32.onnx"
ERROR = "NaN or infinity in 1 of 1 images"
Z = np.linspace(-1, 1, 6, dtype=np.float32)[None]


def arrays(alpha: float) -> dict[str, np.ndarray[Any, Any]]:
    return {"z": Z, "direction": np.zeros((1, 1), np.int64), "alpha": np.full((1, 1), alpha, np.float32)}


GOOD, BAD = arrays(1), arrays(LIMIT + 1)


@pytest.fixture
def server(start_once: Start, tmp_path: Path, door: Door) -> Running:
    """A server of a model that gives NaN for large alphas, behind the door."""
    return start_once(with_nan(TINY, tmp_path / "nan.onnx"), grpc_port=0)


def test_every_endpoint_says_so(server: Running) -> None:
    beyond = f"0:{LIMIT + 1}"
    answers = [
        server.http.get("/models/nan/image", params={"edit": beyond}),
        server.http.post("/models/nan/edit", json={"edits": {"0": LIMIT + 1}}),
        server.http.post("/models/nan/edit", json={"sweep": {"direction": 0, "alphas": [LIMIT + 1]}}),
        server.http.post("/v2/models/nan/infer", json=infer_body(BAD)),
        server.http.post("/v2/models/nan/infer", json=infer_body(BAD, parameters={"binary_data_output": True})),
    ]
    for answer in answers:
        assert answer.status_code == 500
        assert list(answer.json()) == ["error"]
        assert answer.json()["error"].startswith(ERROR)
        assert "\n" not in answer.json()["error"]
        assert "etag" not in answer.headers
    some = server.http.post("/models/nan/edit", json={"seeds": [1, 2, 3], "edits": {"0": [1, LIMIT + 1, 2]}})
    assert some.json()["error"].startswith("NaN or infinity in 1 of 3 images, the first is image 1")
    assert server.http.get("/v2/models/nan/ready").status_code == 200
    assert server.http.get("/models/nan/image", params={"edit": "0:1"}).status_code == 200


def test_over_grpc(server: Running) -> None:
    assert server.server.grpc is not None
    request = protocol.ModelInferRequest(model_name="nan")
    for name, array in BAD.items():
        datatype = "INT64" if array.dtype == np.int64 else "FP32"
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    with grpc.insecure_channel(server.server.grpc.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details().startswith(ERROR)


def test_others_in_the_same_run_get_their_images(server: Running, door: Door) -> None:
    model = server.models.get("nan")
    url = f"http://{server.address}/v2/models/nan/infer"
    door.close()
    door.runs.clear()
    with ThreadPoolExecutor(4) as clients:

        def ask(inputs: dict[str, np.ndarray[Any, Any]], waiting: int) -> Any:
            asked = clients.submit(httpx.post, url, json=infer_body(inputs), timeout=PATIENCE_S)
            wait_until(lambda: model.active == waiting)
            return asked

        first = ask(GOOD, 1)
        wait_until(lambda: model.waiting_images == 0)  # It runs, and the others gather.
        good, bad, also_good = (ask(inputs, waiting) for waiting, inputs in enumerate((GOOD, BAD, GOOD), start=2))
        wait_until(lambda: model.waiting_images == 3)
        door.open()
        assert bad.result().status_code == 500
        assert door.runs == [(1, 1), (3, 1)]  # None was made again.
        expected = sefa_runtime.load(TINY, provider="cpu").run(**GOOD)
        for answer in (first, good, also_good):
            np.testing.assert_array_equal(image_in(answer.result()), expected)
