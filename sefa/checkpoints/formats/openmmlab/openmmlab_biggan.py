"""BigGAN and BigGAN-deep from OpenMMLab's mmgeneration and mmagic: ajbrock's, with other names.

The blocks and the attention are one list, conv_blocks; torch's batch norms are inside the conditional ones; spectral
norms are ajbrock's or torch's. BigGAN-deep puts the class after z, and the channels of its first features last, as
TensorFlow does.
"""

import re
from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.formats.biggan_pytorch import Reader
from sefa.checkpoints.formats.openmmlab.openmmlab_files import configuration, generator_options, in_rgb
from sefa.checkpoints.parts.assembly import VARIANT, Assembly
from sefa.checkpoints.parts.biggan_layers import bottom_width, check_variances
from sefa.checkpoints.parts.growing import highest
from sefa.checkpoints.parts.spectral_norm import normalized
from sefa.errors import CheckpointError
from sefa.generators.biggan import BigGAN
from sefa.generators.biggan_deep import BigGANDeep

FIRST = "conv_blocks.0.bn1.bn.running_mean"
SPECTRAL_EPSILON = 1e-6
IMAGE = r"output_layer\.conv\.(weight(_orig)?|bias|u0|weight_u)"
# Replacements that make a key ajbrock's, after that of the block.
RENAMED = (
    (r"noise2feat\.", "linear."),
    (r"shared_embedding\.", "shared."),
    (r"output_layer\.conv\.", "output_layer.2."),
    (r"output_layer\.bn\.weight", "output_layer.0.gain"),
    (r"output_layer\.bn\.", "output_layer.0."),
    (r"\.shortcut\.conv\.", ".conv_sc."),
    (r"\.(conv\d|theta|phi|g|o)\.conv\.", r".\1."),
    (r"\.bn\.running_", ".stored_"),
    (r"\.running_", ".stored_"),
)
UNUSED = re.compile(r"(.*\.)?(num_batches_tracked|steps)")


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the names of the first layer and of the first batch norm."""
    return FIRST in checkpoint.stored and any(key.startswith("noise2feat.weight") for key in checkpoint.stored)


def load(checkpoint: Checkpoint, options: LoadOptions) -> BigGAN | BigGANDeep:
    """Build the generator."""
    config = configuration(checkpoint)
    check_variances(checkpoint.tensors, "running_var")
    tensors = in_rgb(checkpoint.tensors, IMAGE, config, options.assumptions)
    if "shared_embedding.weight" not in tensors and _reads_no_class(tensors):
        raise CheckpointError(f"it has no classes; {VARIANT}")
    is_deep = "conv_blocks.0.bn4.bn.running_mean" in tensors
    renamed = dict(_renamed(tensors))
    if is_deep:
        renamed = _in_ajbrocks_order(renamed)
    told = generator_options(config).get("sn_eps")
    epsilon = float(told) if isinstance(told, float | int) and told > 0 else SPECTRAL_EPSILON
    reader = Reader(renamed, options.assumptions, epsilon)
    options.assumptions.note("ReLU")
    return reader.biggan_deep(generator_options(config).get("block_depth")) if is_deep else reader.biggan()


def _reads_no_class(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether the first block's norm is linear in z, rather than a table with a row for each class."""
    name = "conv_blocks.0.bn1.gain"
    table = tensors.get(f"{name}.weight")
    is_table = table is not None and table.ndim == 2 and table.shape[1] == tensors[FIRST].numel()
    return not is_table or f"{name}.u0" in tensors


def _renamed(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield ajbrock's key of each tensor, and the tensor; weights with torch's spectral norm are normalised."""
    blocks: list[str] = []
    for i in range(1 + highest(tensors, r"conv_blocks\.(\d{1,3})\..*")):
        is_attention = f"conv_blocks.{i}.gamma" in tensors
        number = sum(name.endswith(".0") for name in blocks)
        blocks.append(f"blocks.{number - 1}.1" if is_attention else f"blocks.{number}.0")
    for key, tensor in tensors.items():
        name, _, entry = key.rpartition(".")
        if UNUSED.fullmatch(key) or (entry in ("weight_u", "weight_v") and f"{name}.weight_orig" in tensors):
            continue
        if entry == "weight_orig":
            key, tensor = f"{name}.weight", _normalized(name, tensors)
        match = re.match(r"conv_blocks\.(\d{1,3})\.", key)
        if match:
            key = f"{blocks[int(match[1])]}.{key[match.end() :]}"
        for pattern, replacement in RENAMED:
            key = re.sub(pattern, replacement, key)
        yield key, tensor


def _normalized(name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return a weight divided by torch's spectral norm.

    Raises:
        CheckpointError: If its vectors are missing or of the wrong shape.
    """
    weight, *vectors = (tensors.get(f"{name}.weight_{which}") for which in ("orig", "u", "v"))
    assert weight is not None
    shapes = [(len(weight),), (weight[0].numel(),)]
    if [None if vector is None else tuple(vector.shape) for vector in vectors] != shapes:
        raise CheckpointError(f"{name}.weight_u and weight_v must have the shapes {shapes}; {VARIANT}")
    u, v = cast("list[Tensor]", vectors)
    return normalized({"weight": weight, "weight_u": u, "weight_v": v}, "weight")


def _in_ajbrocks_order(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return BigGAN-deep's tensors with the class before z, and the channels of the first features first."""
    file = Assembly(tensors)
    embed_dim = file.shape("shared.weight", 2)[1]
    rows, channels = file.shape("linear.weight", 2)[0], file.shape("blocks.0.0.conv1.weight", 4)[1]
    width = bottom_width(file, rows, channels)
    order = torch.arange(rows).reshape(width, width, channels).permute(2, 0, 1).reshape(-1)
    ordered = {}
    for key, tensor in tensors.items():
        if re.fullmatch(r"linear\.weight|blocks\.\d+\.0\.bn\d\.(gain|bias)\.weight", key) and tensor.ndim == 2:
            tensor = tensor.roll(embed_dim, dims=1)
        if key in ("linear.weight", "linear.bias", "linear.u0"):
            axis = 1 if key == "linear.u0" else 0
            if tensor.ndim > axis and tensor.shape[axis] == rows:
                tensor = tensor.index_select(axis, order)
        ordered[key] = tensor
    return ordered


FORMAT = Format("OpenMMLab BigGAN", recognises, load)
