"""Generators of residual blocks, and pytorch_GAN_zoo's DCGAN: what their files leave open, and what is refused.

Images, edits and directions of each are compared with the originals' in test_formats.py.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

import sefa
from sefa.checkpoints.contents import read_contents
from sefa.errors import CheckpointError
from support.golden_checkpoints import GoldenCheckpoint

State = dict[str, Tensor]


def state_of(name: str, entry: str) -> State:
    state: State = dict(read_contents(GoldenCheckpoint(name).path)[entry])
    return state


def saved(folder: Path, state: State, **more: Any) -> Path:
    torch.save({"state_dict": state, **more}, folder / "model.pth")
    return folder / "model.pth"


def images(generator: sefa.Generator, name: str) -> Tensor:
    """Images of the recorded latents."""
    case = GoldenCheckpoint(name)
    label = torch.from_numpy(case.arrays["label"]) if generator.num_classes else None
    with torch.no_grad():
        return generator.decode(generator.encode(case.z, label))


@pytest.mark.parametrize(
    ("name", "entry"), [("studio_sngan_32", "state_dict"), ("mimicry_sagan_32", "model_state_dict")]
)
def test_prefixed_weights_in_safetensors_are_the_same_generator(tmp_path: Path, name: str, entry: str) -> None:
    state = {f"module.{key}": tensor.contiguous() for key, tensor in state_of(name, entry).items()}
    save_file(state, tmp_path / "model.safetensors")
    expected = GoldenCheckpoint(name).generator
    assert images(sefa.load(tmp_path / "model.safetensors"), name).equal(images(expected, name))


def plain_sngan(state: State, z: Tensor, activation: Callable[[Tensor], Tensor], pixels: int) -> Tensor:
    """Render with a StudioGAN SNGAN's formula, without classes, attention and spectral norms."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance, gain, bias = (
            state[f"{name}.{entry}"].double()[:, None, None]
            for entry in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-4).sqrt() * gain + bias

    def conv(x: Tensor, name: str) -> Tensor:
        weight = state[f"{name}.weight"].double()
        return F.conv2d(x, weight, state[f"{name}.bias"].double(), padding=weight.shape[-1] // 2)

    def double(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    h = z.double() @ state["linear0.weight"].double().T + state["linear0.bias"].double()
    h = h.reshape(len(z), -1, pixels, pixels)
    for i in range(sum(key.endswith(".0.conv2d1.weight") for key in state)):
        name = f"blocks.{i}.0"
        a = conv(double(activation(norm(h, f"{name}.bn1"))), f"{name}.conv2d1")
        a = conv(activation(norm(a, f"{name}.bn2")), f"{name}.conv2d2")
        h = a + conv(double(h), f"{name}.conv2d0")
    return torch.tanh(conv(activation(norm(h, "bn4")), "conv2d5"))


def random_sngan(widths: list[int], z_dim: int, pixels: int, channels: int) -> State:
    random = torch.Generator().manual_seed(0)
    state: State = {}

    def dense(name: str, *shape: int) -> None:
        state[f"{name}.weight"] = torch.randn(shape, generator=random) * (shape[0] / math.prod(shape)) ** 0.5
        state[f"{name}.bias"] = torch.randn(shape[0], generator=random) / 4

    def norm(name: str, width: int) -> None:
        for entry in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{entry}"] = torch.rand(width, generator=random) + 0.2
        state[f"{name}.num_batches_tracked"] = torch.tensor(9)

    dense("linear0", widths[0] * pixels**2, z_dim)
    for i, (one, other) in enumerate(pairwise(widths)):
        dense(f"blocks.{i}.0.conv2d0", other, one, 1, 1)
        dense(f"blocks.{i}.0.conv2d1", other, one, 3, 3)
        dense(f"blocks.{i}.0.conv2d2", other, other, 3, 3)
        norm(f"blocks.{i}.0.bn1", one)
        norm(f"blocks.{i}.0.bn2", other)
    norm("bn4", widths[-1])
    dense("conv2d5", channels, widths[-1], 3, 3)
    return state


@pytest.mark.parametrize(
    ("widths", "pixels", "channels", "assume", "activation"),
    [
        ([5, 3], 4, 1, {}, F.relu),
        ([3, 5, 4, 2], 3, 3, {"activation": "leaky_relu:0.1"}, lambda x: F.leaky_relu(x, 0.1)),
        ([4, 4], 6, 4, {"activation": "gelu"}, F.gelu),
    ],
)
def test_a_studiogan_without_classes_follows_its_formula(
    tmp_path: Path,
    widths: list[int],
    pixels: int,
    channels: int,
    assume: dict[str, str],
    activation: Callable[[Tensor], Tensor],
) -> None:
    state = random_sngan(widths, 7, pixels, channels)
    generator = sefa.load(saved(tmp_path, state, optimizer={"state": {0: torch.ones(3, 3)}}), assume=assume)
    assert (generator.family, generator.num_classes, generator.num_layers) == ("sngan", 0, 1)
    assert generator.resolution == (pixels * 2 ** (len(widths) - 1),) * 2
    z = torch.randn(3, 7, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        image = generator.decode(generator.encode(z))
    expected = plain_sngan(state, z, activation, pixels)
    assert expected.abs().mean() < 0.9  # Saturated images would hide errors.
    torch.testing.assert_close(image, expected.float(), atol=1e-5, rtol=0)
    torch.testing.assert_close(generator.affines()[0], state["linear0.weight"])


def test_older_studiogans_have_a_row_of_gains_for_each_class(tmp_path: Path) -> None:
    entries = {"weight_orig": "weight_orig", "weight_u": "weight_v", "weight_v": "weight_u"}  # of the transposed
    name = "studio_sngan_32"
    state = {}
    for key, tensor in state_of(name, "state_dict").items():
        norm, part, entry = ["", "", *key.rsplit(".", 2)][-3:]
        table = {"gain": "embed0", "bias": "embed1"}.get(part)
        state[f"{norm}.{table}.{entries[entry]}" if table else key] = tensor.T if table and tensor.ndim == 2 else tensor
    assert "blocks.0.0.bn1.embed0.weight_orig" in state
    old = sefa.load(saved(tmp_path, state))
    torch.testing.assert_close(images(old, name), images(GoldenCheckpoint(name).generator, name))


def test_norms_that_read_as_many_numbers_as_z_has_are_said_to_read_the_latent(tmp_path: Path) -> None:
    state = state_of("studio_sngan_32", "state_dict")
    for key, tensor in state.items():  # As many latents as classes.
        if key == "linear0.weight_orig":
            state[key] = tensor[:, :6]
        if key == "linear0.weight_v":
            state[key] = tensor[:6]
    path = saved(tmp_path, state)
    assumed = sefa.load(path)
    assert (assumed.family, assumed.z_dim, assumed.num_classes) == ("biggan", 6 * 4, 0)
    assert "the norms read the latent" in assumed.assumptions
    told = sefa.load(path, assume={"norms_read": "label"})
    assert (told.family, told.z_dim, told.num_classes) == ("sngan", 6, 6)


def test_the_left_vector_of_a_spectral_norm_is_enough_for_a_mimicry(tmp_path: Path) -> None:
    name = "mimicry_sagan_32"
    divided: State = {}
    with_vector: State = {}
    for key, tensor in state_of(name, "model_state_dict").items():
        layer, _, entry = key.rpartition(".")
        if entry == "weight_orig":
            U, S, _ = torch.linalg.svd(tensor.flatten(1), full_matrices=False)
            divided[f"{layer}.weight"] = tensor / S[0]
            with_vector |= {f"{layer}.weight": tensor, f"{layer}.sn_u": U[None, :, 0], f"{layer}.sn_sigma": S[:1]}
        elif entry not in ("weight_u", "weight_v"):
            divided[key] = with_vector[key] = tensor
    expected = images(sefa.load(saved(tmp_path, divided)), name)
    torch.testing.assert_close(images(sefa.load(saved(tmp_path, with_vector)), name), expected)


def test_attention_of_a_mimicry_stands_where_the_original_has_it_or_where_the_owner_says() -> None:
    name = "mimicry_sagan_32"
    assert "attention after block3" in GoldenCheckpoint(name).generator.assumptions
    told = sefa.load(GoldenCheckpoint(name).path, assume={"attention": "block2"})
    assert "attention after block2 (as told)" in told.assumptions
    assert (images(told, name) - images(GoldenCheckpoint(name).generator, name)).abs().max() > 1e-3


def test_upsampling_and_output_of_a_mimicry_are_the_owners() -> None:
    name = "mimicry_sngan_48"
    path, plain = GoldenCheckpoint(name).path, images(GoldenCheckpoint(name).generator, name)
    sigmoid = images(sefa.load(path, assume={"output": "sigmoid"}), name)
    # tanh(x) = 2·sigmoid(2x) - 1, and a sigmoid's images are brought to -1 to 1.
    torch.testing.assert_close(sigmoid, (plain.double().atanh() / 2).tanh().float(), atol=1e-4, rtol=0)
    assert (images(sefa.load(path, assume={"upsample": "nearest"}), name) - plain).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"info_mix_linear.weight": torch.ones(2, 2)}, "its generator also reads InfoGAN's codes"),
        ({"blocks.0.0.bn1.bn.running_var": -torch.ones(8)}, "has negative variances"),
        ({"linear0.weight_orig": torch.ones(100, 14)}, "100 rows, which are no square image of 8 channels"),
        ({"linear0.weight_u": torch.zeros(128)}, "linear: a weight of shape .* has a spectral norm of 0"),
        ({"extra.weight": torch.ones(2)}, "not understood extra.weight"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: State, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        sefa.load(saved(tmp_path, state_of("studio_sngan_32", "state_dict") | changes))


def fb_dcgan(folder: Path, change: Callable[[Any], None]) -> Path:
    content = read_contents(GoldenCheckpoint("fb_dcgan_32").path)
    config = dict(content["config"].state)
    parts = {"config": config, "avgG": dict(content["avgG"])}
    change(parts)
    torch.save(parts, folder / "model.pt")
    return folder / "model.pt"


def test_the_loss_of_a_pytorch_gan_zoos_dcgan_says_what_is_at_its_end(tmp_path: Path) -> None:
    case = GoldenCheckpoint("fb_dcgan_32")
    assert read_contents(case.path)["config"].state["lossCriterion"] == "WGANGP"  # Nothing at its end.
    ends = sefa.load(fb_dcgan(tmp_path, lambda parts: parts["config"].update(lossCriterion="DCGAN")))
    torch.testing.assert_close(images(ends, case.name), images(case.generator, case.name).tanh())


def forget(parts: Any) -> None:
    for key, tensor in parts["avgG"].items():
        if key.endswith("running_mean"):
            parts["avgG"][key] = torch.zeros_like(tensor)


ATTRIBUTES = {"one": {"order": 0, "values": ["a"]}, "other": {"order": 1, "values": ["b", "c"]}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: parts.pop("config"), "missing config"),
        (lambda parts: parts["config"].update(noiseVectorDim=5), "noiseVectorDim = 5 and categoryVectorDim = 3"),
        (lambda parts: parts["config"].update(attribKeysOrder=ATTRIBUTES), "a vector of several attributes"),
        (forget, "its batch norms have no statistics.* --entry netG"),
    ],
)
def test_a_pytorch_gan_zoos_dcgan_is_refused_where_it_would_be_wrong(
    tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        sefa.load(fb_dcgan(tmp_path, change))
