"""Small files that describe a generator which would fill the memory."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sefa
from sefa import CheckpointError
from sefa.checkpoints.formats.dcgan import build
from sefa.checkpoints.sizes import MAX_CODES, MAX_IMAGE, MAX_ONE_HOT, check_sizes, one_hot_codes
from support.resource_use import check_refused, readings

StateDict = dict[str, Tensor]


def dcgan(doublings: int, channels: int = 3) -> StateDict:
    """4x4 pixels, doubled so many times."""
    widths = [2] * doublings + [channels]
    weights = {"main.0.weight": torch.ones(5, widths[0], 4, 4)}
    return weights | {f"main.{index + 1}.weight": torch.ones(2, width, 4, 4) for index, width in enumerate(widths[1:])}


def rosinality(blocks: int) -> StateDict:
    """A StyleGAN2 of one channel, of 4x4 pixels doubled so many times, without its noise."""
    weights = {
        "style.1.weight": torch.ones(2, 2),
        "style.1.bias": torch.ones(2),
        "input.input": torch.ones(1, 1, 4, 4),
    }

    def conv(name: str, size: int, outputs: int = 1) -> StateDict:
        return {
            f"{name}.weight": torch.ones(1, outputs, 1, size, size),
            f"{name}.modulation.weight": torch.ones(1, 2),
            f"{name}.modulation.bias": torch.ones(1),
        }

    def layer(name: str) -> StateDict:
        return conv(f"{name}.conv", 3) | {f"{name}.noise.weight": torch.ones(1), f"{name}.activate.bias": torch.ones(1)}

    def to_rgb(name: str) -> StateDict:
        return conv(f"{name}.conv", 1, 3) | {f"{name}.bias": torch.ones(1, 3, 1, 1)}

    kernel = torch.tensor([1.0, 3.0, 3.0, 1.0])
    weights |= layer("conv1") | to_rgb("to_rgb1")
    for block in range(blocks):
        weights |= layer(f"convs.{2 * block}") | layer(f"convs.{2 * block + 1}") | to_rgb(f"to_rgbs.{block}")
        weights[f"convs.{2 * block}.conv.blur.kernel"] = kernel[:, None] * kernel / 16
        weights[f"to_rgbs.{block}.upsample.kernel"] = kernel[:, None] * kernel / 16
    return weights


REFUSED: dict[str, Callable[[], StateDict]] = {
    "4611686018427387904 pixels": lambda: dcgan(60),
    "an image of 3 GB": lambda: dcgan(12),
    "an image of many channels": lambda: dcgan(8, channels=2000),
    "a large first kernel": lambda: dcgan(7) | {"main.0.weight": torch.ones(5, 2, 128, 128)},
    "noise of 4 GB": lambda: rosinality(13),
    "noise without end": lambda: rosinality(60),
}


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    paths = []
    for index, make in enumerate(REFUSED.values()):
        paths.append(tmp_path / f"{index}.pth")
        torch.save(make(), paths[-1])
    found = readings("import sefa.checkpoints.loading", "sefa.load(path)", paths)
    for kind, reading in zip(REFUSED, found, strict=True):
        check_refused(reading, "CheckpointError")
        assert "would " in reading.message or "do not fit" in reading.message, (kind, reading)


def test_the_largest_real_ones_are_not_refused(tmp_path: Path) -> None:
    torch.save(dcgan(9), tmp_path / "netG.pth")  # 2048x2048
    assert sefa.load(tmp_path / "netG.pth").resolution == (2048, 2048)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("resolution", (2**62, 2**62), "would have images of 4611686018427387904x4611686018427387904 pixels"),
        ("resolution", (10**400, 1), "would have images of 1x1000"),
        ("channels", MAX_IMAGE, "channels, which is beyond"),
        ("num_layers", 1001, "1001 layers that read codes"),
        ("code_dim", MAX_CODES + 1, "codes of 4194305 numbers"),
        ("z_dim", MAX_CODES + 1, "codes of 4194305 numbers"),
        ("num_classes", 2**20 + 1, "1048577 classes"),
    ],
)
def test_each_size_is_bounded(attribute: str, value: object, message: str) -> None:
    generator = build(dcgan(1))
    check_sizes(generator)
    setattr(generator, attribute, value)
    with pytest.raises(CheckpointError, match=message) as caught:
        check_sizes(generator)
    assert len(str(caught.value)) < 300


def test_a_table_of_classes_is_bounded() -> None:
    assert one_hot_codes(3).equal(torch.eye(3))
    with pytest.raises(CheckpointError, match="4097 classes"):
        one_hot_codes(MAX_ONE_HOT + 1)
