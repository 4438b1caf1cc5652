"""KServe's own client, in an environment of its own: it brings many packages."""

import json
import os
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest

import sefa_runtime
from support.paths import GOLDEN
from support.serving import Start

KSERVE = "kserve==0.21.0"
PROGRAM = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

url, folder = sys.argv[1:]
arrays = dict(np.load(f"{folder}/inputs.npz"))

async def main():
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=1))
    facts = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model": await client.is_model_ready(url, "tiny"),
    }
    images = {}
    for binary_in in (True, False):
        for binary_out in (True, False):
            inputs = []
            for name, array in arrays.items():
                datatype = "INT64" if array.dtype == np.int64 else "FP32"
                tensor = InferInput(name, list(array.shape), datatype)
                tensor.set_data_from_numpy(array, binary_data=binary_in)
                inputs.append(tensor)
            outputs = [RequestedOutput("image", parameters={"binary_data": binary_out})]
            request = InferRequest("tiny", inputs, request_id="mine", request_outputs=outputs)
            response = await client.infer(url, request, model_name="tiny")
            assert response.id == "mine", response.id
            images[f"{binary_in}_{binary_out}"] = response.outputs[0].as_numpy()
    try:
        await client.infer(url, {"inputs": []}, model_name="tiny")
    except Exception as error:
        facts["error"] = str(error)
    np.savez(f"{folder}/images.npz", **images)
    print(json.dumps(facts))

asyncio.run(main())
"""


@pytest.mark.slow
def test_kserves_client_gets_the_editors_images(start: Start, tmp_path: Path) -> None:
    server = start(GOLDEN / "tiny.onnx")
    arrays = {
        "z": np.random.default_rng(0).standard_normal((3, 6), np.float32),
        "direction": np.array([[0, 1], [2, 3], [1, 0]]),
        "alpha": np.array([[1, -2], [0.5, 3], [-1, 0]], np.float32),
    }
    np.savez(tmp_path / "inputs.npz", **arrays)  # type: ignore[arg-type]  # numpy's stubs take the names for options
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", KSERVE], check=True)
    command = [python, "-c", PROGRAM, f"http://{server.address}", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert (facts["live"], facts["ready"], facts["model"]) == (True, True, True)
    assert "input 'z' is missing" in facts["error"]
    expected = sefa_runtime.load(GOLDEN / "tiny.onnx", provider="cpu").run(**arrays)
    with np.load(tmp_path / "images.npz") as images:
        assert len(images) == 4
        for image in images.values():
            np.testing.assert_array_equal(image, expected)
