"""Fixtures of the server's tests, which need the extra `serve` and clients of the extra `dev`."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from sefa_runtime.editor import Editor
from sefa_runtime.inputs.batches import Feeds
from support.patience import PATIENCE_S

if TYPE_CHECKING:
    from support.serving import Door, Start

NEEDED = ("starlette", "grpc", "httpx", "schemathesis", "tritonclient")
collect_ignore_glob = [] if all(map(find_spec, NEEDED)) else ["test_*.py"]


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


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> "Iterator[Door]":
    """An open door before every run of every model that is loaded from now on."""
    from support.serving import Door

    door = Door()
    door.open()
    infer = Editor.infer

    def held(self: Editor, feeds: Feeds) -> Any:
        door.begun += 1
        assert door.opened.wait(PATIENCE_S)
        door.runs.append(feeds["direction"].shape)
        return infer(self, feeds)

    monkeypatch.setattr(Editor, "infer", held)
    yield door
    door.open()
