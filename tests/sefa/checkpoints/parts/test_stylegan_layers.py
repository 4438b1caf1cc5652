import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import sefa
from sefa import CheckpointError
from sefa.generators import StyleGAN
from support.golden_checkpoints import GoldenCheckpoint

Tensors = dict[str, Tensor]

# Sums in another order, of values about 1.
CODE_TOLERANCE = 1e-5
# Instance norms follow one another.
IMAGE_TOLERANCE = 1e-4


# What the original computes, step by step and image by image; weights in PyTorch's layout, names as genforce has them.


def lrelu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def nearest(x: Tensor, times: int = 2) -> Tensor:
    return x.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)


def map_latent(state: Tensors, z: Tensor, label: Tensor | None, rate: float = 0.01) -> Tensor:
    x = z if label is None else torch.cat([z, state["mapping.label_weight"][label]], dim=1)
    x = x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
    k = 0
    while f"mapping.dense{k}.weight" in state:
        weight = state[f"mapping.dense{k}.weight"] * rate * (2 / state[f"mapping.dense{k}.weight"].shape[1]) ** 0.5
        x = lrelu(x @ weight.T + state[f"mapping.dense{k}.bias"] * rate)
        k += 1
    return x


def up(x: Tensor, weight: Tensor, fused: bool) -> Tensor:
    if fused:
        w = F.pad(weight.transpose(0, 1), (1, 1, 1, 1))
        w = w[..., 1:, 1:] + w[..., :-1, 1:] + w[..., 1:, :-1] + w[..., :-1, :-1]
        x = F.conv_transpose2d(x, w, stride=2, padding=1)
    else:
        x = F.conv2d(nearest(x), weight, padding=1)
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    return F.conv2d(x.transpose(0, 1), kernel[None, None], padding=1).transpose(0, 1)


def draw(state: Tensors, ws: Tensor, noise: bool = True, fused_from: int = 128) -> Tensor:
    """One image [1, C, H, W] of the codes [L, D]."""
    images = []
    x = torch.zeros(0)
    for k, w in enumerate(ws):
        layer = {key.removeprefix(f"synthesis.layer{k}."): value for key, value in state.items()}
        if k == 0:
            x = layer["const"]
        else:
            weight = layer["weight"] * (2 / (9 * layer["weight"].shape[1])) ** 0.5
            x = F.conv2d(x, weight, padding=1) if k % 2 else up(x, weight, 2 * min(x.shape[2:]) >= fused_from)
        if noise:
            x = x + layer["apply_noise.weight"][:, None, None] * layer["apply_noise.noise"]
        x = lrelu(x + layer["bias"][:, None, None])
        x = x - x.mean(dim=(2, 3), keepdim=True)
        x = x / (x.square().mean(dim=(2, 3), keepdim=True) + 1e-8).sqrt()
        s = layer["style.weight"] @ w / len(w) ** 0.5 + layer["style.bias"]
        scale, shift = s.reshape(2, -1, 1, 1)
        x = x * (scale + 1) + shift
        if k % 2:
            output = state[f"synthesis.output{k // 2}.weight"]
            images.append(F.conv2d(x, output / output.shape[1] ** 0.5, state[f"synthesis.output{k // 2}.bias"]))
    # The image at the level of detail, in the size of the full-grown generator.
    lod = float(state["synthesis.lod"])
    below, above = int(np.floor(lod)), int(np.ceil(lod))
    levels = sum(key.startswith("synthesis.output") for key in state) // 2
    image = images[levels - 1 - below]
    if below != above:
        image = (above - lod) * image + (lod - below) * nearest(images[levels - 1 - above])
    return nearest(image, 2**below)


# Files in the originals' layouts, with random weights.


