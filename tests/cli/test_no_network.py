"""Nothing is sent anywhere: the kernel ends every process here that reaches for the network."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from support import no_network
from support.no_network import KILLED
from support.paths import CHECKPOINTS, TINY
from support.patience import PATIENCE_S

CHECKPOINT = CHECKPOINTS / "dcgan_small_64" / "netG.pth"
REACHES = "import socket; socket.socket(socket.AF_INET)"
CALLS = "import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)"
COMMANDS = """
import json, sys
from sefa_cli.app import app
for arguments in json.loads(sys.argv[1]):
    app(arguments, prog_name="sefa", standalone_mode=False)
print("all ran")
"""
SERVE = "from sefa_cli import main; main()"

pytestmark = pytest.mark.skipif(not no_network.supported(), reason="needs Linux's seccomp on x86-64 or ARM")


def start(what: str, code: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, no_network.__file__, what, code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What else is asked of onnxruntime's telemetry counts: without CI it is on unless we turn it off.
        env={name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")},
    )


@pytest.mark.parametrize(("what", "code"), [("sockets", REACHES), ("connections", CALLS)])
def test_the_filter_ends_what_it_forbids(what: str, code: str) -> None:
    process = start(what, code)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == KILLED


def test_commands_reach_for_no_network(tmp_path: Path) -> None:
    model, bank = str(tmp_path / "m.onnx"), str(tmp_path / "bank.safetensors")
    commands = [
        ["doctor"],
        ["inspect", str(CHECKPOINT)],
        ["factorize", str(CHECKPOINT), "-o", bank, "--top", "4"],
        ["export", str(CHECKPOINT), "-o", model, "--bank", bank],
        ["inspect", model],
        ["verify", model],
        ["edit", model, "-o", str(tmp_path / "a.png"), "--edit", "0=1"],
        ["sweep", model, "-o", str(tmp_path / "a.gif"), "--direction", "1"],
        ["explore", model, "-o", str(tmp_path / "a.html"), "--quick"],
        ["name", model, "0=first"],
        ["bench", model, "--seconds", "0.01", "-o", str(tmp_path / "record.json")],
        ["triton", model, "-o", str(tmp_path / "triton")],
    ]
    process = start("sockets", COMMANDS, json.dumps(commands))
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out.splitlines()[-1:]) == (0, ["all ran"]), err


def test_the_server_calls_nobody() -> None:
    pytest.importorskip("starlette")
    process = start("connections", SERVE, "serve", str(TINY), "--port", "0")
    try:
        assert process.stderr is not None
        address = process.stderr.readline().split()[-1]
        assert "ready" in process.stderr.readline()
        for path in ("/", "/docs", "/models/tiny/image?seed=1", "/metrics"):
            with urllib.request.urlopen(address + path, timeout=PATIENCE_S) as answer:
                assert answer.status == 200
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, err
    finally:
        process.kill()
        process.communicate()
