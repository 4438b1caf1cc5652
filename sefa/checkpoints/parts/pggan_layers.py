"""A PGGAN from its parts' tensors, whichever format's keys they come from."""

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from sefa.checkpoints.parts.assembly import Source, Weights, assemble, source
from sefa.checkpoints.parts.growing import Growth
from sefa.generators.pggan import PGGAN


def build(
    tensors: Mapping[str, Tensor],
    *,
    layers: Sequence[Weights],
    widths: Sequence[int],
    images: Sequence[Weights],
    channels: int,
    growth: Growth,
    z_dim: int,
    class_codes: Tensor | None = None,
    base: tuple[int, int] = (4, 4),
    normalize_z: bool = False,
    slope: float = 0.2,
    tanh: bool = False,
    unused: Iterable[str] = (),
) -> PGGAN:
    """Assemble the generator.

    Args:
        tensors: The file's tensors.
        layers: Effective weights of all layers, two per level: the dense one, [C·h·w, D] and [C·h·w]; then
            convolutions, the first of each level as `up_kernel` makes it.
        widths: Channels that each of them gives.
        images: Effective 1x1 convolutions to an image, one per level.
        channels: Channels of the image.
        growth: How many of the levels are used.
        z_dim: Length of z.
        class_codes: What follows z, one row per class; None for an unconditional generator.
        base: Height and width of the first level.
        normalize_z: See `PGGAN`, as the two after it.
        slope: Of the leaky ReLU.
        tanh: Whether the image passes a tanh.
        unused: Keys that may be left over: those of levels that did not draw the image.

    Raises:
        CheckpointError: If keys are missing, not understood, or of the wrong shape.
    """
    built = 2 * growth.levels
    classes = (0, 0) if class_codes is None else (len(class_codes), class_codes.shape[1])
    with torch.device("meta"):
        to_image = growth.to_image(widths[1::2], channels)
        generator = PGGAN(z_dim, classes, base, widths[:built], to_image, normalize_z, slope, tanh)
    names = ["dense", *(f"convs.{k}" for k in range(built - 1))]
    plan: dict[str, Source] = growth.to_image_plan(images)
    for name, layer in zip(names, layers, strict=False):
        plan |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    if class_codes is not None:
        plan["class_codes"] = source(convert=lambda: class_codes)
    return assemble(generator, plan, tensors, map(re.escape, unused))