def genforce_state(
    widths: list[int],
    *,
    z_dim: int = 6,
    mapping: tuple[int, ...] = (7, 5),
    classes: int = 0,
    channels: int = 3,
    lod: float = 0,
    base: tuple[int, int] = (4, 4),
    center: bool = True,
) -> Tensors:
    torch.manual_seed(0)
    state: Tensors = {}
    inputs = z_dim
    if classes:
        state["mapping.label_weight"] = torch.randn(classes, z_dim)
        inputs *= 2
    for k, width in enumerate(mapping):
        state[f"mapping.dense{k}.weight"] = torch.randn(width, inputs) * 100
        state[f"mapping.dense{k}.bias"] = torch.randn(width) * 100
        inputs = width
    if center:
        state["truncation.w_avg"] = torch.randn(inputs)
    state["synthesis.lod"] = torch.tensor(lod)
    for k, width in enumerate(widths):
        name = f"synthesis.layer{k}"
        size = (base[0] << k // 2, base[1] << k // 2)
        if k:
            state[f"{name}.weight"] = torch.randn(width, widths[k - 1], 3, 3)
        else:
            state[f"{name}.const"] = torch.randn(1, width, *base)
        state[f"{name}.bias"] = torch.randn(width)
        state[f"{name}.apply_noise.weight"] = torch.randn(width)
        state[f"{name}.apply_noise.noise"] = torch.randn(1, 1, *size)
        state[f"{name}.style.weight"] = torch.randn(2 * width, inputs)
        state[f"{name}.style.bias"] = torch.randn(2 * width)
        if k and k % 2 == 0:
            state[f"{name}.blur.kernel"] = (
                torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1])).repeat(width, 1, 1, 1) / 16
            )
    for level, width in enumerate(widths[1::2]):
        state[f"synthesis.output{level}.weight"] = torch.randn(channels, width, 1, 1)
        state[f"synthesis.output{level}.bias"] = torch.randn(channels)
    return state


def tensorflow_variables(state: Tensors) -> Tensors:
    """The same weights under the names and in the layout of the TensorFlow code; blurs are not stored there."""
    levels = sum(key.startswith("synthesis.output") for key in state) // 2
    entries = {
        "weight": "weight",
        "bias": "bias",
        "const": "const",
        "apply_noise.weight": "Noise/weight",
        "style.weight": "StyleMod/weight",
        "style.bias": "StyleMod/bias",
    }
    variables = {"lod": state["synthesis.lod"]}
    for key, tensor in state.items():
        part, _, rest = key.partition(".")
        layer, _, entry = rest.partition(".")
        array = tensor.permute(2, 3, 1, 0) if tensor.ndim == 4 and entry == "weight" else tensor
        array = array.T if array.ndim == 2 and entry.endswith("weight") else array
        if key == "truncation.w_avg":
            variables["dlatent_avg"] = array
        elif key == "mapping.label_weight":
            variables["mapping/LabelConcat/weight"] = array
        elif key == "synthesis.lod":
            variables["synthesis/lod"] = array
        elif part == "mapping":
            variables[f"mapping/{layer.replace('dense', 'Dense')}/{entry}"] = array
        elif layer.startswith("output"):
            lod = levels - 1 - int(layer.removeprefix("output"))
            variables[f"synthesis/ToRGB_lod{lod}/{entry}"] = array
        elif entry == "apply_noise.noise":
            variables[f"synthesis/noise{layer.removeprefix('layer')}"] = array
        elif entry != "blur.kernel":
            k = int(layer.removeprefix("layer"))
            name = ["Conv0_up", "Conv1"][k % 2] if k > 1 else ["Const", "Conv"][k]
            variables[f"synthesis/{4 << k // 2}x{4 << k // 2}/{name}/{entries[entry]}"] = array
    return variables


def write_tensorflow(path: Path, variables: Tensors, kwargs: Mapping[str, object]) -> Path:
    """A pickle of three networks with their components, of the class that the original has."""
    module = ModuleType("dnnlib.tflib.network")
    network_class = type("Network", (), {"__module__": "dnnlib.tflib.network"})
    module.Network = network_class  # type: ignore[attr-defined]

    def network(prefix: str) -> Any:
        made = network_class()
        own = {
            key.removeprefix(prefix): tensor
            for key, tensor in variables.items()
            if key.startswith(prefix) and (prefix or not key.startswith(("synthesis/", "mapping/")))
        }
        made.__dict__.update(
            version=3,
            name=prefix or "Gs",
            static_kwargs=dict(kwargs),
            components={} if prefix else {name: network(f"{name}/") for name in ("synthesis", "mapping")},
            variables=[(name, tensor.numpy()) for name, tensor in own.items()],
        )
        return made

    names = ("dnnlib", "dnnlib.tflib", "dnnlib.tflib.network")
    sys.modules.update(dict.fromkeys(names, module))
    try:
        whole = network("")
        path.write_bytes(pickle.dumps((whole, whole, whole), protocol=4))
    finally:
        for name in names:
            del sys.modules[name]
    return path


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def load(path: Path, **options: Any) -> StyleGAN:
    generator = sefa.load(path, **options)
    assert isinstance(generator, StyleGAN)
    return generator


def latents(generator: StyleGAN, count: int = 2) -> Tensor:
    return torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(1))


