"""The application in docs/gunicorn.md, in this process and under gunicorn."""

import asyncio
import io
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import sefa_runtime
from sefa_runtime.server.network.addresses import listen
from support.paths import ROOT, TINY
from support.patience import PATIENCE_S, wait_until

TEXT = (ROOT / "docs" / "gunicorn.md").read_text()
IMAGE = "/models/faces/image?seed=7&edit=1:2.5&format=png"


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page's application; the model that it names is in the current folder."""
    (tmp_path / "demo").mkdir()
    shutil.copy(TINY, tmp_path / "demo" / "faces.onnx")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(# server.py\n.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    Path("server.py").write_text(code)
    return str(code)


def assert_it_is_the_image(content: bytes) -> None:
    expected = sefa_runtime.load("demo/faces.onnx", provider="cpu").edit(7, edits={1: 2.5})[0]
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(np.asarray(image), expected)


def test_the_application(code: str) -> None:
    names: dict[str, Any] = {}
    exec(code, names)

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(names["app"])
        async with names["lifespan"](names["app"]), httpx.AsyncClient(transport=transport) as client:
            return [await client.get(f"http://localhost{path}") for path in (IMAGE, "/", "/metrics")]

    image, page, metrics = asyncio.run(ask())
    assert_it_is_the_image(image.content)
    assert "text/html" in page.headers["content-type"]
    assert metrics.status_code == 200


@pytest.mark.slow
@pytest.mark.skipif(not all(map(find_spec, ("gunicorn", "uvicorn_worker"))), reason="needs gunicorn, uvicorn-worker")
def test_under_gunicorn(code: str) -> None:
    (command,) = re.findall(r"^gunicorn server.*", TEXT, re.MULTILINE)
    (free,) = listen("127.0.0.1", 0)
    address = f"127.0.0.1:{free.getsockname()[1]}"
    free.close()
    arguments = [*shlex.split(command.replace("127.0.0.1:8000", address)), "--no-control-socket"]
    process = subprocess.Popen([sys.executable, "-m", *arguments], stderr=subprocess.PIPE, text=True)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=PATIENCE_S) as client:
            wait_until(lambda: is_ready(client))
            assert_it_is_the_image(client.get(IMAGE).content)
    finally:
        process.terminate()
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert said.count("Application startup complete") == 2


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/v2/health/ready").status_code == 200
    except httpx.TransportError:  # Nobody listens yet.
        return False
