"""Each mistake gets one line and exit code 1, leaves no output file behind and no existing file damaged."""

import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import sefa
import sefa_runtime
from sefa.checkpoints.formats.dcgan import build
from sefa_export import export_onnx
from sefa_runtime.model.reading import read_info
from support.paths import CHECKPOINTS

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint, its bank and its model, and the bank of another generator."""
    folder = tmp_path_factory.mktemp("small")
    checkpoint = CHECKPOINTS / "dcgan_small_64/netG.pth"
    generator = sefa.load(checkpoint)
    bank = sefa.factorize(generator)
    other = build({"main.0.weight": torch.ones(20, 3, 4, 4)})
    other.source_sha256 = "0" * 64
    wider = build({"main.0.weight": torch.ones(30, 3, 4, 4)})
    return {
        "checkpoint": checkpoint,
        "bank": bank.save(folder / "bank.safetensors"),
        "model": export_onnx(generator, bank, folder / "model.onnx"),
        "other_bank": sefa.factorize(other).save(folder / "other.safetensors"),
        "wider_bank": sefa.factorize(wider).save(folder / "wider.safetensors"),
    }


class Exploit:
    """Runs a command when unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ("touch was_run",)


def no_checkpoint(path: Path, kind: str, checkpoint: Path) -> None:
    """Make a file that is no checkpoint, in one of several ways."""
    content = checkpoint.read_bytes()
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "text":
            path.write_text("hello")
        case "web page":
            path.write_text("<!DOCTYPE html><html></html>")
        case "tensors that do not fit":
            torch.save(state | {"main.3.weight": torch.ones(5, 5, 4, 4)}, path)
        case "not finite":
            torch.save(state | {"main.3.weight": state["main.3.weight"] * torch.inf}, path)
        case "code":
            path.write_bytes(pickle.dumps(Exploit(), protocol=2))


KINDS = ["missing", "empty", "truncated", "text", "web page", "tensors that do not fit", "not finite", "code"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", ["factorize", "export", "inspect"])
def test_what_is_no_checkpoint(
    sefa_command: Command, small: dict[str, Path], tmp_path: Path, command: str, kind: str
) -> None:
    path, output = tmp_path / "netG.pth", tmp_path / "out"
    no_checkpoint(path, kind, small["checkpoint"])
    output.write_bytes(b"the one before")
    arguments = [] if command == "inspect" else ["-o", output]
    result = sefa_command(command, path, *arguments)
    assert_one_line(result, "netG.pth: ")
    assert output.read_bytes() == b"the one before"
    assert {file.name for file in tmp_path.iterdir()} <= {"netG.pth", "out"}
    assert not Path("was_run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top", "21"], "top must be in 1..20, the latent's size, got 21"),
        (["--top", "0"], "top must be in 1..20"),
        (["--layers", "1"], "layers must be all or in 0..0, got '1'"),
        (["--layers", "first"], "layers must look like all, 3, 0-3"),
        (["--edit-layers", "0-9"], "layers must be all or in 0..0"),
        (["--bank", "{other_bank}"], "another checkpoint: its sha256 begins with"),
        (["--bank", "{wider_bank}"], "another generator: latent size 30, not 20"),
        (["--bank", "{checkpoint}"], "not a direction bank"),
        (["--bank", "{bank}", "--top", "3"], "--bank brings its directions"),
    ],
)
def test_export_mistakes(
    sefa_command: Command, small: dict[str, Path], tmp_path: Path, arguments: list[str], message: str
) -> None:
    filled = [argument.format(**small) for argument in arguments]
    assert_one_line(sefa_command("export", small["checkpoint"], "-o", tmp_path / "a.onnx", *filled), message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--edit", "16=1"], "direction must be in 0..15 or a name (direction-0, "),
        (["--edit", "-1=1"], "direction must be in 0..15"),
        (["--edit", "smile=1"], "got 'smile'"),
        (["--edit", "0=nan"], "alphas must be finite numbers"),
        (["--edit", "0=inf"], "alphas must be finite numbers"),
        (["--edit", "0=much"], "'much' in '0=much' is not a number"),
        (["--edit", "0"], "an edit looks like pose=2.5 or 3=-1, got '0'"),
        (["--edit", "0=1", "--edit", "0=2"], "a direction is given twice"),
        (["--edit", "0=1", "--edit", "direction-0=2"], "a direction is given twice"),
        (["--seed", "-1"], "numbers look like 7 or 1,2,8 or 1-6, got '-1'"),
        (["--seed", ""], "numbers look like 7 or 1,2,8 or 1-6, got ''"),
        (["--seed", "0-500,0-500"], "at most 1000 numbers at once"),
        (["--seed", "5-3"], "a range must run upwards"),
        (["--seed", "4294967296"], "a seed must be an integer in 0..4294967295"),
        (["--seed", "99999999999999"], "a seed must be an integer in 0..4294967295"),
        (["--seed", "1-99999999999999"], "at most 1000 numbers at once"),
        (["--scale", "0"], "scale must be 1 to 32, got 0"),
        (["--provider", "cude"], "provider must be auto or one of"),
        (["--threads", "0"], "threads must be in 1..1024, got 0"),
        (["--z", "{model}"], "model.onnx: not a .npy file"),
        (["--z", "missing.npy"], "missing.npy: no such file"),
        (["--seed", "1", "--z", "{model}"], "give seeds, --z or --codes, not several of them"),
    ],
)
def test_edit_mistakes(
    sefa_command: Command, small: dict[str, Path], tmp_path: Path, arguments: list[str], message: str
) -> None:
    filled = [argument.format(**small) for argument in arguments]
    assert_one_line(sefa_command("edit", small["model"], "-o", tmp_path / "a.png", *filled), message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 19)), "z must have shape [batch, 20], got [2, 19]"),
        (np.zeros((1, 1, 20)), "z must have shape"),
        (np.full((1, 20), np.nan), "z must be finite"),
        (np.full((1, 20), np.inf), "z must be finite"),
        (np.array(["a"] * 20), "z must be numbers"),
    ],
)
def test_latents_that_do_not_fit(
    sefa_command: Command, small: dict[str, Path], tmp_path: Path, array: np.ndarray[Any, Any], message: str
) -> None:
    np.save(tmp_path / "z.npy", array)
    assert_one_line(sefa_command("edit", small["model"], "-o", tmp_path / "a.png", "--z", tmp_path / "z.npy"), message)
    assert not (tmp_path / "a.png").exists()


