import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from sefa.linear_algebra import principal_angles

RANDOM = torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("k", "m", "size"), [(3, 3, 20), (2, 5, 12), (5, 2, 12), (4, 4, 4), (1, 1, 2)])
def test_angles_are_those_of_scipy(k: int, m: int, size: int) -> None:
    one, other = torch.randn(k, size, generator=RANDOM), torch.randn(m, size, generator=RANDOM)
    expected = np.sort(subspace_angles(one.double().numpy().T, other.double().numpy().T))
    np.testing.assert_allclose(principal_angles(one, other).numpy(), expected, atol=1e-7)


def test_small_angles_are_accurate() -> None:
    for angle in (1e-3, 1e-6, 1e-9):
        one = torch.eye(2, 5, dtype=torch.double)
        other = one.clone()
        other[0, 0], other[0, 4] = np.cos(angle), np.sin(angle)
        angles = principal_angles(one, other)
        assert float(angles[0]) == pytest.approx(0, abs=1e-15)
        assert float(angles[1]) == pytest.approx(angle, rel=1e-6)


def test_other_rows_of_the_same_space_are_at_no_angle() -> None:
    rows = torch.randn(4, 30, generator=RANDOM, dtype=torch.double)
    mixed = torch.randn(4, 4, generator=RANDOM, dtype=torch.double) @ rows
    assert float(principal_angles(rows, mixed).max()) < 1e-12
