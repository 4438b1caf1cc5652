"""Pieces of BigGANs' formulas, and what their images are made of."""

import torch
from torch import Tensor
from torch.nn import functional as F

from sefa.generators import Generator


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


def double(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def latents(generator: Generator, count: int = 3) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    z = torch.randn(count, generator.z_dim, generator=random)
    return z, torch.randint(generator.num_classes, (count,), generator=random)
