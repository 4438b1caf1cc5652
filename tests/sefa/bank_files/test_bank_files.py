import io
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sefa
from sefa import ArgumentError, BankError, DirectionBank
from sefa.bank.editing import change, merge
from sefa.bank.naming import Change
from sefa.bank_files import export_bank, import_bank
from sefa.directions.compatibility import check_fits
from support.golden_checkpoints import GoldenCheckpoint


@pytest.fixture(scope="module")
def stylegan() -> sefa.Generator:
    return GoldenCheckpoint("sefa_stylegan2_64").generator


@pytest.fixture(scope="module")
def dcgan() -> sefa.Generator:
    return GoldenCheckpoint("dcgan_small_64").generator


def same(one: DirectionBank, other: DirectionBank) -> bool:
    tensors = zip(one.tensors().values(), other.tensors().values(), strict=True)
    return one.description() == other.description() and all(torch.equal(*pair) for pair in tensors)


def test_npz_holds_everything_and_is_read_back(stylegan: sefa.Generator, tmp_path: Path) -> None:
    bank = merge(
        [sefa.factorize(stylegan, "0-3", top=3), sefa.factorize(stylegan, top=2, method="ganspace", samples=300)]
    )
    bank = change(bank, {0: Change("pose", alpha_range=(-1, 5))})
    path = export_bank(bank, tmp_path / "bank.npz")
    assert same(import_bank(path), bank)
    assert same(import_bank(path, stylegan), bank)
    with np.load(path, allow_pickle=False) as arrays:  # As anybody would.
        np.testing.assert_array_equal(arrays["vectors"], bank.vectors.numpy())
        assert arrays["names"].tolist()[:2] == ["pose", "direction-1"]
    with pytest.raises(ArgumentError, match="says itself what layers"):
        import_bank(path, layers="0")
    elsewhere = replace(bank.source, checkpoint_sha256="0" * 64)
    origins = tuple(replace(origin, checkpoint_sha256="0" * 64) for origin in bank.origins)
    export_bank(replace(bank, source=elsewhere, origins=origins), path)
    with pytest.raises(BankError, match=r"made for another checkpoint: .* --allow-other-checkpoint"):
        import_bank(path, stylegan)
    assert len(import_bank(path, stylegan, allow_other_checkpoint=True)) == len(bank)


def test_what_the_authors_code_found_is_imported(stylegan: sefa.Generator, tmp_path: Path) -> None:
    case = GoldenCheckpoint("sefa_stylegan2_64")
    name = next(key for key in case.arrays if key.startswith("sefa_dirs__"))
    np.save(tmp_path / "boundaries.npy", case.arrays[name])
    layers = case.layers_of(name.removeprefix("sefa_dirs__"))
    bank = import_bank(tmp_path / "boundaries.npy", stylegan, layers)
    np.testing.assert_allclose(bank.vectors.numpy(), case.arrays[name], atol=1e-6)
    check_fits(bank, stylegan)
    # An edit moves the analysed layer's output by the root of its eigenvalue.
    A = np.concatenate([stylegan.affines()[layer].numpy() for layer in sefa.parse_layers(layers, 10)]).astype(float)
    np.testing.assert_allclose(
        bank.eigenvalues.numpy(), np.square(A @ case.arrays[name].T.astype(float)).sum(axis=0), rtol=1e-5
    )


@pytest.mark.parametrize("shape", [(20,), (1, 20), (1, 1, 20)])
def test_a_single_boundary_has_several_shapes(dcgan: sefa.Generator, tmp_path: Path, shape: tuple[int, ...]) -> None:
    n = np.random.RandomState(0).randn(20)
    np.save(tmp_path / "smile.npy", (n / np.linalg.norm(n)).reshape(shape))  # float64, as scikit-learn's SVM gives it.
    bank = import_bank(tmp_path / "smile.npy", dcgan)
    np.testing.assert_allclose(bank.vectors.numpy()[0], n / np.linalg.norm(n), atol=1e-7)


