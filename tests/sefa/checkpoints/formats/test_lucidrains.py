"""lucidrains' StyleGAN2, in other sizes and forms than the recorded checkpoint, against the plain formulas."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import sefa
import sefa_export
from sefa import CheckpointError
from sefa.generators.lucidrains_stylegan2 import LucidrainsStyleGAN2

State = dict[str, Tensor]
SEED = 5


def make(
    size: int = 16,
    channels: int = 3,
    latent: int = 6,
    depth: int = 3,
    no_const: bool = False,
    names: tuple[str, str] = ("SE", "GE"),
) -> State:
    """A state dict in the file's layout, random weights, other keys beside those that are read."""
    random = torch.Generator().manual_seed(SEED)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random) / math.sqrt(math.prod(shape[1:]) or 1)

    style, synthesis = names
    state = {}
    for index in range(0, 2 * depth, 2):
        state[f"{style}.net.{index}.weight"] = 10 * draw(latent, latent)
        state[f"{style}.net.{index}.bias"] = draw(latent)
    blocks = int(math.log2(size)) - 1
    widths = [4 * 2**index for index in range(blocks)][::-1]
    widths = [widths[0], *widths]
    if no_const:
        state[f"{synthesis}.to_initial_block.weight"] = draw(latent, widths[0], 4, 4)
    else:
        state[f"{synthesis}.initial_block"] = draw(1, widths[0], 4, 4)
    state[f"{synthesis}.initial_conv.weight"] = draw(widths[0], widths[0], 3, 3)
    state[f"{synthesis}.initial_conv.bias"] = draw(widths[0])
    for index in range(blocks):
        inputs, outputs = widths[index : index + 2]
        name = f"{synthesis}.blocks.{index}"
        for number, read in ((1, inputs), (2, outputs)):
            state[f"{name}.to_style{number}.weight"] = draw(read, latent)
            state[f"{name}.to_style{number}.bias"] = draw(read)
            state[f"{name}.to_noise{number}.weight"] = draw(outputs, 1)
            state[f"{name}.to_noise{number}.bias"] = draw(outputs)
            state[f"{name}.conv{number}.weight"] = draw(outputs, read, 3, 3)
        state[f"{name}.to_rgb.to_style.weight"] = draw(outputs, latent)
        state[f"{name}.to_rgb.to_style.bias"] = draw(outputs)
        state[f"{name}.to_rgb.conv.weight"] = draw(channels, outputs, 1, 1)
        if index < blocks - 1:
            state[f"{name}.to_rgb.upsample.1.f"] = torch.tensor([1.0, 2.0, 1.0])
    state["D.blocks.0.conv_res.weight"] = draw(8, channels, 1, 1)
    state["D_aug.D.blocks.0.conv_res.weight"] = draw(8, channels, 1, 1)
    return state


def save(folder: Path, state: State) -> Path:
    path = folder / "model_3.pt"
    torch.save({"GAN": state, "version": "1.8.6"}, path)
    return path


def style(state: State, z: Tensor, multiplier: float = 0.1) -> Tensor:
    """One latent [latent] through the mapping network."""
    x: Tensor = z / z.norm()
    index = 0
    while f"SE.net.{index}.weight" in state:
        weight, bias = state[f"SE.net.{index}.weight"], state[f"SE.net.{index}.bias"]
        x = F.leaky_relu(F.linear(x, weight * multiplier, bias * multiplier), 0.2)
        index += 2
    return x


