"""Small filters for images."""

import torch
from torch import Tensor


def separate(kernel: Tensor) -> tuple[Tensor, Tensor] | None:
    """Split a kernel [kh, kw] into a column [kh] and a row [kw] whose outer product it is; None if there are none."""
    u, s, vh = torch.linalg.svd(kernel.double())
    column, row = u[:, 0] * s[0].sqrt(), vh[0] * s[0].sqrt()
    if row.sum() < 0:
        column, row = -column, -row
    if not torch.allclose(torch.outer(column, row), kernel.double(), rtol=0, atol=1e-6 * float(kernel.abs().max())):
        return None
    return column.float(), row.float()