def test_boundaries_go_out_as_unit_rows(stylegan: sefa.Generator, tmp_path: Path) -> None:
    bank = sefa.factorize(stylegan, top=3, method="ganspace", samples=300)
    rows = np.load(export_bank(bank, tmp_path / "b.npy"))
    assert (rows.dtype, rows.shape) == (np.float32, (3, 32))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(rows * np.linalg.norm(bank.vectors, axis=1, keepdims=True), bank.vectors, atol=1e-6)


def test_labels_behind_the_latent_are_no_part_of_a_boundary(tmp_path: Path) -> None:
    generator = GoldenCheckpoint("biggan_cifar_32").generator
    np.save(tmp_path / "b.npy", np.eye(2, 24))
    assert import_bank(tmp_path / "b.npy", generator).vectors.shape == (2, 34)
    np.save(tmp_path / "b.npy", np.eye(2, 34, 30))
    with pytest.raises(BankError, match="would change the class"):
        import_bank(tmp_path / "b.npy", generator)


def test_where_z_is_split_one_layer_is_named(tmp_path: Path) -> None:
    generator = GoldenCheckpoint("biggan_hier_64").generator
    np.save(tmp_path / "b.npy", np.eye(2, 6))
    with pytest.raises(ArgumentError, match="say of which one"):
        import_bank(tmp_path / "b.npy", generator)
    assert import_bank(tmp_path / "b.npy", generator, "2").edited_layers.nonzero().tolist() == [[0, 2], [1, 2]]


def ganspace_cache(components: int = 3, size: int = 32, **changes: Any) -> dict[str, Any]:
    """What GANSpace's decomposition.py saves for `--use_w --layer=style`."""
    random = np.random.RandomState(0)
    directions = np.linalg.qr(random.randn(size, components))[0].T.astype(np.float32)
    deviations = np.array([3, 2, 1], np.float32)[:components]
    return {
        "act_comp": directions.reshape(components, size),
        "act_mean": np.zeros(size, np.float32),
        "act_stdev": deviations,
        "lat_comp": directions.reshape(components, 1, size),
        "lat_mean": np.zeros((1, size), np.float32),
        "lat_stdev": deviations,
        "var_ratio": deviations**2 / 20,
        "random_stdevs": np.ones(components, np.float32),
    } | changes


def test_ganspaces_components_keep_their_sigmas(stylegan: sefa.Generator, tmp_path: Path) -> None:
    cache = ganspace_cache()
    np.savez_compressed(tmp_path / "c.npz", **cache)
    bank = import_bank(tmp_path / "c.npz", stylegan, "4-7")
    # GANSpace's edit: latent += lat_comp · lat_stdev · sigma.
    np.testing.assert_allclose(bank.vectors, cache["lat_comp"][:, 0] * cache["lat_stdev"][:, None], rtol=1e-6)
    assert bank.eigenvalues.tolist() == [9, 4, 1]
    assert bank.source.alpha_unit == "sigma"
    assert bank.edited_layers[0].nonzero()[:, 0].tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lat_stdev": np.ones(3, np.float32)}, "its components are of z"),
        ({"lat_stdev": np.ones(2, np.float32)}, "lat_stdev must be 3 positive numbers"),
        ({"act_stdev": np.zeros(3, np.float32)}, "act_stdev must be 3 positive numbers"),
        ({"lat_comp": np.zeros((3, 1, 32), np.float32)}, "a component is zero"),
        ({"lat_comp": np.zeros((3, 2, 32), np.float32)}, r"directions \[K, 32\] were expected"),
        ({"lat_comp": np.full((3, 1, 32), np.nan, np.float32)}, "NaN"),
    ],
)
def test_damaged_components_are_refused(
    stylegan: sefa.Generator, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "c.npz", **ganspace_cache(**changes))
    with pytest.raises(BankError, match=message):
        import_bank(tmp_path / "c.npz", stylegan)


