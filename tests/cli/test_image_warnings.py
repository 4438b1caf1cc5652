"""What is probably not meant is said, and done."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import sefa
from sefa_runtime.model.reading import read_info
from support.descriptions import replace_description, replace_graph

Command = Callable[..., Any]

SAME_IMAGE = "sefa: warning: truncation psi 0 is the centre itself: the same image for every seed\n"


def test_edit_says_how_far_it_went(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    for name, edits in (("plain.png", []), ("edited.png", ["--edit", "pose=2", "--edit", "light=-1"])):
        result = sefa_command("edit", golden / "tiny.onnx", "-o", tmp_path / name, "--seeds", "1,2", *edits)
        assert result.err == ""
    plain, edited = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("plain.png", "edited.png"))
    told = re.search(r"changed by (\S+) of 255 levels on average", result.out)
    assert told is not None
    assert float(told[1]) == pytest.approx(np.abs(edited - plain).mean(), rel=0.01)


def test_an_edit_that_changes_nothing(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    arguments = ("edit", golden / "tiny.onnx", "-o", tmp_path / "a.png", "--edit")
    result = sefa_command(*arguments, "pose=1e-7")
    assert result.code == 0
    assert result.err.startswith("sefa: warning: the edits change no pixel")
    assert "changed" not in result.out
    assert "warning" not in sefa_command(*arguments, "pose=1").err


@pytest.mark.parametrize("command", ["edit", "sweep"])
def test_no_seed_is_left_at_psi_0(sefa_command: Command, golden: Path, tmp_path: Path, command: str) -> None:
    arguments = (command, golden / "style_z.onnx", "-o", tmp_path / "a.png", "--label", "1", "--truncation")
    assert sefa_command(*arguments, "0").err == SAME_IMAGE
    assert sefa_command(*arguments, "0.1").err == ""


@pytest.mark.parametrize("command", ["export", "explore"])
def test_nor_in_a_model_of_psi_0(sefa_command: Command, tmp_path: Path, command: str) -> None:
    output = tmp_path / ("a.onnx" if command == "export" else "a.html")
    result = sefa_command(command, tmp_path / "missing.pth", "-o", output, "--truncation", "0")
    assert result.err.startswith(SAME_IMAGE)


def test_latents_where_codes_are_meant(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    info = read_info(golden / "style_static.onnx")
    assert info.code_rms is not None
    smallest, largest = info.code_rms
    # A generator whose w are smaller than standard normal numbers, as trained ones have them.
    replace_description(golden / "style_static.onnx", model, f"{smallest},{largest}", f"{smallest},0.7")
    random = np.random.RandomState(0)
    for name, codes, told in (
        ("z.npy", random.randn(2, info.code_dim), True),
        ("codes.npy", 0.5 * random.randn(2, *info.latent_shape), False),
    ):
        np.save(tmp_path / name, codes)
        result = sefa_command("edit", model, "-o", tmp_path / "a.png", "--codes", tmp_path / name)
        assert result.code == 0
        assert (f"{name}: these look like latents z, not like codes" in result.err) == told


def test_a_distance_beyond_the_range(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    edit = ("edit", golden / "tiny.onnx", "-o", tmp_path / "a.png", "--edit")
    sweep = ("sweep", golden / "tiny.onnx", "-o", tmp_path / "a.gif", "--direction", "light", "--alphas")
    low, high = read_info(golden / "tiny.onnx").directions[1].alpha_range
    for arguments, told in (
        ((*edit, "light=300", "--edit", "pose=1"), "alpha 300 of light"),
        ((*edit, f"1={low - 1}"), f"alpha {low - 1:g} of light"),
        ((*sweep, "-1:300:4"), "alpha 300 of light"),
        ((*edit, f"light={high}"), ""),
        ((*sweep, f"{low}:{high}:5"), ""),
    ):
        result = sefa_command(*arguments)
        assert result.code == 0
        told = told and f"sefa: warning: {told} is beyond its suggested range, {low:g} to {high:g}"
        assert result.err.startswith(told) if told else result.err == ""


@pytest.mark.parametrize("alpha", ["1e30", "nan", "inf"])
def test_a_distance_beyond_all_numbers_is_refused(
    sefa_command: Command, golden: Path, tmp_path: Path, alpha: str
) -> None:
    for arguments in (("edit", "--edit", f"pose={alpha}"), ("sweep", "--alphas", f"0,{alpha}")):
        result = sefa_command(*arguments, golden / "tiny.onnx", "-o", tmp_path / "a.png")
        assert (result.code, "of at most 1e+06" in result.err) == (1, True)


def test_steps_that_do_not_get_anywhere(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    sweep = ("sweep", golden / "tiny.onnx", "-o", tmp_path / "a.gif", "--alphas")
    assert "from 0 to 3: give one alpha, or more steps" in sefa_command(*sweep, "0:3:1").err
    assert sefa_command(*sweep, "2").err == "sefa: warning: one step is one frame: nothing moves\n"
    assert sefa_command(*sweep, "2:-2:3").err == ""


@pytest.mark.parametrize(("psi", "told"), [("1.2", False), ("3", True), ("-1", True)])
def test_a_truncation_that_no_latent_knows(
    sefa_command: Command, golden: Path, tmp_path: Path, psi: str, told: bool
) -> None:
    arguments = ("edit", golden / "style_z.onnx", "-o", tmp_path / "a.png", "--label", "1", "--truncation", psi)
    assert ("warning: truncation psi is usually in 0 to 1" in sefa_command(*arguments).err) == told


def test_codes_that_are_read_otherwise(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    info = read_info(golden / "style_w.onnx")
    code = np.random.default_rng(0).standard_normal((info.num_layers, info.code_dim)).astype(np.float32) / 5
    np.save(tmp_path / "codes.npy", code)
    np.savez(tmp_path / "w.npz", w=code[:1], noise=np.zeros(3))
    single, all_layers = golden / "style_w.onnx", golden / "style_w+.onnx"
    output = ("-o", tmp_path / "a.png", "--codes")
    refused = sefa_command("edit", single, *output, tmp_path / "codes.npy")
    assert refused.code == 1
    assert "codes.npy: codes of shape [8, 24]" in refused.err
    assert "needs a model of w+ (sefa export --latent w+)" in refused.err
    assert sefa_command("edit", all_layers, *output, tmp_path / "codes.npy").err == ""
    told = sefa_command("edit", all_layers, *output, tmp_path / "w.npz").err
    assert "w.npz: [1, 24] is read as one image's w, for all 8 layers" in told
    assert "w.npz: the noise in it is not used" in told


def of_channels(source: Path, channels: int, path: Path) -> Path:
    """The model of RGB images with its channels chosen anew: 4 has an alpha channel of 128, 2 are the first two."""
    model = onnx.load(source)
    (output,) = model.graph.output
    inner = "image_rgb"
    for node in model.graph.node:
        node.output[:] = [inner if name == output.name else name for name in node.output]
    indices = onnx.numpy_helper.from_array(np.array([0, 1, 2, 0][:channels]), "channels")
    model.graph.initializer.append(indices)
    model.graph.node.append(onnx.helper.make_node("Gather", [inner, "channels"], [output.name], axis=3))
    output.type.tensor_type.shape.dim[3].dim_value = channels
    del model.metadata_props[:]
    # Of that length.
    reference = [(levels * 2)[: len(levels) // 3 * channels] for levels in read_info(source).reference]
    return replace_graph(source, path, model.SerializeToString(), channels=channels, reference=reference)


def test_an_alpha_channel_where_there_is_no_room(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    model = of_channels(golden / "tiny.onnx", 4, tmp_path / "rgba.onnx")
    for name, told in (("a.png", False), ("a.webp", False), ("a.jpg", True)):
        result = sefa_command("edit", model, "-o", tmp_path / name)
        assert result.code == 0
        assert (f"warning: {Path(name).suffix} has no transparency" in result.err) == told
    for name, told in (("s.gif", True), ("s.mp4", True), ("s.webp", False)):
        result = sefa_command("sweep", model, "-o", tmp_path / name)
        assert result.code == 0
        assert (f"warning: {Path(name).suffix} has no transparency" in result.err) == told
    model = of_channels(golden / "tiny.onnx", 2, tmp_path / "two.onnx")
    result = sefa_command("edit", model, "-o", tmp_path / "b.png")
    assert (result.code, "images of 2 channels cannot be shown" in result.err) == (1, True)


def test_nan_is_no_image(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "z.npy", np.full((1, 6), 3e38, np.float32))
    arguments = ("--z", tmp_path / "z.npy", "-o", tmp_path / "a.png", "--edit", "pose=3")
    for model in ("tiny_float32.onnx", "tiny.onnx"):
        result = sefa_command("edit", golden / model, *arguments)
        assert result.code == 1
        assert result.err.startswith("sefa: NaN or infinity in 1 of 1 images")
        assert not (tmp_path / "a.png").exists()


def test_a_flat_image_is_doubtful(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    # An export of before NaN was marked: its graph has made numbers of it, all of them the same.
    np.save(tmp_path / "w.npy", np.full((1, read_info(golden / "style_w.onnx").code_dim), 3e38, np.float32))
    result = sefa_command("edit", golden / "style_w.onnx", "--codes", tmp_path / "w.npy", "-o", tmp_path / "a.png")
    assert result.code == 0
    assert "warning: the image is of one flat colour: an alpha or a code is far too large, or NaN" in result.err


def test_the_range_of_codes_is_that_of_the_mapping(golden: Path) -> None:
    generator = sefa.load(golden / "checkpoints" / "sefa_stylegan2_cond_32" / "checkpoint.pth")
    z = torch.from_numpy(np.random.default_rng(3).standard_normal((500, generator.z_dim), np.float32))
    codes = generator.encode(z, torch.arange(500) % generator.num_classes)[:, 0].numpy()
    rms = np.linalg.norm(codes, axis=1) / np.sqrt(generator.code_dim)
    code_rms = read_info(golden / "style_w.onnx").code_rms
    assert code_rms is not None
    assert code_rms[0] == pytest.approx(rms.min(), rel=0.4)
    assert code_rms[1] == pytest.approx(rms.max(), rel=0.4)
    assert ((code_rms[0] <= rms) & (rms <= code_rms[1])).mean() > 0.99
    assert read_info(golden / "style_z.onnx").code_rms is None
