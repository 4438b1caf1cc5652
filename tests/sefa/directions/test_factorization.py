from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sefa
from sefa.checkpoints.formats.dcgan import build
from sefa.directions.factorization import principal_directions
from sefa.errors import ArgumentError
from sefa.generators import DCGAN
from sefa.method_comparison.methods import compare_methods
from support.resource_use import readings


def random_dcgan(z_dim: int = 12, seed: int = 0) -> DCGAN:
    random = torch.Generator().manual_seed(seed)
    return build(
        {
            "main.0.weight": torch.randn(z_dim, 5, 4, 4, generator=random),
            "main.2.weight": torch.randn(5, 3, 4, 4, generator=random),
        }
    )


def test_directions_are_the_right_singular_vectors_of_the_first_layer(golden: Path) -> None:
    generator = sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")
    bank = sefa.factorize(generator, top=20)
    # By another route: numpy's SVD of A itself, A taken from the file.
    weight = torch.load(golden / "checkpoints/dcgan_small_64/netG.pth", weights_only=True, map_location="cpu")[
        "main.0.weight"
    ]
    A = weight.double().reshape(20, -1).T.numpy()
    _, singular_values, V = np.linalg.svd(A, full_matrices=False)
    cosines = np.abs((bank.vectors.double().numpy() * V).sum(axis=1))
    np.testing.assert_allclose(cosines, 1, atol=1e-6)
    np.testing.assert_allclose(bank.eigenvalues.numpy(), singular_values**2, rtol=1e-9)
    assert (bank.eigenvalues.diff() <= 0).all()


def test_directions_are_those_recorded_from_the_original(golden: Path) -> None:
    bank = sefa.factorize(sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth"), top=20)
    with np.load(golden / "checkpoints/dcgan_small_64/golden.npz") as recorded:
        # Signs included: both make the entry of largest magnitude positive.
        np.testing.assert_allclose(bank.vectors.numpy(), recorded["dirs__layer0"], atol=1e-5)
        np.testing.assert_allclose(bank.eigenvalues.numpy(), recorded["eigvals__layer0"], rtol=1e-5)


def test_directions_are_orthonormal() -> None:
    vectors = sefa.factorize(random_dcgan(), top=12).vectors
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(12), atol=1e-6, rtol=0)


def test_an_eigenvalue_is_the_squared_change_of_the_layer_per_unit_of_alpha() -> None:
    generator = random_dcgan()
    bank = sefa.factorize(generator, top=4)
    z = torch.randn(1, 12, 1, 1, generator=torch.Generator().manual_seed(1))
    for n, eigenvalue in zip(bank.vectors, bank.eigenvalues, strict=True):
        with torch.no_grad():
            moved = generator.first(z + n[None, :, None, None]) - generator.first(z)
        assert float(moved.double().square().sum()) == pytest.approx(float(eigenvalue), rel=1e-4)


def test_no_unit_direction_moves_the_layer_more_than_the_first() -> None:
    generator = random_dcgan()
    A = generator.affines()[0].double()
    strongest = float((A @ sefa.factorize(generator).vectors[0].double()).norm())
    others = torch.nn.functional.normalize(torch.randn(12, 2000, dtype=torch.double), dim=0)
    assert float((A @ others).norm(dim=0).max()) <= strongest


def test_the_sign_makes_the_entry_of_largest_magnitude_positive() -> None:
    vectors = sefa.factorize(random_dcgan(), top=12).vectors
    peaks = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    assert (peaks > 0).all()


def test_rows_can_be_normalized_as_the_authors_code_does() -> None:
    generator = random_dcgan()
    bank = sefa.factorize(generator, top=3, normalize="rows")
    A = generator.affines()[0].double().numpy()
    A = A / np.linalg.norm(A, axis=1, keepdims=True)
    _, singular_values, V = np.linalg.svd(A, full_matrices=False)
    np.testing.assert_allclose(np.abs((bank.vectors.double().numpy() * V[:3]).sum(axis=1)), 1, atol=1e-6)
    np.testing.assert_allclose(bank.eigenvalues.numpy(), singular_values[:3] ** 2, rtol=1e-9)
    assert bank.source.normalize == "rows"


def test_a_row_of_zeros_stays_one_when_rows_are_normalized() -> None:
    generator = random_dcgan()
    generator.get_parameter("layers.0.weight").data[:, 0] = 0
    assert sefa.factorize(generator, normalize="rows").vectors.isfinite().all()


def test_by_default_there_are_sixteen_or_as_many_as_the_latent_has() -> None:
    assert len(sefa.factorize(random_dcgan(z_dim=30))) == 16
    assert len(sefa.factorize(random_dcgan(z_dim=12))) == 12


def test_the_rank_is_recorded_and_eigenvalues_beyond_it_are_zero() -> None:
    generator = random_dcgan(z_dim=6)
    weight = generator.get_parameter("layers.0.weight").data
    weight[5] = weight[0] + weight[1]  # The sixth component of z is the sum of two others.
    bank = sefa.factorize(generator)
    assert bank.source.rank == 5
    assert 0 <= float(bank.eigenvalues[5]) < 1e-9 * float(bank.eigenvalues[0])


@pytest.mark.parametrize("top", [0, -1, 13])
def test_more_directions_than_the_latent_has_are_refused(top: int) -> None:
    with pytest.raises(ArgumentError, match=rf"top must be in 1\.\.12, the latent's size, got {top}"):
        sefa.factorize(random_dcgan(), top=top)


