from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor, nn

import sefa
from sefa import ArgumentError
from sefa.directions.ganspace import CHUNK
from sefa.generators import DCGAN, PGGAN
from sefa.method_comparison.peak_memory import peak_memory
from support.golden_checkpoints import GoldenCheckpoint

SAMPLES = 5000
Array = NDArray[np.float64]


def latents(z_dim: int, seed: int = 0, samples: int = SAMPLES) -> Iterator[Tensor]:
    """What the documentation promises: normal latents of a seed, in chunks."""
    random = torch.Generator().manual_seed(seed)
    for start in range(0, samples, CHUNK):
        yield torch.randn(min(CHUNK, samples - start), z_dim, generator=random)


def subspace_angle(one: Array, other: Array) -> float:
    """Largest principal angle between the spans of rows, in radians, by its sine: exact where it is small."""
    one, other = np.linalg.qr(one.T)[0], np.linalg.qr(other.T)[0]
    return float(np.arcsin(min(1.0, float(np.linalg.norm(other - one @ (one.T @ other), 2)))))


def outputs_of(generator: nn.Module, layer: nn.Module, z: Iterator[Tensor], run: Any) -> tuple[Array, Array]:
    """Latents [N, z_dim] and a layer's outputs [N, out], seen by a hook."""
    seen: list[Tensor] = []
    drawn: list[Tensor] = []
    handle = layer.register_forward_hook(lambda layer, inputs, output: seen.append(output.flatten(1)))
    with torch.no_grad():
        for chunk in z:
            run(chunk)
            drawn.append(chunk)
    handle.remove()
    return torch.cat(drawn).double().numpy(), torch.cat(seen).double().numpy()


def regressed(z: Array, y: Array, components: int) -> tuple[Array, PCA]:
    """GANSpace by scikit-learn and numpy: components of y, and unit directions of z that least squares gives them."""
    pca = PCA(components, svd_solver="full").fit(y)
    coordinates = pca.transform(y) / np.sqrt(pca.explained_variance_)
    design = np.column_stack([coordinates, np.ones(len(z))])
    directions = np.linalg.lstsq(design, z, rcond=None)[0][:components]
    return directions / np.linalg.norm(directions, axis=1, keepdims=True), pca


@pytest.mark.parametrize("top", [1, 4, 10])
def test_components_of_style_codes_are_those_of_scikit_learn(top: int) -> None:
    generator = GoldenCheckpoint("sefa_stylegan2_64").generator
    bank = sefa.factorize(generator, top=top, method="ganspace", samples=SAMPLES)
    with torch.no_grad():
        w = torch.cat([generator.encode(z)[:, 0] for z in latents(32)]).double().numpy()
    pca = PCA(top, svd_solver="full").fit(w)
    assert subspace_angle(bank.vectors.double().numpy(), pca.components_) < 1e-4
    np.testing.assert_allclose(bank.eigenvalues.numpy(), pca.explained_variance_, rtol=1e-6)


def test_alpha_counts_standard_deviations_of_the_style_codes() -> None:
    generator = GoldenCheckpoint("sefa_stylegan2_64").generator
    bank = sefa.factorize(generator, top=5, method="ganspace", samples=SAMPLES)
    with torch.no_grad():
        w = torch.cat([generator.encode(z)[:, 0] for z in latents(32)])
    moved = bank.vectors.norm(dim=1)  # by alpha 1
    along = (w @ (bank.vectors / moved[:, None]).T).std(dim=0)
    torch.testing.assert_close(moved, along, rtol=1e-4, atol=0)
    assert bank.source.alpha_unit == "sigma"


