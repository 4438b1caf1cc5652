"""What a checkpoint leaves open, and which of its entries was read, from the file to the exported model."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sefa_runtime

Command = Callable[..., Any]
STRIDES, SLOPE = "stride=1,2,1", "activation=leaky_relu:0.2"


def trained(seed: int) -> nn.Sequential:
    """A descendant of DCGAN of which its state dict tells too little."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.ConvTranspose2d(10, 8, 4, 1, 0), nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(8, 6, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(6, 3, 3, 1, 1), nn.Tanh(),
    ).eval()  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    content = {"netG": trained(0).state_dict(), "netG_ema": trained(1).state_dict(), "other": trained(2).state_dict()}
    torch.save({name: content[name] for name in ("netG", "netG_ema")}, tmp_path / "netG.pth")
    torch.save(content, tmp_path / "several.pth")
    return tmp_path / "netG.pth"


def test_the_exported_model_is_right_and_says_what_was_told_and_read(
    checkpoint: Path, tmp_path: Path, sefa_command: Command
) -> None:
    options = ("--assume", STRIDES, "--assume", SLOPE)
    model = tmp_path / "model.onnx"
    result = sefa_command("export", checkpoint, "-o", model, "--top", "2", *options)
    assert result.code == 0, result.err
    assert "read: netG_ema, of netG, netG_ema" in result.out
    assert "leaky_relu:0.2 between (as told); z as a 1x1 image; tanh at the end; no label after z" in result.out
    editor = sefa_runtime.load(model, provider="cpu")
    z = np.random.RandomState(0).randn(2, 10).astype(np.float32)
    with torch.no_grad():
        expected = (trained(1)(torch.from_numpy(z)[:, :, None, None]).permute(0, 2, 3, 1) + 1) * 127.5
    image = editor.run(z=z, direction=0, alpha=0.0)
    assert np.abs(image.astype(float) - expected.numpy()).max() <= 0.51
    assert editor.info.source_entry == "netG_ema, of netG, netG_ema"
    inspected = sefa_command("inspect", model)
    assert re.search("^read +netG_ema, of netG, netG_ema", inspected.out, re.MULTILINE)
    assert re.search("^assumed +stride 1,2,1, padding 0,1,1", inspected.out, re.MULTILINE)
    assert json.loads(sefa_command("inspect", model, "--json").out)["info"]["assumptions"]


def test_inspect_says_the_same_of_the_checkpoint(checkpoint: Path, sefa_command: Command) -> None:
    told = sefa_command("inspect", checkpoint, "--assume", STRIDES).out
    assert "read        netG_ema, of netG, netG_ema" in told
    assert "ReLU between; z as a 1x1 image; tanh at the end" in told
    facts = json.loads(sefa_command("inspect", checkpoint, "--assume", STRIDES, "--json").out)
    assert facts["source_entry"] == "netG_ema, of netG, netG_ema"
    assert "ReLU between" in facts["assumptions"]
    assert facts["resolution"] == [8, 8]


def test_every_command_that_reads_a_checkpoint_takes_what_is_told(
    checkpoint: Path, tmp_path: Path, sefa_command: Command
) -> None:
    several, options = checkpoint.with_name("several.pth"), ("--entry", "other", "--assume", STRIDES)
    for command in (
        ("factorize", several, "-o", tmp_path / "bank.safetensors", "--top", "2"),
        ("inspect", several),
        ("export", several, "-o", tmp_path / "a.onnx", "--top", "2"),
        ("explore", several, "-o", tmp_path / "a.json", "--top", "2", "--samples", "4", "--range=-1:1"),
        ("compare-methods", several, "--top", "2", "--samples", "300", "--images", "1"),
    ):
        refused = sefa_command(*command)
        assert refused.code == 1
        assert refused.err.count("\n") == 1
        assert "several" in refused.err
        assert "--entry" in refused.err
        result = sefa_command(*command, *options)
        assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (("--assume", "stride"), "--assume takes a fact like stride=1,2,2,1"),
        (("--assume", "output=tanh", "--assume", "output=none"), "--assume gives output twice"),
        (("--assume", "speed=3"), "no fact 'speed' is assumed of it"),
        ((), "--assume stride=1,2,1"),
        (("--entry", "netX"), "no entry 'netX'; it has netG, netG_ema"),
    ],
)
def test_what_cannot_be_told_is_one_line(
    checkpoint: Path, sefa_command: Command, told: tuple[str, ...], message: str
) -> None:
    more = () if not told or told[0] == "--entry" else ("--assume", STRIDES)
    result = sefa_command("inspect", checkpoint, *told, *more)
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert message in result.err
