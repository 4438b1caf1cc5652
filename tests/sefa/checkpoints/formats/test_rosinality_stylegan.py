"""rosinality's StyleGAN against its formulas, written with one plain operator each."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import sefa
from sefa import ArgumentError

W_DIM = 6
WIDTHS = (5, 4, 3, 2)  # of each level, the last of which was not trained; the third is fused
TRAINED = 3
FUSED = 2
# Float32 sums of a few hundred products against float64, on images of magnitude 1.
ATOL = 1e-5


def random_state(seed: int = 0) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def layer(name: str, *shape: int, bias: float = 0.3, around: Tensor | None = None) -> None:
        state[f"{name}.weight_orig"] = torch.randn(shape, generator=random)
        state[f"{name}.bias"] = torch.randn(shape[0], generator=random) * bias + (0 if around is None else around)

    for index in (1, 3):
        layer(f"style.{index}.linear", W_DIM, W_DIM)
    inputs = WIDTHS[0]
    for level, width in enumerate(WIDTHS):
        name = f"generator.progression.{level}"
        if level == 0:
            state[f"{name}.conv1.input"] = torch.randn(1, width, 4, 4, generator=random)
        else:
            taps = torch.tensor([1.0, 2, 1]) / 4
            blur = torch.outer(taps, taps).repeat(width, 1, 1, 1)
            step = 1 if level == FUSED else 2
            state[f"{name}.conv1.{step}.weight"] = state[f"{name}.conv1.{step}.weight_flip"] = blur
            if level == FUSED:
                state[f"{name}.conv1.0.weight"] = torch.randn(inputs, width, 3, 3, generator=random)
                state[f"{name}.conv1.0.bias"] = torch.randn(width, generator=random)
            else:
                layer(f"{name}.conv1.1.conv", width, inputs, 3, 3)
        layer(f"{name}.conv2.conv", width, width, 3, 3)
        for number in (1, 2):
            state[f"{name}.noise{number}.weight_orig"] = torch.randn(1, width, 1, 1, generator=random)
            ones = torch.cat([torch.ones(width), torch.zeros(width)])
            layer(f"{name}.adain{number}.style.linear", 2 * width, W_DIM, around=ones)
        layer(f"generator.to_rgb.{level}.conv", 3, width, 1, 1, bias=0.3 if level < TRAINED else 0)
        inputs = width
    return state


def reference_image(state: dict[str, Tensor], codes: Tensor, noises: list[Tensor] | None) -> Tensor:
    """The image of codes [N, L, W_DIM], from one noise for each level."""
    state = {key: tensor.double() for key, tensor in state.items()}
    codes = codes.double()

    def weight(key: str, fan_in: int) -> Tensor:
        return torch.mul(state[key], (2 / fan_in) ** 0.5)

    def finished(x: Tensor, level: int, number: int) -> Tensor:
        name, width = f"generator.progression.{level}", WIDTHS[level]
        if noises is not None:
            x = x + weight(f"{name}.noise{number}.weight_orig", width) * noises[level]
        x = F.leaky_relu(x, 0.2)
        mean = x.mean(dim=(2, 3), keepdim=True)
        x = (x - mean) / ((x - mean).square().mean(dim=(2, 3), keepdim=True) + 1e-5).sqrt()
        style = f"{name}.adain{number}.style.linear"
        code = codes[:, 2 * level + number - 1]
        scale, shift = (code @ weight(f"{style}.weight_orig", W_DIM).T + state[f"{style}.bias"]).chunk(2, dim=1)
        return scale[:, :, None, None] * x + shift[:, :, None, None]

    x = state["generator.progression.0.conv1.input"]
    for level in range(len(codes[0]) // 2):
        name, width = f"generator.progression.{level}.conv1", WIDTHS[level]
        inputs = x.shape[1]
        if level:
            x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        if level == FUSED:  # Turned, as a transposed convolution turns it, and a quarter: a mean of four kernels.
            turned = weight(f"{name}.0.weight", 9 * inputs).flip(2, 3).transpose(0, 1) / 4
            x = F.conv2d(x, turned, state[f"{name}.0.bias"], padding=1)
            x = F.conv2d(x, state[f"{name}.1.weight"], padding=1, groups=width)
        elif level:
            x = F.conv2d(x, weight(f"{name}.1.conv.weight_orig", 9 * inputs), state[f"{name}.1.conv.bias"], padding=1)
            x = F.conv2d(x, state[f"{name}.2.weight"], padding=1, groups=width)
        x = finished(x, level, 1)
        conv = f"generator.progression.{level}.conv2.conv"
        x = finished(F.conv2d(x, weight(f"{conv}.weight_orig", 9 * width), state[f"{conv}.bias"], padding=1), level, 2)
    image = f"generator.to_rgb.{level}.conv"
    return F.conv2d(x, weight(f"{image}.weight_orig", width), state[f"{image}.bias"])


@pytest.mark.parametrize(("levels", "told"), [(3, {}), (2, {"resolution": 8}), (4, {"resolution": "32"})])
@pytest.mark.parametrize("noise", ["const", "none"])
def test_images_are_those_of_the_formulas(tmp_path: Path, levels: int, told: dict[str, object], noise: str) -> None:
    state = random_state()
    torch.save({"generator": random_state(1), "g_running": state, "discriminator": {}}, tmp_path / "train_step-2.model")
    generator = sefa.load(tmp_path / "train_step-2.model", noise=noise, assume=told)
    assert generator.resolution == (2 << levels, 2 << levels)
    assert generator.num_layers == 2 * levels
    assert generator.assumptions == (f"trained up to {2 << levels} pixels{' (as told)' if told else ''}",)
    codes = torch.randn(2, generator.num_layers, W_DIM, generator=torch.Generator().manual_seed(2))
    noises = [torch.randn(1, 1, 4 << k, 4 << k, generator=torch.Generator().manual_seed(k)) for k in range(levels)]
    expected = reference_image(state, codes, noises if noise == "const" else None)
    torch.testing.assert_close(
        generator.decode(codes).double(), expected, atol=ATOL * float(expected.abs().max()), rtol=0
    )


def test_without_a_trained_level_all_are_read(tmp_path: Path) -> None:
    state = {key: tensor * 0 if "to_rgb" in key and "bias" in key else tensor for key, tensor in random_state().items()}
    torch.save(state, tmp_path / "file")
    assert sefa.load(tmp_path / "file").resolution == (32, 32)
    with pytest.raises(ArgumentError, match="resolution=31: one of 4, 8, 16, 32 was expected"):
        sefa.load(tmp_path / "file", assume={"resolution": 31})
