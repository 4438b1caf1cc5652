"""What the formats of progressively grown generators have in common.

Source: Karras, Aila, Laine & Lehtinen, "Progressive Growing of GANs for Improved Quality, Stability, and Variation",
ICLR 2018.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from sefa.checkpoints.parts.assembly import Source, Weights, combine
from sefa.errors import ArgumentError, CheckpointError
from sefa.generators.common.progressive import ToImage

SQRT2 = math.sqrt(2)


@dataclass(frozen=True)
class Growth:
    """How far training had grown a generator.

    Attributes:
        levels: How many of its levels drew the image.
        fade: Weight, in the image, of the level before the last of these.
        scale: How many times larger the full-grown generator's image is.
    """

    levels: int
    fade: float
    scale: int

    @classmethod
    def at(cls, lod: Tensor | float, levels: int) -> "Growth":
        """What a level of detail means: how many levels are missing; between two integers, one of them fades in.

        Raises:
            CheckpointError: If there is no such level.
        """
        value = float(lod) if not isinstance(lod, Tensor) or lod.numel() == 1 else math.nan
        if not 0 <= value <= levels - 1:
            raise CheckpointError(f"lod is {value:g}, it has {levels} levels of detail: 0 to {levels - 1}")
        missing = math.floor(value)
        return cls(levels - missing, value - missing, 2**missing)

    def to_image(self, widths: Sequence[int], channels: int) -> ToImage:
        """The module that draws the image, of features of these widths, one per level."""
        before = widths[self.levels - 2] if self.fade else None
        return ToImage(widths[self.levels - 1], before, channels, self.scale)

    def to_image_plan(self, images: Sequence[Weights]) -> dict[str, Source]:
        """Where that module's parameters come from, given every level's 1x1 convolution to an image."""
        plan = _blended("to_image.conv", images[self.levels - 1], 1 - self.fade)
        if self.fade:
            plan |= _blended("to_image.conv_before", images[self.levels - 2], self.fade)
        return plan


def _blended(name: str, conv: Weights, share: float) -> dict[str, Source]:
    return {
        f"{name}.weight": combine(conv.weight, convert=lambda weight: weight * share),
        f"{name}.bias": combine(conv.bias, convert=lambda bias: bias * share),
    }


def equalized(weight: Tensor, gain: float = SQRT2) -> Tensor:
    """The effective weight of a layer with an equalised learning rate: times gain/√fan_in; [out, in, ...]."""
    return weight * (gain / math.sqrt(weight[0].numel()))


def up_kernel(weight: Tensor, fused: bool) -> Tensor:
    """The kernel of the transposed convolution that doubles the size, then convolves.

    Doubling by nearest neighbours is zero-stuffing and a 2x2 box, so the box joins the kernel. Implementations that
    fuse the two themselves take the stored kernel for a transposed convolution's, which is turned by 180 degrees.

    Args:
        weight: [out, in, 3, 3].
        fused: Whether the file's implementation fuses the two.

    Returns:
        [in, out, 4, 4], for stride 2 and padding 1.
    """
    padded = F.pad(weight, (1, 1, 1, 1))
    boxed = padded[..., 1:, 1:] + padded[..., 1:, :-1] + padded[..., :-1, 1:] + padded[..., :-1, :-1]
    return (boxed if fused else boxed.flip(2, 3)).transpose(0, 1)


def highest(keys: Iterable[str], pattern: str) -> int:
    """The largest number that the pattern's group matches in a key; -1 if it matches none."""
    return max((int(match[1]) for key in keys if (match := re.fullmatch(pattern, key))), default=-1)


def channels_of(tensors: Mapping[str, Tensor], biases: Iterable[str]) -> list[int]:
    """How many channels layers give: the lengths of their biases, which no layout of the weights changes."""
    return [tensors[key].numel() for key in biases]


def split_latent(inputs: int, num_classes: int | None) -> int:
    """How many of the first layer's inputs are z, where the others are a one-hot label.

    Raises:
        ArgumentError: If there are not as many.
    """
    if num_classes and not 0 < num_classes < inputs:
        raise ArgumentError(f"num_classes must be in 0..{inputs - 1}, its input's size less 1, got {num_classes}")
    return inputs - (num_classes or 0)
