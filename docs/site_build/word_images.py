"""Render the images of the word: python docs/site_build/word_images.py demo/letters.onnx

Writes docs/word.webp, docs/words.webp and docs/page-letters.webp, from the model that `sefa demo` makes, whose
directions have names. The page needs playwright, and Chromium on the PATH or named by CHROMIUM.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from sefa_runtime.model.reading import read_info

DOCS = Path(__file__).parents[1]
SEFA = (sys.executable, "-m", "sefa_cli")
WORD = ("--labels", "SeFa", "--direction", "weight,slant", "--trim", "8", "--truncation", "0.7")
# For running as root, in a container.
CHROMIUM_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")


def main(model: Path) -> None:
    """Render all images."""
    run("sweep", model, "-o", DOCS / "word.webp", *WORD, "--seeds", "3", "--scale", "2")
    with tempfile.TemporaryDirectory() as folder:
        png = Path(folder, "words.png")
        run("sweep", model, "-o", png, *WORD, "--seeds", "3,7")
        Image.open(png).save(DOCS / "words.webp", quality=70, method=6)
        page = Path(folder, "page.png")
        draw_page(model, page)
        Image.open(page).save(DOCS / "page-letters.webp", quality=70, method=6)
    for name in ("word", "words", "page-letters"):
        path = DOCS / f"{name}.webp"
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def run(*arguments: object) -> None:
    """Run a command of sefa."""
    subprocess.run([*SEFA, *map(str, arguments)], check=True)


def draw_page(model: Path, path: Path) -> None:
    """Write a screenshot of the page of `sefa serve`: the word, half as far along its first direction as suggested."""
    directions = read_info(model).directions
    alpha = round(directions[0].alpha_range[1] / 2, 2)
    command = [*SEFA, "serve", str(model), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            said = iter(server.stderr)
            found = next(match for line in said if (match := re.search(r"http://\S+", line)))
            next(line for line in said if "is ready" in line)
            write_screenshot(f"{found[0]}/#model={model.stem}&seed=3&labels=SeFa&truncation=0.7&edit=0:{alpha:g}", path)
        finally:
            server.terminate()
            server.communicate()


def write_screenshot(address: str, path: Path) -> None:
    """Write a screenshot of an address, taken in Chromium."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    program = next(found for name in names if name and (found := shutil.which(name)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.locator("#edited[src]").wait_for(state="attached")
        page.locator("#stage[aria-busy=false]").wait_for()
        page.wait_for_timeout(500)
        page.screenshot(path=path)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
