"""Eigenvectors whose order and signs are the same on every machine, and angles between subspaces."""

import torch
from torch import Tensor

from sefa.errors import ArgumentError

# Longest side of a square matrix to decompose: 800 MB in float64.
MAX_SIDE = 10_000


def eigenpairs(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvectors of a symmetric positive semidefinite matrix, strongest first.

    Args:
        symmetric: Shape [D, D], float64.

    Returns:
        directions: Shape [D, D], unit rows, with signs set by `fix_signs`.
        eigenvalues: Shape [D], descending, none negative.
    """
    eigenvalues, eigenvectors = torch.linalg.eigh(symmetric)  # ascending; eigenvectors in columns
    eigenvalues = eigenvalues.flip(0).clamp_min(0.0)  # Rounding can leave a zero slightly negative.
    return fix_signs(eigenvectors.flip(1).T), eigenvalues


def right_singular_vectors(A: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the eigenvectors of AᵀA, strongest first, decomposing no square matrix larger than A's shorter side.

    If A has more columns than rows, they are A's right singular vectors and AᵀA is never formed. If k exceeds the
    number of rows, further directions complete them to an orthonormal set.

    Args:
        A: Shape [M, D], float64.
        k: How many eigenvectors, 1 to D.

    Returns:
        directions: Shape [k, D], unit rows, with signs set by `fix_signs`.
        eigenvalues: Shape [D], descending, none negative: the squared singular values, and zeros.

    Raises:
        ArgumentError: If both sides are longer than `MAX_SIDE`.
    """
    rows, columns = A.shape
    if min(rows, columns) > MAX_SIDE:
        raise ArgumentError(
            f"an affine weight of [{rows}, {columns}] is too large: one side must be at most {MAX_SIDE}"
        )
    if rows >= columns:
        directions, eigenvalues = eigenpairs(A.T @ A)
        return directions[:k], eigenvalues
    _, singular_values, directions = torch.linalg.svd(A, full_matrices=False)
    eigenvalues = torch.cat([singular_values.square(), A.new_zeros(columns - rows)])
    if k > rows:
        directions = torch.cat([directions, _complement(directions, k - rows)])
    return fix_signs(directions[:k]), eigenvalues


def _complement(rows: Tensor, count: int) -> Tensor:
    """Return `count` orthonormal rows that are orthogonal to orthonormal `rows` [M, D]."""
    # In a space of M + count dimensions, at least `count` dimensions are orthogonal to the rows. The projection leaves
    # those unchanged, so its first `count` singular values are 1.
    space = torch.eye(min(len(rows) + count, rows.shape[1]), rows.shape[1], dtype=rows.dtype, device=rows.device)
    directions: Tensor = torch.linalg.svd(space - space @ rows.T @ rows, full_matrices=False).Vh
    return directions[:count]


def fix_signs(directions: Tensor) -> Tensor:
    """Flip rows [K, D] where needed so that the entry of largest magnitude in each is positive."""
    peak = directions.abs().argmax(dim=1, keepdim=True)
    return (directions * directions.gather(1, peak).sign()).contiguous()


def zero_level(eigenvalues: Tensor, size: int) -> float:
    """Return the level below which the eigenvalues of a matrix computed in float32 are rounding errors.

    Args:
        eigenvalues: Shape [K], descending: squared singular values.
        size: Length D of the eigenvectors.
    """
    return (size * torch.finfo(torch.float32).eps) ** 2 * float(eigenvalues[0])


def principal_angles(one: Tensor, other: Tensor) -> Tensor:
    """Return the principal angles between the spans of two sets of independent rows.

    Source: Björck & Golub, "Numerical Methods for Computing Angles Between Linear Subspaces", 1973.

    Args:
        one: Shape [K, D].
        other: Shape [M, D].

    Returns:
        Shape [min(K, M)], float64, radians, smallest first; accurate for small angles too, where the cosine is not.
    """
    one, other = (torch.linalg.qr(rows.double().T).Q for rows in (one, other))  # [D, K]: orthonormal columns
    if one.shape[1] < other.shape[1]:
        one, other = other, one
    inside = one.T @ other
    cosines = torch.linalg.svdvals(inside).clamp(0, 1)  # descending
    sines = torch.linalg.svdvals(other - one @ inside).flip(0).clamp(0, 1)  # ascending
    return torch.where(cosines > 0.5**0.5, sines.asin(), cosines.acos())
