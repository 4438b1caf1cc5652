"""A real headless Chromium, and pages in it. It is found on the PATH, or named by the environment variable CHROMIUM."""

import os
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.paths import GOLDEN

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from support.serving import Start

collect_ignore_glob = [] if all(map(find_spec, ("playwright", "axe_playwright_python", "starlette"))) else ["test_*.py"]

# As root, in a container, on a machine without a way out.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP: Any = {"width": 1280, "height": 800}
OpenPage = Callable[..., "Page"]


@pytest.fixture(scope="module")
def start() -> "Iterator[Start]":
    """Start servers of models, by path or NAME=PATH, with settings by keyword; they end with the module."""
    from support.serving import starting

    yield from starting()


@pytest.fixture
def start_once() -> "Iterator[Start]":
    """As `start`; they end with the test."""
    from support.serving import starting

    yield from starting()


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """The browser that all tests share; each page has a profile of its own."""
    from playwright.sync_api import sync_playwright

    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    program = next((path for name in names if name and (path := shutil.which(name))), None)
    assert program is not None, "no Chromium on the PATH; set CHROMIUM to its program"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: "Browser") -> "Iterator[OpenPage]":
    """Open a page, with a context's options by keyword; its faults, and requests elsewhere, fail the test."""
    contexts, faults, addresses = [], [], []

    def begin(address: str, **options: Any) -> "Page":
        context = browser.new_context(**{"viewport": DESKTOP, **options})
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None)
        page.on("request", lambda request: addresses.append(request.url))
        page.goto(address)
        origin = "/".join(address.split("/")[:3])
        own.extend((origin + "/", f"blob:{origin}/"))
        return page

    own: list[str] = []
    yield begin
    for context in contexts:
        context.close()
    assert not faults
    assert all(address.startswith(tuple(own)) for address in addresses), addresses


@pytest.fixture
def golden() -> Path:
    """The folder of reference data."""
    return GOLDEN
