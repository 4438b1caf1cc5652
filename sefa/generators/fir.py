"""Filtering images with small separable kernels, channel by channel."""

import torch
from torch import Tensor
from torch.nn import functional as F


def separate(kernel: Tensor) -> tuple[Tensor, Tensor] | None:
    """Split a kernel [kh, kw] into a column [kh] and a row [kw] whose outer product it is; None if there are none."""
    u, s, vh = torch.linalg.svd(kernel.double())
    column, row = u[:, 0] * s[0].sqrt(), vh[0] * s[0].sqrt()
    if row.sum() < 0:
        column, row = -column, -row
    if not torch.allclose(torch.outer(column, row), kernel.double(), rtol=0, atol=1e-6 * float(kernel.abs().max())):
        return None
    return column.float(), row.float()


def filter_rows_and_columns(x: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """Cross-correlate every channel with outer(column, row), without padding.

    Args:
        x: Shape [N, C, H, W].
        column: Taps along the height, [kh].
        row: Taps along the width, [kw].

    Returns:
        Shape [N, C, H - kh + 1, W - kw + 1].
    """
    channels = x.shape[1]
    x = F.conv2d(x, column.reshape(1, 1, -1, 1).repeat(channels, 1, 1, 1), groups=channels)
    return F.conv2d(x, row.reshape(1, 1, 1, -1).repeat(channels, 1, 1, 1), groups=channels)
