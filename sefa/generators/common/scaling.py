"""Styles and conditional norms: multiply each channel of an image by a factor, and add a shift."""

from torch import Tensor


def scale(x: Tensor, factor: Tensor) -> Tensor:
    """Return x·factor, for x [N, C, H, W] and factor [N, C]."""
    return x * factor[:, :, None, None]


def scale_and_shift(x: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
    """Return x·factor + shift, for x [N, C, H, W] and factor and shift [N, C]."""
    return x * factor[:, :, None, None] + shift[:, :, None, None]
