"""The examples in docs/serve.md, run as they stand, but for the port."""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import sefa_runtime
from sefa_runtime.model.renaming import rename_directions
from sefa_runtime.server.network.addresses import listen
from support.paths import ROOT, TINY
from support.patience import PATIENCE_S, wait_until
from support.serving import Running, starting

TEXT = (ROOT / "docs" / "serve.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader stands after `make demo`; the model is smaller."""
    (tmp_path / "demo").mkdir()
    shutil.copy(TINY, tmp_path / "demo" / "faces.onnx")
    rename_directions(tmp_path / "demo" / "faces.onnx", {0: "brightness", 1: "turn"})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[Running]:
    """The server of the first example."""
    for start in starting():
        yield start("demo/faces.onnx", grpc_port=0)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_examples(server: Running, folder: Path) -> None:
    text = "".join(blocks("bash")).replace("\\\n", "").replace("127.0.0.1:8000", server.address)
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("curl")]
    assert len(commands) == 5
    for command in commands:
        done = subprocess.run([*command, "--fail", "--silent", "--show-error"], capture_output=True, check=False)
        assert done.returncode == 0, (command, done.stderr)
        if "-o" not in command:
            assert json.loads(done.stdout)["name"] == "faces"
    editor = sefa_runtime.load("demo/faces.onnx", provider="cpu")
    pair = editor.edit([7, 8], edits={"turn": 2.5, "brightness": 1})
    with Image.open("pair.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.concatenate(list(pair), axis=1))
    for name, kind in (("face.webp", "WEBP"), ("strip.png", "PNG"), ("turn.gif", "GIF")):
        with Image.open(name) as image:
            assert image.format == kind


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tritons_client(server: Running, protocol: str) -> None:
    (code,) = (block for block in blocks("python") if "tritonclient" in block)
    assert server.server.grpc is not None
    address = server.address if protocol == "http" else server.server.grpc.address
    code = code.replace("127.0.0.1:8000", address).replace("tritonclient.http", f"tritonclient.{protocol}")
    code = code.replace("randn(1, 100)", "randn(1, 6)").replace("[[1, 4]]", "[[1, 3]]")  # The model is smaller.
    names: dict[str, Any] = {}
    exec(code, names)
    names["client"].close()
    editor = sefa_runtime.load("demo/faces.onnx", provider="cpu")
    np.testing.assert_array_equal(names["image"], editor.run(**names["arrays"]))


def test_sefa_commands_start(folder: Path) -> None:
    lines = [line for line in "".join(blocks("bash")).splitlines() if line.startswith("sefa ")]
    arguments = [shlex.split(line, comments=True)[1:] for line in lines]
    assert len(arguments) == 3
    for given in arguments:
        given = [text if text != "8001" else "0" for text in given]
        process = subprocess.Popen(
            [sys.executable, "-m", "sefa_cli", *given, "--port", "0"], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        said = iter(process.stderr.readline, "")
        assert any(line == "model faces is ready on cpu\n" for line in said), given
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0


def test_workers_of_uvicorn(folder: Path) -> None:
    (code,) = (block for block in blocks("python") if block.startswith("# service.py"))
    Path("service.py").write_text(code)
    (command,) = (line for line in "".join(blocks("bash")).splitlines() if line.startswith("uvicorn "))
    (free,) = listen("127.0.0.1", 0)
    port = free.getsockname()[1]
    free.close()
    process = subprocess.Popen(
        [sys.executable, "-m", *shlex.split(command), "--port", str(port)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/faces", timeout=PATIENCE_S) as client:
            wait_until(lambda: is_ready(client))
            answer = client.get("/models/faces/image?seed=7&edit=turn:2.5&format=png")
            expected = sefa_runtime.load("demo/faces.onnx", provider="cpu").edit(7, edits={"turn": 2.5})[0]
            with Image.open(io.BytesIO(answer.content)) as image:
                np.testing.assert_array_equal(np.asarray(image), expected)
            assert client.get("/docs/swagger-ui.css").status_code == 200
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode in (0, -15)


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/v2/health/ready").status_code == 200
    except httpx.TransportError:  # Nobody listens yet.
        return False
