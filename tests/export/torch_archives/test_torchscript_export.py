import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import sefa
from sefa_export import VerificationError, bake, export_torchscript
from sefa_export.torch_archives import torch_runner, torchscript_export
from sefa_runtime import ModelFileError, load
from sefa_runtime.model.reading import read_info
from support.exported_archives import load_torchscript


@pytest.fixture
def generator(golden: Path) -> sefa.Generator:
    return sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")


@pytest.mark.parametrize("output", ["uint8", "float32"])
def test_the_archive_gives_pytorchs_images(generator: sefa.Generator, tmp_path: Path, output: str) -> None:
    bank = sefa.factorize(generator)
    path = export_torchscript(generator, bank, tmp_path / "a.ts", output)
    model = load_torchscript(path)
    for batch, edits in ((1, 1), (5, 0), (4, 2)):
        z, alpha = torch.randn(batch, 20), torch.randn(batch, edits)
        direction = torch.randint(16, (batch, edits))
        expected = bake(generator, bank, output)(z, direction, alpha)
        torch.testing.assert_close(model(z=z, direction=direction, alpha=alpha), expected, atol=1e-5, rtol=0)


def test_the_archive_describes_itself(generator: sefa.Generator, tmp_path: Path) -> None:
    info = read_info(export_torchscript(generator, sefa.factorize(generator, top=3), tmp_path / "a.ts"))
    assert (info.z_dim, info.resolution, len(info.directions)) == (20, (64, 64), 3)
    assert info.parity.images == 30


def test_the_runtime_sends_it_to_torch(generator: sefa.Generator, tmp_path: Path) -> None:
    path = export_torchscript(generator, sefa.factorize(generator), tmp_path / "a.ts")
    with pytest.raises(ModelFileError, match=r"a\.ts: an archive that runs in torch"):
        load(path)


def test_the_check_imports_nothing_of_ours() -> None:
    source = Path(torch_runner.__file__)
    program = f"import sys, runpy; runpy.run_path({str(source)!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not [
        name for name in done.stdout.split() if name.split(".")[0] in ("sefa", "sefa_export", "sefa_runtime", "onnx")
    ]


def test_an_archive_that_does_not_run_leaves_no_file(
    generator: sefa.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = torchscript_export._archive

    def half_archive(*arguments: Any) -> bytes:
        content = archive(*arguments)
        return content[: len(content) // 2]

    monkeypatch.setattr(torchscript_export, "_archive", half_archive)
    with pytest.raises(VerificationError, match="does not run with torch alone"):
        export_torchscript(generator, sefa.factorize(generator), tmp_path / "a.ts")
    assert not list(tmp_path.iterdir())
