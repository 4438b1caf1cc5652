"""Other people's generators, from clones in folders that the user names and from installed packages.

Their code runs as it is. Clones have modules of the same names, so a process imports from one of them.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from sefa.errors import CheckpointError
from support.stylegan2_files import Spec, genforce_state, rosinality_state

# Latents [N, z_dim] and classes [N], if it has any -> images [N, C, H, W] in [-1, 1].
Network = Callable[[Tensor, Tensor | None], Tensor]

GENFORCE, NVLABS, ROSINALITY, AJBROCK = "genforce", "NVlabs", "rosinality", "ajbrock"
HUGGING_FACE, LUCIDRAINS, STYLEGAN2_TORCH = "Hugging Face", "lucidrains", "stylegan2-torch"
# What git calls their clones, and package indexes their packages.
CLONES = {
    GENFORCE: "genforce",
    NVLABS: "stylegan2-ada-pytorch",
    ROSINALITY: "stylegan2-pytorch",
    AJBROCK: "BigGAN-PyTorch",
}
PACKAGES = {
    HUGGING_FACE: "pytorch-pretrained-biggan",
    LUCIDRAINS: "stylegan2_pytorch",
    STYLEGAN2_TORCH: "stylegan2-torch",
}
# What the record says of how they run on the CPU.
NOTES = {
    NVLABS: "its own reference implementations in place of its CUDA extensions",
    ROSINALITY: "its own functions for the CPU; the CUDA extensions, which importing it compiles, are left out",
    LUCIDRAINS: "importing it demands a GPU, which is pretended; modules that only training needs are empty",
}
# Modules that lucidrains' package imports for training and from the command line only.
VECTOR_QUANTIZE = "vector_quantize_pytorch"
TRAINING_ONLY = ("aim", "fire", "torchvision", "torchvision.transforms", VECTOR_QUANTIZE)
SETTLING_RUNS = 10


@contextmanager
def importing_from(clone: Path | None) -> Iterator[None]:
    """Import from a clone before anything else; None: from what is installed.

    Raises:
        CheckpointError: If there is no such folder.
    """
    if clone is None:
        yield
        return
    if not clone.is_dir():
        raise CheckpointError(f"{clone}: no such folder")
    sys.path.insert(0, str(clone))
    try:
        yield
    finally:
        sys.path.remove(str(clone))


# StyleGAN2: all of them take the same weights.


def load_genforce(spec: Spec, tensors: dict[str, Tensor], device: torch.device) -> Network:
    """Build genforce's generator (github.com/genforce/genforce)."""
    network = import_module("models.stylegan2_generator").StyleGAN2Generator(
        resolution=_side(spec),
        z_space_dim=spec.z_dim,
        w_space_dim=spec.w_dim,
        mapping_layers=len(spec.widths),
        mapping_fmaps=spec.widths[0],
        fmaps_base=spec.channels[-1] * _side(spec),
        fmaps_max=max(spec.channels),
    )
    network.load_state_dict(genforce_state(spec, tensors))
    network.eval().to(device)
    return lambda z, label: network(z)["image"]


def load_nvlabs(spec: Spec, tensors: dict[str, Tensor], device: torch.device) -> Network:
    """Build NVIDIA's generator (github.com/NVlabs/stylegan2-ada-pytorch), in float32.

    On the CPU it takes its own reference implementations in place of its CUDA extensions.
    """
    network = import_module("training.networks").Generator(
        z_dim=spec.z_dim,
        c_dim=0,
        w_dim=spec.w_dim,
        img_resolution=_side(spec),
        img_channels=3,
        mapping_kwargs={"num_layers": len(spec.widths)},
        synthesis_kwargs={
            "channel_base": spec.channels[-1] * _side(spec),
            "channel_max": max(spec.channels),
        },
    )
    network.load_state_dict(tensors)
    network.eval().to(device)
    return lambda z, label: network(z, None, noise_mode="const")


def load_rosinality(spec: Spec, tensors: dict[str, Tensor], device: torch.device) -> Network:
    """Build rosinality's generator (github.com/rosinality/stylegan2-pytorch), whose widths are configuration F's.

    Importing it compiles CUDA extensions. On the CPU it does not call them, so there they are left out.
    """
    with _without_extensions() if device.type == "cpu" else importing_from(None):
        generator = import_module("model").Generator
    network = generator(_side(spec), spec.w_dim, len(spec.widths))
    network.load_state_dict(rosinality_state(spec, tensors))
    network.eval().to(device)
    return lambda z, label: network([z], randomize_noise=False)[0]


def load_stylegan2_torch(spec: Spec, tensors: dict[str, Tensor], device: torch.device) -> Network:
    """Import stylegan2-torch, which compiles its filters for CUDA and has no others.

    Raises:
        CheckpointError: Always: its images have one channel, so there is nothing to compare.
    """
    import_module("stylegan2_torch.generator")
    raise CheckpointError("stylegan2-torch makes images of one channel, and its filters need CUDA")


STYLEGAN2 = {
    GENFORCE: load_genforce,
    NVLABS: load_nvlabs,
    ROSINALITY: load_rosinality,
    STYLEGAN2_TORCH: load_stylegan2_torch,
}


def _side(spec: Spec) -> int:
    return spec.size(len(spec.channels) - 1)[0]


@contextmanager
def _without_extensions() -> Iterator[None]:
    with patch("torch.utils.cpp_extension.load", lambda *arguments, **options: None):
        yield


