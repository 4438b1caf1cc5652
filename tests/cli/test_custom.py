"""A generator of the user's own, from its package or TorchScript archive to edited images."""

import json
import shlex
import sys
import warnings
import zipfile
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


number = 3


def nothing():
    pass
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
RUN = ["--run-code"]
OWN = ["--latent-dim", "10", "--layers", "main.0", "--image-range", "0,1"]


def test_from_a_package_to_edited_images(sefa_command: Command, package: Path, model: Any) -> None:
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
    result = sefa_command("export", "g.ts", *OWN, *RUN, "-o", "g.onnx", "--output-type", "float32")
    assert result.code == 0, result.err
    z = np.random.default_rng(0).standard_normal((3, 10), np.float32)
    with torch.no_grad():
        expected = 2 * module(torch.from_numpy(z)) - 1
    np.testing.assert_allclose(sefa_runtime.load(Path("g.onnx"), "cpu").run(z, 0, 0.0), expected, atol=1e-4)
    assert "TorchScript" in sefa_command("inspect", "g.ts", *OWN, *RUN).out


@pytest.mark.parametrize(
    ("reference", "options", "message"),
    [
        ("their_pakage.models:Generator", OWN, "no module 'their_pakage.models' in "),
        ("their_package.modells:Generator", OWN, "no module 'their_package.modells' in "),
        ("their_package.raising:Generator", OWN, "importing their_package.raising raised RuntimeError: no GPU here"),
        ("their_package.needing:G", OWN, "ModuleNotFoundError: No module named 'a_package_that_is_not_installed'"),
        ("their_package.leaving:G", OWN, "importing their_package.leaving raised SystemExit: usage: train.py"),
        ("their_package.models:Generater", OWN, "their_package.models has no Generater; it has Generator, Broken"),
        ("their_package.models:Table", OWN, "a function that makes one, was expected, it is the class Table"),
        ("their_package.models:number", OWN, "or a function that makes one, was expected, it is a int"),
        ("their_package.models:nothing", OWN, "their_package.models:nothing: nothing() returns a NoneType, no torch"),
        ("their_package/modells.py:Generator", OWN, "their_package/modells.py: no such file"),
        ("their_package/models.py:Generater", OWN, "models.py has no Generater; it has Generator, Broken"),
        ("their_package/raising.py:G", OWN, "importing their_package/raising.py raised RuntimeError: no GPU here"),
        ("their_package.models:Broken", OWN, "Broken() raised FileNotFoundError: config.yaml"),
        (REFERENCE, [*OWN, "--kwargs", '{"ngf": 3}'], "Generator(ngf=3) raised TypeError: "),
        (REFERENCE, [*OWN, "--kwargs", "[100]"], "--kwargs must be a JSON object"),
        (REFERENCE, [*OWN, "--kwargs", "nz=100"], "--kwargs is not JSON"),
        (REFERENCE, [*OWN, "--weights", "missing.pth"], "missing.pth: no such file"),
        (REFERENCE, [*OWN, "--weights", "other.pth"], "other.pth: its weights do not fit Generator: missing main.0."),
        (REFERENCE, [*OWN[:2], "--layers", "main"], "layer 'main' (Sequential) has no weight matrix"),
        (REFERENCE, [*OWN[:2], "--layers", "first"], "no layer 'first'; those with a weight are main.0, main.2"),
        (REFERENCE, ["--latent-dim", "11", *OWN[2:]], "cannot be called for z [3, 11] or z [3, 1, 11]: RuntimeError: "),
        (REFERENCE, [*OWN[:4], "--image-range", "0"], "--image-range looks like 0,1, got '0'"),
        (REFERENCE, [*OWN, "--label-input", "onehot"], "--label-input needs --num-classes"),
        (REFERENCE, [*OWN, "--call", "z,label=y"], "--call knows the names z and label, and literals, got y"),
        (REFERENCE, [*OWN, "--call", "z,1,2"], "cannot be called for (z,1,2) with z [3, 10]"),
        (REFERENCE, [*OWN, "--freeze-noise", "1"], "draws no random numbers that could be frozen"),
        ("other.pth", ["--call", "z"], "--call is for a generator of your own"),
        ("other.pth", ["--freeze-noise", "0"], "--freeze-noise is for a generator of your own"),
        ("g.ts", OWN, "g.ts: TorchScript is code: loading it runs it"),
        (REFERENCE, [*OWN, *RUN], "code that is named by its class runs anyway: leave out --run-code"),
        ("other.pth", RUN, "--run-code is for a generator of your own"),
        (REFERENCE, [*OWN, "--output-key", "rgb"], "Generator gives no output 'rgb', but float32 [3, 3, 4, 8]"),
        ("g.ts", [*OWN, *RUN, "--weights", "other.pth"], "archive brings its own weights: leave out --weights"),
        ("g.ts", [*OWN[:2], *RUN, "--layers", "main.9"], "no layer 'main.9'; those with a weight are main.0, main.2"),
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
    archive(model().eval())
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


@pytest.mark.parametrize(
    ("reference", "options", "message"),
    [
        (REFERENCE, OWN[:2], "--layers is needed: which of its layers read the latent first? auto finds them; those"),
        (REFERENCE, OWN[2:], "needs --latent-dim and --layers"),
        ("g.ts", RUN, "g.ts: a generator of your own needs --latent-dim and --layers"),
        ("g.ts", [*OWN[:2], *RUN], "g.ts: a generator of your own needs --latent-dim and --layers"),
    ],
)  # fmt: skip
def test_what_inspect_finds_out_must_be_said_to_export(
    sefa_command: Command, package: Path, model: Any, reference: str, options: list[str], message: str
) -> None:
    archive(trained(model()))
    result = sefa_command("export", reference, *options, "-o", "out.onnx")
    assert (result.code, message in result.err) == (1, True)
    result = sefa_command("inspect", reference, *options)
    assert result.code == 0, result.err
    command = shlex.split(result.out.splitlines()[-1].removeprefix("next: "))
    assert command[:3] == ["sefa", "export", reference]
    result = sefa_command(*command[1:])
    assert result.code == 0, result.err
    info = sefa_runtime.load(Path(command[-1]), "cpu").info
    assert (info.z_dim, info.resolution, len(info.directions)) == (10, (4, 8), 10)


def test_the_command_that_inspect_prints_repeats_what_was_given(
    sefa_command: Command, package: Path, model: Any
) -> None:
    Path("a folder").mkdir()
    torch.save({"gen": trained(model(nz=12)).state_dict()}, "a folder/w.pth")
    given = ["--weights", "a folder/w.pth", "--kwargs", '{"nz": 12}', "--call", "z, label=None"]
    reference = "their_package/models.py:Generator"
    document = json.loads(sefa_command("inspect", reference, *given, "--json").out)
    found = ["--latent-dim", "12", "--image-range", "0,1", "--layers", "main.0", "-o", "generator.onnx"]
    assert sorted(document["command"]) == sorted(["sefa", "export", reference, *given, *found])
    assert (document["reads"], document["layers"]) == (
        "z",
        [{"name": "main.0", "kind": "Linear", "shape": [16, 12]}],
    )
    assert 0 <= document["values"][0] < document["values"][1] <= 1
    text = sefa_command("inspect", reference, *given)
    assert shlex.split(text.out.splitlines()[-1])[1:] == document["command"]
    assert "main.0 (Linear, A 16x12), which read its latent z" in text.out
    assert sefa_command(*document["command"][1:]).code == 0


def test_a_file_of_that_name_is_read_and_nothing_is_imported(sefa_command: Command, package: Path) -> None:
    Path("their_package.models:Generator").write_text("hello")
    assert "not a checkpoint file" in sefa_command("inspect", REFERENCE, *OWN[2:4]).err
    assert "their_package.models" not in sys.modules


class Loading(nn.Module):
    """Writes a file when it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.state = torch.zeros(1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z

    @torch.jit.export
    def __getstate__(self):  # type: ignore[no-untyped-def]
        return self.state, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        self.state, self.training = state
        torch.save(state[0], "loaded")


class Writing(nn.Module):
    """Writes a file when it runs, too."""

    def __init__(self) -> None:
        super().__init__()
        self.loading, self.first = Loading(), nn.Linear(10, 3 * 16)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        torch.save(z, "run")
        return torch.tanh(self.first(self.loading(z))).view(-1, 3, 4, 4)


@pytest.fixture
def writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive that writes files, alone in a folder where the user stands."""
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Writing()).save("evil.ts")  # type: ignore[no-untyped-call]
    return tmp_path


OPTIONS = ["--latent-dim", "10", "--layers", "first"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "evil.ts", *OPTIONS],
        ["factorize", "evil.ts", *OPTIONS, "-o", "bank.safetensors"],
        ["export", "evil.ts", *OPTIONS, "-o", "model.onnx"],
        ["explore", "evil.ts", *OPTIONS, "-o", "sheet.html"],
    ],
)
def test_torchscript_runs_only_when_it_is_said(sefa_command: Command, writing: Path, arguments: list[str]) -> None:
    result = sefa_command(*arguments)
    assert result.code == 1
    assert "evil.ts: TorchScript is code: " in result.err
    assert "--run-code" in result.err
    assert [path.name for path in writing.iterdir()] == ["evil.ts"]
    sefa_command(*arguments, "--run-code")
    assert {"loaded", "run"} <= {path.name for path in writing.iterdir()}  # The test would have seen it run.


