import shutil
from pathlib import Path
from typing import Any

import pytest

import sefa_runtime
from sefa_runtime import ModelFileError
from sefa_runtime.model.reading import read_info
from sefa_runtime.model.renaming import rename_directions
from sefa_runtime.sealing import seal
from support.descriptions import change_description
from support.paths import GOLDEN

CARD = {"license": "CC-BY-4.0", "note": "Faces of nobody; <b>not</b> for passports."}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return change_description(GOLDEN / "tiny.onnx", tmp_path / "model.onnx", lambda document: document.update(CARD))


def card(path: Path) -> dict[str, str]:
    info = read_info(path)
    return {"license": info.license, "note": info.note}


def test_files_without_a_card_say_nothing() -> None:
    assert card(GOLDEN / "tiny.onnx") == {"license": "", "note": ""}
    assert "license" not in read_info(GOLDEN / "tiny.onnx").to_json()


def test_it_stays_with_the_file(model: Path, tmp_path: Path) -> None:
    rename_directions(model, {0: "smile"}, output=tmp_path / "renamed.onnx")
    assert card(tmp_path / "renamed.onnx") == CARD
    shutil.copy(GOLDEN / "tiny.onnx", tmp_path / "sealed.onnx")
    seal(tmp_path / "sealed.onnx", tmp_path / "renamed.onnx")
    assert card(tmp_path / "sealed.onnx") == CARD
    assert sefa_runtime.load(tmp_path / "sealed.onnx", "cpu").info.note == CARD["note"]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("license", "x" * 201, "license has 201 characters, 200 is the most"),
        ("note", "x" * 2001, "note has 2001 characters, 2000 is the most"),
        ("note", "one\ntwo", "note must be one line of printable text"),
        ("license", "\x1b[2J", r"license must be one line of printable text, got '\\x1b\[2J'"),
        ("license", "a\u202eb", "license must be one line"),
        ("note", " MIT", "note must be one line"),
        ("note", 7, "damaged"),
    ],
)
def test_text_that_no_export_writes_is_refused(tmp_path: Path, name: str, text: Any, problem: str) -> None:
    with pytest.raises(ModelFileError, match=problem):
        read_info(
            change_description(
                GOLDEN / "tiny.onnx", tmp_path / "m.onnx", lambda document: document.update({name: text})
            )
        )


def test_the_server_describes_it(model: Path) -> None:
    pytest.importorskip("starlette")
    from contextlib import contextmanager

    from support.serving import starting

    with contextmanager(starting)() as start:
        served = start(model).http.get("/models/model").json()
    assert {name: served[name] for name in CARD} == CARD
