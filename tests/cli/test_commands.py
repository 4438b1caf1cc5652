import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

import sefa
import sefa_runtime
from sefa_cli.app import app
from sefa_runtime.images import enlarge
from support.trained_generators import trained_faces
from support.videos import decode

Command = Callable[..., Any]


@pytest.fixture
def checkpoint(golden: Path) -> Path:
    return golden / "checkpoints/dcgan_small_64/netG.pth"


def test_from_checkpoint_to_edited_image(sefa_command: Command, checkpoint: Path, tmp_path: Path) -> None:
    bank, model, image = (tmp_path / name for name in ("bank.safetensors", "model.onnx", "face.png"))
    assert sefa_command("factorize", checkpoint, "-o", bank, "--top", "5").code == 0
    assert sefa_command("export", checkpoint, "--bank", bank, "-o", model).code == 0
    assert sefa_command("edit", model, "-o", image, "--seed", "7", "--edit", "direction-4=2").code == 0
    editor = sefa_runtime.load(model)
    assert len(editor.info.directions) == 5
    with Image.open(image) as opened:
        np.testing.assert_array_equal(np.asarray(opened), editor.edit(seed=7, edits={4: 2.0})[0])


def test_factorize_prints_the_directions(sefa_command: Command, checkpoint: Path, tmp_path: Path) -> None:
    result = sefa_command("factorize", checkpoint, "-o", tmp_path / "b.safetensors", "--top", "3")
    assert "direction-2" in result.out
    assert "3 directions of 20 components" in result.out
    assert result.err == ""


