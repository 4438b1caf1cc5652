"""The commands in docs/discover.md, run as they stand, one after the other."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import sefa
import sefa_runtime
from support.paths import ROOT
from support.trained_generators import trained_faces

TEXT = (ROOT / "docs" / "discover.md").read_text()


def test_command_examples(sefa_command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(trained_faces(), tmp_path / "netG.pth")
    monkeypatch.chdir(tmp_path)
    state = torch.load("netG.pth", "cpu", weights_only=True)["netG_state_dict"]
    torch.save({"netG_state_dict": {key: 1.01 * value for key, value in state.items()}}, "tuned.pth")
    blocks = re.findall(r"^```bash\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line, comments=True) for line in "".join(blocks).splitlines()]
    commands = [command for command in commands if command[1] in ("factorize", "name", "bank", "export", "edit")]
    assert len(commands) >= 13
    for _, *arguments in commands:
        result = sefa_command(*arguments)
        assert result.code == 0, result.err
    assert sefa_runtime.load("netG.onnx", provider="cpu").info.names == ("turn", "yes", "light")
    assert sefa_runtime.load("tuned.onnx", provider="cpu").info.bank_sha256 == (sefa.load("netG.pth").source_sha256,)
    assert sefa.DirectionBank.load("two.safetensors").names == ("sefa-turn", "ganspace-direction-0")