def test_components_of_z_fit_where_edits_are_of_z(dcgan: sefa.Generator, tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", **ganspace_cache(size=20, lat_stdev=np.ones(3, np.float32)))
    assert import_bank(tmp_path / "c.npz", dcgan).vectors.norm(dim=1).tolist() == pytest.approx([1, 1, 1])


def test_a_factor_is_imported_and_written_again(tmp_path: Path) -> None:
    case = GoldenCheckpoint("rosi_train_64")
    bank = import_bank(case.path.with_name("factor.pt"), case.generator)
    path = export_bank(bank, tmp_path / "factor.pt")
    content = torch.load(path, weights_only=True)  # As apply_factor.py does, but for weights_only.
    theirs = torch.load(case.path.with_name("factor.pt"), weights_only=True, map_location="cpu")
    assert set(content) == set(theirs)
    torch.testing.assert_close(content["eigvec"], theirs["eigvec"])
    torch.testing.assert_close(import_bank(path, case.generator).vectors, bank.vectors)


def test_a_factor_has_no_place_for_layers_or_sigmas(
    stylegan: sefa.Generator, tmp_path: Path, dcgan: sefa.Generator
) -> None:
    for bank, message in (
        (sefa.factorize(stylegan, "0-3", top=2), "direction-0 does not"),
        (sefa.factorize(stylegan, top=2, method="ganspace", samples=100), "they count standard deviations"),
        (sefa.factorize(dcgan, top=2), "these are of a dcgan"),
    ):
        with pytest.raises(BankError, match=message):
            export_bank(bank, tmp_path / "factor.pt")
    assert not list(tmp_path.iterdir())


def test_pickles_are_not_opened(dcgan: sefa.Generator, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "harm",)

    path = tmp_path / "file"
    objects = np.array([Harm()], dtype=object)
    np.save(path.with_suffix(".npy"), objects, allow_pickle=True)
    np.savez(path.with_suffix(".npz"), lat_comp=objects)
    path.write_bytes(pickle.dumps(Harm()))
    for suffix in (".npy", ".npz", ""):
        with pytest.raises(BankError):
            import_bank(path.with_suffix(suffix), dcgan)
    assert not (tmp_path / "harm").exists()


def test_what_is_no_file_of_directions_is_refused(dcgan: sefa.Generator, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(BankError, match="no such file"):
        import_bank(path, dcgan)
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    with pytest.raises(BankError, match="neither a direction bank's arrays nor GANSpace's components; it has images"):
        import_bank(tmp_path / "other.npz", dcgan)
    for array, message in (
        (np.eye(3, 21), "float64 \\[3, 21\\], directions \\[K, 20\\] were expected"),
        (np.eye(3, 20) * 2, "rows of length 2 to 2, not 1"),
        (np.eye(3, 20, dtype=np.int64), "int64"),
        (np.full((3, 20), np.inf), "NaN or infinite"),
    ):
        np.save(tmp_path / "b.npy", array)
        with pytest.raises(BankError, match=message):
            import_bank(tmp_path / "b.npy", dcgan)
    with pytest.raises(ArgumentError, match="name the checkpoint"):
        import_bank(tmp_path / "b.npy")
    with pytest.raises(ArgumentError, match=r"must end in \.npz, \.npy, \.pt"):
        export_bank(sefa.factorize(dcgan), tmp_path / "bank.txt")


def test_a_cut_file_is_refused(dcgan: sefa.Generator, tmp_path: Path) -> None:
    bank = sefa.factorize(dcgan, top=2)
    content = export_bank(bank, tmp_path / "bank.npz").read_bytes()
    rows = io.BytesIO()
    np.save(rows, bank.vectors.numpy())
    path = tmp_path / "cut"
    for whole in (content, rows.getvalue()):
        for length in range(0, len(whole), 97):
            path.write_bytes(whole[:length])
            with pytest.raises(BankError):
                import_bank(path, dcgan)