def test_factorize_normalizes_rows_on_request(sefa_command: Command, checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    assert sefa_command("factorize", checkpoint, "-o", path, "--normalize", "rows", "--json").code == 0
    expected = sefa.factorize(sefa.load(checkpoint), normalize="rows")
    np.testing.assert_array_equal(sefa.DirectionBank.load(path).vectors, expected.vectors)


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_export_tells_what_it_made(sefa_command: Command, checkpoint: Path, tmp_path: Path, kind: str) -> None:
    result = sefa_command("export", checkpoint, "-o", tmp_path / "model", "--format", kind, "--top", "2", "--json")
    document = json.loads(result.out)
    assert document["bytes"] == (tmp_path / "model").stat().st_size
    assert len(document["info"]["directions"]) == 2


def test_export_gives_floats_on_request(sefa_command: Command, checkpoint: Path, tmp_path: Path) -> None:
    result = sefa_command("export", checkpoint, "-o", tmp_path / "m.onnx", "--output-type", "float32")
    assert "largest error" in result.out
    assert sefa_runtime.load(tmp_path / "m.onnx").run(np.zeros(20), 0, 0).dtype == np.float32


@pytest.mark.parametrize("name", ["checkpoints/dcgan_small_64/netG.pth", "tiny.onnx"])
def test_inspect_tells_the_kind_from_the_contents(
    sefa_command: Command, golden: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_bytes((golden / name).read_bytes())
    kind = json.loads(sefa_command("inspect", tmp_path / "file", "--json").out)["kind"]
    assert kind == {"checkpoints/dcgan_small_64/netG.pth": "checkpoint", "tiny.onnx": "ONNX model"}[name]


def test_inspect_reads_a_bank(sefa_command: Command, checkpoint: Path, tmp_path: Path) -> None:
    path = sefa.factorize(sefa.load(checkpoint), top=3).save(tmp_path / "file")
    assert json.loads(sefa_command("inspect", path, "--json").out)["rank"] == 20
    assert "direction bank" in sefa_command("inspect", path).out


def test_several_seeds_stand_side_by_side(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    assert sefa_command("edit", golden / "tiny.onnx", "-o", tmp_path / "a.png", "--seed", "1,3-4").code == 0
    expected = sefa_runtime.load(golden / "tiny.onnx").edit(seed=[1, 3, 4])
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.concatenate(list(expected), axis=1))


def test_latents_of_ones_own(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "z.npy", sefa_runtime.latents_from_seeds([5], 6))
    assert sefa_command("edit", golden / "tiny.onnx", "-o", tmp_path / "z.png", "--z", tmp_path / "z.npy").code == 0
    assert sefa_command("edit", golden / "tiny.onnx", "-o", tmp_path / "s.png", "--seed", "5").code == 0
    assert (tmp_path / "z.png").read_bytes() == (tmp_path / "s.png").read_bytes()


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_a_sweep_in_motion_shows_all_seeds_in_a_grid(
    sefa_command: Command, golden: Path, tmp_path: Path, suffix: str
) -> None:
    arguments = ("--seeds", "1-6", "--direction", "light", "--alphas", "-3:3:5", "--scale", "4", "--fps", "10")
    result = sefa_command("sweep", golden / "tiny.onnx", "-o", tmp_path / f"a.{suffix}", *arguments)
    assert result.code == 0, result.err
    _, frames = decode(tmp_path / f"a.{suffix}")
    assert frames.shape == (8, 2 * 32, 3 * 16, 3)
    editor = sefa_runtime.load(golden / "tiny.onnx")

    def off(moments: list[int], alphas: list[float]) -> float:
        """How far the sixth image's brightness is from that at these alphas."""
        sixth = enlarge(editor.sweep(seed=6, direction="light", alphas=alphas), 4)[0]
        return float(np.abs((frames[moments, 32:, 32:] - sixth.astype(float)) @ (0.2126, 0.7152, 0.0722)).mean())

    # The slow start: half a cosine from -3 to 3 has its second of five steps at -3 / sqrt(2), not at -1.5.
    slow = 3 / 2**0.5
    assert off([0, 1, 2, 3, 4, 5, 6, 7], [-3, -slow, 0, slow, 3, slow, 0, -slow]) < 7  # GIF has 256 colours.
    assert off([1, 3, 5, 7], [-1.5, 1.5, 1.5, -1.5]) > 9


def test_a_video_without_an_encoder_says_what_to_install(
    sefa_command: Command, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    result = sefa_command("sweep", golden / "tiny.onnx", "-o", tmp_path / "a.mp4")
    assert result.code == 1
    assert result.err == (
        "sefa: a video needs ffmpeg, and it is not installed: pip install imageio-ffmpeg, or install ffmpeg\n"
    )
    assert not list(tmp_path.iterdir())


def test_the_version_is_told(sefa_command: Command) -> None:
    assert sefa_command("--version").out == f"sefa {sefa.__version__}\n"


def names_of_commands(group: Any) -> list[str]:
    """Every command, those of groups with the group's name before theirs."""
    names = []
    for name, command in group.commands.items():
        inner = names_of_commands(command) if hasattr(command, "commands") else []
        names += [name, *(f"{name} {other}" for other in inner)]
    return names


@pytest.mark.parametrize("ask", ["{} --help", "{} -h", "help {}"])
def test_every_command_has_a_help_text(sefa_command: Command, ask: str) -> None:
    commands = names_of_commands(get_command(app))
    assert {"edit", "bank", "bank show", "bank merge", "bench", "bench compare"} <= set(commands)
    for command in commands:
        result = sefa_command(*ask.format(command).split())
        assert result.code == 0
        assert f"Usage: sefa {command} [OPTIONS]" in result.out


@pytest.mark.parametrize(
    "arguments", [("bank",), ("bank", "-h"), ("bank", "help"), ("help", "bank"), ("bank", "help", "help")]
)
def test_a_group_shows_its_commands(sefa_command: Command, arguments: tuple[str, ...]) -> None:
    result = sefa_command(*arguments)
    for name in ("show", "merge", "subset", "compare", "import", "export"):
        assert re.search(rf"^\W+{name} ", result.out + result.err, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "meant"), [(("bnak",), "bank"), (("bank", "shw"), "show"), (("exprot",), "export"), (("foo",), None)]
)
def test_what_is_no_command_is_refused_with_what_was_meant(
    sefa_command: Command, arguments: tuple[str, ...], meant: str | None
) -> None:
    result = sefa_command(*arguments)
    assert result.code == 2
    assert f"No such command '{arguments[-1]}'" in result.err
    assert ("Did you mean" in result.err) == (meant is not None)
    assert meant is None or f"'{meant}'" in result.err.partition("Did you mean")[2]


def test_the_demo_leaves_what_it_says(sefa_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces = trained_faces()
    monkeypatch.setattr("sefa_cli.commands.demo.BENCH_SECONDS", 0.1)
    folder = tmp_path / "demo"
    result = sefa_command("demo", "-o", folder)
    assert result.code == 0, result.err
    names = {"faces.safetensors", "faces.onnx", "faces.ts", "sheet.png", "turn.gif", "latency.json"}
    assert {path.name for path in folder.iterdir()} == names
    editor = sefa_runtime.load(folder / "faces.onnx")
    directions = sefa.DirectionBank.load(folder / "faces.safetensors").names
    assert directions == editor.info.names
    assert (len(directions), directions[1], directions[4]) == (16, "turn", "brightness")
    darker, brighter = (editor.edit(seed=range(16), edits={"brightness": alpha}).mean((1, 2, 3)) for alpha in (-1, 1))
    assert (brighter > darker + 10).all()
    with Image.open(folder / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    # The unedited face of the first person is on the sheet as it is: right way up and RGB.
    face = editor.edit(seed=7)[0]
    windows = np.lib.stride_tricks.sliding_window_view(pixels, face.shape)[::, ::, 0]
    assert (windows[:, :, 0, 0] == face[0, 0]).all(axis=-1).any()
    rows, columns = np.nonzero((windows[:, :, 0, 0] == face[0, 0]).all(axis=-1))
    assert any(np.array_equal(windows[row, column], face) for row, column in zip(rows, columns, strict=True))
    record = json.loads((folder / "latency.json").read_text())
    assert record["provider"] == editor.provider
    assert [entry["batch"] for entry in record["results"]] == [1, 8]
    # The commands that it prints make the same files.
    commands = [line for line in result.out.splitlines() if re.match(r"\$ sefa (factorize|name|sweep) ", line)]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for command in commands:
        assert sefa_command(*shlex.split(command.replace("$FACES", str(faces)))[2:]).code == 0
    assert len(commands) == 3
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_demo_without_its_generator_says_how_to_install_it(
    sefa_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sefa.demo.PACKAGE", "gan-face-generate-not-installed")
    result = sefa_command("demo", "-o", tmp_path / "demo")
    assert result.code == 1
    assert "not installed: pip install --no-deps" in result.err
    assert not (tmp_path / "demo").exists()
