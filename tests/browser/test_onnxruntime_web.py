"""The page of docs/browser.md, as it stands, with onnxruntime-web from npm."""

import functools
import http.server
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import sefa_runtime
from browser.conftest import OpenPage
from support.paths import GOLDEN, ROOT

pytestmark = pytest.mark.browser

# Where `make test-browser` puts it if there is npm, or what the variable names.
PACKAGE = Path(os.environ.get("ONNXRUNTIME_WEB", Path(sys.prefix) / "web" / "node_modules" / "onnxruntime-web"))
BLOCK = re.compile(r"^```(html|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PIXELS = """
() => {
  const canvas = document.querySelector("canvas");
  return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
}
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing of it."""

    def log_message(self, *values: object) -> None: ...


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The address at which the test's folder is served."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(
    not PACKAGE.is_dir(), reason="needs onnxruntime-web: npm install --prefix .venv/web onnxruntime-web"
)
@pytest.mark.parametrize("model", ["tiny", "style_z"])
def test_the_page_renders_what_the_editor_renders(
    model: str, site: str, open_page: OpenPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = dict(BLOCK.findall((ROOT / "docs" / "browser.md").read_text()))
    shutil.copy(GOLDEN / f"{model}.onnx", "model.onnx")
    editor = sefa_runtime.load("model.onnx", "cpu")
    Path("model.json").write_text(json.dumps({"info": asdict(editor.info)}))
    exec(blocks["python"], {})
    Path("index.html").write_text(blocks["html"])
    Path("ort").symlink_to(PACKAGE / "dist")
    page = open_page(site)
    inputs = {"label": 0, "truncation": 0.7} if model == "style_z" else {}
    for seed, direction, alpha in ((1, 0, 0.0), (3, 2, 1.5), (4, 1, -2.0)):
        page.locator("#seed").select_option(str(seed))
        page.locator("#direction").select_option(index=direction)
        page.locator("#alpha").fill(str(alpha))
        expected = editor.edit(seed, edits={direction: alpha}, **inputs)[0]
        page.wait_for_selector("canvas[aria-busy=false]")
        pixels = np.array(page.evaluate(PIXELS), np.uint8).reshape(*expected.shape[:2], 4)
        assert np.abs(pixels[..., :3].astype(int) - expected).max() <= 1
