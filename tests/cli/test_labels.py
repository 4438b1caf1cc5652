"""Several classes of one seed, side by side: `--labels`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sefa_runtime
from sefa_runtime.images import eased
from support.golden_checkpoints import GoldenCheckpoint
from support.named_classes import SIZE, write_named
from support.videos import decode

Command = Callable[..., Any]
Array = np.ndarray[Any, Any]


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """A model whose classes have names."""
    return write_named(tmp_path)


def cells(path: Path) -> Array:
    """Return an image's cells of one letter each, [rows, columns, SIZE, SIZE, 3]."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return pixels.reshape(len(pixels) // SIZE, SIZE, -1, SIZE, 3).swapaxes(1, 2)


def test_a_word_of_several_seeds(sefa_command: Command, named: Path, tmp_path: Path) -> None:
    arguments = ("--labels", "SeFa,dog", "--seeds", "7,8", "--edit", "0=2")
    result = sefa_command("edit", named, "-o", tmp_path / "word.png", *arguments)
    assert result.code == 0, result.err
    shown = cells(tmp_path / "word.png")
    assert shown.shape[:2] == (2, 5)
    editor = sefa_runtime.load(named)
    for column, label in enumerate([0, 1, 2, 3, 5]):
        np.testing.assert_array_equal(shown[:, column], editor.edit(seed=[7, 8], label=label, edits={0: 2}))


def test_letters_stand_closer(sefa_command: Command, named: Path, tmp_path: Path) -> None:
    for command in ("edit", "sweep"):
        one_step = ("--alphas", "0") if command == "sweep" else ()
        arguments = (command, named, "-o", tmp_path / "a.png", *one_step)
        result = sefa_command(*arguments, "--labels", "SeF", "--trim", "6")
        assert result.code == 0, result.err
        expected = sefa_runtime.load(named).edit(0, label=["S", "e", "F"])[:, :, 6:-6]
        with Image.open(tmp_path / "a.png") as image:
            np.testing.assert_array_equal(np.asarray(image), np.concatenate(list(expected), axis=1))
        result = sefa_command(*arguments, "--labels", "SeF", "--trim", "16")
        assert (result.code, result.err) == (1, "sefa: --trim must be 0 to 15 for this model, got 16\n")
        result = sefa_command(*arguments, "--label", "S", "--trim", "6")
        assert result.err == "sefa: --trim is for --labels, whose images stand side by side\n"


def test_a_sheet_has_a_row_for_each_seed_and_direction(sefa_command: Command, named: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "z.npy", sefa_runtime.latents_from_seeds([7], 24)[0])  # One latent, without a batch.
    for way in (("--seeds", "7,8"), ("--z", tmp_path / "z.npy")):
        arguments = ("--labels", "S,S,dog", "--direction", "1,0", "--alphas", "-2,0,2", *way)
        result = sefa_command("sweep", named, "-o", tmp_path / "a.png", *arguments)
        assert result.code == 0, result.err
        with Image.open(tmp_path / "a.png") as image:
            pixels = np.asarray(image.convert("RGB"))
        editor = sefa_runtime.load(named)
        seeds = (7, 8) if "--seeds" in way else (7,)
        word, gap = 3 * SIZE, SIZE // 4
        for row, (seed, direction) in enumerate((seed, direction) for seed in seeds for direction in (1, 0)):
            top = row * (SIZE + gap)
            for column, alpha in enumerate((-2, 0, 2)):
                left = column * (word + gap)
                expected = editor.edit(seed=seed, label=["S", "S", "dog"], edits={direction: alpha})
                found = pixels[top : top + SIZE, left : left + word]
                np.testing.assert_array_equal(found, np.concatenate(list(expected), axis=1))
        assert pixels.shape[:2] == (2 * len(seeds) * (SIZE + gap) - gap, 3 * (word + gap) - gap)
        assert (pixels[SIZE : SIZE + gap] == 255).all()


def test_directions_in_motion_follow_each_other_without_a_jump(
    sefa_command: Command, named: Path, tmp_path: Path
) -> None:
    arguments = ("--labels", "Se", "--seeds", "7,8,9", "--direction", "0,2", "--alphas", "-3:3:5")
    result = sefa_command("sweep", named, "-o", tmp_path / "a.gif", *arguments)
    assert result.code == 0, result.err
    _, frames = decode(tmp_path / "a.gif")
    assert frames.shape[1:3] == (3 * SIZE, 2 * SIZE)  # A word in each row.
    editor = sefa_runtime.load(named)
    low, less, none, more, high = eased(-3, 3, 5)
    path = [none, more, high, more, none, less, low, less]
    rounds = [editor.sweep(seed=9, label=["S", "e"], direction=direction, alphas=path) for direction in (0, 2)]
    letters = np.concatenate(rounds, axis=1)  # [2, 16, H, W, 3]
    words = np.concatenate(list(letters), axis=2)  # [16, H, 2·W, 3]
    assert len(frames) == len(words)
    for moment, frame in enumerate(frames):  # GIF has 256 colours: each frame is closest to the image that it shows.
        nearest = np.abs(words - frame[2 * SIZE :].astype(float)).mean((1, 2, 3)).argmin()
        np.testing.assert_array_equal(words[nearest], words[moment])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--labels", "Sx"), "there is no class 'Sx': there are S, e, F, a, 5, dog"),
        (("--label", "x"), "there is no class 'x': there are S, e, F, a, 5, dog"),
        (("--labels", "Se", "--label", "a"), "give --label or --labels, not both"),
        ((), "class-conditional: a label is needed, the index or name of a class: S, e, F, a, 5, dog"),
    ],
)
def test_classes_that_there_are_not(
    sefa_command: Command, named: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    for command in ("edit", "sweep"):
        result = sefa_command(command, named, "-o", tmp_path / "a.png", *arguments)
        assert (result.code, result.err) == (1, f"sefa: {message}\n")
    assert not (tmp_path / "a.png").exists()


def test_a_direction_is_not_given_twice(sefa_command: Command, named: Path, tmp_path: Path) -> None:
    result = sefa_command("sweep", named, "-o", tmp_path / "a.png", "--label", "S", "--direction", "0,direction-0")
    assert (result.code, result.err) == (1, "sefa: a direction is given twice: 0,direction-0\n")


def test_names_are_given_at_export_and_shown(
    sefa_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = GoldenCheckpoint("sefa_stylegan2_cond_32").path
    (tmp_path / "names.txt").write_text("S\ne\n\nF\na\n5\n dog \n")
    monkeypatch.chdir(tmp_path)
    result = sefa_command(
        "export", checkpoint, "-o", "named.ts", "--format", "torchscript", "--class-names", "names.txt"
    )
    assert result.code == 0, result.err
    assert "S, e, F, a, 5, dog" in sefa_command("inspect", "named.ts").out
    result = sefa_command("export", checkpoint, "-o", "other.onnx", "--class-names", "S,e")
    assert (result.code, result.err) == (1, "sefa: 2 names of classes for 6 classes\n")


def test_explore_takes_and_shows_the_name(sefa_command: Command, named: Path, tmp_path: Path) -> None:
    outputs = ("-o", tmp_path / "a.html", "-o", tmp_path / "a.json")
    result = sefa_command("explore", named, *outputs, "--quick", "--samples", "2", "--label", "dog")
    assert result.code == 0, result.err
    assert ", class dog" in (tmp_path / "a.html").read_text()
    assert json.loads((tmp_path / "a.json").read_text())["label"] == 5
    result = sefa_command("explore", named, *outputs, "--label", "Se")
    assert (result.code, result.err) == (1, "sefa: --label is one class for all images here, got 'Se'\n")