@pytest.mark.parametrize("top", [1, 3, 20])
def test_components_of_a_dcgans_first_layer_are_those_of_scikit_learn(golden: Path, top: int) -> None:
    generator = sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")
    assert isinstance(generator, DCGAN)
    bank = sefa.factorize(generator, top=top, method="ganspace", samples=SAMPLES)
    first = generator.first
    z, y = outputs_of(generator, first, latents(20), lambda z: first(z[:, :, None, None]))
    directions, pca = regressed(z, y, top)
    vectors = bank.vectors.double().numpy()
    assert subspace_angle(vectors, directions) < 1e-4
    # One by one as well; signs are arbitrary.
    np.testing.assert_allclose(np.abs((vectors * directions).sum(axis=1)), 1, atol=1e-8)
    np.testing.assert_allclose(bank.eigenvalues.numpy(), pca.explained_variance_, rtol=1e-6)


def test_a_pggans_normalisation_of_z_is_respected() -> None:
    generator = GoldenCheckpoint("sefa_pggan_32").generator
    assert isinstance(generator, PGGAN)
    bank = sefa.factorize(generator, top=6, method="ganspace", samples=SAMPLES)
    z, y = outputs_of(
        generator, generator.dense, latents(28), lambda z: generator.decode(generator.encode(z[:, :])).shape
    )
    directions, pca = regressed(z, y, 6)
    assert subspace_angle(bank.vectors.double().numpy(), directions) < 1e-4
    np.testing.assert_allclose(bank.eigenvalues.numpy(), pca.explained_variance_, rtol=1e-5)


def test_where_z_is_split_each_layers_norms_are_analysed_alone() -> None:
    generator = GoldenCheckpoint("biggan_hier_64").generator
    bank = sefa.factorize(generator, layers="2", top=4, method="ganspace", samples=SAMPLES)
    A = generator.affines()[2][:, :6].double().numpy()
    z = torch.cat(list(_latents_before_labels(generator))).double().numpy()[:, 12:18]  # The third chunk of six.
    directions, _ = regressed(z, z @ A.T, 4)
    assert subspace_angle(bank.vectors[:, :6].double().numpy(), directions) < 1e-4
    assert not bank.vectors[:, 6:].any()  # No direction changes the class.
    assert set(bank.edited_layers.nonzero()[:, 1].tolist()) == {2}
    together = sefa.factorize(generator, top=10, method="ganspace", samples=SAMPLES)
    assert (together.eigenvalues.diff() <= 0).all()
    assert (together.edited_layers.sum(dim=1) == 1).all()


def _latents_before_labels(generator: sefa.Generator, samples: int = SAMPLES) -> Iterator[Tensor]:
    """As `latents`, with the label of each drawn after its chunk."""
    random = torch.Generator().manual_seed(0)
    for start in range(0, samples, CHUNK):
        count = min(CHUNK, samples - start)
        yield torch.randn(count, generator.z_dim, generator=random)
        torch.randint(generator.num_classes, (count,), generator=random)


def test_one_class_or_all_of_them() -> None:
    generator = GoldenCheckpoint("nv_ada_cond_map2_32").generator
    every, third = (
        sefa.factorize(generator, top=3, method="ganspace", samples=SAMPLES, label=label) for label in (None, 2)
    )
    z = torch.cat(list(_latents_before_labels(generator)))
    with torch.no_grad():
        w = generator.encode(z, torch.full((SAMPLES,), 2))[:, 0].double().numpy()
    assert subspace_angle(third.vectors.double().numpy(), PCA(3, svd_solver="full").fit(w).components_) < 1e-4
    assert subspace_angle(every.vectors.double().numpy(), third.vectors.double().numpy()) > 0.1
    assert (every.source.label, third.source.label) == (None, 2)


def test_a_seed_repeats_and_more_samples_bring_two_seeds_closer(golden: Path) -> None:
    generator = GoldenCheckpoint("sefa_stylegan2_64").generator

    def find(samples: int, seed: int) -> Array:
        bank = sefa.factorize(generator, top=2, method="ganspace", samples=samples, seed=seed)
        return bank.vectors.double().numpy()

    np.testing.assert_array_equal(find(1500, 7), find(1500, 7))
    few, many = (subspace_angle(find(samples, 1), find(samples, 2)) for samples in (300, 30_000))
    assert 0 < many < few


