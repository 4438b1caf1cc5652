"""docs/tour.ipynb, run as it stands."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from support.notebooks import Outputs, code_cells, execute
from support.paths import ROOT
from support.trained_generators import trained_faces

NOTEBOOK = ROOT / "docs" / "tour.ipynb"
DOCUMENT = json.loads(NOTEBOOK.read_text())


def texts(outputs: Outputs) -> list[str]:
    """What a cell prints, and its value if that is text."""
    return ["".join(output.get("text", []) or output["data"]["text/plain"]) for output in outputs]


def images(outputs: Outputs) -> list[NDArray[np.uint8]]:
    found = [output["data"]["image/jpeg"] for output in outputs if "image/jpeg" in output.get("data", {})]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(jpeg)))) for jpeg in found]


def test_every_cell_runs_and_gives_what_the_notebook_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_faces()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    now = execute(NOTEBOOK, tmp_path)
    stored = [cell["outputs"] for cell in code_cells(DOCUMENT)]
    assert [texts(outputs) for outputs in now] == [texts(outputs) for outputs in stored]
    shown, expected = ([image for outputs in run for image in images(outputs)] for run in (now, stored))
    assert len(shown) == len(expected) == 4
    for one, other in zip(shown, expected, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 1  # Other processors round other values.
    assert not list((tmp_path / "temporary").rglob("faces*"))
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]


def test_the_notebook_is_small_and_knows_no_machine() -> None:
    assert NOTEBOOK.stat().st_size < 200_000
    without_images = re.sub(r'"image/jpeg": "[^"]*"', "", NOTEBOOK.read_text())
    assert not re.search(r"/(home|root|tmp|usr|work|Users)/|[A-Z]:\\\\|https?://(?!json)", without_images)
    assert set(DOCUMENT["metadata"]) == {"kernelspec", "language_info"}
    assert [cell["execution_count"] for cell in code_cells(DOCUMENT)] == [*range(1, len(code_cells(DOCUMENT)) + 1)]


def test_files_that_are_linked_exist() -> None:
    prose = "".join("".join(cell["source"]) for cell in DOCUMENT["cells"] if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)]+)\)", prose)
    assert links
    for target in links:
        assert (NOTEBOOK.parent / target).exists(), target


def test_a_cell_that_fails_is_told(tmp_path: Path) -> None:
    cell = {"cell_type": "code", "source": ["1 + 1\n", "print('before')\n", "1 / 0"]}
    (tmp_path / "bad.ipynb").write_text(json.dumps({"cells": [cell]}))
    with pytest.raises(AssertionError, match=r"cell 1(.|\n)*ZeroDivisionError"):
        execute(tmp_path / "bad.ipynb", tmp_path)