def test_an_archive_of_objects_is_not_unpickled(sefa_command: Command, small: dict[str, Path], tmp_path: Path) -> None:
    np.save(tmp_path / "z.npy", np.array([Exploit()], dtype=object), allow_pickle=True)
    result = sefa_command("edit", small["model"], "-o", tmp_path / "a.png", "--z", tmp_path / "z.npy")
    assert_one_line(result, "z.npy: it holds pickled objects, which are not opened")
    assert not Path("was_run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--alphas", "a"], "'a' in 'a' is not a number"),
        (["--alphas", "-3:3"], "alphas look like -3:3:7"),
        (["--alphas", "-3:3:0"], "alphas must be 1 to 1000 steps, got 0"),
        (["--alphas", "0,nan"], "alphas must be finite"),
        (["--alphas", "-inf:inf:3"], "alphas must be finite"),
        (["--direction", "99"], "direction must be in 0..15"),
        (["--fps", "0"], "frames per second must be in 0.1 to 50"),
        (["--fps", "1e-10"], "frames per second must be in 0.1 to 50"),
    ],
)
def test_sweep_mistakes(
    sefa_command: Command, small: dict[str, Path], tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert_one_line(sefa_command("sweep", small["model"], "-o", tmp_path / "a.gif", *arguments), message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "0"], "batch must be in 1..4096, got 0"),
        (["--batch", "99999"], "batch must be in 1..4096, got 99999"),
        (["--seconds", "0"], "seconds must be in 0.001..86400, got 0.0"),
        (["--seconds", "inf"], "seconds must be in 0.001..86400, got inf"),
        (["--edits", "-1"], "edits must be in 0..4096, got -1"),
    ],
)
def test_bench_mistakes(
    sefa_command: Command, small: dict[str, Path], tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert_one_line(sefa_command("bench", small["model"], "-o", tmp_path / "a.json", *arguments), message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["edit", "sweep", "bench", "inspect"])
@pytest.mark.parametrize("kind", ["missing", "empty", "text", "web page", "truncated", "another tool's"])
def test_what_is_no_model(
    sefa_command: Command, small: dict[str, Path], tmp_path: Path, command: str, kind: str
) -> None:
    path, output = tmp_path / "model.onnx", tmp_path / "out.png"
    content = small["model"].read_bytes()
    probe = Path(sefa_runtime.__file__).parent / "session" / "probe.onnx"
    contents = {
        "empty": b"",
        "text": b"hello",
        "web page": b"<!DOCTYPE html><html></html>",
        "truncated": content[: len(content) // 2],
        "another tool's": probe.read_bytes(),
    }
    if kind != "missing":
        path.write_bytes(contents[kind])
    arguments = [] if command == "inspect" else ["-o", output]
    assert_one_line(sefa_command(command, path, *arguments), f"{path.name}: ")
    assert not output.exists()


def test_a_damaged_weight(sefa_command: Command, small: dict[str, Path], tmp_path: Path) -> None:
    content = bytearray(small["model"].read_bytes())
    payload = read_info(small["model"]).payload
    assert payload is not None
    content[payload.bytes // 2] ^= 1
    (tmp_path / "model.onnx").write_bytes(content)
    result = sefa_command("edit", tmp_path / "model.onnx", "-o", tmp_path / "a.png")
    assert_one_line(result, "model.onnx: damaged, or changed after the export")


@pytest.mark.parametrize(
    "content",
    [
        b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000,), }".ljust(79)
        + b"\n",
        b"\x93NUMPY\x01\x00\x10\x00{((('descr': '<f4",
        b"\x93NUMPY",
        b"PK\x03\x04 an archive of arrays",
        b"",
    ],
)
def test_a_damaged_array(sefa_command: Command, small: dict[str, Path], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "z.npy").write_bytes(content)
    result = sefa_command("edit", small["model"], "-o", tmp_path / "a.png", "--z", tmp_path / "z.npy")
    assert_one_line(result, "damaged")


def test_a_generator_whose_images_are_not_finite(sefa_command: Command, tmp_path: Path) -> None:
    # Finite weights whose products are not: infinity minus infinity.
    weights = {"0.weight": torch.full((4, 2, 4, 4), 3e38), "1.weight": torch.full((2, 3, 4, 4), 1.0)}
    weights["1.weight"][1] = -1
    torch.save(weights, tmp_path / "netG.pth")
    result = sefa_command("export", tmp_path / "netG.pth", "-o", tmp_path / "a.onnx", "--top", "1")
    assert_one_line(result, "PyTorch's own image has NaN or infinite values")
    assert not (tmp_path / "a.onnx").exists()


def test_a_generator_whose_channels_are_no_colours(sefa_command: Command, tmp_path: Path) -> None:
    torch.save({"0.weight": torch.ones(4, 2, 4, 4)}, tmp_path / "netG.pth")
    assert sefa_command("export", tmp_path / "netG.pth", "-o", tmp_path / "m.onnx", "--top", "1").code == 0
    result = sefa_command("edit", tmp_path / "m.onnx", "-o", tmp_path / "a.png")
    assert_one_line(result, "2 channels cannot be shown")
    assert not (tmp_path / "a.png").exists()


def test_being_asked_to_stop_leaves_nothing(small: dict[str, Path], tmp_path: Path) -> None:
    # Asked when the file is written, and before it has its name.
    program = f"""
import os, signal, sys
from pathlib import Path
from sefa_cli import main

def stop(*arguments):
    print(os.listdir({str(tmp_path)!r}))
    signal.raise_signal(signal.SIGTERM)

Path.replace = os.replace = stop
main()
"""
    command = [sys.executable, "-c", program, *fill(WRITERS["export torchscript"], small, tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ".part.ts" in done.stdout, done.stderr
    assert done.returncode == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())


def test_without_a_stdout(small: dict[str, Path]) -> None:
    command = [
        sys.executable,
        "-c",
        "import sys, sefa_cli; sys.stdout = None; sefa_cli.main()",
        "inspect",
        str(small["model"]),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_cuda_without_cuda(
    sefa_command: Command, small: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    result = sefa_command("edit", small["model"], "-o", tmp_path / "a.png", "--provider", "cuda")
    assert_one_line(result, "cuda: the installed onnxruntime")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = sefa_command("factorize", small["checkpoint"], "-o", tmp_path / "b", "--device", "cuda")
    assert_one_line(result, "--device cuda: torch")
    assert not list(tmp_path.iterdir())


WRITERS = {
    "factorize": ["factorize", "{checkpoint}", "-o", "{folder}/bank.safetensors"],
    "export": ["export", "{checkpoint}", "-o", "{folder}/model.onnx"],
    "export torchscript": ["export", "{checkpoint}", "-o", "{folder}/model.ts", "--format", "torchscript"],
    "edit": ["edit", "{model}", "-o", "{folder}/a.png", "--scale", "8"],
    "sweep": ["sweep", "{model}", "-o", "{folder}/a.png", "--scale", "8"],
    "sweep animation": ["sweep", "{model}", "-o", "{folder}/a.gif", "--scale", "4"],
    "bench": ["bench", "{model}", "-o", "{folder}/a.json", "--seconds", "0.1"],
}


@pytest.mark.parametrize("name", WRITERS)
def test_an_output_folder_that_is_not_there(
    sefa_command: Command, small: dict[str, Path], tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "missing"
    assert_one_line(sefa_command(*fill(WRITERS[name], small, folder)), "missing: no such folder")
    assert not folder.exists()


@pytest.mark.parametrize("name", WRITERS)
def test_an_output_folder_that_may_not_be_written(
    sefa_command: Command, small: dict[str, Path], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Permissions do not bind root, as whom containers run their tests; the question put to the system does the work.
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)
    assert_one_line(sefa_command(*fill(WRITERS[name], small, tmp_path)), "folder is not writable")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["factorize", "{checkpoint}", "-o", "{checkpoint}"], "checkpoint"),
        (["export", "{checkpoint}", "-o", "{checkpoint}"], "checkpoint"),
        (["export", "{checkpoint}", "--bank", "{bank}", "-o", "{bank}"], "bank"),
        (["bench", "{model}", "-o", "{model}"], "model"),
    ],
)
def test_an_output_that_is_an_input(
    sefa_command: Command, small: dict[str, Path], arguments: list[str], kept: str
) -> None:
    before = small[kept].read_bytes()
    result = sefa_command(*[argument.format(**small) for argument in arguments])
    assert_one_line(result, "is an input, the output would replace it")
    assert small[kept].read_bytes() == before


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk(small: dict[str, Path], tmp_path: Path, name: str) -> None:
    arguments = fill(WRITERS[name], small, tmp_path)
    output = Path(arguments[3])
    output.write_bytes(b"the one before")
    # A process whose files may not grow beyond 1 kB meets the same failing write as a full disk. onnxruntime and torch
    # write nothing of their own; Python's caches are off.
    done = subprocess.run(
        [sys.executable, "-B", "-m", "sefa_cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert f"{output}: File too large" in done.stderr
    assert output.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [output]


def fill(arguments: list[str], small: dict[str, Path], folder: Path) -> list[str]:
    return [argument.format(**small, folder=folder) for argument in arguments]


def assert_one_line(result: Any, message: str) -> None:
    assert result.code == 1
    assert result.out == ""
    assert result.err.startswith("sefa: ")
    assert result.err.count("\n") == 1
    assert message in result.err


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        (["sweep", "--seeds", "0-999", "--alphas", "-3:3:1000", "--scale", "5"], "1000000 images of 20x40 pixels"),
        (["edit", "--seed", "0-999", "--scale", "32"], "1000 images of 128x256 pixels"),
    ],
)
def test_images_that_would_fill_the_memory_are_refused_before_they_are_rendered(
    sefa_command: Command,
    tmp_path: Path,
    golden: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    size: str,
) -> None:
    monkeypatch.setattr("sefa_cli.latent_options.MAX_IMAGE_BYTES", 90_000_000)
    command, *options = arguments
    result = sefa_command(command, golden / "tiny.onnx", "-o", tmp_path / "x.png", *options)
    assert result.code == 1
    assert f"{size} take" in result.err
    assert "take fewer seeds or steps, or a smaller --scale" in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("samples", [100_001, 10**9, 10**30])
def test_samples_without_end_are_refused(sefa_command: Command, tmp_path: Path, golden: Path, samples: int) -> None:
    result = sefa_command("explore", golden / "tiny.onnx", "-o", tmp_path / "x.html", "--samples", str(samples))
    assert (result.code, result.err) == (1, f"sefa: samples must be at most 100000, got {samples}\n")
