"""An input that only one family has: its class declares it, `forward` passes it on, and all else follows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import sefa
from sefa.generators import DCGAN
from sefa_export import export_onnx, export_pt2, export_torchscript
from sefa_export.bake import LatentEditGraph
from sefa_runtime import InputError, load
from sefa_runtime.model.reading import read_info
from sefa_runtime.model.signature import OptionalInput


class Dimmable(DCGAN):
    """A DCGAN whose image may be dimmed."""

    optional_inputs = (OptionalInput("brightness", default=1.0, low=0.0, high=1.0),)

    def decode(self, codes: Tensor, brightness: Tensor | None = None) -> Tensor:
        image = super().decode(codes)
        return image if brightness is None else image * brightness[:, None, None, None]


def forward(
    self: LatentEditGraph,
    z: Tensor,
    direction: Tensor,
    alpha: Tensor,
    label: Tensor | None = None,
    truncation: Tensor | None = None,
    brightness: Tensor | None = None,
) -> Tensor:
    return self._finish(self.render(z, direction, alpha, label, truncation, brightness=brightness))


@pytest.fixture
def generator(golden: Path, monkeypatch: pytest.MonkeyPatch) -> sefa.Generator:
    monkeypatch.setattr(LatentEditGraph, "forward", forward)
    generator = sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")
    generator.__class__ = Dimmable
    return generator


def test_editor_takes_it_or_its_default(generator: sefa.Generator, tmp_path: Path) -> None:
    bank = sefa.factorize(generator, top=3)
    editor = load(export_onnx(generator, bank, tmp_path / "a.onnx", "float32"), "cpu")
    z = np.random.default_rng(0).standard_normal((3, generator.z_dim), np.float32)
    bright = editor.run(z, 0, 1.0)
    np.testing.assert_array_equal(editor.run(z, 0, 1.0, brightness=1), bright)
    dimmed = editor.run(z, 0, 1.0, brightness=[0.0, 0.5, 1.0])
    np.testing.assert_allclose(dimmed, bright * np.reshape([0, 0.5, 1], (3, 1, 1, 1)), atol=1e-5)
    with pytest.raises(InputError, match="brightness must be one number or one for each of 3 images"):
        editor.run(z, brightness=[1.0, 1.0])
    with pytest.raises(
        InputError, match="contrast is not an input of this model; it takes z, direction, alpha, brightness"
    ):
        editor.run(z, contrast=1.0)


def test_static_shapes_are_filled_up(generator: sefa.Generator, tmp_path: Path) -> None:
    bank = sefa.factorize(generator, top=3)
    static = load(export_onnx(generator, bank, tmp_path / "s.onnx", "float32", batch=2, num_edits=1), "cpu")
    dynamic = load(export_onnx(generator, bank, tmp_path / "d.onnx", "float32"), "cpu")
    z = np.random.default_rng(0).standard_normal((3, generator.z_dim), np.float32)
    expected = dynamic.run(z, brightness=[0.2, 0.5, 1.0])
    np.testing.assert_allclose(static.run(z, brightness=[0.2, 0.5, 1.0]), expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("export", "name"), [(export_torchscript, "a.ts"), (export_pt2, "a.pt2")])
def test_archives_of_torch_take_it_by_name(
    generator: sefa.Generator, tmp_path: Path, export: Callable[..., Path], name: str
) -> None:
    path = export(generator, sefa.factorize(generator, top=3), tmp_path / name)
    assert read_info(path).signature.names == ("z", "direction", "alpha", "brightness")
    if name == "a.ts":
        inputs = {
            "z": torch.zeros(1, generator.z_dim),
            "direction": torch.zeros(1, 0).long(),
            "alpha": torch.zeros(1, 0),
        }
        dark = torch.jit.load(path)(**inputs, brightness=torch.zeros(1))  # type: ignore[no-untyped-call]
        assert (dark == 128).all()
