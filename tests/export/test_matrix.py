"""Every latent x format x precision x layers x method x family: the exported file against encode, edit and decode.

What is expected comes from the generator and the bank's numbers alone, not from the graph that is exported.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

import sefa
from conftest import Result
from sefa.generators.common.mapping import StyleBasedGenerator
from sefa_runtime.verification import psnr_db
from support.exported_archives import load_pt2, load_torchscript
from support.paths import GOLDEN

Command = Callable[..., Result]
# One of each family, conditional where it can be.
CHECKPOINTS = {
    "biggan": "biggan_tfhub_style_32/G_ema.pth",
    "biggan-deep": "hf_biggan_deep_32/pytorch_model.bin",
    "dcgan": "dcgan_small_64/netG.pth",
    "fastgan": "projected_fastgan_cond_128/network-snapshot.pkl",
    "lucidrains-stylegan2": "lucidrains_32/model_5.pt",
    "sngan": "mimicry_sagan_32/netG_1000_steps.pth",
    "pggan": "tf_pggan_16/network.pkl",
    "stylegan": "tf_stylegan_32/network.pkl",
    "stylegan2": "rosi_convert_32/checkpoint.pt",
    "stylegan2 with classes": "sefa_stylegan2_cond_32/checkpoint.pth",
    "stylegan3": "nv_xl_stem_cond_16/network.pkl",
}
STYLE_BASED = [name for name in CHECKPOINTS if "stylegan" in name]
ONE_LAYER = ["dcgan", "fastgan", "pggan", "sngan"]
LAYERS = {"all": ["all"], "some": ["1-2"], "groups": ["0-1", "2-3"]}
FORMATS = [("onnx", "fp32"), ("onnx", "fp16"), ("torchscript", "fp32"), ("pt2", "fp32")]
TOP = 3


@dataclass(frozen=True)
class Export:
    """What is exported, and how: options of `sefa export`."""

    family: str
    latent: str = "z"
    file_format: str = "onnx"
    precision: str = "fp32"
    layers: str = "all"
    method: str = "sefa"
    bank: bool = False
    truncation: str | None = None  # a psi, or "input"
    output_type: str = "float32"
    batch: int | None = None
    edits: int | None = None
    external: bool = False

    def __str__(self) -> str:
        changed = (value for name, value in vars(self).items() if name == "family" or value not in (None, False))
        return "-".join("bank" if value is True else str(value) for value in changed)

    @property
    def options(self) -> list[str]:
        """All but those that choose the directions."""
        options = ["--latent", self.latent, "--format", self.file_format, "--precision", self.precision]
        options += ["--output-type", self.output_type]
        if self.truncation:
            options += ["--truncation-input"] if self.truncation == "input" else ["--truncation", self.truncation]
        options += ["--batch", str(self.batch)] if self.batch else []
        options += ["--edits", str(self.edits)] if self.edits is not None else []
        return options + (["--external-data", "weights.safetensors"] if self.external else [])


# Every value of every option, and those pairs that are likely to disturb each other.
ALWAYS = [
    Export("stylegan2 with classes", "w", bank=True),
    Export("stylegan", "w", "pt2", method="ganspace", output_type="uint8"),
    Export("lucidrains-stylegan2", "w", "torchscript"),
    Export("stylegan3", "w", layers="some", batch=2, edits=0),
    Export("stylegan2", "w+", precision="fp16", layers="groups", method="ganspace"),
    Export("stylegan2 with classes", "z", "pt2", layers="some", truncation="input", batch=2),
    Export("stylegan3", "w+", "torchscript", output_type="uint8"),
    Export("stylegan", "z", precision="fp16", layers="groups", truncation="0.7", edits=1, external=True),
    Export("biggan", "z", "torchscript", layers="some", method="ganspace", bank=True),
    Export("biggan", "z", precision="fp16"),
    Export("biggan-deep", "z", "pt2", truncation="input", edits=2),
    Export("biggan-deep", "z", truncation="0.6", output_type="uint8"),
    Export("pggan", "z", precision="fp16", bank=True, batch=3),
    Export("dcgan", "z", method="ganspace", edits=0),
    Export("fastgan", "z", precision="fp16", bank=True),
    Export("sngan", "z", "pt2", bank=True, output_type="uint8"),
]


def matrix() -> Iterator[Export]:
    """All combinations. A bank and the same options without one make the same file: they alternate."""
    for family in CHECKPOINTS:
        latents = ("z", "w", "w+") if family in STYLE_BASED else ("z",)
        layers = ("all",) if family in ONE_LAYER else LAYERS
        combinations = itertools.product(latents, FORMATS, layers, ("sefa", "ganspace"))
        for number, (latent, (file_format, precision), spec, method) in enumerate(combinations):
            yield Export(family, latent, file_format, precision, spec, method, bank=number % 3 == 0)


def others() -> Iterator[Export]:
    """Truncation, output types, static sizes and weights beside the model, where they can meet."""
    for family in ("stylegan2 with classes", "biggan-deep", "lucidrains-stylegan2"):
        for (file_format, precision), psi, output_type in itertools.product(
            FORMATS, (None, "0.6", "input"), ("uint8", "float32")
        ):
            yield Export(family, "z", file_format, precision, truncation=psi, output_type=output_type)
    for family, latent in (("stylegan3", "z"), ("stylegan2 with classes", "w"), ("stylegan", "w+"), ("dcgan", "z")):
        for (file_format, precision), batch, edits in itertools.product(
            [kind for kind in FORMATS if kind[0] != "torchscript"], (None, 1, 2), (None, 0, 1, 2)
        ):
            external = file_format == "onnx" and batch == 2
            yield Export(family, latent, file_format, precision, batch=batch, edits=edits, external=external)


@pytest.mark.parametrize("export", ALWAYS, ids=str)
def test_the_file_encodes_edits_and_decodes(export: Export, sefa_command: Command, tmp_path: Path) -> None:
    check(export, sefa_command, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("export", [*matrix(), *others()], ids=str)
def test_every_file_encodes_edits_and_decodes(export: Export, sefa_command: Command, tmp_path: Path) -> None:
    check(export, sefa_command, tmp_path)


def check(export: Export, sefa_command: Command, folder: Path) -> None:
    checkpoint = GOLDEN / "checkpoints" / CHECKPOINTS[export.family]
    bank = make_bank(export, checkpoint, sefa_command, folder)
    directions = ["--bank", folder / "bank.safetensors"]
    if not export.bank and export.layers != "groups":  # Which only a bank can have.
        directions = finding(export, LAYERS[export.layers][0])
    result = sefa_command("export", checkpoint, "-o", folder / "model", *directions, *export.options)
    assert result.code == 0, result.err

    generator = sefa.load(checkpoint)
    feeds, codes = make_inputs(export, generator)
    expected = draw(generator, bank, codes, feeds["direction"], feeds["alpha"])  # [N, C, H, W] in [-1, 1]
    image = run(folder / "model", export.file_format, feeds)
    if export.output_type == "uint8":
        assert image.dtype == np.uint8
        image = (np.moveaxis(image, -1, 1).astype(np.float64) + 0.5) / 127.5 - 128 / 127.5
        expected = expected.clip(-1, 1)
    assert image.shape == expected.shape
    if export.precision == "fp16":
        assert psnr_db(image, expected, 2.0).min() >= 39.9
    else:
        level = 1 / 127.5 if export.output_type == "uint8" else 0
        limit = generator.tolerance * max(1.0, float(np.abs(expected).max())) + level
        np.testing.assert_allclose(image, expected, rtol=0, atol=limit)
    if export.file_format == "onnx":
        result = sefa_command("verify", folder / "model")
        assert result.code == 0, result.out + result.err


def make_bank(export: Export, checkpoint: Path, sefa_command: Command, folder: Path) -> sefa.DirectionBank:
    banks = [folder / f"bank{number}.safetensors" for number in range(len(LAYERS[export.layers]))]
    for path, spec in zip(banks, LAYERS[export.layers], strict=True):
        result = sefa_command("factorize", checkpoint, "-o", path, *finding(export, spec))
        assert result.code == 0, result.err
    path = folder / "bank.safetensors"
    if len(banks) == 1:
        banks[0].rename(path)
    else:
        result = sefa_command("bank", "merge", *banks, "-o", path)
        assert result.code == 0, result.err
    return sefa.DirectionBank.load(path)


def finding(export: Export, layers: str) -> list[Any]:
    samples = ["--method", "ganspace", "--samples", "1000"] if export.method == "ganspace" else []
    return ["--layers", layers, "--top", str(TOP), *samples]


@torch.no_grad()
def make_inputs(export: Export, generator: sefa.Generator) -> tuple[dict[str, Tensor], Tensor]:
    """What the file takes, and the codes [N, L, D] that it stands for."""
    random = torch.Generator().manual_seed(5)
    count, edits = export.batch or 3, 2 if export.edits is None else export.edits
    z = torch.randn(count, generator.z_dim, generator=random)
    label = torch.arange(count) % generator.num_classes if generator.num_classes else None
    psi = torch.linspace(0.4, 0.9, count)
    truncation = psi if export.truncation == "input" else float(export.truncation or 1)
    codes = generator.encode(z, label, truncation)
    feeds = {
        "direction": torch.randint(TOP, (count, edits), generator=random),
        "alpha": torch.empty(count, edits).uniform_(-2, 2, generator=random),
    }
    if export.latent == "z":
        feeds |= {"z": z, **({} if label is None else {"label": label})}
        feeds |= {"truncation": psi} if export.truncation == "input" else {}
    elif export.latent == "w":
        assert isinstance(generator, StyleBasedGenerator)
        feeds["w"] = codes[:, 0]
    else:
        codes = codes + 0.1 * torch.randn(codes.shape, generator=random)  # Layers of their own.
        feeds["codes"] = codes
    return feeds, codes


@torch.no_grad()
def draw(
    generator: sefa.Generator, bank: sefa.DirectionBank, codes: Tensor, direction: Tensor, alpha: Tensor
) -> np.ndarray[Any, Any]:
    codes = codes.clone()
    for image in range(len(codes)):
        for index, distance in zip(direction[image].tolist(), alpha[image].tolist(), strict=True):
            for layer in bank.edited_layers[index].nonzero()[:, 0].tolist():
                codes[image, layer] += distance * bank.vectors[index]
    return generator.decode(codes).numpy()


@torch.no_grad()
def run(path: Path, file_format: str, feeds: dict[str, Tensor]) -> np.ndarray[Any, Any]:
    if file_format == "onnx":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (image,) = session.run(None, {name: value.numpy() for name, value in feeds.items()})
        return np.asarray(image)
    load = load_torchscript if file_format == "torchscript" else load_pt2
    return np.asarray(load(path)(**feeds))