def test_torchscript_is_described_without_running(sefa_command: Command, writing: Path) -> None:
    result = sefa_command("inspect", "evil.ts")
    assert result.code == 0
    assert "evil.ts, TorchScript archive, " in result.out
    assert "code/__torch__/" in result.out
    assert ": not run" in result.out
    assert "--run-code loads it" in result.out
    document = json.loads(sefa_command("inspect", "evil.ts", "--json").out)
    assert document["kind"] == "TorchScript"
    assert document["sha256"] == sefa_runtime.files.sha256_of(Path("evil.ts"))
    assert [path.name for path in writing.iterdir()] == ["evil.ts"]


@pytest.mark.parametrize("command", ["compare-methods", "verify", "bench", "edit", "name", "serve", "sweep", "tune"])
def test_no_other_command_runs_torchscript(sefa_command: Command, writing: Path, command: str) -> None:
    options = {"edit": ["--seed", "1", "-o", "a.png"], "sweep": ["--direction", "0", "-o", "a.png"], "name": ["0=a"]}
    assert sefa_command(command, "evil.ts", *options.get(command, [])).code != 0
    assert [path.name for path in writing.iterdir()] == ["evil.ts"]


def test_torchscript_in_the_place_of_weights_or_directions_is_not_run(
    sefa_command: Command, writing: Path, package: Path
) -> None:
    names = {path.name for path in writing.iterdir()}
    weights = ["inspect", REFERENCE, *OWN, "--weights", "evil.ts"]
    for arguments in (
        weights,
        ["bank", "import", "evil.ts", "evil.ts", "-o", "a.safetensors"],
        ["bank", "show", "evil.ts"],
    ):
        assert sefa_command(*arguments).code == 1
    with pytest.raises(sefa.CheckpointError):
        sefa.load("evil.ts")
    assert {path.name for path in writing.iterdir()} == names