def test_on_a_linear_layer_it_comes_ever_closer_to_sefa(golden: Path) -> None:
    generator = sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")
    closed = sefa.factorize(generator, top=3).vectors.double().numpy()
    angles = [
        subspace_angle(sefa.factorize(generator, top=3, method="ganspace", samples=n).vectors.double().numpy(), closed)
        for n in (200, 200_000)
    ]
    assert angles[1] < angles[0] / 5  # A thousand times the samples: about 30 times closer.


def test_the_bank_says_how_it_was_made_and_is_exported_like_any_other(tmp_path: Path) -> None:
    generator = GoldenCheckpoint("sefa_stylegan2_64").generator
    bank = sefa.factorize(generator, layers="4-7", top=3, method="ganspace", samples=SAMPLES, seed=3)
    again = sefa.DirectionBank.load(bank.save(tmp_path / "bank.safetensors"))
    assert again.source == bank.source
    source = again.source
    assert (source.method, source.samples, source.seed, source.rank) == ("ganspace", SAMPLES, 3, 32)
    assert again.edited_layers[0].nonzero()[:, 0].tolist() == [4, 5, 6, 7]
    import sefa_export

    graph = sefa_export.bake(generator, again, output_type="float32")
    z = torch.randn(2, 32)
    with torch.no_grad():
        edited = graph(z, torch.tensor([[1], [1]]), torch.full((2, 1), 2.0))
        codes = generator.encode(z)
        codes[:, 4:8] += 2 * bank.vectors[1]
        torch.testing.assert_close(edited, generator.decode(codes), atol=1e-5, rtol=0)


def test_progress_runs_from_zero_to_one() -> None:
    shares: list[float] = []
    generator = GoldenCheckpoint("sefa_stylegan2_64").generator
    sefa.factorize(generator, method="ganspace", samples=2500, progress=shares.append)
    assert shares == [0.4, 0.8, 1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "pca"}, "method must be sefa or ganspace, got 'pca'"),
        ({"method": "ganspace", "normalize": "rows"}, "which ganspace does not analyse"),
        ({"samples": 100}, "samples is an option of ganspace"),
        ({"seed": 0}, "seed is an option of ganspace"),
        ({"label": 0}, "label is an option of ganspace"),
        ({"method": "ganspace", "samples": 20}, "samples must be more than 20"),
        ({"method": "ganspace", "samples": True}, "samples must be an integer"),
        ({"method": "ganspace", "seed": -1}, "seed must be in 0"),
        ({"method": "ganspace", "label": 1}, "not class-conditional"),
        ({"method": "ganspace", "top": 21}, r"top must be in 1\.\.20"),
    ],
)
def test_options_without_meaning_are_refused(golden: Path, options: dict[str, Any], message: str) -> None:
    generator = sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")
    with pytest.raises(ArgumentError, match=message):
        sefa.factorize(generator, **options)


def test_a_class_that_is_not_there_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"label must be in 0\.\.5, got 6"):
        sefa.factorize(GoldenCheckpoint("nv_ada_cond_map2_32").generator, method="ganspace", label=6)


def test_codes_that_never_change_are_refused(golden: Path) -> None:
    generator = GoldenCheckpoint("sefa_stylegan2_64").load()
    assert isinstance(generator.mapping, nn.Module)
    for parameter in generator.mapping.parameters():
        parameter.data.zero_()
    with pytest.raises(ArgumentError, match="all the same"):
        sefa.factorize(generator, method="ganspace", samples=100)


def test_memory_does_not_grow_with_the_samples() -> None:
    generator = GoldenCheckpoint("sefa_stylegan2_64").generator
    with peak_memory(torch.device("cpu")) as peak:
        sefa.factorize(generator, method="ganspace", samples=200_000)  # Of w alone, 26 MB.
    if peak.bytes is None:
        pytest.skip("this system does not tell")
    assert peak.bytes < 13e6