def check(generator: StyleGAN, state: Tensors, label: Tensor | None = None, fused_from: int = 128) -> None:
    """Compare codes and images with what the original computes."""
    z = latents(generator)
    expected = map_latent(state, z, label)
    with torch.no_grad():
        codes = generator.encode(z, label)
        images = generator.decode(codes)
    assert codes.shape == (2, generator.num_layers, generator.code_dim)
    assert images.shape[1:] == (generator.channels, *generator.resolution)
    torch.testing.assert_close(codes, expected[:, None].expand_as(codes), atol=CODE_TOLERANCE, rtol=CODE_TOLERANCE)
    for one, image in zip(codes, images, strict=True):
        expected = draw(state, one, generator.noise == "const", fused_from)
        torch.testing.assert_close(image[None], expected, atol=IMAGE_TOLERANCE, rtol=IMAGE_TOLERANCE)


# The formats, in other sizes than the recorded checkpoints have.

WIDTHS = [5, 4, 6, 3, 2, 7]


@pytest.mark.parametrize(
    ("changes", "noise", "resolution", "layers"),
    [
        ({}, "const", (16, 16), 6),
        ({"lod": 0.25, "channels": 4}, "none", (16, 16), 6),
        ({"lod": 1.0, "channels": 1}, "const", (16, 16), 4),
        ({"lod": 1.5}, "const", (16, 16), 4),
        ({"lod": 2.0}, "none", (16, 16), 2),
        ({"base": (2, 4)}, "const", (8, 16), 6),
        ({"mapping": (9,)}, "const", (16, 16), 6),
    ],
)
def test_genforce_at_every_level_of_detail(
    tmp_path: Path, changes: dict[str, Any], noise: str, resolution: tuple[int, int], layers: int
) -> None:
    state = genforce_state(WIDTHS, **changes)
    generator = load(save(tmp_path / "a.pth", {"models": {"generator_smooth": state}}), noise=noise)
    assert (generator.resolution, generator.num_layers) == (resolution, layers)
    check(generator, state)


def test_layers_that_fuse_doubling_and_convolution(tmp_path: Path) -> None:
    state = genforce_state([3, 2, 3, 2, 2, 3, 3, 2, 2, 2, 3, 2])  # 128x128
    check(load(save(tmp_path / "a.pth", state)), state)


def test_genforce_with_labels(tmp_path: Path) -> None:
    state = genforce_state(WIDTHS, classes=4)
    generator = load(save(tmp_path / "a.pth", state))
    assert (generator.num_classes, generator.z_dim) == (4, 6)
    check(generator, state, torch.tensor([3, 1]))


@pytest.mark.parametrize(("lod", "classes"), [(0.0, 3), (0.75, 0), (2.0, 0)])
@pytest.mark.parametrize("fused", [True, False, "auto", None])
def test_tensorflow(tmp_path: Path, lod: float, classes: int, fused: bool | str | None) -> None:
    state = genforce_state(WIDTHS, lod=lod, classes=classes)
    kwargs = {} if fused is None else {"fused_scale": fused}
    generator = load(write_tensorflow(tmp_path / "a.pkl", tensorflow_variables(state), kwargs))
    label = torch.tensor([2, 0]) if classes else None
    check(generator, state, label, fused_from={True: 0, False: 999}.get(fused, 128))  # type: ignore[arg-type]


def test_tensorflow_draws_at_the_whole_generators_level_of_detail(tmp_path: Path) -> None:
    state = genforce_state(WIDTHS, lod=1.0)
    variables = tensorflow_variables(state) | {"synthesis/lod": torch.tensor(0.0)}
    check(load(write_tensorflow(tmp_path / "a.pkl", variables, {})), state)


def test_tensorflow_learning_rate_of_the_mapping(tmp_path: Path) -> None:
    state = genforce_state(WIDTHS)
    generator = load(write_tensorflow(tmp_path / "a.pkl", tensorflow_variables(state), {"mapping_lrmul": 0.02}))
    z = latents(generator)
    with torch.no_grad():
        codes = generator.encode(z)
    torch.testing.assert_close(codes[:, 0], map_latent(state, z, None, 0.02), atol=CODE_TOLERANCE, rtol=CODE_TOLERANCE)


# What the original code recorded beyond what every format has.