def test_an_archive_that_calls_itself_exported_is_not_run(sefa_command: Command, writing: Path) -> None:
    with zipfile.ZipFile("evil.ts", "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/extra/sefa.json", "{}")
    for arguments in (["inspect", "evil.ts"], ["export", "evil.ts", *OPTIONS, "--run-code", "-o", "model.onnx"]):
        assert sefa_command(*arguments).code == 1
    assert [path.name for path in writing.iterdir()] == ["evil.ts"]


def test_from_python_it_must_be_said_too(writing: Path) -> None:
    from sefa.custom import load_torchscript

    with pytest.raises(sefa.ArgumentError, match=r"evil\.ts: TorchScript is code: .* run_code=True"):
        load_torchscript("evil.ts")
    assert [path.name for path in writing.iterdir()] == ["evil.ts"]
    assert isinstance(load_torchscript("evil.ts", run_code=True), nn.Module)


def test_how_it_is_called_and_what_is_frozen_is_said(sefa_command: Command, package: Path) -> None:
    with (package / "their_package" / "models.py").open("a") as file:
        file.write(
            "\nclass Noisy(Generator):\n    def forward(self, style, *, psi):\n"
            "        return psi * super().forward(style) + 0.01 * torch.randn(style.shape[0], 1, 4, 8)\n"
        )
    reference = "their_package.models:Noisy"
    assert "other arguments are given with --call" in sefa_command("inspect", reference, *OWN).err
    call = [*OWN, "--call", "style=z, psi=0.5"]
    assert "torch's randn at models.py:" in sefa_command("inspect", reference, *call).err
    result = sefa_command("export", reference, *call, "--freeze-noise", "3", "-o", "g.onnx")
    assert result.code == 0, result.err
    info = sefa_runtime.load(Path("g.onnx"), "cpu").info
    assert info.noise == "constants of seed 3"
    assert info.assumptions[0].startswith("random numbers are constants: randn at models.py:")
    assert "assumed: random numbers are constants: randn at models.py:" in result.out
    assert "g.onnx" in sefa_command("inspect", "g.onnx").out


