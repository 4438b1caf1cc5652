"""A generator of the user's own, from its package or TorchScript archive to edited pictures."""

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sefa
import sefa_runtime

Command = Callable[..., Any]

MODELS = """
import torch
from torch import nn

print("a greeting that every import prints")


class Generator(nn.Module):
    def __init__(self, nz=10, classes=0):
        super().__init__()
        self.classes = classes
        self.main = nn.Sequential(
            nn.utils.parametrizations.spectral_norm(nn.Linear(nz + classes, 16)), nn.ReLU(True),
            nn.Linear(16, 3 * 4 * 8), nn.Sigmoid(),
        )

    def forward(self, z, label=None):
        if label is not None:
            z = torch.cat([nn.functional.one_hot(label, self.classes).float(), z], dim=1)
        return self.main(z).view(-1, 3, 4, 8)


class Table(dict):
    pass


class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        raise FileNotFoundError("config.yaml")


def helper():
    return Generator()
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's folder, with a package `their_package`, where the user stands."""
    folder = tmp_path / "their_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "models.py").write_text(MODELS)
    (folder / "raising.py").write_text("import os\nraise RuntimeError('no GPU here')\n")
    (folder / "needing.py").write_text("import a_package_that_is_not_installed\n")
    (folder / "leaving.py").write_text("import sys\nsys.exit('usage: train.py')\n")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition(".")[0] == "their_package"]:
        del sys.modules[name]


@pytest.fixture
def model(package: Path) -> Any:
    """Their class, as they would import it."""
    sys.path.insert(0, str(package))
    from their_package.models import Generator  # type: ignore[import-not-found]

    return Generator


