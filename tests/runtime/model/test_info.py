import json
from pathlib import Path

import pytest

from sefa_runtime import ModelFileError, ModelInfo
from sefa_runtime.model.reading import read_info


def test_what_is_written_is_read_back(golden: Path) -> None:
    info = read_info(golden / "tiny.onnx")
    assert ModelInfo.from_json(info.to_json(), "x") == info


def test_names_of_any_script_survive(golden: Path) -> None:
    info = read_info(golden / "tiny.onnx")
    document = info.to_dict()
    document["directions"][0]["name"] = "笑顔"
    assert ModelInfo.from_json(json.dumps(document), "x").names[0] == "笑顔"


@pytest.mark.parametrize("field", ["z_dim", "directions", "parity", "format_version"])
def test_a_missing_field_is_named(golden: Path, field: str) -> None:
    document = read_info(golden / "tiny.onnx").to_dict()
    del document[field]
    with pytest.raises(ModelFileError, match=f"x: its sefa metadata is damaged .*{field}"):
        ModelInfo.from_json(json.dumps(document), "x")


def test_a_file_from_before_a_field_has_its_default(golden: Path) -> None:
    document = read_info(golden / "tiny.onnx").to_dict()
    del document["source_entry"], document["assumptions"]
    info = ModelInfo.from_json(json.dumps(document), "x")
    assert (info.source_entry, info.assumptions) == ("", ())