# The others make weights of their own: first as their code draws them, then with the statistics of a run.


def make_biggan(quick: bool) -> tuple[nn.Module, Network]:
    """Build ajbrock's BigGAN of 128x128 pixels (github.com/ajbrock/BigGAN-PyTorch), as its script for 128x128 does."""
    options = {"resolution": 64, "G_ch": 16, "dim_z": 100} if quick else {"resolution": 128, "G_ch": 96, "dim_z": 120}
    network = import_module("BigGAN").Generator(
        **options, G_attn="32" if quick else "64", shared_dim=128, hier=True, G_shared=True, no_optim=True
    )
    return network, lambda z, label: network(z, network.shared(label))


def make_biggan_deep(quick: bool) -> tuple[nn.Module, Network]:
    """Build Hugging Face's BigGAN-deep of 128x128 pixels (pypi.org/project/pytorch-pretrained-biggan)."""
    package = import_module("pytorch_pretrained_biggan")
    small = {
        "output_dim": 64,
        "channel_width": 32,
        "layers": [(True, 16, 8), (True, 8, 4), (True, 4, 2), (True, 2, 1)],
        "attention_layer_position": 2,
    }
    config = package.BigGANConfig(**(small if quick else {}))
    network = package.BigGAN(config)
    for module in network.modules():
        if hasattr(module, "gamma"):
            nn.init.constant_(module.gamma, 0.5)  # It starts at 0, where attention does nothing.
    nn.init.ones_(network.generator.bn.weight)  # Its code leaves these two unset.
    nn.init.zeros_(network.generator.bn.bias)

    def run(z: Tensor, label: Tensor | None) -> Tensor:
        assert label is not None
        image: Tensor = network(z, nn.functional.one_hot(label, config.num_classes).to(z), 1.0)
        return image

    return network, run


def make_pggan(quick: bool) -> tuple[nn.Module, Network]:
    """Build genforce's PGGAN of 256x256 pixels."""
    network = import_module("models.pggan_generator").PGGANGenerator(resolution=32 if quick else 256)
    return network, lambda z, label: network(z)["image"]


def make_lucidrains(quick: bool) -> tuple[nn.Module, Network]:
    """Build lucidrains' StyleGAN2 of 256x256 pixels (pypi.org/project/stylegan2_pytorch) with its usual widths.

    Importing it demands a GPU, which the generator itself does not need, and packages that only training needs.
    """
    with _standing_in(TRAINING_ONLY), patch("torch.cuda.is_available", lambda: True):
        package = import_module("stylegan2_pytorch.stylegan2_pytorch")
    side = 32 if quick else 256
    mapping, synthesis = package.StyleVectorizer(512, 8), package.Generator(side, 512)
    network = nn.ModuleDict({"S": mapping, "G": synthesis})
    network.register_buffer("noise", torch.rand(1, side, side, 1), persistent=False)
    layers = int(math.log2(side)) - 1

    def run(z: Tensor, label: Tensor | None) -> Tensor:
        styles = mapping(z)[:, None].expand(-1, layers, -1)
        image: Tensor = synthesis(styles, network.get_buffer("noise").expand(len(z), -1, -1, -1))
        return 2 * image - 1  # from [0, 1]

    return network, run


@contextmanager
def _standing_in(names: Sequence[str]) -> Iterator[None]:
    """Let those of some modules that cannot be imported be imported as empty ones; a package's comes before its own."""
    empty: dict[str, ModuleType] = {}
    for name in names:
        try:
            import_module(name)
        except Exception:  # Torchvision for another build of torch raises a RuntimeError.
            empty[name] = ModuleType(name)
            parent, _, child = name.rpartition(".")
            if parent in empty:
                setattr(empty[parent], child, empty[name])
    if VECTOR_QUANTIZE in empty:
        empty[VECTOR_QUANTIZE].__dict__["VectorQuantize"] = None
    sys.modules.update(empty)
    try:
        yield
    finally:
        for name in empty:
            del sys.modules[name]


MAKERS: dict[str, Callable[[bool], tuple[nn.Module, Network]]] = {
    "biggan-128": make_biggan,
    "biggan-deep-128": make_biggan_deep,
    "pggan-256": make_pggan,
    "lucidrains-256": make_lucidrains,
}


@torch.no_grad()
def settle(network: nn.Module, run: Callable[[], Any]) -> None:
    """Bring random weights to where training keeps them, so that images are neither flat nor clipped.

    Spectral norms find their singular values, and each batch norm takes the mean and variance of what comes to it.

    Args:
        network: The generator.
        run: Runs it once.
    """
    network.train()
    for _ in range(SETTLING_RUNS):  # A step of each power iteration.
        run()
    network.eval()

    def measure(norm: nn.Module, arguments: tuple[Any, ...]) -> None:
        x: Tensor = arguments[0]  # [N, C, H, W]
        for mean, variance in (("stored_mean", "stored_var"), ("running_means", "running_vars")):
            if hasattr(norm, mean):
                getattr(norm, mean).copy_(x.mean((0, 2, 3)).expand_as(getattr(norm, mean)))
                getattr(norm, variance).copy_(x.var((0, 2, 3)).expand_as(getattr(norm, variance)))

    hooks = [module.register_forward_pre_hook(measure) for module in network.modules()]
    run()
    for hook in hooks:
        hook.remove()
