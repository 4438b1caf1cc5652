"""Checkpoints by the keys that their programs write, of which each could be taken for something else."""

from pathlib import Path
from typing import Any

import pytest
import torch

import sefa
from sefa import CheckpointError
from support.pickle_files import call, dict_of, pickle_of, text
from support.stylegan2_files import tensorflow_network, write_tensorflow

FILTERS = torch.ones(2, 2)
NEEDED = "but the generator's checkpoint is needed"
ROSINALITY = ["conv1.conv.modulation.weight", "style.1.weight", "input.input", "to_rgb1.conv.weight"]


@pytest.mark.parametrize(
    ("wrapped", "keys", "message"),
    [
        ("g_ema", [*ROSINALITY, "to_rgbs.0.iwt.ll", "iwt.ll"], "SWAGAN, but its images are wavelet coefficients"),
        ("state_dict", ["encoder.body.0.weight", "encoder.styles.0.convs.0.weight"], "an encoder of photos"),
        ("state_dict", ["mapper.course_mapping.mapping.1.weight"], "a StyleCLIP mapper, but it makes codes"),
        ("params_ema", ["conv_body_first.weight", "stylegan_decoder.style_mlp.1.weight"], "GFPGAN, but it restores"),
        (None, ["ecd0.0.weight", *(f"generator.{key}" for key in ROSINALITY)], "GPEN, but it restores photos"),
        ("params_ema", ["quantize.embedding.weight", "ft_layers.0.linear1.weight"], "CodeFormer, but it turns images"),
        (None, ["synthesis.first_stage.conv_first.conv.weight"], "MAT, but it completes a masked image"),
        (None, ["encoder.b4.conv.weight", "synthesis.b4.fc.weight"], "CoModGAN in PyTorch, but it completes a masked"),
        (
            "G_ema",
            ["backbone.synthesis.b4.const", "superresolution.block0.conv0.weight"],
            "EG3D, but its images depend",
        ),
        (None, ["convs.0.0.weight", "final_conv.0.weight", "final_linear.0.weight"], f"discriminator, {NEEDED}"),
        (None, ["progression.0.conv1.0.conv.weight_orig", "from_rgb.0.conv.bias"], f"discriminator, {NEEDED}"),
        (None, ["lod", "input0.weight", "layer0.weight", "layer1.weight"], f"a discriminator of genforce, {NEEDED}"),
        (None, ["blocks.0.0.conv1.weight", "linear.weight", "embed.weight"], f"a BigGAN discriminator, {NEEDED}"),
        (
            "state_dict",
            ["blocks.0.0.conv2d1.weight_orig", "linear1.weight_orig", "embedding.weight_orig"],
            f"a discriminator of PyTorch-StudioGAN, {NEEDED}",
        ),
        (
            "model_state_dict",
            ["block1.c1.weight_orig", "block2.c1.weight_orig", "l5.weight_orig"],
            f"a discriminator of torch-mimicry, {NEEDED}",
        ),
        (None, ["eigvec"], "rosinality's factor.pt, but it holds directions"),
        ("state_dict", ["model.diffusion_model.input_blocks.0.0.weight"], "diffusion models have no latent code"),
        ("state_dict", ["decoder.conv_in.weight", "quantize.embedding.weight"], "VQGAN, but its codes are grids"),
        (None, ["model.1.weight", "model.10.conv_block.1.weight"], "CycleGAN, but it turns images into images"),
        (None, ["model.model.0.weight", "model.model.1.model.1.weight"], "pix2pix, but it turns images into images"),
        (None, ["conv_first.weight", "RRDB_trunk.0.RDB1.conv1.weight"], "ESRGAN, but it turns images into images"),
    ],
)
def test_they_are_called_what_they_are(tmp_path: Path, wrapped: str | None, keys: list[str], message: str) -> None:
    state: dict[str, Any] = dict.fromkeys(keys, FILTERS)
    torch.save({wrapped: state} if wrapped else state, tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=rf"file\.pt: recognised as .*{message}"):
        sefa.load(tmp_path / "file.pt")


def persisted(class_name: str, module: str = "torch_utils.persistence", **modules: bytes) -> bytes:
    state = dict_of({"_parameters": b"}", "_buffers": b"}", "_modules": dict_of(modules)})
    meta = dict_of({"type": text("class"), "class_name": text(class_name), "state": state})
    return call(module, "_reconstruct_persistent_obj", meta)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"D": persisted("Discriminator")}, "a discriminator, but the generator's checkpoint is needed"),
        ({"G_ema": b"N", "D": persisted("ProjectedDiscriminator")}, "a discriminator, but the generator's"),
        ({"G_ema": persisted("TriPlaneGenerator"), "D": persisted("Discriminator")}, "EG3D, but its images depend"),
        ({"ema": persisted("EDMPrecond")}, "NVlabs' EDM, but diffusion models"),
        (
            {"G_ema": persisted("Generator", synthesis=persisted("SynthesisNet", first_stage=persisted("FirstStage")))},
            "MAT, but it completes a masked image",
        ),
        ({"G_ema": persisted("Unheard")}, "no known generator; .* its G_ema is a network of class Unheard"),
    ],
)
def test_nvlabs_pickles_of_other_networks_are_too(tmp_path: Path, entries: dict[str, bytes], message: str) -> None:
    (tmp_path / "network.pkl").write_bytes(pickle_of(dict_of(entries)))
    with pytest.raises(CheckpointError, match=message):
        sefa.load(tmp_path / "network.pkl")


def test_a_tensorflow_pickle_of_comodgan_is_too(tmp_path: Path) -> None:
    variables = {"synthesis/E_4x4/Conv/weight": FILTERS, "synthesis/G_4x4/Conv/mod_weight": FILTERS}
    write_tensorflow(tmp_path / "network.pkl", tensorflow_network(variables))
    with pytest.raises(CheckpointError, match=r"CoModGAN, but it completes a masked image.*MODULE:CLASS"):
        sefa.load(tmp_path / "network.pkl")
