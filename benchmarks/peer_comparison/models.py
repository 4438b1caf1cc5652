"""The models of the comparison: how their weights are made, and who renders them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sefa
from peer_comparison.networks import (
    AJBROCK,
    GENFORCE,
    HUGGING_FACE,
    LUCIDRAINS,
    MAKERS,
    STYLEGAN2,
    Network,
    importing_from,
    settle,
)
from sefa.demo import find_faces
from sefa_export import export_onnx
from support.stylegan2_files import CONFIG_F_256, Spec, genforce_state, random_tensors

# Rosinality's code has configuration F's widths only, 512 up to 64x64 pixels.
QUICK_SPEC = Spec((512,) * 4, 512, 512, (512,) * 2)
TOP = 8  # directions in the exported graph
SETTLING_BATCH = 8
# What random weights make of an image would mostly lie outside of [-1, 1], where differences are not seen.
RGB_GAIN = 0.08


@dataclass(frozen=True)
class Model:
    """One model: its name, what a chart calls it, and other people's code for it.

    Attributes:
        name: As in the record.
        title: As in the chart.
        peers: Who else renders it.
        maker: The one whose code makes the weights; None: weights are ours to make, or trained.
        compiles_long: Whether torch.compile takes minutes for its batches.
    """

    name: str
    title: str
    peers: tuple[str, ...] = ()
    maker: str | None = None
    compiles_long: bool = False


MODELS = (
    Model("stylegan2-256", "StyleGAN2, 256×256", tuple(STYLEGAN2)),
    Model("lucidrains-256", "lucidrains' StyleGAN2, 256×256", (LUCIDRAINS,), LUCIDRAINS, compiles_long=True),
    Model("biggan-128", "BigGAN, 128×128", (AJBROCK,), AJBROCK),
    Model("biggan-deep-128", "BigGAN-deep, 128×128", (HUGGING_FACE,), HUGGING_FACE, compiles_long=True),
    Model("pggan-256", "PGGAN, 256×256", (GENFORCE,), GENFORCE),
    Model("faces", "DCGAN of faces, 64×64"),
)


def checkpoint_of(name: str, folder: Path) -> Path:
    """Return where a model's checkpoint lies."""
    if name == "faces":
        return find_faces()
    return folder / ("pytorch_model.bin" if name == "biggan-deep-128" else "generator.pth")


def export(name: str, folder: Path, clone: Path | None, quick: bool) -> tuple[Path, sefa.Generator]:
    """Make a model's weights and export it.

    Raises:
        CheckpointError: If whoever's code makes them is not there.
    """
    path = checkpoint_of(name, folder)
    if name == "stylegan2-256":
        spec, tensors = stylegan2_weights(quick)
        torch.save({"generator_smooth": genforce_state(spec, tensors)}, path)
    elif name != "faces":
        _make(name, path, clone, quick)
    generator = sefa.load(path)
    return export_onnx(generator, sefa.factorize(generator, top=TOP), folder / "model.onnx"), generator


def stylegan2_weights(quick: bool) -> tuple[Spec, dict[str, Tensor]]:
    """Return the sizes and the random weights of the StyleGAN2 of 256x256 pixels, the same each time."""
    spec = QUICK_SPEC if quick else CONFIG_F_256
    tensors = random_tensors(spec)
    return spec, {
        key: tensor * RGB_GAIN if ".torgb." in key and "affine" not in key else tensor
        for key, tensor in tensors.items()
    }


def _make(name: str, path: Path, clone: Path | None, quick: bool) -> None:
    """Write a checkpoint of random weights as the code's own training would."""
    torch.manual_seed(0)
    with importing_from(clone):
        network, run = MAKERS[name](quick)
    label = torch.arange(SETTLING_BATCH)
    z = torch.randn(SETTLING_BATCH, _z_dim(name, network))
    settle(network, lambda: run(z, label))
    if name == "biggan-deep-128":
        config: Any = network.config
        path.with_name("config.json").write_text(json.dumps(config.to_dict()))
    entry = {"pggan-256": "generator_smooth", "lucidrains-256": "GAN"}.get(name)
    state = network.state_dict()
    torch.save({entry: state} if entry else state, path)


def _z_dim(name: str, network: Any) -> int:
    if name == "biggan-deep-128":
        return int(network.config.z_dim)
    return int(network.dim_z) if name == "biggan-128" else 512


def load_peer(name: str, peer: str, folder: Path, clone: Path | None, quick: bool) -> Network:
    """Build a peer's generator with a model's weights, on the CPU.

    Raises:
        CheckpointError: If the clone is not there.
        Exception: Whatever its code raises.
    """
    device = torch.device("cpu")
    with importing_from(clone):
        if name == "stylegan2-256":
            return STYLEGAN2[peer](*stylegan2_weights(quick), device)
        network, run = MAKERS[name](quick)
    path = checkpoint_of(name, folder)
    state = torch.load(path)
    network.load_state_dict(state.get("generator_smooth", state.get("GAN", state)))
    network.eval()
    if name == "lucidrains-256":
        noise: Any = sefa.load(path).noise_map  # The file has none: its code draws it for each image.
        network.get_buffer("noise").copy_(noise)
    return run
