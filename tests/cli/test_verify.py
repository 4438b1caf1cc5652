import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sefa_runtime.model.reading import read_info
from support.descriptions import replace_description

Command = Callable[..., Any]


def test_what_was_found(sefa_command: Command, golden: Path) -> None:
    checkpoint = golden / "checkpoints" / "sefa_stylegan2_cond_32" / "checkpoint.pth"
    result = sefa_command("verify", golden / "style_z.onnx", "--checkpoint", checkpoint)
    assert result.code == 0
    assert [line.split()[:2] for line in result.out.splitlines()] == [
        ["ok", name] for name in ("file", "checkpoint", "provider", "images", "batches")
    ]
    document = json.loads(sefa_command("verify", golden / "style_z.onnx", "--json").out)
    assert document["ok"]
    assert document["provider"] == "cpu"
    assert document["findings"][0]["name"] == "file"


def test_a_difference_is_exit_code_1(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    first = str(read_info(golden / "tiny.onnx").reference[0][0])
    other = ("1" if first[0] != "1" else "2") + first[1:]
    replace_description(golden / "tiny.onnx", tmp_path / "a.onnx", f'"reference":[[{first},', f'"reference":[[{other},')
    result = sefa_command("verify", tmp_path / "a.onnx", "--provider", "cpu")
    assert result.code == 1
    assert "FAIL  images" in result.out
    assert not json.loads(sefa_command("verify", tmp_path / "a.onnx", "--json").out)["ok"]


@pytest.mark.parametrize("arguments", [["--provider", "cuda"], ["--checkpoint", "missing.pth"]])
def test_what_cannot_be_verified_is_one_line(sefa_command: Command, golden: Path, arguments: list[str]) -> None:
    result = sefa_command("verify", golden / "tiny.onnx", *arguments)
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert result.out == ""
