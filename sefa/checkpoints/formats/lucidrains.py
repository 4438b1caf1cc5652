"""StyleGAN2 from the training files of lucidrains' stylegan2-pytorch."""

import math
import re
from collections.abc import Container
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from sefa.checkpoints.assumptions import Assumptions, mapping_rate
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.parts.assembly import Assembly, Parameters
from sefa.checkpoints.parts.stylegan2_layers import check_mapping, dense
from sefa.checkpoints.sizes import check_pixels
from sefa.errors import CheckpointError
from sefa.generators.common.mapping import Mapping
from sefa.generators.lucidrains_stylegan2 import Block, LucidrainsStyleGAN2
from sefa_runtime.json_text import read_json

NOISE_SEED = 0
MEAN_NOISE = 0.5  # mean of the noise map, which is uniform in [0, 1)
# The file beside the checkpoint with the one number that no tensor shows; older versions wrote neither.
CONFIG = ".config.json"
MAPPING_LR = 0.1
# The averaged mapping and synthesis networks, then those in training.
NETWORKS = (("SE", "GE"), ("S", "G"))


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the format's names for the first block's input and style."""
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
    file = Assembly(tensors)
    rate = _mapping_lr(checkpoint.path, options.assumptions)
    w_dim = file.shape(f"{synthesis}.blocks.0.to_style1.weight", 2)[1]
    num_blocks = file.count(f"{synthesis}.blocks.{{}}.conv1.weight")
    if not num_blocks:
        raise CheckpointError(f"missing {synthesis}.blocks.0.conv1.weight")
    constant = f"{synthesis}.initial_block" in tensors
    initial = _initial_shape(file, synthesis, constant)
    sizes = [(initial[1] << index, initial[2] << index) for index in range(num_blocks)]
    check_pixels(*sizes[-1])
    noise_size = max(sizes[-1]) if options.noise == "const" else 1
    with torch.device("meta"):
        mapping = _mapping(file, style, rate)
        channels = initial[0]
        blocks = []
        for index, size in enumerate(sizes):
            blocks.append(_block(file, synthesis, index, channels, size, w_dim))
            channels = blocks[-1].rgb.weight.shape[1]
        generator = LucidrainsStyleGAN2(mapping, blocks, initial, w_dim, constant, noise_size)
    check_mapping(file, mapping, w_dim)
    _add_initial(file, generator, synthesis)
    # Estimating the centre of truncation needs the mapping network.
    file.layer(generator, partial(dict, noise_map=_noise_map(noise_size), center=torch.zeros(w_dim)))
    others = [one for pair in NETWORKS for one in pair if one not in (style, synthesis)]
    file.fill(generator, [r"D(_aug|_cl)?\..*", *(rf"{other}\..*" for other in others)])
    several = [f"{one} and {other}" for one, other in NETWORKS if f"{one}.net.0.weight" in tensors]
    if len(several) > 1:
        where = ".".join((*checkpoint.location, ""))
        generator.source_entry = f"{where}{style} and {synthesis}, of {', '.join(several)}"
    generator.noise = "none" if options.noise == "none" else f"const, seed {NOISE_SEED}: the file stores none"
    generator.estimate_center()
    return generator


def _networks(tensors: Container[str]) -> tuple[str, str] | None:
    """Return the names of the file's mapping and synthesis networks, averaged if it has those; None without any."""
    for style, synthesis in NETWORKS:
        first = (f"{synthesis}.initial_block", f"{synthesis}.to_initial_block.weight")
        if any(key in tensors for key in first) and f"{synthesis}.blocks.0.to_style1.weight" in tensors:
            return style, synthesis
    return None


