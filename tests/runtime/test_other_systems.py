"""What can be tried here of systems that are not: a process without what they lack (`windows_like`)."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sefa_runtime
from support.paths import GOLDEN, ROOT

COMMANDS = """
import json, sys
{first}import support.windows_like
from sefa_cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"{{arguments[0]}}: {{end.code}}")
"""


# Windows names the user there, and torch asks.
PATHS = {"USERNAME": "somebody", "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *sys.path])}


def run(folder: Path, *commands: str, first: str = "") -> None:
    arguments = json.dumps([command.split() for command in commands])
    command = [sys.executable, "-c", COMMANDS.format(first=first), arguments]
    done = subprocess.run(command, cwd=folder, env=os.environ | PATHS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_that_writes_works_without_what_windows_lacks(tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes((GOLDEN / "tiny.onnx").read_bytes())
    run(
        tmp_path,
        "name tiny.onnx 1=shade",
        "edit tiny.onnx -o a.png --seed 1 --edit shade=2",
        "edit tiny.onnx -o a.png --seed 2 --edit shade=2",  # In the place of the first.
        "sweep tiny.onnx -o a.gif --alphas -1:1:3",
        "bench tiny.onnx -o record.json --seconds 0.01 --batch 1",
        "explore tiny.onnx -o page.html --samples 2",
        "triton tiny.onnx -o repository",
        "triton tiny.onnx -o repository",
        "kserve tiny.onnx -o service.yaml --storage-uri s3://bucket",
        "doctor",
    )
    expected = sefa_runtime.load(GOLDEN / "tiny.onnx", "cpu").edit(seed=2, edits={"light": 2.0})[0]
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.gif", "a.png", "page.html", "record.json", "repository", "service.yaml", "tiny.onnx",
    ]  # fmt: skip


def test_a_model_is_made_without_what_windows_lacks(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    checkpoint = GOLDEN / "checkpoints" / "dcgan_small_64" / "netG.pth"
    run(
        tmp_path,
        f"factorize {checkpoint} -o bank.safetensors --top 2",
        "name bank.safetensors 0=turn",
        f"export {checkpoint} -o model.onnx --bank bank.safetensors --external-data weights.safetensors",
        "verify model.onnx",
        first="import torch\n",
    )
    assert sefa_runtime.load(tmp_path / "model.onnx", "cpu").info.names == ("turn", "direction-1")


def test_parts_of_killed_processes_go_without_locks(tmp_path: Path) -> None:
    program = """
import support.windows_like
from pathlib import Path
from sefa_runtime.files import replacing, write_whole
path = Path("model.onnx")
with replacing(path) as part:
    part.write_bytes(b"of one that lives")
    left = part.with_name(part.name.replace(part.name.partition("-")[2][:12], "0" * 12))
    left.write_bytes(b"of one that was killed")
    write_whole(path, b"new")
    print(part.exists(), left.exists(), path.read_text())
print(path.read_text())
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | PATHS, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True False new", "of one that lives"]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_server_runs_on_asyncio_s_loop_where_there_is_no_uvloop(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    program = "import support.windows_like; from sefa_cli import main; main()"
    server = subprocess.Popen(
        [sys.executable, "-c", program, "serve", str(GOLDEN / "tiny.onnx"), "--port", "0"],
        cwd=tmp_path,
        env=os.environ | PATHS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with server, contextlib.ExitStack() as ended:
        ended.callback(server.kill)  # If the test fails, so that it ends.
        assert server.stdout is not None
        lines = []
        for line in server.stdout:
            lines.append(line)
            if "is ready" in line:
                break
        else:
            pytest.fail("".join(lines))
        address = next(line.split()[-1] for line in lines if "serves at" in line)
        with (
            urllib.request.urlopen(f"{address}/models/tiny/image?seed=7&format=png") as answer,
            Image.open(answer) as image,
        ):
            shown = np.asarray(image)
        server.send_signal(signal.SIGTERM)
        server.stdout.read()
        assert server.wait() == 0
    np.testing.assert_array_equal(shown, sefa_runtime.load(GOLDEN / "tiny.onnx", "cpu").edit(seed=7)[0])
