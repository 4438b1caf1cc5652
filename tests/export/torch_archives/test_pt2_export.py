import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import sefa
from sefa_export import ExportError, VerificationError, bake, export_pt2
from sefa_export.draft import Draft
from sefa_export.torch_archives import pt2_export
from sefa_runtime import ModelFileError, load
from sefa_runtime.model.reading import is_pt2, is_torchscript, read_info
from support.exported_archives import load_pt2


@pytest.fixture
def generator(golden: Path) -> sefa.Generator:
    return sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")


def test_the_program_is_called_by_name_for_any_batch_and_edits(generator: sefa.Generator, tmp_path: Path) -> None:
    bank = sefa.factorize(generator)
    program = load_pt2(export_pt2(generator, bank, tmp_path / "a.pt2", "float32"))
    for batch, edits in ((1, 1), (5, 0), (4, 2)):
        z, alpha = torch.randn(batch, 20), torch.randn(batch, edits)
        direction = torch.randint(16, (batch, edits))
        expected = bake(generator, bank, "float32")(z, direction, alpha)
        torch.testing.assert_close(program(z=z, direction=direction, alpha=alpha), expected, atol=1e-5, rtol=0)


def test_the_archive_describes_itself_under_any_name(generator: sefa.Generator, tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch": 2, "num_edits": 1, "license": "MIT", "note": "of noise"}
    path = export_pt2(generator, sefa.factorize(generator, top=3), tmp_path / "model.bin", **options)
    info = read_info(path)
    assert (info.z_dim, info.batch, info.num_edits, len(info.directions), info.parity.images) == (20, 2, 1, 3, 2)
    assert (info.license, info.note) == ("MIT", "of noise")
    assert is_pt2(path)
    assert not is_torchscript(path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.bin"]
    with pytest.raises(ModelFileError, match="runs in torch"):
        load(path)


def test_an_archive_that_differs_leaves_no_file(
    generator: sefa.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = pt2_export._trace

    def without_directions(draft: Draft) -> torch.export.ExportedProgram:
        graph = copy.deepcopy(draft.graph)
        graph.vectors.zero_()
        return trace(replace(draft, graph=graph))

    monkeypatch.setattr(pt2_export, "_trace", without_directions)
    with pytest.raises(VerificationError, match="batch 7, edits 3"):
        export_pt2(generator, sefa.factorize(generator), tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler")
def test_machine_code_gives_the_same_images(generator: sefa.Generator, tmp_path: Path) -> None:
    bank = sefa.factorize(generator, top=2)
    path = export_pt2(generator, bank, tmp_path / "a.pt2", "float32", compiled=True)
    run = torch._inductor.aoti_load_package(str(path))
    z, direction, alpha = torch.randn(3, 20), torch.tensor([[1], [0], [1]]), torch.randn(3, 1)
    expected = bake(generator, bank, "float32")(z, direction, alpha)
    torch.testing.assert_close(run(z=z, direction=direction, alpha=alpha), expected, atol=1e-5, rtol=0)


def test_a_compiler_that_fails_is_named(
    generator: sefa.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **keywords: object) -> None:
        raise RuntimeError("no C++ compiler\nfound")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fail)
    with pytest.raises(
        ExportError, match=r"AOTInductor does not take it: RuntimeError: no C.. compiler; a .pt2 that is not compiled"
    ):
        export_pt2(generator, sefa.factorize(generator), tmp_path / "a.pt2", compiled=True)
    assert not list(tmp_path.iterdir())
