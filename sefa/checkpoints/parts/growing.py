"""What the formats of progressively grown generators share.

Source: Karras, Aila, Laine & Lehtinen, "Progressive Growing of GANs for Improved Quality, Stability, and Variation",
ICLR 2018.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn
from torch.nn import functional as F

from sefa.checkpoints.parts.assembly import Assembly, Parameters
from sefa.checkpoints.sizes import check_pixels
from sefa.errors import ArgumentError
from sefa.generators.common.progressive import ToImage

T = TypeVar("T")

SQRT2 = math.sqrt(2)
BASE = 4  # pixels of the first level, usually


@dataclass(frozen=True)
class Growth:
    """How far training had grown a generator.

    Attributes:
        levels: How many levels it has grown to.
        fade: Weight, in the image, of the level before the last of these; the last has 1 - fade.
        scale: How many times larger the image of the fully grown generator is.
    """

    levels: int
    fade: float
    scale: int

    @classmethod
    def of(cls, file: Assembly, key: str, levels: int) -> "Growth":
        """Read the level of detail: how many levels are missing; a fraction means that one of the others fades in.

        Raises:
            CheckpointError: If the generator has no such level.
        """
        file.require(key)
        lod = file.tensors.get(key)
        if lod is None:  # `fill` will report it.
            return cls(levels, 0, 1)
        value = float(lod) if lod.numel() == 1 else math.nan
        if not 0 <= value <= levels - 1:
            raise file.misfit(f"lod is {value:g}, it has {levels} levels of detail: 0 to {levels - 1}")
        missing = math.floor(value)
        return cls(levels - missing, value - missing, 2**missing)

    def to_image(self, widths: Sequence[int], channels: int) -> ToImage:
        """Return the module that makes the image from the features, whose widths are given for each level."""
        before = widths[self.levels - 2] if self.fade else None
        return ToImage(widths[self.levels - 1], before, channels, self.scale)

    def images(self, to_image: ToImage, levels: Sequence[T]) -> list[tuple[nn.Conv2d, T, float]]:
        """Return each convolution of `to_image`, the item of `levels` for its level, and its share of the image."""
        convs = [(to_image.conv, levels[self.levels - 1], 1 - self.fade)]
        if to_image.conv_before is not None:
            convs.append((to_image.conv_before, levels[self.levels - 2], self.fade))
        return convs


def weight_and_bias(name: str, separator: str = ".") -> dict[str, str]:
    """Return the keys of a layer's weight and bias."""
    return {entry: f"{name}{separator}{entry}" for entry in ("weight", "bias")}


def equalized(weight: Tensor, gain: float = SQRT2) -> Tensor:
    """Return the effective weight [out, in, ...] of a layer with an equalised learning rate: times gain/√fan_in."""
    return weight * (gain / math.sqrt(weight[0].numel()))


def up_kernel(weight: Tensor, fused: bool) -> Tensor:
    """Return the kernel of one transposed convolution that doubles the size and convolves.

    Nearest-neighbour doubling is zero-stuffing followed by a 2x2 box filter, so the box is merged into the kernel.
    Implementations that fuse the two themselves store the kernel as a transposed convolution uses it, rotated by 180
    degrees.

    Args:
        weight: [out, in, 3, 3].
        fused: Whether the file's implementation fuses the two.

    Returns:
        [in, out, 4, 4], for stride 2 and padding 1.
    """
    padded = F.pad(weight, (1, 1, 1, 1))
    boxed = padded[..., 1:, 1:] + padded[..., 1:, :-1] + padded[..., :-1, 1:] + padded[..., :-1, :-1]
    return (boxed if fused else boxed.flip(2, 3)).transpose(0, 1)


def conv(weight: Tensor, bias: Tensor) -> Parameters:
    """Return the parameters of a convolution with raw weight [out, in, k, k]."""
    return {"weight": equalized(weight), "bias": bias}


def up_conv(weight: Tensor, bias: Tensor, fused: bool) -> Parameters:
    """Return the parameters of doubling and a convolution with raw weight [out, in, 3, 3]; [in, out, ..] if fused."""
    return {"weight": up_kernel(equalized(weight.transpose(0, 1) if fused else weight), fused), "bias": bias}


def image_parameters(weight: Tensor, bias: Tensor, share: float) -> Parameters:
    """Return the parameters of a 1x1 convolution, raw weight [channels, in, 1, 1], that gives its share of an image."""
    return {"weight": equalized(weight, 1) * share, "bias": bias * share}


def count_levels(*indices: int) -> int:
    """Return how many levels there are, given the highest indices found; -1 stands for none.

    Raises:
        CheckpointError: If their images would be larger than any real generator's.
    """
    levels = 1 + max(0, *indices)
    check_pixels(BASE << levels - 1, BASE << levels - 1)
    return levels


def highest(keys: Iterable[str], pattern: str) -> int:
    """Return the largest number in the pattern's group over all keys; -1 if no key matches."""
    return max((int(match[1]) for key in keys if (match := re.fullmatch(pattern, key))), default=-1)


def split_latent(file: Assembly, inputs: int, num_classes: int | None) -> int:
    """Return how many of the first layer's inputs are z; the others are a one-hot label.

    Raises:
        ArgumentError: If the classes leave no input for z.
    """
    if num_classes and not 0 < num_classes < inputs:
        reason = f"num_classes must be in 0..{inputs - 1}, its input's size less 1, got {num_classes}"
        raise file.misfit(reason, ArgumentError)
    return inputs - (num_classes or 0)
