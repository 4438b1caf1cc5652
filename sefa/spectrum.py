"""Eigenvectors in an order and with signs that are the same everywhere."""

import torch
from torch import Tensor


def eigenpairs(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors of a symmetric matrix without negative eigenvalues, strongest first.

    Args:
        symmetric: Shape [D, D], float64.

    Returns:
        directions: Shape [D, D], unit rows, with signs as `fix_signs` gives them.
        eigenvalues: Shape [D], descending, none negative.
    """
    eigenvalues, eigenvectors = torch.linalg.eigh(symmetric)  # ascending; eigenvectors in columns
    eigenvalues = eigenvalues.flip(0).clamp_min(0.0)  # Rounding can leave a zero slightly negative.
    return fix_signs(eigenvectors.flip(1).T), eigenvalues


def fix_signs(directions: Tensor) -> Tensor:
    """Turn rows [K, D] so that each one's entry of largest magnitude is positive."""
    peak = directions.abs().argmax(dim=1, keepdim=True)
    return (directions * directions.gather(1, peak).sign()).contiguous()


def zero_level(eigenvalues: Tensor, size: int) -> float:
    """What eigenvalues are no more than rounding: those of matrices that were computed in float32.

    Args:
        eigenvalues: Shape [K], descending: squared singular values.
        size: Length D of the eigenvectors.
    """
    return (size * torch.finfo(torch.float32).eps) ** 2 * float(eigenvalues[0])
