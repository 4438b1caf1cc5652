import pickle
import sys
from collections import OrderedDict
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
from sefa import ArgumentError, CheckpointError
from sefa.checkpoints.contents import read_contents
from sefa.generators import PGGAN
from support.golden_checkpoints import GoldenCheckpoint

Tensors = dict[str, Tensor]

# Sums in another order, of values about 1.
ATOL = RTOL = 1e-5


# What the originals compute, step by step as they describe it.


def norm(x: Tensor) -> Tensor:
    return x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()


def lrelu(x: Tensor, slope: float = 0.2) -> Tensor:
    return torch.where(x > 0, x, slope * x)


def nearest(x: Tensor, times: int = 2) -> Tensor:
    return x.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)


def he(fan_in: int) -> float:
    return float((2 / fan_in) ** 0.5)


def fused_up(x: Tensor, weight: Tensor) -> Tensor:
    """Up-convolution with a 3x3 weight [in, out, 3, 3] grown to 4x4."""
    w = F.pad(weight, (1, 1, 1, 1))
    return F.conv_transpose2d(
        x, w[..., 1:, 1:] + w[..., :-1, 1:] + w[..., 1:, :-1] + w[..., :-1, :-1], stride=2, padding=1
    )


def blend(images: list[Tensor], lod: float) -> Tensor:
    """The image at a level of detail, of the images of all levels, in the size of the last."""
    below, above = int(np.floor(lod)), int(np.ceil(lod))
    size = images[-1].shape[2]
    fine, coarse = images[-1 - below], images[-1 - above]
    mixed = (above - lod) * fine + (1 - above + lod) * nearest(coarse) if below != above else fine
    return nearest(mixed, size // mixed.shape[2])


def draw_genforce(state: Tensors, z: Tensor, onehot: Tensor | None, fused: bool = False) -> Tensor:
    x = norm(z) if onehot is None else torch.cat([norm(z), onehot], dim=1)
    x = x[:, :, None, None]
    images = []
    for k in range(sum(key.startswith("layer") for key in state) // 2):
        weight, bias = state[f"layer{k}.weight"], state[f"layer{k}.bias"][:, None, None]
        x = norm(x)
        if k and k % 2 == 0 and fused:
            x = fused_up(x, weight * he(9 * weight.shape[0]))
        else:
            x = nearest(x) if k and k % 2 == 0 else x
            padding = 1 if k else (weight.shape[2] - 1, weight.shape[3] - 1)
            x = F.conv2d(x, weight * he(weight[0].numel()), padding=padding)
        x = lrelu(x + bias)
        if k % 2:
            output = state[f"output{k // 2}.weight"]
            images.append(F.conv2d(norm(x), output / output.shape[1] ** 0.5, state[f"output{k // 2}.bias"]))
    return blend(images, float(state["lod"]))


def draw_tensorflow(variables: Tensors, code: Tensor) -> Tensor:
    images = []
    weight = variables["4x4/Dense/weight"]
    x = norm(code) @ (weight * 2**0.5 / 4 / weight.shape[0] ** 0.5)
    x = norm(lrelu(x.reshape(len(code), -1, 4, 4) + variables["4x4/Dense/bias"][:, None, None]))
    level, top = 0, sum("ToRGB" in name for name in variables) // 2 - 1
    while level <= top:
        scope = f"{4 << level}x{4 << level}"
        for name in (f"{scope}/Conv0", f"{scope}/Conv0_up", f"{scope}/Conv", f"{scope}/Conv1"):
            if f"{name}/weight" not in variables:
                continue
            raw = variables[f"{name}/weight"]
            if name.endswith("Conv0_up"):
                x = fused_up(x, raw.permute(3, 2, 0, 1) * he(9 * raw.shape[3]))
            else:
                x = nearest(x) if name.endswith("Conv0") else x
                x = F.conv2d(x, raw.permute(3, 2, 0, 1) * he(9 * raw.shape[2]), padding=1)
            x = norm(lrelu(x + variables[f"{name}/bias"][:, None, None]))
        rgb = variables[f"ToRGB_lod{top - level}/weight"]
        images.append(
            F.conv2d(x, rgb.permute(3, 2, 0, 1) / rgb.shape[2] ** 0.5, variables[f"ToRGB_lod{top - level}/bias"])
        )
        level += 1
    return blend(images, float(variables["lod"]))


def draw_gan_zoo(state: Tensors, code: Tensor, alpha: float, slope: float, tanh: bool) -> Tensor:
    def layer(name: str, x: Tensor) -> Tensor:
        weight, bias = state[f"{name}.module.weight"], state[f"{name}.module.bias"]
        y = F.linear(x, weight, bias) if weight.ndim == 2 else F.conv2d(x, weight, bias, padding=weight.shape[2] // 2)
        return y * he(weight[0].numel())

    x = norm(lrelu(layer("formatLayer", norm(code)), slope).reshape(len(code), -1, 4, 4))
    x = norm(lrelu(layer("groupScale0.0", x), slope))
    features = [x]
    scale = 0
    while f"scaleLayers.{scale}.0.module.weight" in state:
        x = nearest(x)
        for index in (0, 1):
            x = norm(lrelu(layer(f"scaleLayers.{scale}.{index}", x), slope))
        features.append(x)
        scale += 1
    image = layer(f"toRGBLayers.{scale}", x)
    if alpha:
        image = alpha * nearest(layer(f"toRGBLayers.{scale - 1}", features[-2])) + (1 - alpha) * image
    return torch.tanh(image) if tanh else image


# Files in the originals' layouts, with random weights.


def genforce_state(
    inputs: int,
    widths: list[int],
    channels: int = 3,
    lod: float = 0,
    fused: bool = False,
    base: tuple[int, int] = (4, 4),
) -> Tensors:
    torch.manual_seed(0)
    state = {"lod": torch.tensor(lod)}
    for k, width in enumerate(widths):
        before = widths[k - 1] if k else inputs
        shape = (before, width) if fused and k and k % 2 == 0 else (width, before)
        state[f"layer{k}.weight"] = torch.randn(*shape, *((3, 3) if k else base))
        state[f"layer{k}.bias"] = torch.randn(width)
    for level, width in enumerate(widths[1::2]):
        state[f"output{level}.weight"] = torch.randn(channels, width, 1, 1)
        state[f"output{level}.bias"] = torch.randn(channels)
    return state


def tensorflow_variables(inputs: int, widths: list[int], channels: int, lod: float, up: str) -> Tensors:
    torch.manual_seed(0)
    variables = {
        "lod": torch.tensor(lod),
        "4x4/Dense/weight": torch.randn(inputs, 16 * widths[0]),
        "4x4/Dense/bias": torch.randn(widths[0]),
    }
    for k in range(1, len(widths)):
        scope = f"{4 << k // 2}x{4 << k // 2}"
        name = f"{scope}/Conv" if k == 1 else f"{scope}/{'Conv1' if k % 2 else up}"
        pair = (widths[k], widths[k - 1]) if name.endswith("Conv0_up") else (widths[k - 1], widths[k])
        variables[f"{name}/weight"] = torch.randn(3, 3, *pair)
        variables[f"{name}/bias"] = torch.randn(widths[k])
    for lod_index, width in enumerate(reversed(widths[1::2])):
        variables[f"ToRGB_lod{lod_index}/weight"] = torch.randn(1, 1, width, channels)
        variables[f"ToRGB_lod{lod_index}/bias"] = torch.randn(channels)
    return variables


def write_tensorflow(path: Path, variables: Tensors, kwargs: Mapping[str, object]) -> Path:
    """A pickle of three networks, of the class that the original has."""
    module = ModuleType("tfutil")
    network_class = type("Network", (), {"__module__": "tfutil"})
    module.Network = network_class  # type: ignore[attr-defined]
    network = network_class()
    network.__dict__.update(
        version=2,
        name="Gs",
        static_kwargs=dict(kwargs),
        build_module_src="",
        build_func_name="G_paper",
        variables=[(name, tensor.numpy()) for name, tensor in variables.items()],
    )
    sys.modules["tfutil"] = module
    try:
        path.write_bytes(pickle.dumps((network, network, network), protocol=4))
    finally:
        del sys.modules["tfutil"]
    return path


def gan_zoo_state(inputs: int, first: int, scales: list[int], channels: int = 3) -> Tensors:
    torch.manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "formatLayer": (16 * first, inputs),
        "groupScale0.0": (first, first, 3, 3),
        "toRGBLayers.0": (channels, first, 1, 1),
    }
    before = first
    for index, width in enumerate(scales):
        shapes[f"scaleLayers.{index}.0"] = (width, before, 3, 3)
        shapes[f"scaleLayers.{index}.1"] = (width, width, 3, 3)
        shapes[f"toRGBLayers.{index + 1}"] = (channels, width, 1, 1)
        before = width
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.module.weight"] = torch.randn(shape)
        state[f"{name}.module.bias"] = torch.randn(shape[0])
    return state


def gan_zoo_config(noise: int, category: int = 0, **changes: Any) -> dict[str, Any]:
    config = {
        "noiseVectorDim": noise,
        "categoryVectorDim": category,
        "latentVectorDim": noise + category,
        "leakyReluLeak": 0.2,
        "alpha": 0,
        "equalizedlR": True,
        "perChannelNormalization": True,
        "lossCriterion": "WGANGP",
        "attribKeysOrder": None,
    }
    return config | changes


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def latents(generator: PGGAN, count: int = 3) -> Tensor:
    return torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(1))


def load(path: Path, **options: Any) -> PGGAN:
    generator = sefa.load(path, **options)
    assert isinstance(generator, PGGAN)
    return generator


# The formats, in other sizes than the recorded checkpoints have.


@pytest.mark.parametrize(
    ("widths", "channels", "lod", "classes"),
    [
        ([5, 7, 6, 4, 3, 8], 3, 0.0, 0),
        ([5, 7, 6, 4, 3, 8], 4, 0.25, 3),
        ([5, 7, 6, 4, 3, 8], 1, 1.0, 0),
        ([5, 7, 6, 4, 3, 8], 3, 1.75, 0),
        ([5, 7, 6, 4, 3, 8], 3, 2.0, 2),
        ([6, 5], 1, 0.0, 0),
    ],
)
def test_genforce_at_every_level_of_detail(
    tmp_path: Path, widths: list[int], channels: int, lod: float, classes: int
) -> None:
    state = genforce_state(9 + classes, widths, channels, lod)
    path = save(tmp_path / "a.pth", {"generator_smooth": state})
    generator = load(path, num_classes=classes or None)
    z = latents(generator)
    label = torch.tensor([0, classes - 1, 1]) if classes else None
    with torch.no_grad():
        image = generator.decode(generator.encode(z, label))
    expected = draw_genforce(state, z, None if label is None else F.one_hot(label, classes).float())
    assert image.shape == (3, channels, *generator.resolution) == expected.shape
    torch.testing.assert_close(image, expected, atol=ATOL, rtol=RTOL)


def test_genforce_not_square(tmp_path: Path) -> None:
    state = genforce_state(8, [4, 5, 6, 7], base=(4, 2))
    generator = load(save(tmp_path / "a.pth", state))
    assert generator.resolution == (8, 4)
    z = latents(generator)
    with torch.no_grad():
        image = generator.decode(generator.encode(z))
    torch.testing.assert_close(image, draw_genforce(state, z, None), atol=ATOL, rtol=RTOL)


def test_genforce_that_fuses_doubling_and_convolution(tmp_path: Path) -> None:
    state = genforce_state(8, [4, 5, 6, 7], fused=True)
    generator = load(save(tmp_path / "a.pth", state))
    z = latents(generator)
    with torch.no_grad():
        image = generator.decode(generator.encode(z))
    torch.testing.assert_close(image, draw_genforce(state, z, None, fused=True), atol=ATOL, rtol=RTOL)


@pytest.mark.parametrize("up", ["Conv0", "Conv0_up"])
@pytest.mark.parametrize(("lod", "classes"), [(0.0, 0), (0.5, 4), (2.0, 0)])
def test_tensorflow_plain_and_fused(tmp_path: Path, up: str, lod: float, classes: int) -> None:
    variables = tensorflow_variables(7 + classes, [5, 7, 6, 4, 3, 8], 2, lod, up)
    path = write_tensorflow(tmp_path / "a.pkl", variables, {"label_size": classes, "fused_scale": up == "Conv0_up"})
    generator = load(path)
    assert (generator.z_dim, generator.num_classes, generator.channels) == (7, classes, 2)
    z = latents(generator)
    label = torch.tensor([0, 3, 1]) if classes else None
    code = z if label is None else torch.cat([z, F.one_hot(label, classes)], dim=1)
    with torch.no_grad():
        image = generator.decode(generator.encode(z, label))
    torch.testing.assert_close(image, draw_tensorflow(variables, code), atol=ATOL, rtol=RTOL)


@pytest.mark.parametrize(
    ("alpha", "slope", "loss"), [(0, 0.2, "Logistic"), (0.3, 0.1, "MSE"), (1, 0.2, "DCGAN"), (0.5, 0.2, "WGANGP")]
)
def test_gan_zoo_blends_before_the_activation_of_its_loss(
    tmp_path: Path, alpha: float, slope: float, loss: str
) -> None:
    state = gan_zoo_state(9, 6, [5, 7], channels=1)
    config = gan_zoo_config(9, alpha=alpha, leakyReluLeak=slope, lossCriterion=loss)
    generator = load(save(tmp_path / "a.pt", {"config": config, "netG": {}, "avgG": state}))
    z = latents(generator)
    with torch.no_grad():
        image = generator.decode(generator.encode(z))
    expected = draw_gan_zoo(state, z, alpha, slope, tanh=loss in ("MSE", "DCGAN"))
    torch.testing.assert_close(image, expected, atol=ATOL, rtol=RTOL)


def test_gan_zoo_without_gains(tmp_path: Path) -> None:
    state = gan_zoo_state(9, 6, [5])
    gained = gan_zoo_config(9)
    images = []
    for config, factor in ((gained, False), (gained | {"equalizedlR": False}, True)):
        tensors = dict(state)
        if factor:
            for key, tensor in state.items():
                fan_in = state[key.replace(".bias", ".weight")][0].numel()
                tensors[key] = tensor * he(fan_in)
        generator = load(save(tmp_path / "a.pt", {"config": config, "avgG": tensors}))
        with torch.no_grad():
            images.append(generator.decode(generator.encode(latents(generator))))
    torch.testing.assert_close(images[0], images[1], atol=ATOL, rtol=RTOL)


def test_gan_zoo_class_is_one_value_of_each_attribute(tmp_path: Path) -> None:
    attributes = {"light": {"order": 1, "values": ["day", "dusk", "night"]}, "sex": {"order": 0, "values": ["f", "m"]}}
    state = gan_zoo_state(7 + 5, 6, [5])
    config = gan_zoo_config(7, 5, attribKeysOrder=attributes)
    generator = load(save(tmp_path / "a.pt", {"config": config, "avgG": state}))
    assert (generator.num_classes, generator.z_dim) == (6, 7)
    z = latents(generator)
    category = torch.tensor([[1.0, 0, 1, 0, 0], [1, 0, 0, 0, 1], [0, 1, 0, 1, 0]])  # sex, then light
    with torch.no_grad():
        image = generator.decode(generator.encode(z, torch.tensor([0, 2, 4])))
    expected = draw_gan_zoo(state, torch.cat([z, category], dim=1), 0, 0.2, tanh=False)
    torch.testing.assert_close(image, expected, atol=ATOL, rtol=RTOL)


def test_gan_zoo_single_label_is_one_hot(tmp_path: Path) -> None:
    state = gan_zoo_state(7 + 3, 6, [5])
    generator = load(save(tmp_path / "a.pt", {"config": gan_zoo_config(7, 3), "netG": state}))
    assert generator.num_classes == 3
    z = latents(generator)
    with torch.no_grad():
        image = generator.decode(generator.encode(z, torch.tensor([2, 0, 1])))
    expected = draw_gan_zoo(state, torch.cat([z, torch.eye(3)[[2, 0, 1]]], dim=1), 0, 0.2, tanh=False)
    torch.testing.assert_close(image, expected, atol=ATOL, rtol=RTOL)


# What the original code recorded beyond what every format has.


@pytest.mark.parametrize(("lod", "key"), [(0.5, "img_lod05"), (1.0, "img_lod1")])
def test_recorded_levels_of_detail(tmp_path: Path, lod: float, key: str) -> None:
    case = GoldenCheckpoint("sefa_pggan_32")
    state = {**read_contents(case.path)["generator_smooth"], "lod": torch.tensor(lod)}
    generator = load(save(tmp_path / "a.pth", {"generator_smooth": state}))
    expected = torch.from_numpy(case.arrays[key])
    with torch.no_grad():
        image = generator.decode(generator.encode(case.z[: len(expected)]))
    torch.testing.assert_close(image, expected, atol=case.facts["atol"], rtol=0)


def test_recorded_image_of_the_network_that_is_not_averaged(tmp_path: Path) -> None:
    case = GoldenCheckpoint("fb_pgan_32")
    content = read_contents(case.path)
    generator = load(save(tmp_path / "a.pt", {"config": content["config"].state, "netG": content["netG"]}))
    expected = torch.from_numpy(case.arrays["img_netG"])
    with torch.no_grad():
        image = generator.decode(generator.encode(case.z[: len(expected)]))
    torch.testing.assert_close(image, expected, atol=case.facts["atol"], rtol=0)


@pytest.mark.parametrize("name", ["sefa_pggan_32", "sefa_pggan_cond_16"])
def test_genforces_edits_are_ours_of_the_normalized_latent(name: str) -> None:
    case = GoldenCheckpoint(name)
    generator = case.load()
    rows = case.arrays["edit_batch"]
    label = None if case.label is None else case.label[rows]
    codes = generator.encode(norm(case.z[rows]), label)
    expected = torch.from_numpy(case.arrays["img_edit_pixelnormed_z__layer0"])
    directions = torch.from_numpy(case.arrays["dirs__layer0"])
    for image, index, alpha in zip(expected, case.arrays["edit_index__layer0"], case.arrays["edit_alpha"], strict=True):
        shift = F.pad(float(alpha) * directions[index], (0, generator.code_dim - generator.latent_dim))
        with torch.no_grad():
            torch.testing.assert_close(generator.decode(codes + shift), image, atol=case.facts["atol"], rtol=0)


# Properties.


def test_no_direction_changes_the_class(tmp_path: Path) -> None:
    generator = load(save(tmp_path / "a.pth", genforce_state(11, [5, 4])), num_classes=4)
    bank = sefa.factorize(generator, top=7)
    assert (generator.latent_dim, generator.code_dim) == (7, 11)
    assert not bank.vectors[:, 7:].any()


def test_direction_is_the_one_that_moves_the_first_layer_most(tmp_path: Path) -> None:
    state = genforce_state(7, [5, 4])
    generator = load(save(tmp_path / "a.pth", state))
    *_, rows = torch.linalg.svd(state["layer0.weight"].transpose(0, 1).reshape(7, -1).T.double())
    vector = sefa.factorize(generator, top=1).vectors[0].double()
    assert abs(float(vector @ rows[0])) == pytest.approx(1, abs=1e-6)


def test_images_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    generator = load(save(tmp_path / "a.pth", genforce_state(7, [5, 4, 3, 6])))
    z = latents(generator, 4)
    with torch.no_grad():
        together = generator.decode(generator.encode(z))
        alone = torch.cat([generator.decode(generator.encode(one[None])) for one in z])
    torch.testing.assert_close(together, alone, atol=ATOL, rtol=RTOL)


# Files that cannot be read.


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(CheckpointError) as error:
        sefa.load(path, **options)
    return str(error.value)


def test_missing_and_renamed_keys_are_listed(tmp_path: Path) -> None:
    state = genforce_state(7, [5, 4, 3, 6])
    state["layer3.wieght"] = state.pop("layer3.weight")
    del state["output0.bias"]
    message = refused(save(tmp_path / "a.pth", state))
    assert "genforce PGGAN" in message
    assert "missing layer3.weight for convs.2, output0.bias; not understood layer3.wieght beside convs.2" in message


def test_a_key_of_a_level_that_draws_nothing_is_missed_too(tmp_path: Path) -> None:
    state = genforce_state(7, [5, 4, 3, 6], lod=1)
    del state["layer3.weight"]
    assert "missing layer3.weight" in refused(save(tmp_path / "a.pth", state))


def test_wrong_shapes_are_named(tmp_path: Path) -> None:
    state = genforce_state(7, [5, 4, 3, 6])
    state["layer1.weight"] = torch.zeros(4, 6, 3, 3)
    assert "of the wrong shape layer1.weight [4, 6, 3, 3]" in refused(save(tmp_path / "a.pth", state))


@pytest.mark.parametrize("lod", [-1.0, 1.5, 7.0])
def test_levels_of_detail_that_there_are_not(tmp_path: Path, lod: float) -> None:
    message = refused(save(tmp_path / "a.pth", genforce_state(7, [5, 4, 3, 6], lod=lod)))
    assert f"lod is {lod:g}, it has 2 levels of detail: 0 to 1" in message


def test_more_classes_than_inputs(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", genforce_state(7, [5, 4]))
    with pytest.raises(ArgumentError, match=r"num_classes must be in 0\.\.6, its input's size less 1, got 7"):
        sefa.load(path, num_classes=7)


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"use_pixelnorm": False}, "built with use_pixelnorm = False, which is not supported"),
        ({"label_size": 9}, "label_size = 9, but 4x4/Dense takes 7 values"),
        ({"label_size": "3"}, "label_size = '3', a natural number was expected"),
    ],
)
def test_tensorflow_options_that_change_the_meaning(tmp_path: Path, kwargs: dict[str, object], expected: str) -> None:
    path = write_tensorflow(tmp_path / "a.pkl", tensorflow_variables(7, [5, 4], 3, 0.0, "Conv0"), kwargs)
    assert expected in refused(path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lossCriterion": "Hinge"}, "lossCriterion = 'Hinge', one of WGANGP, Logistic, MSE, DCGAN was expected"),
        ({"alpha": 1.5}, "alpha = 1.5 for 2 levels, 0 to 1 was expected"),
        ({"perChannelNormalization": False}, "with which the original renders no image"),
        ({"categoryVectorDim": 2}, "but its first layer takes 7 values"),
        ({"leakyReluLeak": "0.2"}, "leakyReluLeak = '0.2', float was expected"),
        (
            {"noiseVectorDim": 4, "categoryVectorDim": 3, "attribKeysOrder": {"a": {"order": 0, "values": [1, 2]}}},
            "attribKeysOrder does not tell what 3 values of the label mean",
        ),
    ],
)
def test_gan_zoo_configurations_that_cannot_be_drawn(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    content = {"config": gan_zoo_config(7) | changes, "avgG": gan_zoo_state(7, 5, [4])}
    assert expected in refused(save(tmp_path / "a.pt", content))


def test_gan_zoo_weights_without_their_config(tmp_path: Path) -> None:
    assert "missing config" in refused(save(tmp_path / "a.pt", OrderedDict(gan_zoo_state(7, 5, [4]))))


def test_theano_pickles_are_named(tmp_path: Path) -> None:
    # As Python 2 pickled an instance with the attribute version: 1.
    network = b"cnetwork\nNetwork\n)\x81}U\x07versionK\x01sb"
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x02" + network * 3 + b"\x87.")
    assert "recognised as Theano PGGAN, but it was written by Python 2" in refused(path)
