"""Styles and conditional norms: each channel of an image times a factor, and plus a shift."""

from torch import Tensor


def scale(x: Tensor, factor: Tensor) -> Tensor:
    """Return x·factor, of [N, C, H, W] and [N, C]."""
    return x * factor[:, :, None, None]


def scale_and_shift(x: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
    """Return x·factor + shift, of [N, C, H, W] and twice [N, C]."""
    return x * factor[:, :, None, None] + shift[:, :, None, None]
