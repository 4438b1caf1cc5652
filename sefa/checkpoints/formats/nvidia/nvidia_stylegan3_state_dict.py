"""StyleGAN3 and StyleGAN-XL as state dicts of their PyTorch code: `torch.save(G_ema.state_dict(), ...)`.

The keys are those of the pickle's modules. A layer's name, L3_52_128, has the size of its image and its channels.
Filters are stored, so configurations T and R need not be told apart. Their lengths are the same multiple of the factors
of up- and downsampling, from which sampling rates follow, back from the last: the power of two that holds the image.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from sefa.checkpoints.assumptions import Assumptions, positive, whole
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.formats.nvidia import nvidia_stylegan3, nvidia_stylegan_xl
from sefa.checkpoints.formats.nvidia.nvidia_modules import as_modules, describe, size_of
from sefa.checkpoints.formats.nvidia.nvidia_stylegan3 import EMBED, FILTERS, INPUT, is_stylegan_xl
from sefa.checkpoints.pickled_networks import PersistedModule
from sefa.errors import CheckpointError, listed
from sefa.generators.stylegan3 import StyleGAN3

LAYER = re.compile(r"L(\d{1,3})_(\d{1,5})_\d{1,6}")
# The code's defaults.
FILTER_SIZE = 6
OVERSAMPLING = 2
CUTOFF = 2.0
OUTPUT_SCALE = 0.25


@dataclass(frozen=True)
class _Layer:
    """A layer's name, the size of its image, the lengths of its filters, and its factors of resampling."""

    name: str
    size: int
    up_taps: int = 1
    down_taps: int = 1
    up: int = 1
    down: int = 1


def _recognises(checkpoint: Checkpoint, xl: bool) -> bool:
    """Recognise the sinusoids, and a layer whose name has its size; StyleGAN-XL by embeddings without a bias."""
    weights = rf"synthesis\.{LAYER.pattern}\.weight"
    has_layers = any(re.fullmatch(weights, key) for key in checkpoint.stored)
    embeds = f"{EMBED}.weight" in checkpoint.stored and f"{EMBED}.bias" not in checkpoint.stored
    return f"{INPUT}.freqs" in checkpoint.stored and has_layers and embeds == xl


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN3:
    """Build the generator."""
    return read(checkpoint.tensors, options.assumptions)


def read(tensors: Mapping[str, Tensor], assumptions: Assumptions) -> StyleGAN3:
    """Build the generator of a clean state dict, with these facts about it.

    Raises:
        CheckpointError: If keys are missing or not understood, or sizes and filters do not fit together.
    """
    network = as_modules(tensors)
    synthesis = network.module("synthesis")
    layers, rate = _layers(synthesis, assumptions, gaps=1 if is_stylegan_xl(network) else 0)
    describe(network, assumptions, f"{INPUT}.affine")
    scale = assumptions.take("output_scale", OUTPUT_SCALE, positive)
    assumptions.note(f"image scaled by {scale:g}", "output_scale")
    synthesis.attributes |= {"layer_names": [layer.name for layer in layers], "output_scale": scale}
    size = layers[0].size
    _describe_input(network.module(INPUT), size, rate, assumptions)
    for layer in layers:
        module = synthesis.module(layer.name)
        total = (layer.size - 1) * layer.down + 1 - (size + size_of(module, "weight", 2) - 1) * layer.up
        total += layer.up_taps + layer.down_taps - 2
        before = (total + layer.up) // 2
        module.attributes |= {
            "is_torgb": layer is layers[-1],
            "up_factor": layer.up,
            "down_factor": layer.down,
            "padding": [before, total - before] * 2,
        }
        size = layer.size
    synthesis.module(layers[-1].name).parameters |= dict.fromkeys(FILTERS)
    network.attributes["img_resolution"] = size
    return nvidia_stylegan_xl.read(network) if is_stylegan_xl(network) else nvidia_stylegan3.read(network)


def _describe_input(module: PersistedModule, size: int, rate: int, assumptions: Assumptions) -> None:
    """Give the sinusoids their sizes; those beyond the cutoff would be faded.

    Raises:
        CheckpointError: If the highest frequency is beyond the assumed cutoff, from which frequencies were drawn.
    """
    cutoff = assumptions.take("first_cutoff", CUTOFF, positive)
    assumptions.note(f"sinusoids of frequencies up to {cutoff:g} are not faded", "first_cutoff")
    freqs = module.parameters.get("freqs")
    highest = float(freqs.square().sum(-1).max().sqrt()) if isinstance(freqs, Tensor) else 0.0
    if highest > cutoff * 1.0001:
        raise CheckpointError(
            f"its sinusoids have frequencies up to {highest:.4g}, beyond the cutoff of {cutoff:g}: say which one it "
            f"had, such as --assume first_cutoff={math.ceil(highest)}"
        )
    module.attributes |= {"size": [size, size], "sampling_rate": float(rate), "bandwidth": cutoff}


def _layers(synthesis: PersistedModule, assumptions: Assumptions, gaps: int) -> tuple[list[_Layer], int]:
    """Return the layers in order, the one to colours last, and the sampling rate of the first.

    Super-resolution skips a number where its layers follow the stem's, one of the `gaps` allowed.

    Raises:
        CheckpointError: If their sizes and filters do not fit together.
    """
    matches = sorted((match for name in synthesis.modules if (match := LAYER.fullmatch(name))), key=lambda m: int(m[1]))
    numbers, sizes = ([int(match[group]) for match in matches] for group in (1, 2))
    if len(set(numbers)) < max(2, len(numbers), 1 + max(numbers) - gaps) or not all(sizes):
        raise CheckpointError(f"its layers are {listed([match[0] for match in matches])}: some are missing")
    oversampling = assumptions.take("lrelu_upsampling", OVERSAMPLING, whole)
    rate = 1 << (sizes[-1] - 1).bit_length()
    layers = [_Layer(matches[-1][0], sizes[-1])]
    margins: set[int] = set()
    for match, size in zip(reversed(matches[:-1]), reversed(sizes[:-1]), strict=True):
        up_taps, down_taps = (size_of(synthesis.module(match[0]), which, 0) for which in FILTERS)
        before = rate * down_taps // up_taps or 1
        up, down = (oversampling * max(before, rate) // one for one in (before, rate))
        margins |= {size - rate} if len(layers) > 1 else set()  # None around the last two images.
        if up_taps * down != down_taps * up or up_taps % up or len(margins) > 1:
            raise CheckpointError(
                f"sizes and filters do not fit together at {match[0]}, with filters of {up_taps} and {down_taps} taps"
            )
        if up_taps // up != FILTER_SIZE and not assumptions.is_told("lrelu_upsampling"):
            raise CheckpointError(
                f"its filters have {up_taps // up} taps per factor instead of {FILTER_SIZE}, or activations another "
                f"grid: say how much finer than their images', --assume lrelu_upsampling={OVERSAMPLING}"
            )
        layers.insert(0, _Layer(match[0], size, up_taps, down_taps, up, down))
        rate, first = before, rate
    if rate != first:
        raise CheckpointError(f"its {layers[0].name} resamples the sinusoids, which no design does")
    return layers, rate


FORMAT = Format("NVIDIA StyleGAN3, a state dict", partial(_recognises, xl=False), load)
XL_FORMAT = Format("StyleGAN-XL, a state dict", partial(_recognises, xl=True), load)