def test_what_was_found_out_is_said(sefa_command: Command, package: Path, tmp_path: Path) -> None:
    with (package / "their_package" / "models.py").open("a") as file:
        file.write(
            "\nclass Last(Generator):\n    def forward(self, z):\n"
            "        return {'latent': z, 'rgb': super().forward(z).permute(0, 2, 3, 1)}\n"
        )
    reference = "their_package.models:Last"
    result = sefa_command("export", reference, *OWN, "-o", "g.onnx")
    assert "say it: --image-layout nchw or nhwc" in result.err  # 4x8 of RGB, or 8x3 of four channels.
    result = sefa_command("export", reference, *OWN, "--image-layout", "nhwc", "-o", "g.onnx")
    assert "assumed: the image is its output rgb" in result.out
    assert sefa_runtime.load(Path("g.onnx"), "cpu").info.assumptions == ("the image is its output rgb",)
    result = sefa_command("inspect", reference, *OWN, "--output-key", "rgb", "--image-layout", "nhwc", "--json")
    assert json.loads(result.out)["assumptions"] == []
    assert json.loads(result.out)["resolution"] == [4, 8]


STYLED = """
import torch
from torch import nn


class Styled(nn.Module):
    def __init__(self):
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(10, 8), nn.LeakyReLU(0.2), nn.Linear(8, 8))
        self.style1, self.style2, self.rgb = nn.Linear(8, 6), nn.Linear(8, 6), nn.Conv2d(6, 3, 1)
        self.const = nn.Parameter(torch.randn(1, 6, 4, 4))

    def synthesis(self, w1, w2):
        x = self.const * self.style1(w1)[:, :, None, None]
        return torch.tanh(self.rgb(torch.relu(x) * self.style2(w2)[:, :, None, None]))

    def forward(self, z):
        w = self.mapping(z)
        return self.synthesis(w, w)
"""


@pytest.mark.parametrize("named", [["--layers", "auto"], ["--mapping", "mapping", "--layers", "style1,style2"]])
def test_style_codes_of_ones_own_module(sefa_command: Command, package: Path, named: list[str]) -> None:
    (package / "their_package" / "styled.py").write_text(STYLED)
    own = ["their_package.styled:Styled", "--latent-dim", "10"]
    result = sefa_command("inspect", *own, *named, "--json")
    assert result.code == 0, result.err
    document = json.loads(result.out)
    assert (document["num_layers"], document["code_dim"]) == (2, 8)
    assert document["truncation_center"] == "mean of 4096 latents, seed 0"
    result = sefa_command("factorize", *own, *named, "--edit-layers", "style2", "-o", "bank.safetensors")
    assert result.code == 0, result.err
    bank = sefa.DirectionBank.load("bank.safetensors")
    assert bank.analysed_layers[0].tolist() == [True, True]
    assert bank.edited_layers[0].tolist() == [False, True]
    arguments = ["--bank", "bank.safetensors", "--latent", "w+", "--output-type", "float32", "-o", "g.onnx"]
    result = sefa_command("export", *own, "--mapping", "auto", *arguments)
    assert result.code == 0, result.err
    editor = sefa_runtime.load(Path("g.onnx"), "cpu")
    from their_package.styled import Styled  # type: ignore[import-not-found]

    torch.manual_seed(0)  # As the command line does where no weights are given.
    module, codes = Styled(), torch.randn(2, 2, 8)
    with torch.no_grad():
        expected = module.synthesis(codes[:, 0], codes[:, 1] + 2 * bank.vectors[1])
    np.testing.assert_allclose(editor.run(codes=codes.numpy(), direction=1, alpha=2.0), expected, atol=1e-4)
