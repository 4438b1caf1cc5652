"""kill -9 at random moments: what was at the name of the output stays, or what is new is there whole."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image, ImageSequence

import sefa
from sefa.bank.direction_bank import DirectionBank
from sefa_runtime import load
from sefa_runtime.model.reading import read_info
from support.paths import CHECKPOINTS, GOLDEN
from support.patience import PATIENCE_S

KILLS = 20
# Half of the kills wait for the file in progress, and strike within this time: that is when something can be lost.
SOON_S = 0.03
CHECKPOINT = CHECKPOINTS / "sefa_stylegan2_cond_32" / "checkpoint.pth"
MODEL, ALONE = GOLDEN / "style_z.onnx", GOLDEN / "tiny.onnx"

pytestmark = pytest.mark.faults


def check_bank(path: Path) -> None:
    assert DirectionBank.load(path).names


def check_image(path: Path) -> None:
    with Image.open(path) as image:
        for frame in ImageSequence.Iterator(image):
            frame.load()


def check_model(path: Path) -> None:
    editor = load(path, provider="cpu", threads=1)
    editor.edit(seed=1, label=1 if editor.info.takes_label else None)


def check_archive(path: Path) -> None:
    assert read_info(path).directions


def check_json(path: Path) -> None:
    json.loads(path.read_text())


def check_arrays(path: Path) -> None:
    with np.load(path) as arrays:
        assert [arrays[name].shape for name in arrays.files]


def check_text(path: Path) -> None:
    assert path.read_text().rstrip().endswith(("</html>", '"4Gi"'))


def check_repository(path: Path) -> None:
    for model in path.iterdir():
        check_model(model / "1" / "model.onnx")
        assert (model / "config.pbtxt").read_text()
        check_json(model / "perf_input.json")


@dataclass(frozen=True)
class Writer:
    """A command that writes.

    Attributes:
        arguments: OUT stands for the output's path, BANK for that of a bank, CHANGED for a model that a tool changed.
        output: Its name.
        check: Fails if the output is not whole.
        in_place: The file that the command changes where it is; None: it makes a new one.
    """

    arguments: tuple[str | Path, ...]
    output: str
    check: Callable[[Path], None]
    in_place: Path | None = None


OUT, BANK, CHANGED = "OUT", "bank.safetensors", "changed.onnx"
WRITERS = {
    "factorize": Writer(("factorize", CHECKPOINT, "-o", OUT), "bank.safetensors", check_bank),
    "onnx": Writer(("export", CHECKPOINT, "--top", "2", "-o", OUT), "m.onnx", check_model),
    "shared_weights": Writer(
        ("export", CHECKPOINT, "--top", "2", "--external-data", "w.safetensors", "-o", OUT), "m.onnx", check_model
    ),
    "torchscript": Writer(
        ("export", CHECKPOINT, "--top", "2", "--format", "torchscript", "-o", OUT), "m.ts", check_archive
    ),
    "pt2": Writer(("export", CHECKPOINT, "--top", "2", "--format", "pt2", "-o", OUT), "m.pt2", check_archive),
    "edit": Writer(("edit", MODEL, "-o", OUT, "--label", "1", "--edit", "0=1"), "face.png", check_image),
    "sweep": Writer(("sweep", MODEL, "-o", OUT, "--label", "1", "--direction", "0"), "turn.gif", check_image),
    "explore": Writer(("explore", MODEL, "--label", "1", "--quick", "-o", OUT), "sheet.html", check_text),
    "name_a_model": Writer(("name", OUT, "0=other"), "m.onnx", check_model, in_place=ALONE),
    "name_a_bank": Writer(("name", OUT, "0=other"), "b.safetensors", check_bank, in_place=Path(BANK)),
    "subset": Writer(("bank", "subset", BANK, "0", "-o", OUT), "b.safetensors", check_bank),
    "merge": Writer(("bank", "merge", BANK, "-o", OUT), "b.safetensors", check_bank),
    "bank_export": Writer(("bank", "export", BANK, "-o", OUT), "b.npz", check_arrays),
    "seal": Writer(("seal", CHANGED, "--like", ALONE, "-o", OUT), "m.onnx", check_model),
    "tune": Writer(("tune", ALONE, "--seconds", "0.01", "-o", OUT), "tuned.json", check_json),
    "bench": Writer(("bench", MODEL, "--seconds", "0.01", "-o", OUT), "record.json", check_json),
    "triton": Writer(("triton", MODEL, "-o", OUT, "--force"), "repository", check_repository),
    "kserve": Writer(("kserve", MODEL, "--name", "style", "-o", OUT), "service.yaml", check_text),
}


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bank") / BANK
    sefa.factorize(sefa.load(CHECKPOINT), top=2).save(path)
    changed = onnx.load(ALONE)
    del changed.metadata_props[:]
    onnx.save(changed, path.with_name(CHANGED))
    return path


def start(writer: Writer, output: Path, bank: Path) -> "subprocess.Popen[bytes]":
    paths = {OUT: output, BANK: bank, CHANGED: bank.with_name(CHANGED)}
    arguments = [str(paths.get(str(argument), argument)) for argument in writer.arguments]
    return subprocess.Popen(
        [sys.executable, "-m", "sefa_cli", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def whole(writer: Writer, output: Path) -> None:
    if output.exists():
        writer.check(output)


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_lost(name: str, bank: Path, tmp_path: Path) -> None:
    writer, rng = WRITERS[name], random.Random(name)
    output = tmp_path / writer.output
    if writer.in_place is not None:
        output.write_bytes((bank if writer.in_place == Path(BANK) else writer.in_place).read_bytes())
    started = time.monotonic()
    process = start(writer, output, bank)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said.decode()
    taken = time.monotonic() - started
    writer.check(output)
    left = listing(tmp_path)
    for turn in range(KILLS):
        if turn % 4 == 3 and writer.in_place is None and output.is_file():
            output.unlink()  # Now and then there was nothing before.
        existed, before = output.exists(), listing(tmp_path)
        process = start(writer, output, bank)
        deadline = time.monotonic() + 2 * taken
        if turn % 2:
            while time.monotonic() < deadline and process.poll() is None and listing(tmp_path) <= before:
                time.sleep(0.0005)
            time.sleep(rng.uniform(0, SOON_S))
        else:
            time.sleep(rng.uniform(0, 1.05 * taken))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)
        assert output.exists() or not existed, f"kill {turn}: the old file is gone"
        whole(writer, output)
    process = start(writer, output, bank)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said.decode()
    writer.check(output)
    assert listing(tmp_path) == left, "something is left of what was killed"
