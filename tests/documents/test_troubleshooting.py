"""Every message that docs/troubleshooting.md quotes is one that `sefa` says."""

import asyncio
import re
import shlex
import shutil
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import torch

import sefa
from sefa_runtime.model.reading import read_info
from sefa_runtime.server.app import create_app
from sefa_runtime.server.models import HostedModel, Models
from sefa_runtime.server.settings import Settings
from support.descriptions import replace_description
from support.paths import CHECKPOINTS, GOLDEN, ROOT
from support.pickle_files import call, pickle_of, text

PAGE = ROOT / "docs" / "troubleshooting.md"
# What the page's messages come from, in the folder that `folder` makes.
COMMANDS = """
inspect none.pth
inspect page.pth
inspect pointer.pth
inspect half.pth
inspect odd.pth
inspect missing.pth
inspect two.pth
inspect nan.pth
inspect system.pkl
export tiny.onnx -o x.onnx
factorize netG.pth --layers 0-20 -o x.safetensors
export netG.pth --bank small.safetensors -o x.onnx
export tuned.pth --bank bank.safetensors -o x.onnx
export netG.pth --bank bank.safetensors --layers 0-1 -o x.onnx
name tiny.onnx 0=pose:-1
export dcgan.pth --truncation 0.7 -o x.onnx
export dcgan.pth --latent w+ -o x.onnx
export gan.py:Late -o x.onnx
export gan.py:Noisy --latent-dim 8 --layers a -o x.onnx
export gan.py:Two --latent-dim 8 --layers a -o x.onnx
export gan.py:Late --weights odd.pth --latent-dim 8 --layers a -o x.onnx
export gan.py:Late --latent-dim 9 --layers a -o x.onnx
export g.ts --latent-dim 8 --layers a -o x.onnx
export netG.pth -o x.ts
export netG.pth -o x.safetensors
factorize netG.pth -o x.onnx
export netG.pth -o nowhere/x.onnx
edit netG.pth -o a.png
edit changed.onnx -o a.png
edit plain.onnx -o a.png
edit alone/style_w+.onnx -o a.png --codes codes.npz
edit tiny.onnx -o a.png --edit smile=2
edit tiny.onnx -o a.png --edit 0
edit style_z.onnx -o a.png
edit style_z.onnx -o a.png --label 9
edit tiny.onnx -o a.png --label 2
edit tiny.onnx -o a.png --truncation 0.7
edit tiny.onnx -o a.png --edit 0=20
edit tiny.onnx -o a.png --edit 0=0.0001
edit tiny.onnx -o a.bmp
edit tiny.onnx -o a.png --codes codes.npz
edit style_w+.onnx -o a.png
edit style_w+.onnx -o a.png --codes of_another.npz
edit style_w.onnx -o a.png --codes codes.npz
edit style_w+.onnx -o a.png --codes four.npz
edit trained.onnx -o a.png --codes z.npz
edit tiny.onnx -o a.png --provider coreml
"""
GAN = """
import torch
from torch import nn

class Noisy(nn.Module):
    def __init__(self):
        super().__init__(); self.a = nn.Linear(8, 48)
    def forward(self, z): return self.a(z).view(-1, 3, 4, 4) + torch.randn(z.shape[0], 1, 4, 4)

class Late(Noisy):
    def __init__(self):
        super().__init__(); self.b = nn.Linear(48, 48)
    def forward(self, z): return self.b(self.a(z)).view(-1, 3, 4, 4)

class Two(Late):
    def forward(self, z):
        image = super().forward(z)
        return image, -image
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of files with something wrong, and some with nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("tiny.onnx", "style_z.onnx", "style_w.onnx", "style_w+.onnx", "style.safetensors"):
        shutil.copy(GOLDEN / name, name)
    Path("alone").mkdir()
    shutil.copy("style_w+.onnx", "alone")
    shutil.copy(CHECKPOINTS / "sefa_stylegan2_cond_32" / "checkpoint.pth", "netG.pth")
    shutil.copy(CHECKPOINTS / "dcgan_small_64" / "netG.pth", "dcgan.pth")
    sefa.factorize(sefa.load("netG.pth")).save("bank.safetensors")
    sefa.factorize(sefa.load("dcgan.pth")).save("small.safetensors")

    Path("page.pth").write_text("<!DOCTYPE html><html><body>Sign in</body></html>")
    Path("pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    Path("half.pth").write_bytes(Path("netG.pth").read_bytes()[:50_000])
    Path("system.pkl").write_bytes(pickle_of(call("os", "system", text("true"))))
    torch.save({"conv.weight": torch.zeros(3, 3)}, "odd.pth")
    bias = "mapping.dense1.bias"
    spoils: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
        "missing.pth": lambda state: state.pop(bias),
        "nan.pth": lambda state: state[bias].fill_(torch.nan),
        "tuned.pth": lambda state: state[bias].mul_(1.1),
    }
    for name, spoil in spoils.items():
        content = torch.load("netG.pth", "cpu", weights_only=True)
        spoil(content["generator"])
        torch.save(content, name)
    state = torch.load("dcgan.pth", "cpu", weights_only=True)
    torch.save({"gen_a": state, "gen_b": {key: 2 * value for key, value in state.items()}}, "two.pth")

    model = onnx.load("tiny.onnx")
    weights = model.graph.initializer[0].raw_data
    content = Path("tiny.onnx").read_bytes()
    Path("changed.onnx").write_bytes(content.replace(weights, weights[::-1]))
    del model.metadata_props[:]
    onnx.save(model, "plain.onnx")

    info = read_info(GOLDEN / "style_static.onnx")
    assert info.code_rms is not None
    smallest, largest = info.code_rms
    # A generator whose w are smaller than standard normal numbers, as trained ones have them.
    replace_description(GOLDEN / "style_static.onnx", Path("trained.onnx"), f"{smallest},{largest}", f"{smallest},0.7")

    random = np.random.default_rng(0)
    for name, shape in (("codes", (1, 8, 24)), ("of_another", (1, 18, 512)), ("four", (4, 24))):
        np.savez(f"{name}.npz", w=0.3 * random.standard_normal(shape, np.float32))
    np.savez("z.npz", w=random.standard_normal((1, 8, 24), np.float32))

    Path("gan.py").write_text(GAN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises torch.export.
        torch.jit.script(torch.nn.Linear(8, 8)).save("g.ts")  # type: ignore[no-untyped-call]
    yield tmp_path
    sys.modules.pop("gan", None)  # Other tests have another of that name.


def test_every_message_is_said(folder: Path, sefa_command: Callable[..., Any]) -> None:
    quoted = quotes()
    assert len(quoted) > 40
    said = set[str]()
    for line in COMMANDS.strip().splitlines():
        result = sefa_command(*shlex.split(line))
        assert result.err, line
        said |= {one.removeprefix("sefa: ") for one in result.err.splitlines()}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said.add(sefa_command("serve", "tiny.onnx", "--port", str(taken.getsockname()[1])).err.removeprefix("sefa: "))
    said |= asyncio.run(refusals_over_http())
    missing = [quote for quote in quoted if not any(pattern(quote).match(one) for one in said)]
    assert not missing, (missing, sorted(said))


def quotes() -> list[str]:
    """Return the lines that the page quotes."""
    blocks = re.findall(r"^```text\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return "".join(blocks).splitlines()


def pattern(quote: str) -> re.Pattern[str]:
    """Return what a message must match: FILE stands for a file's name, … for anything; nothing may be left over."""
    text = re.escape(quote).replace("FILE", r"[\w./+-]+").replace("PROVIDER", r"\w+").replace("…", ".*")
    return re.compile(text + r"\s*$")


async def refusals_over_http() -> set[str]:
    """Return what a server says to requests that it refuses."""
    said = set()
    for ready, token, address in (
        (True, None, "http://127.0.0.1/models/tiny/image?sed=7"),
        (True, None, "http://127.0.0.1/models/cats/image?seed=7"),
        (False, None, "http://127.0.0.1/models/tiny/image?seed=7"),
        (False, None, "http://example.org/models"),
        (False, "secret", "http://127.0.0.1/models"),
    ):
        settings = Settings(token=token, provider="cpu")
        models = Models([HostedModel("tiny", Path("tiny.onnx"), settings)])
        if ready:
            await models.load()
        app = create_app(models, settings, is_local=True)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            said.add((await client.get(address)).json()["error"])
        if ready:
            await models.drain()
    return said