@pytest.mark.parametrize("name", ["sefa_stylegan_64", "sefa_stylegan_128_fused"])
def test_recorded_styles(name: str) -> None:
    case = GoldenCheckpoint(name)
    generator = case.generator
    assert isinstance(generator, StyleGAN)
    codes = case.encode()
    for k, style in enumerate(generator.styles):
        expected = torch.from_numpy(case.arrays[f"style{k:02}"])
        expected[:, : expected.shape[1] // 2] += 1  # The original adds it later.
        with torch.no_grad():
            torch.testing.assert_close(style(codes[:, k]), expected, atol=CODE_TOLERANCE, rtol=CODE_TOLERANCE)


def test_recorded_default_truncation() -> None:
    case = GoldenCheckpoint("tf_stylegan_32")
    case.compare_image("img_default_truncation", case.render(case.encode(0.7, 8)[:2], np.arange(2)))
    assert case.errors["img_default_truncation"] < case.facts["atol"]


# Properties.


def test_center_is_stored_or_estimated(tmp_path: Path) -> None:
    state = genforce_state(WIDTHS)
    stored = load(save(tmp_path / "a.pth", state))
    estimated = load(save(tmp_path / "b.pth", genforce_state(WIDTHS, center=False)))
    assert stored.truncation_center == "stored"
    torch.testing.assert_close(stored.center, state["truncation.w_avg"])
    assert estimated.truncation_center.startswith("mean of")
    z = torch.randn(2000, 6, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(estimated.center, map_latent(state, z, None).mean(dim=0), atol=0.1, rtol=0.1)


def test_affines_are_scales_and_shifts(tmp_path: Path) -> None:
    state = genforce_state(WIDTHS)
    affines = load(save(tmp_path / "a.pth", state)).affines()
    assert [affine.shape for affine in affines] == [(2 * width, 5) for width in WIDTHS]
    torch.testing.assert_close(affines[3], state["synthesis.layer3.style.weight"] / 5**0.5)


def test_images_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    generator = load(save(tmp_path / "a.pth", genforce_state(WIDTHS)))
    codes = generator.encode(latents(generator, 4))
    with torch.no_grad():
        alone = torch.cat([generator.decode(one[None]) for one in codes])
        torch.testing.assert_close(generator.decode(codes), alone, atol=CODE_TOLERANCE, rtol=CODE_TOLERANCE)


# Files that cannot be read.


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        sefa.load(path)
    return str(error.value)


def test_missing_and_renamed_keys_are_listed(tmp_path: Path) -> None:
    state = genforce_state(WIDTHS)
    state["synthesis.layer3.wieght"] = state.pop("synthesis.layer3.weight")
    del state["synthesis.layer0.const"]
    message = refused(save(tmp_path / "a.pth", state))
    assert "recognised as genforce StyleGAN, but missing synthesis.layer0.const for its first layer" in message
    assert "synthesis.layer3.weight for layers.2" in message
    assert "not understood synthesis.layer3.wieght" in message


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("synthesis.layer2.weight", (6, 5, 3, 3)),
        ("synthesis.layer2.apply_noise.noise", (1, 1, 4, 4)),
        ("synthesis.layer1.style.weight", (8, 6)),
        ("truncation.w_avg", (6,)),
    ],
)
def test_wrong_shapes_are_named(tmp_path: Path, key: str, shape: tuple[int, ...]) -> None:
    state = genforce_state(WIDTHS) | {key: torch.zeros(shape)}
    message = refused(save(tmp_path / "a.pth", state))
    assert f"of the wrong shape {key} {list(shape)}" in message or f"{key} {list(shape)}" in message


def test_a_label_that_leaves_no_latent(tmp_path: Path) -> None:
    state = genforce_state(WIDTHS) | {"mapping.label_weight": torch.zeros(3, 6)}
    assert "takes 6 values, of which 6 are the label's: no z" in refused(save(tmp_path / "a.pth", state))


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"use_pixel_norm": True}, "use_pixel_norm = True"),
        ({"blur_filter": [1, 3, 3, 1]}, r"blur_filter = [1, 3, 3, 1]"),
        ({"mapping_lrmul": 0}, "mapping_lrmul = 0, a positive number was expected"),
    ],
)
def test_tensorflow_options_that_change_the_meaning(tmp_path: Path, kwargs: dict[str, object], expected: str) -> None:
    variables = tensorflow_variables(genforce_state(WIDTHS))
    assert expected in refused(write_tensorflow(tmp_path / "a.pkl", variables, kwargs))


def test_tensorflow_missing_variable(tmp_path: Path) -> None:
    variables = tensorflow_variables(genforce_state(WIDTHS))
    del variables["synthesis/noise4"]
    message = refused(write_tensorflow(tmp_path / "a.pkl", variables, {}))
    assert "recognised as TensorFlow StyleGAN, but missing synthesis/noise4" in message
