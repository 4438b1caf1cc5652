"""Training files of lucidrains' stylegan2-pytorch."""

import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from sefa.checkpoints.assumptions import Assumptions, mapping_rate
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.parts.assembly import Source, assemble, count, shape_of, source
from sefa.errors import CheckpointError
from sefa.generators.common.mapping import Mapping as MappingNetwork
from sefa.generators.lucidrains_stylegan2 import Block, LucidrainsStyleGAN2
from sefa_runtime.json_text import read_json

NOISE_SEED = 0
MEAN_NOISE = 0.5  # of the map, which is uniform in [0, 1)
# Beside the checkpoint, with the one number that its tensors do not tell; older versions wrote neither.
CONFIG = ".config.json"
MAPPING_LR = 0.1
# The averaged mapping and synthesis networks, then those in training.
NETWORKS = (("SE", "GE"), ("S", "G"))


def recognises(checkpoint: Checkpoint) -> bool:
    """Its own names for what the first block reads, and for the mapping network beside it."""
    return _networks(checkpoint.stored) is not None


def load(checkpoint: Checkpoint, options: LoadOptions) -> LucidrainsStyleGAN2:
    """Build the generator."""
    tensors = checkpoint.tensors
    names = _networks(tensors)
    assert names is not None
    style, synthesis = names
    attention = [key for key in tensors if key.startswith(f"{synthesis}.attns.")]
    if attention:
        raise CheckpointError(
            f"it has attention layers ({attention[0]}, ...), which are not supported; its own code can read "
            "it: MODULE:CLASS --weights FILE"
        )
    plan: dict[str, Source] = {}
    mapping = _mapping(tensors, style, _mapping_lr(checkpoint.path, options.assumptions), plan)
    w_dim = shape_of(tensors, f"{synthesis}.blocks.0.to_style1.weight", 2)[1]
    constant = f"{synthesis}.initial_block" in tensors
    initial = _initial(tensors, synthesis, constant, plan)
    num_blocks = count(tensors, f"{synthesis}.blocks.{{}}.conv1.weight")
    _, height, width = initial
    sizes = [(height << index, width << index) for index in range(num_blocks)]
    if not sizes:
        raise CheckpointError(f"missing {synthesis}.blocks.0.conv1.weight")
    noise_size = max(sizes[-1]) if options.noise == "const" else 1
    with torch.device("meta"):
        blocks = [_block(tensors, synthesis, index, size, plan) for index, size in enumerate(sizes)]
        network = MappingNetwork(*mapping)
        generator = LucidrainsStyleGAN2(network, blocks, initial, w_dim, constant, noise_size)
    plan["noise_map"] = source(convert=lambda: _noise_map(noise_size))
    plan["center"] = source(convert=lambda: torch.zeros(w_dim))  # It needs the mapping network first.
    _, widths = mapping
    if widths[-1] != w_dim:
        raise CheckpointError(f"its mapping network ends in {widths[-1]} features, its styles read {w_dim}")
    unused = [
        r"D(_aug|_cl)?\..*",
        *(rf"{other}\..*" for pair in NETWORKS for other in pair if other not in (style, synthesis)),
    ]
    assemble(generator, plan, tensors, unused)
    several = [f"{one} and {other}" for one, other in NETWORKS if f"{one}.net.0.weight" in tensors]
    if len(several) > 1:
        where = ".".join((*checkpoint.location, ""))
        generator.source_entry = f"{where}{style} and {synthesis}, of {', '.join(several)}"
    generator.noise = "none" if options.noise == "none" else f"const, seed {NOISE_SEED}: the file stores none"
    generator.estimate_center()
    return generator


def _networks(tensors: Mapping[str, object]) -> tuple[str, str] | None:
    """Names of the mapping and the synthesis network in the file."""
    for style, synthesis in NETWORKS:
        first = (f"{synthesis}.initial_block", f"{synthesis}.to_initial_block.weight")
        if any(key in tensors for key in first) and f"{synthesis}.blocks.0.to_style1.weight" in tensors:
            return style, synthesis
    return None


def _mapping_lr(checkpoint: Path, assumptions: Assumptions) -> float:
    """The mapping network's learning-rate multiplier."""
    try:
        config = read_json(checkpoint.parent / CONFIG)
        stored = None if config.get("lr_mlp") is None else float(config["lr_mlp"])
    except FileNotFoundError:
        stored = None
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{checkpoint.parent / CONFIG} beside it cannot be read: {error}") from error
    told = assumptions.is_told("mapping_lr")
    return mapping_rate(assumptions, MAPPING_LR) if stored is None or told else stored