def trained(module: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


REFERENCE = "their_package.models:Generator"
OWN = ["--latent-dim", "10", "--layers", "main.0", "--image-range", "0,1"]


def test_from_a_package_to_edited_pictures(sefa_command: Command, package: Path, model: Any) -> None:
    module = trained(model(nz=12))
    torch.save({"epoch": 3, "gen": module.state_dict(), "disc": nn.Linear(2, 2).state_dict()}, "w.pth")
    own = ["--weights", "w.pth", "--kwargs", '{"nz": 12}', "--latent-dim", "12", "--image-range", "0,1"]
    result = sefa_command(
        "factorize", REFERENCE, *own, "--layers", "main.0", "-o", "bank.safetensors", "--top", "4", "--json"
    )
    assert (result.code, len(json.loads(result.out)["names"])) == (0, 4)
    result = sefa_command(
        "export", REFERENCE, *own, "--bank", "bank.safetensors", "-o", "g.onnx", "--output-type", "float32"
    )
    assert result.code == 0, result.err
    editor, z = sefa_runtime.load(Path("g.onnx"), "cpu"), np.random.default_rng(0).standard_normal((2, 12), np.float32)
    assert (editor.info.family, editor.info.resolution, editor.info.channels) == ("custom", (4, 8), 3)
    assert editor.info.source_format == REFERENCE
    assert editor.info.source_sha256 == sefa_runtime.files.sha256_of(Path("w.pth"))
    moved = torch.from_numpy(z) + 2 * sefa.DirectionBank.load("bank.safetensors").vectors[3]
    with torch.no_grad():
        expected = 2 * module(moved) - 1
    np.testing.assert_allclose(editor.run(z, 3, 2.0), expected, atol=1e-4)


def test_a_label_by_index(sefa_command: Command, package: Path, model: Any) -> None:
    module = trained(model(nz=10, classes=3))
    torch.save(module.state_dict(), "w.pth")
    options = [*OWN, "--weights", "w.pth", "--kwargs", '{"classes": 3}', "--num-classes", "3"]
    result = sefa_command("inspect", REFERENCE, *options, "--json")
    document = json.loads(result.out)
    assert (document["num_classes"], document["code_dim"], document["affine_shapes"]) == (3, 13, [[16, 13]])
    assert sefa_command("export", REFERENCE, *options, "-o", "g.ts", "--format", "torchscript").code == 0


def test_without_weights_it_is_said(sefa_command: Command, package: Path) -> None:
    result = sefa_command("inspect", REFERENCE, *OWN)
    assert result.code == 0
    assert "warning: no --weights" in result.err
    assert "a greeting" in result.err
    assert "a greeting" not in result.out
    assert "8x4 pixels, RGB" in result.out


def test_images_between_0_and_1_are_noticed(sefa_command: Command, package: Path) -> None:
    assert "--image-range 0,1 would" in sefa_command("inspect", REFERENCE, *OWN[:4]).err
    assert "--image-range" not in sefa_command("inspect", REFERENCE, *OWN).err


def archive(module: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises torch.export.
        traced = torch.jit.trace(module, torch.randn(3, 10), check_trace=False)  # type: ignore[no-untyped-call]
        traced.save("g.ts")


def test_from_torchscript_to_onnx(sefa_command: Command, package: Path, model: Any) -> None:
    module = trained(model())
    archive(module)
    result = sefa_command("export", "g.ts", *OWN, "-o", "g.onnx", "--output-type", "float32")
    assert result.code == 0, result.err
    z = np.random.default_rng(0).standard_normal((3, 10), np.float32)
    with torch.no_grad():
        expected = 2 * module(torch.from_numpy(z)) - 1
    np.testing.assert_allclose(sefa_runtime.load(Path("g.onnx"), "cpu").run(z, 0, 0.0), expected, atol=1e-4)
    assert "TorchScript" in sefa_command("inspect", "g.ts", *OWN).out


@pytest.mark.parametrize(
    ("reference", "options", "message"),
    [
        ("their_pakage.models:Generator", OWN, "no module 'their_pakage.models' in "),
        ("their_package.modells:Generator", OWN, "no module 'their_package.modells' in "),
        ("their_package.raising:Generator", OWN, "importing their_package.raising raised RuntimeError: no GPU here"),
        ("their_package.needing:G", OWN, "ModuleNotFoundError: No module named 'a_package_that_is_not_installed'"),
        ("their_package.leaving:G", OWN, "importing their_package.leaving raised SystemExit: usage: train.py"),
        ("their_package.models:Generater", OWN, "their_package.models has no Generater; it has Generator, Broken"),
        ("their_package.models:Table", OWN, "a subclass of torch.nn.Module was expected, it is the class Table"),
        ("their_package.models:helper", OWN, "a subclass of torch.nn.Module was expected, it is a function"),
        ("their_package.models:Broken", OWN, "Broken() raised FileNotFoundError: config.yaml"),
        (REFERENCE, [*OWN, "--kwargs", '{"ngf": 3}'], "Generator(ngf=3) raised TypeError: "),
        (REFERENCE, [*OWN, "--kwargs", "[100]"], "--kwargs must be a JSON object"),
        (REFERENCE, [*OWN, "--kwargs", "nz=100"], "--kwargs is not JSON"),
        (REFERENCE, [*OWN, "--weights", "missing.pth"], "missing.pth: no such file"),
        (REFERENCE, [*OWN, "--weights", "other.pth"], "other.pth: its weights do not fit Generator: missing main.0."),
        (REFERENCE, OWN[:2], "--layers is needed: which of its layers read the latent first? Those with a weight"),
        (REFERENCE, OWN[2:], "needs --latent-dim and --layers"),
        (REFERENCE, [*OWN[:2], "--layers", "main"], "layer 'main' (Sequential) has no weight matrix"),
        (REFERENCE, [*OWN[:2], "--layers", "first"], "no layer 'first'; those with a weight are main.0, main.2"),
        (REFERENCE, ["--latent-dim", "11", *OWN[2:]], "Generator cannot be called for z [3, 11]: RuntimeError: "),
        (REFERENCE, [*OWN[:4], "--image-range", "0"], "--image-range looks like 0,1, got '0'"),
        (REFERENCE, [*OWN, "--label-input", "onehot"], "--label-input needs --num-classes"),
        ("g.ts", [], "g.ts: a generator of your own needs --latent-dim and --layers"),
        ("g.ts", OWN[:2], "g.ts: a generator of your own needs --latent-dim and --layers"),
        ("g.ts", [*OWN, "--weights", "other.pth"], "a TorchScript archive brings its own weights: leave out --weights"),
        ("g.ts", [*OWN[:2], "--layers", "main.9"], "no layer 'main.9'; those with a weight are main.0, main.2"),
        ("cut.ts", OWN, "cut.ts: neither MODULE:CLASS nor a whole TorchScript archive"),
        ("other.pth", OWN[:2], "--latent-dim is for a generator of your own"),
        ("missing.ts", OWN, "missing.ts: no such file"),
        ("models:Gene rator", OWN, "models:Gene rator: no such file"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["inspect", "export"])
def test_mistakes(
    sefa_command: Command, package: Path, model: Any, command: str, reference: str, options: list[str], message: str
) -> None:
    torch.save({"main.1.weight": torch.ones(3, 3)}, "other.pth")
    archive(model())
    content = Path("g.ts").read_bytes()
    Path("cut.ts").write_bytes(content[: len(content) // 2])
    names = {path.name for path in package.iterdir()}
    arguments = ["-o", "out.onnx"] if command == "export" else []
    result = sefa_command(command, reference, *options, *arguments)
    lines = [line for line in result.err.splitlines() if line.startswith("sefa: ") and "warning" not in line]
    assert result.code == 1
    assert result.out == ""
    assert len(lines) == 1
    assert message in lines[0]
    assert {path.name for path in package.iterdir()} == names


def test_a_file_of_that_name_is_read_and_nothing_is_imported(sefa_command: Command, package: Path) -> None:
    Path("their_package.models:Generator").write_text("hello")
    assert "not a checkpoint file" in sefa_command("inspect", REFERENCE, *OWN[2:4]).err
    assert "their_package.models" not in sys.modules
