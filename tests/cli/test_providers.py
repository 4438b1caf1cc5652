"""The provider that is asked for is the one that runs, or the command says in one line what is missing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import sefa_runtime

Command = Callable[..., Any]


@pytest.fixture(autouse=True)
def only_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make onnxruntime one that was built for the CPU alone."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])


@pytest.mark.parametrize("command", ["edit", "sweep"])
def test_the_cpu_takes_over_only_when_that_is_allowed(
    sefa_command: Command, golden: Path, tmp_path: Path, command: str
) -> None:
    arguments = (command, golden / "tiny.onnx", "-o", tmp_path / "a.png", "--provider", "cuda")
    refused = sefa_command(*arguments)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("sefa: cuda: the installed onnxruntime")
    assert refused.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
    allowed = sefa_command(*arguments, "--allow-cpu-fallback")
    assert (allowed.code, allowed.err) == (0, "")
    assert "on cpu (cuda: the installed onnxruntime" in allowed.out


def test_auto_does_not_complain_of_the_cpu(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    assert sefa_command("edit", golden / "tiny.onnx", "-o", tmp_path / "a.png").out.endswith("on cpu\n")


def test_options_reach_the_session(
    sefa_command: Command, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editors: list[sefa_runtime.Editor] = []
    load = sefa_runtime.load

    def keep(*arguments: Any, **options: Any) -> sefa_runtime.Editor:
        editors.append(load(*arguments, **options))
        return editors[-1]

    monkeypatch.setattr(sefa_runtime, "load", keep)
    entry = "session.intra_op.allow_spinning"
    arguments = ("--provider", "cpu", "--provider-option", f"{entry}=0", "--threads", "3")
    assert sefa_command("edit", golden / "tiny.onnx", "-o", tmp_path / "a.png", *arguments).code == 0
    options = editors[0].session.inference.get_session_options()
    assert options.get_session_config_entry(entry) == "0"
    assert options.intra_op_num_threads == 3
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), editors[0].edit(seed=0)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--provider-option", "a=1"], "options belong to one provider: name it instead of auto"),
        (["--provider", "cpu", "--provider-option", "a=1"], "the provider cpu has no options"),
        (["--provider", "cuda", "--provider-option", "a"], "a provider option looks like device_id=1, got 'a'"),
        (["--provider", "cuda", "--provider-option", "=1"], "a provider option looks like device_id=1, got '=1'"),
        (["--provider", "cuda", "--provider-option", "a="], "a provider option looks like device_id=1, got 'a='"),
        (["--provider", "cuda", "--provider-option", "a=1", "--provider-option", "a=2"], "option a is given twice"),
        (["--provider", "gpu", "--allow-cpu-fallback"], "provider must be auto or one of"),
    ],
)
def test_mistakes(sefa_command: Command, golden: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    result = sefa_command("edit", golden / "tiny.onnx", "-o", tmp_path / "a.png", *arguments)
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert message in result.err
    assert not list(tmp_path.iterdir())