def _mapping(
    tensors: Mapping[str, Tensor], style: str, multiplier: float, plan: dict[str, Source]
) -> tuple[int, list[int]]:
    """Length of z, and of each layer's output."""
    pattern = re.compile(rf"{style}\.net\.(\d{{1,4}})\.weight")
    indices = sorted(int(match[1]) for match in map(pattern.fullmatch, tensors) if match)  # 0, 2, 4, ...
    if not indices or indices != list(range(0, 2 * len(indices), 2)):
        raise CheckpointError(f"its mapping network has the layers {indices}, 0, 2, 4, ... were expected")
    keys = [f"{style}.net.{index}" for index in indices]
    z_dim = shape_of(tensors, f"{keys[0]}.weight", 2)[1]
    for index, key in enumerate(keys):
        # z has unit length there, where Mapping gives it the length √z_dim.
        gain = multiplier / math.sqrt(z_dim) if index == 0 else multiplier
        plan[f"mapping.layers.{index}.weight"] = _scaled(f"{key}.weight", gain)
        plan[f"mapping.layers.{index}.bias"] = _scaled(f"{key}.bias", multiplier)
    return z_dim, [shape_of(tensors, f"{key}.weight", 2)[0] for key in keys]


def _initial(
    tensors: Mapping[str, Tensor], synthesis: str, constant: bool, plan: dict[str, Source]
) -> tuple[int, int, int]:
    """Shape of what the first block reads: the initial convolution's output, which is computed once and for all."""
    convolution = (f"{synthesis}.initial_conv.weight", f"{synthesis}.initial_conv.bias")
    outputs = shape_of(tensors, convolution[0], 4)[0]
    key = f"{synthesis}.initial_block" if constant else f"{synthesis}.to_initial_block.weight"
    _, _, height, width = shape_of(tensors, key, 4)
    if constant:
        plan["initial"] = source(key, *convolution, convert=partial(F.conv2d, padding=1))
    else:
        # On a 1x1 image, a transposed convolution's rows [w_dim, C, h, w] are images of w's components.
        plan["to_initial.weight"] = source(
            key, convolution[0], convert=lambda rows, weight: F.conv2d(rows, weight, padding=1).flatten(1).T
        )
        plan["to_initial.bias"] = source(convolution[1], convert=lambda bias: bias.repeat_interleave(height * width))
    return outputs, height, width


def _block(
    tensors: Mapping[str, Tensor], synthesis: str, index: int, size: tuple[int, int], plan: dict[str, Source]
) -> Block:
    theirs, ours = f"{synthesis}.blocks.{index}", f"blocks.{index}"
    outputs, inputs, *_ = shape_of(tensors, f"{theirs}.conv1.weight", 4)
    channels = shape_of(tensors, f"{theirs}.to_rgb.conv.weight", 4)[0]
    w_dim = shape_of(tensors, f"{theirs}.to_style1.weight", 2)[1]
    for number in (1, 2):
        conv, weight = f"{ours}.conv{number}", f"{theirs}.conv{number}.weight"
        plan |= _affine(f"{conv}.affine", f"{theirs}.to_style{number}")
        plan[f"{conv}.weight"] = source(weight)
        plan[f"{conv}.energy"] = source(weight, convert=lambda raw: raw.square().sum(dim=(2, 3)).T)
        plan[f"{conv}.noise_weight"] = source(f"{theirs}.to_noise{number}.weight", convert=lambda raw: raw.squeeze(1))
        plan[f"{conv}.bias"] = source(f"{theirs}.to_noise{number}.bias")
    plan |= _affine(f"{ours}.rgb.affine", f"{theirs}.to_rgb.to_style")
    plan[f"{ours}.rgb.weight"] = source(f"{theirs}.to_rgb.conv.weight", convert=lambda raw: raw.flatten(1))
    if index:  # The filter behind a block's upsampling stands with the block before.
        taps = f"{synthesis}.blocks.{index - 1}.to_rgb.upsample.1.f"
        plan[f"{ours}.taps"] = source(taps, convert=lambda raw: raw / raw.sum())
    return Block(inputs, outputs, channels, size, w_dim, doubles=index > 0)


def _affine(ours: str, theirs: str) -> dict[str, Source]:
    """A style's transform, with the 1 added to its bias that is added to the style there."""
    return {
        f"{ours}.weight": source(f"{theirs}.weight"),
        f"{ours}.bias": source(f"{theirs}.bias", convert=lambda bias: bias + 1),
    }


def _scaled(key: str, factor: float) -> Source:
    return source(key, convert=lambda raw: raw * factor)


def _noise_map(size: int) -> Tensor:
    if size == 1:
        return torch.full((1, 1, 1, 1), MEAN_NOISE)
    return torch.rand(1, size, size, 1, generator=torch.Generator().manual_seed(NOISE_SEED))


FORMAT = Format("lucidrains StyleGAN2", recognises, load)