def _mapping_lr(checkpoint: Path, assumptions: Assumptions) -> float:
    """Return the mapping network's learning-rate multiplier: as the owner gave it, as stored, or as usual."""
    try:
        config = read_json(checkpoint.parent / CONFIG)
        stored = None if config.get("lr_mlp") is None else float(config["lr_mlp"])
    except FileNotFoundError:
        stored = None
    except (OSError, ValueError, AttributeError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{checkpoint.parent / CONFIG} beside it cannot be read: {error}") from error
    told = assumptions.is_told("mapping_lr")
    return mapping_rate(assumptions, MAPPING_LR) if stored is None or told else stored


def _mapping(file: Assembly, style: str, rate: float) -> Mapping:
    pattern = re.compile(rf"{style}\.net\.(\d{{1,4}})\.weight")
    indices = sorted(int(match[1]) for match in map(pattern.fullmatch, file.tensors) if match)  # 0, 2, 4, ...
    if not indices or indices != list(range(0, 2 * len(indices), 2)):
        raise CheckpointError(f"its mapping network has the layers {indices}, 0, 2, 4, ... were expected")
    names = [f"{style}.net.{index}" for index in indices]
    shapes = [file.shape(f"{name}.weight", 2) for name in names]
    z_dim = shapes[0][1]
    mapping = Mapping(z_dim, [outputs for outputs, _ in shapes])
    for name, layer in zip(names, mapping.layers, strict=True):
        # The original gives z unit length; Mapping gives it length √z_dim.
        gain = rate / math.sqrt(z_dim) if name == names[0] else rate
        file.layer(layer, partial(dense, gain=gain, bias_gain=rate), weight=f"{name}.weight", bias=f"{name}.bias")
    return mapping


def _initial_shape(file: Assembly, synthesis: str, constant: bool) -> tuple[int, int, int]:
    """Return the shape [C, h, w] of the first block's input: the initial convolution's output, computed at loading."""
    outputs = file.shape(f"{synthesis}.initial_conv.weight", 4)[0]
    key = f"{synthesis}.initial_block" if constant else f"{synthesis}.to_initial_block.weight"
    _, _, height, width = file.shape(key, 4)
    return outputs, height, width


def _add_initial(file: Assembly, generator: LucidrainsStyleGAN2, synthesis: str) -> None:
    outputs, height, width = generator.initial_shape
    inputs = file.shape(f"{synthesis}.initial_conv.weight", 4)[1]
    weight, bias = (
        (f"{synthesis}.initial_conv.weight", (outputs, inputs, 3, 3)),
        (f"{synthesis}.initial_conv.bias", (outputs,)),
    )
    if generator.to_initial is None:
        block = (f"{synthesis}.initial_block", (1, inputs, height, width))
        file.layer(generator, _initial, initial=block, weight=weight, bias=bias)
    else:
        rows = (f"{synthesis}.to_initial_block.weight", (generator.code_dim, inputs, height, width))
        file.layer(generator.to_initial, _to_initial, rows=rows, weight=weight, bias=bias)


def _initial(initial: Tensor, weight: Tensor, bias: Tensor) -> Parameters:
    return {"initial": F.conv2d(initial, weight, bias, padding=1)}


def _to_initial(rows: Tensor, weight: Tensor, bias: Tensor) -> Parameters:
    """Convolve a transposed convolution's rows [w_dim, C, h, w]: its input is 1x1, so row i is the image of w[i]."""
    height, width = rows.shape[2:]
    return {
        "weight": F.conv2d(rows, weight, padding=1).flatten(1).T,
        "bias": bias.repeat_interleave(height * width),
    }


def _block(file: Assembly, synthesis: str, index: int, inputs: int, size: tuple[int, int], w_dim: int) -> Block:
    name = f"{synthesis}.blocks.{index}"
    outputs = file.shape(f"{name}.conv1.weight", 4)[0]
    channels = file.shape(f"{name}.to_rgb.conv.weight", 4)[0]
    block = Block(inputs, outputs, channels, size, w_dim, doubles=index > 0)
    for number, conv in enumerate((block.conv1, block.conv2), start=1):
        file.layer(
            conv,
            _conv,
            weight=f"{name}.conv{number}.weight",
            noise_weight=(f"{name}.to_noise{number}.weight", (outputs, 1)),
            noise_bias=(f"{name}.to_noise{number}.bias", (outputs,)),
            style_weight=(f"{name}.to_style{number}.weight", tuple(conv.affine.weight.shape)),
            style_bias=(f"{name}.to_style{number}.bias", (conv.affine.out_features,)),
        )
    file.layer(
        block.rgb,
        _to_rgb,
        weight=(f"{name}.to_rgb.conv.weight", (channels, outputs, 1, 1)),
        style_weight=(f"{name}.to_rgb.to_style.weight", (outputs, w_dim)),
        style_bias=(f"{name}.to_rgb.to_style.bias", (outputs,)),
    )
    if index:  # The filter that follows a block's upsampling is stored with the block before.
        file.layer(block, _taps, taps=f"{synthesis}.blocks.{index - 1}.to_rgb.upsample.1.f")
    return block


def _conv(
    weight: Tensor, noise_weight: Tensor, noise_bias: Tensor, style_weight: Tensor, style_bias: Tensor
) -> Parameters:
    return {
        "weight": weight,
        "energy": weight.square().sum(dim=(2, 3)).T,
        "noise_weight": noise_weight.squeeze(1),
        "bias": noise_bias,
        **_style(style_weight, style_bias),
    }


def _to_rgb(weight: Tensor, style_weight: Tensor, style_bias: Tensor) -> Parameters:
    return {"weight": weight.flatten(1), **_style(style_weight, style_bias)}


def _style(weight: Tensor, bias: Tensor) -> Parameters:
    """Return a style's transform; its bias includes the 1 that the original adds to the style."""
    return {"affine.weight": weight, "affine.bias": bias + 1}


def _taps(taps: Tensor) -> Parameters:
    return {"taps": taps / taps.sum()}


def _noise_map(size: int) -> Tensor:
    if size == 1:
        return torch.full((1, 1, 1, 1), MEAN_NOISE)
    return torch.rand(1, size, size, 1, generator=torch.Generator().manual_seed(NOISE_SEED))


FORMAT = Format("lucidrains StyleGAN2", recognises, load)
