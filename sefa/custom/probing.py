"""Codes for probing a layer, and how to find the latent in what the layer reads."""

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from sefa.generators.common.labels import one_hot

CHECK_SEED = 0
# Largest deviation from x = s·z that float32 sums may cause, as a share of the largest entry of x.
SCALED_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Probe:
    """Codes for probing a layer.

    Attributes:
        codes: Shape [K, D]: random latents of several lengths, each followed by its class.
        same_class: How many of them, from the first, have the same class.
        latent_dim: Length of the latent.
    """

    codes: Tensor
    same_class: int
    latent_dim: int

    @property
    def z(self) -> Tensor:
        """The latents, [K, latent_dim]."""
        return self.codes[:, : self.latent_dim]


def trial_codes(count: int, z_dim: int, num_classes: int, seed: int = CHECK_SEED) -> Tensor:
    """Return random latents, each followed by its class: [count, z_dim + num_classes], the same at every call."""
    random = torch.Generator().manual_seed(seed)
    z = torch.randn(count, z_dim, generator=random)
    if not num_classes:
        return z
    label = torch.randint(num_classes, (count,), generator=random)
    return torch.cat([z, one_hot(label, num_classes)], dim=1)


def rows_of(output: Tensor, count: int) -> Tensor | None:
    """Return an output as [count, out]; None if it does not divide into one row for each latent."""
    # If a layer reads several vectors of each latent, they follow one another along the batch axis.
    return output.reshape(count, -1) if output.ndim and output.numel() % count == 0 else None


def scaled_entries(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor] | None:
    """Find where x holds s·z, with a number s for each row.

    The other entries, those of a label, must be the same in all rows or proportional to s.

    Args:
        x: A layer's input, [K, M]; all rows of one class.
        z: The latents, [K, D].

    Returns:
        Indices of entries of x, and of the entries of z that they hold; None if x holds anything else.
    """
    x, z = x.double(), z.double()
    limit = SCALED_TOLERANCE * x.abs().amax(dim=1, keepdim=True)  # [K, 1]
    varying = ((x - x[:1]).abs() > limit).any(dim=0).nonzero()[:, 0]
    if not x.isfinite().all() or len(varying) < 2:  # A single entry is a multiple of any entry of z.
        return None
    x = x[:, varying] / limit  # The largest allowed distance is now 1.
    # The second entry shows which entry of z the first one is. If x holds entries of z, one of the pairs consists of
    # them, because a label's entries are proportional to each other.
    for first, second in combinations(_unalike(x, 3), 2):
        for candidate in range(z.shape[1]):
            scale = x[:, first] / z[:, candidate]
            target = scale[:, None] * z  # [K, D]
            if not scale.all() or not target.isfinite().all() or (target - x[:, second, None]).abs().amax(0).min() > 1:
                continue
            distances, nearest = torch.cdist(x.T, target.T, p=float("inf")).min(dim=1)
            of_z = distances <= 1
            label = x[:, ~of_z] / scale[:, None]
            if ((label - label[:1]) * scale[:, None]).abs().le(1).all():
                return varying[of_z], nearest[of_z]
    return None


def _unalike(x: Tensor, count: int) -> list[int]:
    """Return at most `count` columns of x [K, M] that are not proportional to each other, furthest from 0 first."""
    found: list[int] = []
    left = torch.ones(x.shape[1], dtype=torch.bool, device=x.device)
    while left.any() and len(found) < count:
        index = int((x.abs().amin(dim=0) + 1).where(left, 0).argmax())
        found.append(index)
        column = x[:, index, None]
        apart = (x * column[:1] - column * x[:1]).abs() > 10 * SCALED_TOLERANCE * (column * column[:1]).abs()
        left &= apart.any(dim=0)
        left[index] = False
    return found
