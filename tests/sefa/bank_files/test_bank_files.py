import io
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import sefa
import sefa_export
import sefa_runtime
from sefa import ArgumentError, BankError, DirectionBank
from sefa.bank.comparison import compare_banks
from sefa.bank.editing import change, merge, subset
from sefa.bank.naming import Change
from sefa.bank_files import export_bank, import_bank
from sefa.directions.compatibility import check_fits
from sefa_export.bake import bake
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
        (np.eye(3, 20) * 0, "a direction is zero"),
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


def random_rows(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.RandomState(1).randn(*shape).astype(np.float32)


def unit(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def moved(generator: sefa.Generator, bank: DirectionBank, index: int, alpha: float) -> np.ndarray[Any, Any]:
    """What the edit graph adds to the codes of one image, [L, D]."""
    graph = bake(generator, bank)
    shift = graph.shift(torch.zeros(1, 1, generator.code_dim), torch.tensor([[index]]), torch.tensor([[alpha]]))
    moves = torch.zeros(generator.num_layers, generator.code_dim)
    moves[graph.first_edited :] = shift[0]
    return np.asarray(moves.numpy())


def save_as(path: Path, array: Any, kind: str) -> Path:
    """Save an array, or a dict of arrays."""
    if kind == "npy":
        with path.open("wb") as file:
            np.savez(file, **array) if isinstance(array, dict) else np.save(file, array)
        return path
    if kind == "pickle":
        path.write_bytes(pickle.dumps(array))
        return path
    is_dict = isinstance(array, dict)
    tensors = {name: torch.from_numpy(value) for name, value in (array if is_dict else {"x": array}).items()}
    if kind == "safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(tensors if is_dict else tensors["x"], path, _use_new_zipfile_serialization=kind == "torch")
    return path


SHARED = {(32,): (1, 32), (1, 32): (1, 32), (3, 32): (3, 32), (3, 1, 32): (3, 32), (1, 1, 1, 32): (1, 32)}
OWN = {(10, 32): (1, 10, 32), (1, 10, 32): (1, 10, 32), (3, 10, 32): (3, 10, 32), (1, 1, 10, 32): (1, 10, 32)}


@pytest.mark.parametrize("kind", ["npy", "torch", "old torch", "pickle", "safetensors"])
@pytest.mark.parametrize("shape", [*SHARED, *OWN])
def test_an_edit_adds_alpha_times_the_vectors_of_the_file(
    stylegan: sefa.Generator, tmp_path: Path, shape: tuple[int, ...], kind: str
) -> None:
    array = random_rows(*shape) * np.float32(0.4)
    bank = import_bank(save_as(tmp_path / "file", array, kind), stylegan, "all", "0-9")
    expected = array.reshape((SHARED | OWN)[shape])
    assert bank.vectors.shape == expected.shape
    assert bank.source.alpha_unit == "vector"
    for index in range(len(bank)):
        of_each_layer = np.broadcast_to(expected[index], (10, 32))
        np.testing.assert_allclose(moved(stylegan, bank, index, -2.5), -2.5 * of_each_layer, rtol=1e-5, atol=1e-6)
        A = [affine.numpy().astype(float) for affine in stylegan.affines()]
        squares = sum(np.square(A[layer] @ of_each_layer[layer]).sum() for layer in stylegan.default_layers)
        assert float(bank.eigenvalues[index]) == pytest.approx(squares, rel=1e-4)
        # The suggested range is about as far as that of a direction of length 1.
        length = np.sqrt(np.square(of_each_layer).sum(axis=1).mean())
        assert bank.alpha_range[index].tolist() == pytest.approx([-3 / length, 3 / length], rel=0.05)


def test_unit_vectors_are_directions_and_alpha_a_distance(stylegan: sefa.Generator, tmp_path: Path) -> None:
    rows = unit(random_rows(10, 32))
    for array, shape in ((rows, (10, 32)), (rows[None], (1, 10, 32)), (np.repeat(rows[:1], 10, axis=0)[None], (1, 32))):
        bank = import_bank(save_as(tmp_path / "pose.pt", array, "torch"), stylegan)
        assert (bank.source.alpha_unit, bank.vectors.shape) == ("distance", shape)
        assert bank.alpha_range[0].tolist() == [-3, 3]


def test_what_a_matrix_of_rows_is_read_as_is_said(stylegan: sefa.Generator, tmp_path: Path) -> None:
    said: list[str] = []
    np.save(tmp_path / "v.npy", random_rows(10, 32))
    import_bank(tmp_path / "v.npy", stylegan, report=said.append)
    assert said[0].startswith(
        "[10, 32] is read as one direction with a vector for each of the 10 layers; 10 directions"
    )
    assert "not 1: alpha counts these vectors as they are" in said[1]


@pytest.mark.parametrize("kind", ["npy", "torch", "pickle", "safetensors"])
def test_vectors_by_name_keep_their_names(stylegan: sefa.Generator, tmp_path: Path, kind: str) -> None:
    rows = {"age": random_rows(1, 32), "smile": random_rows(32), "pose": random_rows(1, 10, 32)}
    bank = import_bank(save_as(tmp_path / "file", rows, kind), stylegan, "all", "0-9")
    for name in rows:
        expected = np.broadcast_to(rows[name].reshape(-1, 32), (10, 32))
        np.testing.assert_allclose(moved(stylegan, bank, bank.names.index(name), 1.0), expected, atol=1e-6)


def test_vectors_of_each_layer_go_through_everything(stylegan: sefa.Generator, tmp_path: Path) -> None:
    own = import_bank(save_as(tmp_path / "v.npy", random_rows(2, 10, 32), "npy"), stylegan, "all", "2-5")
    found = sefa.factorize(stylegan, "0-3", top=2)
    bank = change(merge([own, found], ["own-", "found-"]), {1: Change("turned", flip=True)})
    bank = DirectionBank.load(bank.save(tmp_path / "bank.safetensors"))
    assert same(import_bank(export_bank(bank, tmp_path / "bank.npz")), bank)
    assert same(subset(merge([own, found]), [0, 1]), merge([own]))
    steps = np.stack([moved(stylegan, bank, index, 1.0) for index in range(4)])
    expected = np.zeros((4, 10, 32), np.float32)
    expected[:2, 2:6] = random_rows(2, 10, 32)[:, 2:6] * np.array([1, -1])[:, None, None]
    expected[2:, :4] = found.vectors[:, None].numpy()
    np.testing.assert_allclose(steps, expected, atol=1e-6)
    np.testing.assert_allclose(bank.steps().numpy(), expected, atol=1e-6)
    # A cosine between two edits is one between what they add to all codes.
    flat = unit(expected.reshape(4, -1).astype(float))
    np.testing.assert_allclose(compare_banks(bank, bank).cosines, flat @ flat.T, atol=1e-6)
    one = unit(found.steps().flatten(1).double().numpy())
    np.testing.assert_allclose(compare_banks(bank, found).cosines, flat @ one.T, atol=1e-6)
    with pytest.raises(BankError, match="this bank has a vector for each layer"):
        export_bank(bank, tmp_path / "factor.pt")
    again = import_bank(export_bank(bank, tmp_path / "rows.npy"), stylegan, "all", "0-9")
    np.testing.assert_allclose(again.steps(), expected, atol=1e-6)
    check_fits(bank, stylegan)


def test_an_exported_model_moves_each_layer_by_its_vector(tmp_path: Path) -> None:
    generator = GoldenCheckpoint("rosi_convert_32").generator
    layers, width = generator.num_layers, generator.code_dim
    rows = random_rows(2, layers, width) * np.float32(0.3)
    bank = import_bank(save_as(tmp_path / "v.npy", rows, "npy"), generator, "all", range(layers))
    path = sefa_export.export_onnx(generator, bank, tmp_path / "m.onnx", "float32", latent="w+")
    codes = random_rows(3, layers, width)
    image = sefa_runtime.load(path, "cpu").run(codes=codes, direction=[[0, 1]] * 3, alpha=[[2.0, -1.0]] * 3)
    with torch.no_grad():
        expected = generator.decode(torch.from_numpy(codes + 2 * rows[0] - rows[1])).numpy()
    np.testing.assert_allclose(image, expected, atol=2e-4)


def test_components_of_e4e_and_of_ganspaces_viewer(stylegan: sefa.Generator, tmp_path: Path) -> None:
    comp, std = unit(random_rows(3, 1, 32)), np.array([3, 2, 1], np.float32)
    path = save_as(tmp_path / "ffhq_pca.pt", {"comp": comp, "std": std, "mean": random_rows(1, 32)}, "torch")
    bank = import_bank(path, stylegan, "4-7")
    np.testing.assert_allclose(bank.vectors, comp[:, 0] * std[:, None], rtol=1e-5)
    assert (bank.source.alpha_unit, bank.eigenvalues.tolist()) == ("sigma", [9, 4, 1])
    component = {
        "name": "Head pose", "sigma_range": 4.0, "component_index": 1, "act_comp": comp[1], "lat_comp": comp[1],
        "latent_space": "W", "act_stdev": 2.0, "lat_stdev": 2.0, "edit_type": "latent", "edit_start": 2, "edit_end": 6,
    }  # fmt: skip
    path = save_as(tmp_path / "pose.pkl", component, "pickle")
    bank = import_bank(path, stylegan)
    np.testing.assert_allclose(moved(stylegan, bank, 0, 1.5)[2:6], np.repeat(comp[1] * 3.0, 4, axis=0), rtol=1e-5)
    assert not moved(stylegan, bank, 0, 1.5)[[0, 1, 6, 7, 8, 9]].any()
    assert (bank.names, bank.alpha_range.tolist()) == (("Head pose",), [[-4, 4]])
    with pytest.raises(ArgumentError, match="the component says itself what layers"):
        import_bank(path, stylegan, "0")
    for changes, message in (
        ({"edit_type": "both"}, r"moves activations \('both'\)"),
        ({"edit_end": 18}, "it edits layers 2 to 18, the last one excluded; this generator has 10"),
        ({"lat_stdev": 1.0}, "its components are of z"),
        ({"lat_stdev": "much"}, "lat_stdev must be 1 positive numbers"),
    ):
        save_as(path, component | changes, "pickle")
        with pytest.raises(BankError, match=message):
            import_bank(path, stylegan)


def test_style_space_is_named_and_refused(tmp_path: Path) -> None:
    stylegan = GoldenCheckpoint("rosi_train_64").generator
    widths = [len(affine) for affine in stylegan.affines()]
    for content, message in (
        (random_rows(sum(widths)), f"a direction of the {sum(widths)} channels of StyleSpace"),
        (random_rows(700, 512), "fs3.npy of StyleCLIP"),
        ([(11, 286), (6, 501)], "a list of 2 channels of StyleSpace"),
        ([random_rows(1, width) for width in widths], "a direction of the channels of StyleSpace, in 10 layers"),
    ):
        path = save_as(tmp_path / "s", content, "pickle")
        with pytest.raises(BankError, match=message):
            import_bank(path, stylegan)
    with pytest.raises(BankError, match=r"vectors for 18 layers; this generator has 10"):
        import_bank(save_as(path, random_rows(1, 18, 24), "torch"), stylegan)


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
