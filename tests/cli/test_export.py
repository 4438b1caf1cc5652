import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sefa_runtime

Command = Callable[..., Any]


@pytest.fixture
def checkpoint(golden: Path) -> Path:
    return golden / "checkpoints/dcgan_small_64/netG.pth"


def test_from_checkpoint_to_edited_image(sefa_command: Command, checkpoint: Path, tmp_path: Path) -> None:
    bank, model, image = (tmp_path / name for name in ("bank.safetensors", "model.onnx", "face.png"))
    assert sefa_command("factorize", checkpoint, "-o", bank, "--top", "5").code == 0
    assert sefa_command("export", checkpoint, "--bank", bank, "-o", model).code == 0
    assert sefa_command("edit", model, "-o", image, "--seed", "7", "--edit", "direction-4=2").code == 0
    editor = sefa_runtime.load(model)
    assert len(editor.info.directions) == 5
    with Image.open(image) as opened:
        np.testing.assert_array_equal(np.asarray(opened), editor.edit(seed=7, edits={4: 2.0})[0])


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_export_tells_what_it_made(sefa_command: Command, checkpoint: Path, tmp_path: Path, kind: str) -> None:
    result = sefa_command("export", checkpoint, "-o", tmp_path / "model", "--format", kind, "--top", "2", "--json")
    document = json.loads(result.out)
    assert document["bytes"] == (tmp_path / "model").stat().st_size
    assert len(document["info"]["directions"]) == 2


def test_export_gives_floats_on_request(sefa_command: Command, checkpoint: Path, tmp_path: Path) -> None:
    result = sefa_command("export", checkpoint, "-o", tmp_path / "m.onnx", "--output-type", "float32")
    assert "largest error" in result.out
    assert sefa_runtime.load(tmp_path / "m.onnx").run(np.zeros(20), 0, 0).dtype == np.float32
