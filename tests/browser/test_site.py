"""The documentation as a site: it loads nothing from elsewhere, fits a phone, shows its images and finds words."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from support.paths import ROOT

pytest.importorskip("mkdocs", reason="needs the extra docs")
pytestmark = pytest.mark.browser
PHONE: Any = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "color_scheme": "dark"}
# What is wrong with a page, in words: wider than the window, or with an image that is not there.
FAULTS = """
async () => {
  const page = document.documentElement;
  const images = [...document.querySelectorAll("article img")];
  images.forEach((image) => (image.loading = "eager"));
  await Promise.all(images.map((image) => image.decode().catch(() => null)));
  const faults = images.filter((image) => !image.naturalWidth).map((image) => `no image ${image.src}`);
  const over = page.scrollWidth - page.clientWidth;
  return over > 0 ? [...faults, `${over} pixels too wide`] : faults;
}
"""


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that writes no log."""

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "--quiet", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desktop", "phone"])
def test_every_page_fits_and_shows_its_images(
    folder: Path, address: str, open_page: Any, options: dict[str, Any]
) -> None:
    page = open_page(f"{address}/index.html", **options)
    pages = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html"))
    assert len(pages) > 60
    found = {}
    for name in pages:
        page.goto(f"{address}/{quote(name)}")
        if faults := page.evaluate(FAULTS):
            found[name] = faults
    assert not found


def test_what_is_searched_for_is_found(address: str, open_page: Any) -> None:
    page = open_page(f"{address}/index.html")
    for words, target in (
        ("truncation psi", "reference/commands/export.html"),
        ("parse_layers", "reference/python/sefa.html"),
        ("genforce", "formats.html"),
    ):
        page.locator("input.md-search__input").fill(words)
        results = page.locator(".md-search-result__item")
        expect(results.first).to_be_visible()
        links = results.locator("a").evaluate_all("links => links.map((link) => link.href)")
        assert any(re.match(rf"{address}/{re.escape(target)}", link) for link in links), (words, links)