def draw_one(state: State, codes: Tensor, noise: Tensor) -> Tensor:
    """The image [C, H, W] of one image's codes [blocks, latent] with the noise map [R, R, 1], weight by weight."""
    if "GE.initial_block" in state:
        x = state["GE.initial_block"]
    else:
        x = F.conv_transpose2d(codes.mean(dim=0)[None, :, None, None], state["GE.to_initial_block.weight"])
    x = F.conv2d(x, state["GE.initial_conv.weight"], state["GE.initial_conv.bias"], padding=1)
    image = None
    for index, w in enumerate(codes):
        name = f"GE.blocks.{index}"
        if index:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        height, width = x.shape[2:]
        for number in (1, 2):
            s = state[f"{name}.to_style{number}.weight"] @ w + state[f"{name}.to_style{number}.bias"]
            weight = state[f"{name}.conv{number}.weight"] * (s + 1)[None, :, None, None]
            weight = weight / torch.sqrt(weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8)
            n = F.linear(
                noise[:height, :width], state[f"{name}.to_noise{number}.weight"], state[f"{name}.to_noise{number}.bias"]
            )  # [h, w, C]
            x = F.leaky_relu(F.conv2d(x, weight, padding=1) + n.permute(2, 1, 0), 0.2)
        s = state[f"{name}.to_rgb.to_style.weight"] @ w + state[f"{name}.to_rgb.to_style.bias"]
        rgb = F.conv2d(x, state[f"{name}.to_rgb.conv.weight"] * (s + 1)[None, :, None, None])
        image = rgb if image is None else image + rgb
        if index < len(codes) - 1:
            image = F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
            taps = torch.tensor([1.0, 2.0, 1.0])
            kernel = (torch.outer(taps, taps) / 16)[None, None].repeat(len(rgb[0]), 1, 1, 1)
            image = F.conv2d(F.pad(image, (1, 1, 1, 1), mode="reflect"), kernel, groups=len(rgb[0]))
    assert image is not None
    return image[0]


