from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sefa_runtime import Editor, InputError, ModelFileError, load
from sefa_runtime.model.reading import read_info
from sefa_runtime.verification import Verification, mean_levels, psnr_db, verify
from support.descriptions import replace_description

MODELS = ("tiny", "tiny_float32", "style_z", "style_w", "style_w+", "style_static")
CHECKPOINT = "checkpoints/sefa_stylegan2_cond_32/checkpoint.pth"


def failed(verification: Verification) -> list[str]:
    return [finding.name for finding in verification.findings if not finding.ok]


@pytest.mark.parametrize("name", MODELS)
def test_it_renders_what_pytorch_rendered(golden: Path, name: str) -> None:
    verification = verify(golden / f"{name}.onnx", "cpu")
    assert verification.ok
    assert [finding.name for finding in verification.findings] == ["file", "provider", "images", "batches"]
    assert "cpu runs" in verification.findings[1].detail


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_renders_something_else_is_found(golden: Path, tmp_path: Path, name: str) -> None:
    source = golden / f"{name}.onnx"
    first = str(read_info(source).reference[0][0])
    other = ("1" if first[0] != "1" else "2") + first[1:]
    target = source.with_name("other.onnx") if "style_w" in name else tmp_path / "other.onnx"  # Weights are beside it.
    try:
        replace_description(source, target, f'"reference":[[{first},', f'"reference":[[{other},')
        verification = verify(target, "cpu")
    finally:
        target.unlink()
    assert failed(verification) == ["images"]
    assert not verification.ok
    assert f"at most {abs(float(first) - float(other)):.2f}" in verification.findings[2].detail


class Elsewhere(Editor):
    """A provider that there is not here; it darkens the images."""

    provider = "elsewhere"
    darker = 0

    def run(self, *arguments: Any, **inputs: Any) -> NDArray[Any]:
        image: NDArray[Any] = np.maximum(super().run(*arguments, **inputs), self.darker)
        return image - self.darker


@pytest.mark.parametrize(("darker", "wrong"), [(0, []), (1, []), (20, ["images", "cpu"])])
def test_another_provider_is_compared_with_the_cpu(
    golden: Path, monkeypatch: pytest.MonkeyPatch, darker: int, wrong: list[str]
) -> None:
    def load_elsewhere(path: Path, provider: str, *arguments: Any, **options: Any) -> Editor:
        editor = load(path, "cpu")
        return Elsewhere(path, editor.info, editor.session) if provider == "elsewhere" else editor

    monkeypatch.setattr(Elsewhere, "darker", darker)
    monkeypatch.setattr("sefa_runtime.verification.load", load_elsewhere)
    verification = verify(golden / "tiny.onnx", "elsewhere")
    assert verification.provider == "elsewhere"
    assert failed(verification) == wrong
    assert ("the same to the bit" if not darker else f"at most {darker} of 255") in verification.findings[-1].detail


def test_its_checkpoint(golden: Path, tmp_path: Path) -> None:
    verification = verify(golden / "style_z.onnx", "cpu", checkpoint=golden / CHECKPOINT)
    assert verification.ok
    assert "made of" in verification.findings[1].detail
    another = verify(golden / "style_z.onnx", "cpu", checkpoint=golden / "tiny.npz")
    assert failed(another) == ["checkpoint"]
    of_none = verify(golden / "tiny.onnx", "cpu", checkpoint=golden / CHECKPOINT)
    assert failed(of_none) == ["checkpoint"]
    assert "from no file" in of_none.findings[1].detail
    with pytest.raises(InputError, match="no such file"):
        verify(golden / "style_z.onnx", "cpu", checkpoint=tmp_path / "none.pth")


def test_a_damaged_weight_is_an_error(golden: Path, tmp_path: Path) -> None:
    content = bytearray((golden / "tiny.onnx").read_bytes())
    content[1000] ^= 1
    (tmp_path / "damaged.onnx").write_bytes(content)
    with pytest.raises(ModelFileError, match="damaged"):
        verify(tmp_path / "damaged.onnx", "cpu")


def test_mean_levels_are_those_of_a_box_filter() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 8, 3), np.uint8)
    for image, levels in zip(images, mean_levels(images), strict=True):
        for c in range(3):
            channel = Image.fromarray(image[:, :, c].astype(np.float32))
            expected = np.asarray(channel.resize((4, 4), Image.Resampling.BOX))
            np.testing.assert_allclose(levels.reshape(4, 4, 3)[:, :, c], expected, rtol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (5, 4)])
def test_mean_levels_of_odd_sizes(size: tuple[int, int]) -> None:
    height, width = size
    images = np.arange(height * width, dtype=np.uint8).reshape(1, height, width, 1)
    levels = mean_levels(images)
    assert levels.shape == (1, min(4, height) * min(4, width))
    assert levels.min() >= 0
    assert levels[0, 0] < levels[0, -1] or size == (1, 1)


def test_psnr() -> None:
    image = np.zeros((2, 4, 4, 1), np.uint8)
    other = image.copy()
    other[1] = 10
    assert psnr_db(image, other, 255.0).tolist() == [np.inf, pytest.approx(20 * np.log10(25.5))]
