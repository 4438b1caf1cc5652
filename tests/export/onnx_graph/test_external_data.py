from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

import sefa
import sefa_runtime
from sefa.errors import ArgumentError
from sefa_export import VerificationError, export_onnx
from sefa_export.onnx_graph import external_data, onnx_export
from sefa_runtime.model.reading import weights_path
from support.paths import CHECKPOINTS


@pytest.fixture(scope="module")
def generator() -> sefa.Generator:
    return sefa.load(CHECKPOINTS / "dcgan_small_64" / "netG.pth")


def test_graphs_with_other_directions_share_the_weights(generator: sefa.Generator, tmp_path: Path) -> None:
    banks = {name: sefa.factorize(generator, top=4, normalize=name) for name in ("none", "rows")}
    alone = {name: export_onnx(generator, bank, tmp_path / f"{name}.alone.onnx") for name, bank in banks.items()}
    shared = {}
    for name, bank in banks.items():
        shared[name] = export_onnx(generator, bank, tmp_path / f"{name}.onnx", external_data="w.safetensors")
        weights = weights_path(shared[name], sefa_runtime.load(shared[name], "cpu").info)
        assert weights == tmp_path / "w.safetensors"
        if name == "none":
            written = weights.stat().st_mtime_ns
        assert weights.stat().st_mtime_ns == written
        assert shared[name].stat().st_size < alone[name].stat().st_size / 4
        one, other = (
            sefa_runtime.load(path[name], "cpu").edit(seed=[1, 2], edits={0: 2.0}) for path in (alone, shared)
        )
        np.testing.assert_array_equal(one, other)
    state = generator.state_dict()
    for name, values in load_file(tmp_path / "w.safetensors").items():
        if name in state:
            np.testing.assert_array_equal(values, state[name].numpy())


def test_weights_of_another_generator_are_refused(generator: sefa.Generator, tmp_path: Path) -> None:
    export_onnx(generator, sefa.factorize(generator), tmp_path / "a.onnx", external_data="w.safetensors")
    before = (tmp_path / "w.safetensors").read_bytes()
    other = sefa.load(CHECKPOINTS / "sefa_pggan_32" / "checkpoint.pth")
    with pytest.raises(ArgumentError, match=r"w\.safetensors: lacks \d+ of the \d+ weights of this graph"):
        export_onnx(other, sefa.factorize(other), tmp_path / "b.onnx", external_data="w.safetensors")
    assert not (tmp_path / "b.onnx").exists()
    assert (tmp_path / "w.safetensors").read_bytes() == before


@pytest.mark.parametrize("content", ["to do: buy milk and bread", "a header of 9 MB"])
def test_a_file_of_something_else_is_refused(generator: sefa.Generator, tmp_path: Path, content: str) -> None:
    (tmp_path / "notes.txt").write_text(content)
    if "header" in content:
        (tmp_path / "notes.txt").write_bytes(save({"w": np.zeros(1)}, {"a": "x" * 9_000_000}))
    with pytest.raises(ArgumentError, match=r"notes\.txt: is there, and is not a file of weights"):
        export_onnx(generator, sefa.factorize(generator), tmp_path / "a.onnx", external_data="notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["../w.safetensors", "/w.safetensors", "", ".", "a.onnx"])
def test_only_a_name_beside_the_model_is_taken(generator: sefa.Generator, tmp_path: Path, name: str) -> None:
    with pytest.raises(ArgumentError, match="named by a file name alone"):
        export_onnx(generator, sefa.factorize(generator), tmp_path / "a.onnx", external_data=name)


def test_a_symbolic_link_is_refused(generator: sefa.Generator, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArgumentError, match="a symbolic link"):
        export_onnx(generator, sefa.factorize(generator), tmp_path / "a.onnx", external_data="w.safetensors")


def test_a_refused_export_leaves_no_weights(
    generator: sefa.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise VerificationError("differs")

    monkeypatch.setattr(onnx_export, "verify", fail)
    with pytest.raises(VerificationError):
        export_onnx(generator, sefa.factorize(generator), tmp_path / "a.onnx", external_data="w.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_refused_export_leaves_the_weights_that_another_wrote_meanwhile(
    generator: sefa.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export_too(*arguments: object, **options: object) -> None:
        monkeypatch.undo()
        (tmp_path / "w.safetensors").unlink()  # As if it had looked for the file before this one wrote it.
        export_onnx(generator, sefa.factorize(generator), tmp_path / "b.onnx", external_data="w.safetensors")
        raise VerificationError("differs")

    monkeypatch.setattr(onnx_export, "verify", export_too)
    with pytest.raises(VerificationError):
        export_onnx(generator, sefa.factorize(generator), tmp_path / "a.onnx", external_data="w.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.onnx", "w.safetensors"]
    sefa_runtime.load(tmp_path / "b.onnx", "cpu")


def test_half_precision_keeps_its_own_weights_alone(generator: sefa.Generator, tmp_path: Path) -> None:
    export_onnx(generator, sefa.factorize(generator), tmp_path / "a.onnx", precision="fp16", external_data="w.st")
    values = load_file(tmp_path / "w.st").values()
    assert max(values, key=lambda array: array.size).dtype == np.float16
    assert min(array.nbytes for array in values) >= external_data.MIN_BYTES
