"""What OpenMMLab's configurations say, and what is done where they say nothing."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import sefa
from sefa.checkpoints.checkpoint import Checkpoint
from sefa.checkpoints.formats.openmmlab.openmmlab_files import configuration
from sefa.errors import CheckpointError
from sefa.generators import PGGAN, StyleGAN2
from sefa.generators.stylegan2 import SynthesisBlock
from support.paths import CHECKPOINTS

STYLEGAN2 = CHECKPOINTS / "mm_stylegan2_16" / "iter_800000.pth"
PGGAN_FILE = CHECKPOINTS / "mm_pggan_16" / "iter_5000.pth"
BIGGAN = CHECKPOINTS / "mm_biggan_32" / "iter_500000.pth"
STYLEGAN = CHECKPOINTS / "mm_stylegan_16" / "iter_5000.pth"
STYLEGAN3 = CHECKPOINTS / "mm_stylegan3_16" / "iter_160000.pth"
DCGAN = CHECKPOINTS / "mm_dcgan_32" / "iter_300000.pth"
LSGAN = CHECKPOINTS / "mm_lsgan_32" / "iter_300000.pth"
SAGAN = CHECKPOINTS / "mm_sagan_32" / "iter_500000.pth"
DEEP = CHECKPOINTS / "mm_biggandeep_32" / "iter_500000.pth"
MODEL = "model = dict(type='S', generator=dict(type='G'{}), discriminator=dict(rgb2bgr=True))\n"
NORMALIZE = "train_pipeline = [dict(type='Load', key='x'), dict(type='Normalize', keys=['x'], to_rgb={})]\n"
CIFAR = "data = dict(train=dict(type='mmcls.CIFAR10', pipeline=[]))\n"


def content(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    return loaded


def save(path: Path, state: dict[str, Tensor], config: object = None, key: str = "config") -> Path:
    torch.save({"meta": {"seed": 1, key: config}, "state_dict": state}, path)
    return path


def image(generator: sefa.Generator) -> Tensor:
    z = torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 2]) if generator.num_classes else None
    with torch.no_grad():
        return generator.decode(generator.encode(z, label))


@pytest.mark.parametrize(
    ("config", "order"),
    [
        (None, "BGR"),
        ("", "BGR"),
        (MODEL.format(""), "BGR"),
        (MODEL.format(", rgb2bgr=True"), "RGB"),
        (MODEL.format(", rgb2bgr=False") + NORMALIZE.format(False), "BGR"),
        (MODEL.format("") + NORMALIZE.format(True), "RGB"),
        (CIFAR + NORMALIZE.format(True), "BGR"),
        (CIFAR + NORMALIZE.format(False), "RGB"),
        ("model = dict(data_preprocessor=dict(output_channel_order='RGB'))", "RGB"),
        ("train_pipeline = [dict(type='LoadImageFromFile', channel_order='rgb')]", "RGB"),
    ],
)
def test_images_are_bgr_unless_the_configuration_says_otherwise(tmp_path: Path, config: str | None, order: str) -> None:
    path = save(tmp_path / "file.pth", content(STYLEGAN2)["state_dict"], config)
    generator = sefa.load(path)
    assert f"the weights give images as {order}" in generator.assumptions
    told = sefa.load(path, assume={"channels": "bgr"})
    assert "the weights give images as BGR (as told)" in told.assumptions
    assert torch.allclose(image(generator), image(told) if order == "BGR" else image(told).flip(1))


@pytest.mark.parametrize(
    "path", [DCGAN, LSGAN, SAGAN, PGGAN_FILE, STYLEGAN, STYLEGAN3, BIGGAN, DEEP], ids=lambda path: path.parent.name
)
def test_every_family_is_brought_to_rgb(path: Path) -> None:
    bgr, rgb = (sefa.load(path, assume={"channels": order}) for order in ("bgr", "rgb"))
    assert torch.allclose(image(bgr), image(rgb).flip(1), atol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "model = __import__('os').system('touch /tmp/run') or dict(generator=dict(rgb2bgr=True))",
        "model = (" * 5000,
        "model = " + "-" * 100_000 + "1",
        "model = [" + "[" * 300 + "]" * 300 + "]",
        "model = 1 + " * 20_000 + "1",
        "model = " + "9" * 10_000,
        "\0model = dict()",
        "x" * 300_000,
        7,
        None,
        ["model"],
    ],
    ids=range(11),
)
def test_a_configuration_may_be_any_text(text: object) -> None:
    read = configuration(Checkpoint(Path("file.pth"), {}, {"meta": {"config": text}}))
    assert read in ({}, {"model": None}, {"model": {}})
    assert configuration(Checkpoint(Path("file.pth"), {}, {"meta": text})) == {}


def test_layers_in_half_precision_limit_their_output(tmp_path: Path) -> None:
    state = content(STYLEGAN2)["state_dict"]
    for config, clamps in (
        ("", [(None, None), (None, None, None), (None, None, None)]),
        (", num_fp16_scales=1", [(None, None), (None, None, None), (256, 256, 256)]),
        (", fp16_enabled=True", [(None, 256), (256, 256, 256), (256, 256, 256)]),
    ):
        generator = sefa.load(save(tmp_path / "file.pth", state, MODEL.format(config), "cfg"))
        assert isinstance(generator, StyleGAN2)
        blocks = cast("list[SynthesisBlock]", list(generator.blocks))
        layers = [(block.up, block.conv, block.rgb) for block in blocks]
        assert [tuple(layer.clamp for layer in block if layer is not None) for block in layers] == clamps


def test_the_mapping_networks_rate_is_the_configurations(tmp_path: Path) -> None:
    state = content(STYLEGAN2)["state_dict"]
    generator = sefa.load(save(tmp_path / "file.pth", state, MODEL.format(", lr_mlp=0.1")))
    assert "mapping network's learning rate 0.1" in generator.assumptions
    expected = sefa.load(STYLEGAN2, assume={"mapping_lr": 0.1})
    assert image(generator).equal(image(expected))


def test_a_stored_average_is_the_centre_of_truncation(tmp_path: Path) -> None:
    state = content(STYLEGAN2)["state_dict"]
    center = torch.linspace(-1, 1, 12)
    generator = sefa.load(save(tmp_path / "file.pth", state | {"generator_ema.w_avg": center}))
    assert generator.truncation_center == "stored"
    assert generator.encode(torch.randn(1, 12), truncation=0.0)[0, 0].equal(center)


def test_a_generator_alone_is_fully_grown(tmp_path: Path) -> None:
    state = content(PGGAN_FILE)["state_dict"]
    alone = {key.removeprefix("generator_ema."): one for key, one in state.items() if key.startswith("generator_ema")}
    torch.save(alone, tmp_path / "generator.pth")
    assert sefa.load(tmp_path / "generator.pth").resolution == (32, 32)
    assert sefa.load(PGGAN_FILE).resolution == (16, 16)
    state["_curr_scale_int"] = torch.tensor(64)
    with pytest.raises(CheckpointError, match=r"reached 64 pixels with a share of 0\.25, of sizes \[4, 8, 16, 32\]"):
        sefa.load(save(tmp_path / "file.pth", state))


def test_square_weights_are_fused_unless_the_configuration_says_otherwise(tmp_path: Path) -> None:
    state = {
        "generator.noise2feat.linear.weight_orig": torch.randn(64, 6),
        "generator.noise2feat.bias": torch.zeros(1, 4, 1, 1),
    }
    for k in range(3):
        state |= {f"generator.conv_blocks.{k}.conv.weight_orig": torch.randn(4, 4, 3, 3)}
        state |= {f"generator.conv_blocks.{k}.conv.bias": torch.zeros(4)}
    for level in range(2):
        state |= {f"generator.torgb_layers.{level}.conv.weight_orig": torch.randn(3, 4, 1, 1)}
        state |= {f"generator.torgb_layers.{level}.conv.bias": torch.zeros(3)}
    usual = sefa.load(save(tmp_path / "a.pth", state))
    told = sefa.load(save(tmp_path / "b.pth", state, MODEL.format(", fused_upconv=False")))
    assert isinstance(usual, PGGAN)
    assert "upsampling fused" in usual.assumptions
    assert "no upsampling fused" in told.assumptions
    assert image(told).equal(image(sefa.load(tmp_path / "a.pth", assume={"fused": "none"})))


def test_a_stages_depth_is_the_configurations(tmp_path: Path) -> None:
    state = content(DEEP)["state_dict"]
    deep = sefa.load(save(tmp_path / "file.pth", state, MODEL.format(", block_depth=1")))
    assert "1 blocks in a stage" in deep.assumptions
    assert deep.resolution == (256, 256)


def test_a_biggan_without_classes_is_refused(tmp_path: Path) -> None:
    state = {
        key.replace("generator_ema.", "generator."): one
        for key, one in content(BIGGAN)["state_dict"].items()
        if "shared_embedding" not in key
    }
    with pytest.raises(CheckpointError, match="recognised as OpenMMLab BigGAN, but it has no classes"):
        sefa.load(save(tmp_path / "file.pth", state))


def test_the_gains_of_classes_are_around_1_or_0_as_their_initialisation_says(tmp_path: Path) -> None:
    state = content(SAGAN)["state_dict"]
    for config, around in ((", init_cfg=dict(type='SNGAN')", "1"), (", init_cfg=dict(type='studio')", "0"), ("", "0")):
        generator = sefa.load(save(tmp_path / "file.pth", state, MODEL.format(config)))
        assert f"gains of classes stored around {around}" in generator.assumptions
        told = sefa.load(SAGAN, assume={"gains": around})
        assert image(generator).equal(image(told))
    assert not torch.allclose(image(told), image(sefa.load(SAGAN)), atol=1e-3)


@pytest.mark.parametrize("kept", [2, 4])
def test_an_lsgan_has_pairs_of_convolutions_and_three_more(tmp_path: Path, kept: int) -> None:
    state = content(LSGAN)["state_dict"]
    state = {
        key: one for key, one in state.items() if not (key[:22] == "generator.conv_blocks." and int(key[22]) >= kept)
    }
    with pytest.raises(CheckpointError, match=f"OpenMMLab LSGAN, but {kept} convolutions, where pairs and three more"):
        sefa.load(save(tmp_path / "file.pth", state))