FORMS: dict[str, Callable[[], State]] = {
    "one block": lambda: make(size=4),
    "two blocks, grey": lambda: make(size=8, channels=1),
    "RGBA": lambda: make(channels=4, latent=9),
    "no constant": lambda: make(size=32, no_const=True, depth=1),
    "deep mapping": lambda: make(depth=8, latent=5),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_are_those_of_the_formulas(tmp_path: Path, form: str) -> None:
    state = FORMS[form]()
    generator = sefa.load(save(tmp_path, state))
    assert isinstance(generator, LucidrainsStyleGAN2)
    size = generator.resolution[0]
    random = torch.Generator().manual_seed(1)
    z, noise = torch.randn(3, generator.z_dim, generator=random), torch.rand(3, size, size, 1, generator=random)
    generator.noise_map = noise
    with torch.no_grad():
        codes = generator.encode(z)
        image = generator.decode(codes)
    for index in range(3):
        torch.testing.assert_close(codes[index, 0], style(state, z[index]), atol=1e-6, rtol=1e-5)
        expected = draw_one(state, codes[index], noise[index])
        torch.testing.assert_close((image[index] + 1) / 2, expected, atol=1e-5, rtol=1e-5)
    assert image.shape == (3, generator.channels, size, size)


def test_every_block_reads_its_own_code(tmp_path: Path) -> None:
    state = make(size=32)
    generator = sefa.load(save(tmp_path, state))
    codes = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        image = generator.decode(codes)[0]
    noise = generator.get_buffer("noise_map")[0]
    torch.testing.assert_close((image + 1) / 2, draw_one(state, codes[0], noise), atol=1e-5, rtol=1e-5)


def test_the_affines_are_both_convolutions_styles(tmp_path: Path) -> None:
    state = make()
    affines = sefa.load(save(tmp_path, state)).affines()
    assert len(affines) == 3
    for index, A in enumerate(affines):
        rows = [state[f"GE.blocks.{index}.to_style{number}.weight"] for number in (1, 2)]
        torch.testing.assert_close(A, torch.cat(rows), atol=0, rtol=0)


def test_without_noise_its_mean_remains(tmp_path: Path) -> None:
    state = make()
    path = save(tmp_path, state)
    generator = sefa.load(path, noise="none")
    codes = torch.randn(1, 3, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        image = generator.decode(codes)[0]
    torch.testing.assert_close(
        (image + 1) / 2, draw_one(state, codes[0], torch.full((16, 16, 1), 0.5)), atol=1e-5, rtol=0
    )
    assert generator.noise == "none"
    assert "seed 0" in sefa.load(path).noise


def test_the_centre_is_the_mean_style(tmp_path: Path) -> None:
    state = make()
    generator = sefa.load(save(tmp_path, state))
    z = torch.randn(2000, 6, generator=torch.Generator().manual_seed(3))
    mean = torch.stack([style(state, one) for one in z]).mean(dim=0)
    with torch.no_grad():
        center = generator.encode(z[:1], truncation=0.0)[0, 0]
    scale = float(torch.stack([style(state, one) for one in z[:200]]).std())
    torch.testing.assert_close(center, mean, atol=0.15 * scale, rtol=0)  # two means of thousands of samples


def test_the_averaged_networks_are_preferred(tmp_path: Path) -> None:
    averaged, training = make(), {key: value * 2 for key, value in make(names=("S", "G")).items()}
    both = sefa.load(save(tmp_path, training | averaged))
    alone = sefa.load(save(tmp_path, averaged))
    only_training = sefa.load(save(tmp_path, make(names=("S", "G"))))
    z = torch.randn(1, 6)
    with torch.no_grad():
        images = [generator.decode(generator.encode(z)) for generator in (both, alone, only_training)]
    torch.testing.assert_close(images[0], images[1], atol=0, rtol=0)
    torch.testing.assert_close(images[2], images[1], atol=0, rtol=0)


def test_the_mapping_networks_rate_is_read_beside_the_file(tmp_path: Path) -> None:
    state, z = make(depth=1), torch.randn(1, 6)
    (tmp_path / ".config.json").write_text(json.dumps({"image_size": 16, "lr_mlp": 0.03}))
    generator = sefa.load(save(tmp_path, state))
    with torch.no_grad():
        torch.testing.assert_close(generator.encode(z)[0, 0], style(state, z[0], 0.03), atol=1e-6, rtol=1e-5)
    (tmp_path / ".config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"\.config\.json beside it cannot be read"):
        sefa.load(tmp_path / "model_3.pt")


def change(state: State, **changes: Tensor | None) -> State:
    """Replace, add, or remove (None) keys, whose dots are written `__`."""
    state = dict(state)
    for name, tensor in changes.items():
        key = name.replace("__", ".")
        if tensor is None:
            state.pop(key)
        else:
            state[key] = tensor
    return state


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"GE__attns__1__0__fn__fn__to_q__weight": torch.ones(2, 2)}, r"it has attention layers \(GE\.attns\.1\.0"),
        ({"GE__blocks__1__conv2__weight": None}, r"missing GE\.blocks\.1\.conv2\.weight"),
        ({"GE__blocks__0__to_rgb__upsample__1__f": None}, r"missing GE\.blocks\.0\.to_rgb\.upsample\.1\.f"),
        ({"GE__blocks__0__conv3__weight": torch.ones(2)}, r"not understood GE\.blocks\.0\.conv3\.weight"),
        ({"GE__blocks__1__to_style1__bias": torch.ones(2)}, r"of the wrong shape GE\.blocks\.1\.to_style1\.bias \[2\]"),
        ({"GE__blocks__1__to_noise2__weight": torch.ones(8, 2)}, r"of the wrong shape GE\.blocks\.1\.to_noise2\."),
        ({"SE__net__2__weight": None}, r"the layers \[0, 4\], 0, 2, 4, \.\.\. were expected"),
        ({"SE__net__4__weight": torch.ones(3, 6)}, "ends in 3 features, its styles read 6"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Tensor | None], message: str) -> None:
    with pytest.raises(CheckpointError, match=rf"recognised as lucidrains StyleGAN2, but .*{message}"):
        sefa.load(save(tmp_path, change(make(), **changes)))


@pytest.mark.parametrize("form", ["RGBA", "no constant"])
def test_it_is_exported(tmp_path: Path, form: str) -> None:
    generator = sefa.load(save(tmp_path, FORMS[form]()))
    bank = sefa.factorize(generator, layers="0-1")
    sefa_export.export_onnx(generator, bank, tmp_path / "model.onnx", truncation=0.75)
    if form == "RGBA":
        sefa_export.export_torchscript(generator, bank, tmp_path / "model.ts")
