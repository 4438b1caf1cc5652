"""Angles between the spaces that directions span.

Source: Björck & Golub, "Numerical Methods for Computing Angles Between Linear Subspaces", 1973.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from sefa.bank import DirectionBank


def principal_angles(one: Tensor, other: Tensor) -> Tensor:
    """Principal angles between the spans of two sets of independent rows.

    Args:
        one: Shape [K, D].
        other: Shape [M, D].

    Returns:
        Shape [min(K, M)], float64, radians, smallest first; accurate for small angles, too, where the cosine is not.
    """
    one, other = (torch.linalg.qr(rows.double().T).Q for rows in (one, other))  # [D, K]: orthonormal columns
    if one.shape[1] < other.shape[1]:
        one, other = other, one
    inside = one.T @ other
    cosines = torch.linalg.svdvals(inside).clamp(0, 1)  # descending
    sines = torch.linalg.svdvals(other - one @ inside).flip(0).clamp(0, 1)  # ascending
    return torch.where(cosines > 0.5**0.5, sines.asin(), cosines.acos())


def moves(bank: DirectionBank) -> Tensor:
    """What each direction adds to the codes of all layers, scaled to unit length, float64 [K, L·D]."""
    added = bank.edited_layers[:, :, None] * bank.vectors[:, None].double()
    return F.normalize(added.flatten(1), dim=1)
