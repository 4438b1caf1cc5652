"""The examples of the tutorials and guides, one after the other, as they stand.

In `make test` the models that they export are there already, small ones, and the commands that would export them are
only parsed. `make test-slow` runs these, too, and on trained generators where a tutorial is about one.
"""

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sefa
from sefa_export import export_onnx
from sefa_runtime.model.renaming import rename_directions
from support.descriptions import change_description
from support.paths import CHECKPOINTS, GOLDEN, ROOT, TINY
from support.serving import Start, starting
from support.trained_generators import trained_faces

DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Of other programs, which tests of their own run, or none.
OTHERS = {"pip", "python3"}
QUICKLY = {"bench": ("--seconds", "0.02"), "tune": ("--seconds", "0.02")}


def examples(document: str) -> Iterator[tuple[str, str]]:
    """Give the language and text of each example: a block of Python, or one command."""
    for language, text in BLOCK.findall((DOCS / document).read_text()):
        if language == "python":
            yield language, text
        else:
            yield from ((language, line) for line in text.replace("\\\n", " ").splitlines() if line.strip())


def faces(trained: bool) -> None:
    """Make what `sefa demo --model faces` leaves, smaller."""
    if trained:
        trained_faces()
        return
    Path("demo").mkdir()
    shutil.copy(TINY, "demo/faces.onnx")
    rename_directions("demo/faces.onnx", {0: "brightness", 1: "turn", 2: "direction-2"})
    sefa.factorize(sefa.load(CHECKPOINTS / "dcgan_small_64" / "netG.pth")).save("demo/faces.safetensors")


def model_of_faces(trained: bool) -> None:
    """Make the model that `sefa demo --model faces` leaves, for a document that does not run it."""
    if not trained:
        faces(trained)
        return
    Path("demo").mkdir()
    generator = sefa.load(trained_faces())
    export_onnx(generator, sefa.factorize(generator, top=8), "demo/faces.onnx")


def letters(trained: bool) -> None:
    """Make a small class-conditional StyleGAN2 called `letters`, and the models that it gives."""
    if trained:
        return
    shutil.copy(CHECKPOINTS / "sefa_stylegan2_cond_32" / "checkpoint.pth", "letters")  # Comes before the bundled one.
    for name in ("letters", "both", "half"):
        model = Path(f"{name}.onnx")
        change_description(GOLDEN / "style_z.onnx", model, lambda info: info.update(class_names=list("SeFaRg")))
    rename_directions("both.onnx", {0: "coarse-direction-0", 1: "fine-direction-0"})
    for latent in ("w", "w+"):
        shutil.copy(GOLDEN / f"style_{latent}.onnx", f"letters-{latent}.onnx")
    shutil.copy(GOLDEN / "style.safetensors", ".")
    Path("letters.ts").touch()
    Path("demo").mkdir()


def first_steps(trained: bool) -> None:
    """Make a model like the one that `sefa demo` leaves, a checkpoint, and what it gives."""
    if not trained:
        Path("demo").mkdir()
        model = Path("demo/letters.onnx")
        change_description(GOLDEN / "style_z.onnx", model, lambda info: info.update(class_names=list("SeFaRg")))
        rename_directions(model, {0: "weight", 1: "slant"})
    shutil.copy(CHECKPOINTS / "dcgan_small_64" / "netG.pth", "netG.pth")
    if not trained:
        shutil.copy(TINY, "netG.onnx")


def photograph(trained: bool) -> None:
    """Make a generator and files of codes as projectors write them, and the models that it gives."""
    checkpoint = CHECKPOINTS / "sefa_stylegan2_cond_32" / "checkpoint.pth"
    for name in ("netG.pkl", "netG.pth"):  # The contents say what it is.
        shutil.copy(checkpoint, name)
    state = torch.load(checkpoint, "cpu", weights_only=True)
    state["generator"]["mapping.dense0.weight"] *= 1.01
    torch.save(state, "tuned.pkl")
    generator = sefa.load(checkpoint)
    z = torch.randn(3, generator.z_dim, generator=torch.Generator().manual_seed(0))
    codes = generator.encode(z, torch.tensor([0, 1, 2]))  # [3, L, D]
    np.savez("projected_w.npz", w=codes[:1].numpy())
    torch.save(codes + 0.1 * torch.randn(codes.shape, generator=torch.Generator().manual_seed(1)), "latents.pt")
    for name, latent in (("netG", "w+"), ("coarse", "w+"), ("tuned", "w+"), ("netG-w", "w")) if not trained else ():
        shutil.copy(GOLDEN / f"style_{latent}.onnx", f"{name}.onnx")
        shutil.copy(GOLDEN / "style.safetensors", ".")


# What is in the folder when a document begins; whether the models that it makes are to be real ones.
STAGES: dict[str, Callable[[bool], None]] = {
    "index.md": first_steps,
    "tutorials/faces.md": faces,
    "tutorials/stylegan.md": letters,
    "tutorials/photograph.md": photograph,
    "tune.md": model_of_faces,
    "paper.md": photograph,
}


@pytest.fixture
def start() -> Iterator[Start]:
    yield from starting()


@pytest.mark.parametrize("trained", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["small", "trained"])
@pytest.mark.parametrize("document", STAGES)
def test_examples(
    document: str,
    trained: bool,
    start: Start,
    sefa_command: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    STAGES[document](trained)
    address = ""
    every = list(examples(document))
    assert every
    for language, text in every:
        if language == "python":
            exec(text, {})
            continue
        program, *arguments = shlex.split(text, comments=True)
        if program == "curl":
            url = arguments[-1].replace("127.0.0.1:8000", address)
            subprocess.run(["curl", "--fail", "--silent", *arguments[:-1], url], check=True)
        elif program == "sefa" and arguments[0] == "serve":
            address = start(*arguments[1:]).address
        elif program == "sefa" and arguments[0] in ("export", "demo") and not trained:
            assert_it_would_run(sefa_command, arguments)
        elif program == "sefa":
            result = sefa_command(*arguments, *QUICKLY.get(arguments[0], ()))
            assert result.code == 0, (text, result.err)
        else:
            assert program in OTHERS, text


def assert_it_would_run(sefa_command: Callable[..., Any], arguments: list[str]) -> None:
    """Check that a command is one, without the seconds that it takes, and that the test brought what it would make."""
    command, *rest = arguments
    assert Path(rest[rest.index("-o") + 1]).exists(), arguments
    if command == "export":
        result = sefa_command(command, "missing.pth", *rest[1:])
        assert "missing.pth: no such file" in result.err, result.err