@pytest.mark.parametrize("top", [2.5, "3", True])
def test_what_is_no_count_is_refused(top: Any) -> None:
    with pytest.raises(ArgumentError, match="top must be an integer"):
        sefa.factorize(random_dcgan(), top=top)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("netG.pth", "a generator was expected, got str: sefa.load reads one"),
        (torch.nn.Linear(2, 2), "a generator was expected, got Linear: sefa.wrap makes one of a torch.nn.Module"),
    ],
)
def test_what_is_no_generator_is_refused(given: Any, message: str) -> None:
    for call in (sefa.factorize, compare_methods):
        with pytest.raises(ArgumentError) as raised:
            call(given)
        assert str(raised.value) == message


def test_other_mistakes_are_refused() -> None:
    with pytest.raises(ArgumentError, match="layers must be"):
        sefa.factorize(random_dcgan(), layers="1")
    with pytest.raises(ArgumentError, match="layers must be"):
        sefa.factorize(random_dcgan(), edit_layers=[2])
    with pytest.raises(ArgumentError, match="normalize must be none or rows, got 'columns'"):
        sefa.factorize(random_dcgan(), normalize="columns")
    with pytest.raises(ArgumentError, match="NaN or infinite"):
        principal_directions(torch.full((3, 2), torch.nan), 1)
    with pytest.raises(ArgumentError, match="shape"):
        principal_directions(torch.zeros(3), 1)


@pytest.mark.parametrize("rows", [12, 4])  # More rows than columns, and fewer: two algorithms.
@pytest.mark.parametrize("scale", [1e-20, 1e20, 1e-130, 1e130])
def test_the_weights_scale_leaves_directions_as_they_are(scale: float, rows: int) -> None:
    A = random_rows(rows, 8)
    _, singular_values, V = np.linalg.svd(A.numpy(), full_matrices=False)
    directions, eigenvalues = principal_directions(A * scale, 3)
    np.testing.assert_allclose(np.abs((directions.numpy() * V[:3]).sum(axis=1)), 1, atol=1e-9)
    np.testing.assert_allclose(eigenvalues[:3].sqrt().numpy() / scale, singular_values[:3], rtol=1e-9)


@pytest.mark.parametrize("rows", [12, 4])
@pytest.mark.parametrize("scale", [1e-200, 1e-160, 1e160])
def test_weights_whose_squares_float64_does_not_hold_are_refused(scale: float, rows: int) -> None:
    with pytest.raises(ArgumentError, match="largest value must be in"):
        principal_directions(random_rows(rows, 8) * scale, 3)


def random_rows(rows: int, columns: int, rank: int | None = None, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    A = torch.randn(rows, columns, generator=random, dtype=torch.float64)
    if rank is not None:
        A = torch.randn(rows, rank, generator=random, dtype=torch.float64) @ A[:rank]
    return A


@pytest.mark.parametrize(
    ("rows", "columns", "rank", "k"),
    [(7, 300, 7, 7), (7, 300, 7, 3), (7, 300, 7, 30), (7, 20, 7, 20), (9, 40, 4, 12), (1, 50, 1, 5), (12, 13, 12, 13)],
)
def test_weights_of_fewer_rows_than_columns_have_the_same_directions(
    rows: int, columns: int, rank: int, k: int
) -> None:
    A = random_rows(rows, columns, rank)
    vectors, eigenvalues = principal_directions(A, k)
    _, singular_values, V = np.linalg.svd(A.numpy(), full_matrices=False)
    known = min(k, rank)
    np.testing.assert_allclose(np.abs((vectors[:known].numpy() * V[:known]).sum(axis=1)), 1, atol=1e-6)
    expected = np.zeros(columns)
    expected[:rank] = singular_values[:rank] ** 2
    np.testing.assert_allclose(eigenvalues.numpy(), expected, rtol=1e-6, atol=1e-6 * expected[0])
    np.testing.assert_allclose((vectors @ vectors.T).numpy(), np.eye(k), atol=1e-9)
    np.testing.assert_allclose((A @ vectors[known:].T).numpy(), 0, atol=1e-9 * singular_values[0])
    assert (vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True)) > 0).all()
    # And the same as by the eigenvectors of AᵀA, signs included.
    padded, _ = principal_directions(torch.cat([A, A.new_zeros(columns, columns)]), known)
    torch.testing.assert_close(vectors[:known], padded, atol=1e-6, rtol=0)


def test_the_memory_is_that_of_the_smaller_side(tmp_path: Path) -> None:
    call = "principal_directions(torch.randn(32, 20_000, generator=torch.Generator().manual_seed(0)), 40)"
    imports = (
        "import torch; from sefa.directions.factorization import principal_directions; torch.linalg.svd(torch.eye(3))"
    )
    (reading,) = readings(imports, call, [tmp_path])
    assert (reading.error, reading.message) == ("", "")
    assert reading.peak_mb < 300  # A is 5 MB in float64, AᵀA would be 3200.


def test_weights_too_large_on_both_sides_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sefa.linear_algebra.MAX_SIDE", 8)
    assert principal_directions(random_rows(8, 20), 2)[0].shape == (2, 20)
    assert principal_directions(random_rows(20, 8), 2)[0].shape == (2, 8)
    with pytest.raises(ArgumentError, match=r"an affine weight of \[9, 9\] is too large"):
        principal_directions(random_rows(9, 9), 2)


def test_more_directions_than_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sefa.directions.factorization.MAX_NUMBERS", 100)
    assert len(sefa.factorize(random_dcgan(), top=7)) == 7
    with pytest.raises(ArgumentError, match="top must be at most 7 for codes of 12, got 8"):
        sefa.factorize(random_dcgan(), top=8)


def test_samples_without_end_are_refused() -> None:
    with pytest.raises(ArgumentError, match="samples must be at most 100000000, got 1000000000000"):
        sefa.factorize(random_dcgan(), method="ganspace", samples=10**12)
