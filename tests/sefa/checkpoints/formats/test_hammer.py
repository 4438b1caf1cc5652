"""Checkpoints of Hammer: what its options say, and what is assumed where a file does not hold them.

tests/sefa/checkpoints/formats/test_formats.py compares its recorded checkpoints with what the original code computed.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

import sefa
from sefa import ArgumentError, CheckpointError
from support.golden_checkpoints import GoldenCheckpoint

KINDS = {
    "StyleGAN": "hammer_stylegan_fused_16",
    "StyleGAN2": "hammer_stylegan2_cond_resnet_16",
    "StyleGAN3": "hammer_stylegan3_16",
}


def content(kind: str, **options: Any) -> dict[str, Any]:
    """A recorded checkpoint, with its generator's options changed."""
    path = GoldenCheckpoint(KINDS[kind]).path
    state = sefa.checkpoints.contents.read_contents(path)
    assert isinstance(state, dict)
    return {
        **state,
        "model_kwargs_init": {"generator_smooth": {**state["model_kwargs_init"]["generator_smooth"], **options}},
    }


def saved(checkpoint: dict[str, Any], folder: Path) -> Path:
    torch.save(checkpoint, folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


def assert_same_weights(one: sefa.Generator, other: sefa.Generator) -> None:
    assert one.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(tensor, other.state_dict()[key]) for key, tensor in one.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_its_options_leave_nothing_open(kind: str, tmp_path: Path) -> None:
    generator = GoldenCheckpoint(KINDS[kind]).load()
    assert (generator.checkpoint_format, generator.assumptions) == (f"Hammer {kind}", ())
    with pytest.raises(ArgumentError, match="no fact 'mapping_lr' is assumed of it"):
        sefa.load(saved(content(kind), tmp_path), assume={"mapping_lr": 0.1})


@pytest.mark.parametrize("kind", KINDS)
def test_without_its_options_the_usual_is_assumed(kind: str, tmp_path: Path) -> None:
    path = saved({"models": content(kind)["models"]}, tmp_path)
    generator = sefa.load(path, assume={"fused": "all"} if kind == "StyleGAN" else None)
    assert_same_weights(generator, GoldenCheckpoint(KINDS[kind]).load())
    assert "mapping network's learning rate 0.01" in generator.assumptions


def test_options_are_used(tmp_path: Path) -> None:
    options = {"mapping_lr_mul": 0.02, "output_scale": 0.5, "conv_clamp": 7, "first_cutoff": 2.5}
    ours = sefa.load(saved(content("StyleGAN3", **options), tmp_path))
    usual = GoldenCheckpoint(KINDS["StyleGAN3"]).load()
    assert isinstance(ours, sefa.generators.StyleGAN3)
    one, other = ours.state_dict(), usual.state_dict()
    torch.testing.assert_close(one["mapping.layers.0.weight"], other["mapping.layers.0.weight"] * 2)
    torch.testing.assert_close(one["rgb.weight"], other["rgb.weight"] * 2)
    assert (ours.rgb.clamp, ours.input.bandwidth, ours.assumptions) == (3.5, 2.5, ())


@pytest.mark.parametrize(
    ("fused", "size", "told"), [(False, 128, "none"), ("auto", 8, "all"), ("auto", 128, "auto"), (True, 128, "all")]
)
def test_how_upsampling_is_fused(fused: object, size: int, told: str, tmp_path: Path) -> None:
    ours = sefa.load(saved(content("StyleGAN", fused_scale=fused, fused_scale_res=size), tmp_path))
    (tmp_path / "told").mkdir()
    path = saved({"models": content("StyleGAN")["models"]}, tmp_path / "told")
    assert_same_weights(ours, sefa.load(path, assume={"fused": told}))


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        ("StyleGAN", "noise_type", "channel"),
        ("StyleGAN", "fused_scale", "sometimes"),
        ("StyleGAN", "wscale_gain", 1.0),
        ("StyleGAN2", "normalize_embedding_latent", True),
        ("StyleGAN2", "final_tanh", True),
        ("StyleGAN2", "repeat_w", False),
        ("StyleGAN2", "conv_clamp", -1),
        ("StyleGAN2", "mapping_lr_mul", None),
        ("StyleGAN3", "output_scale", "half"),
        ("StyleGAN3", "normalize_z", torch.ones(2)),
    ],
)
def test_an_option_with_another_meaning_is_refused(kind: str, option: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"it was built with {option} = "):
        sefa.load(saved(content(kind, **{option: value}), tmp_path))


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    checkpoint = content("StyleGAN2")
    del checkpoint["models"]["generator_smooth"]["synthesis.layer1.style.bias"]
    with pytest.raises(CheckpointError, match=r"NVlabs' code.*missing synthesis\.b8\.conv0\.affine\.bias"):
        sefa.load(saved(checkpoint, tmp_path))


def test_without_the_grid_sizes_are_unknown(tmp_path: Path) -> None:
    checkpoint = content("StyleGAN3")
    del checkpoint["models"]["generator_smooth"]["synthesis.early_layer.grid"]
    with pytest.raises(CheckpointError, match="grid is missing"):
        sefa.load(saved(checkpoint, tmp_path))


def test_the_average_is_read(tmp_path: Path) -> None:
    checkpoint = content("StyleGAN2")
    smooth = checkpoint["models"]["generator_smooth"]
    checkpoint["models"] = {
        "generator": {key: tensor + 1 for key, tensor in smooth.items()},
        "generator_smooth": smooth,
    }
    generator = sefa.load(saved(checkpoint, tmp_path))
    assert_same_weights(generator, GoldenCheckpoint(KINDS["StyleGAN2"]).load())


def test_a_pggan_knows_its_classes_and_its_end(tmp_path: Path) -> None:
    usual = GoldenCheckpoint("sefa_pggan_cond_16")
    state = sefa.checkpoints.contents.read_contents(usual.path)
    weights = state.get("generator_smooth", state)
    options = {"label_dim": usual.num_classes, "final_tanh": True}
    path = saved(
        {"models": {"generator_smooth": weights}, "model_kwargs_init": {"generator_smooth": options}}, tmp_path
    )
    generator = sefa.load(path)
    assert (generator.num_classes, generator.assumptions) == (usual.num_classes, ())
    with torch.no_grad():
        codes = usual.encode()
        torch.testing.assert_close(generator.decode(codes), usual.generator.decode(codes).tanh())
