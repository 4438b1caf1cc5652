"""Other people's StyleGAN2 generators, from clones in a folder that the user names; their code runs as it is."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from sefa.errors import CheckpointError
from support.stylegan2_files import Spec, genforce_state

Network = Callable[[Tensor], Tensor]


def load_genforce(spec: Spec, tensors: dict[str, Tensor], device: torch.device) -> Network:
    """Build genforce's generator (github.com/genforce/genforce)."""
    network = import_module("models.stylegan2_generator").StyleGAN2Generator(
        resolution=spec.size(len(spec.channels) - 1)[0],
        z_space_dim=spec.z_dim,
        w_space_dim=spec.w_dim,
        mapping_layers=len(spec.widths),
        mapping_fmaps=spec.widths[0],
        fmaps_base=spec.channels[-1] * spec.size(len(spec.channels) - 1)[0],
        fmaps_max=max(spec.channels),
    )
    network.load_state_dict(genforce_state(spec, tensors))
    network.eval().to(device)
    return lambda z: network(z)["image"]


def load_nvlabs(spec: Spec, tensors: dict[str, Tensor], device: torch.device) -> Network:
    """Build NVIDIA's generator (github.com/NVlabs/stylegan2-ada-pytorch), in float32."""
    resolution = spec.size(len(spec.channels) - 1)[0]
    network = import_module("training.networks").Generator(
        z_dim=spec.z_dim,
        c_dim=0,
        w_dim=spec.w_dim,
        img_resolution=resolution,
        img_channels=3,
        mapping_kwargs={"num_layers": len(spec.widths)},
        synthesis_kwargs={
            "channel_base": spec.channels[-1] * resolution,
            "channel_max": max(spec.channels),
        },
    )
    network.load_state_dict(tensors)
    network.eval().to(device)
    return lambda z: network(z, None, noise_mode="const")


PEERS = {"genforce": load_genforce, "stylegan2-ada-pytorch": load_nvlabs}


def load_peer(name: str, folder: Path, spec: Spec, tensors: dict[str, Tensor], device: torch.device) -> Network:
    """Build a peer with these weights: latents [N, z_dim] -> images [N, 3, H, W] in [-1, 1].

    Raises:
        CheckpointError: If the folder has no such clone.
    """
    clone = folder / name
    if not clone.is_dir():
        raise CheckpointError(f"{clone}: no such folder")
    sys.path.insert(0, str(clone))
    try:
        return PEERS[name](spec, tensors, device)
    finally:
        sys.path.remove(str(clone))
