"""Small filters for images."""

import torch
from torch import Tensor
from torch.nn import functional as F


def filter_channels(x: Tensor, kernel: Tensor, padding: tuple[int, int] = (0, 0)) -> Tensor:
    """Correlate each channel of [N, C, H, W] with a kernel [kh, kw]."""
    channels = x.shape[1]
    return F.conv2d(x, kernel.repeat(channels, 1, 1, 1), padding=padding, groups=channels)


def bilinear(x: Tensor) -> Tensor:
    """Double height and width."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def separate(kernel: Tensor) -> tuple[Tensor, Tensor] | None:
    """Split a kernel [kh, kw] into a column [kh] and a row [kw] whose outer product it is; None if not separable."""
    u, s, vh = torch.linalg.svd(kernel.double())
    column, row = u[:, 0] * s[0].sqrt(), vh[0] * s[0].sqrt()
    if row.sum() < 0:
        column, row = -column, -row
    if not torch.allclose(torch.outer(column, row), kernel.double(), rtol=0, atol=1e-6 * float(kernel.abs().max())):
        return None
    return column.float(), row.float()
