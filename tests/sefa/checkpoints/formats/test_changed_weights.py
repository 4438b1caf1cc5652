"""Weights that are missing, renamed or of another shape: a checkpoint loads, or is refused with one error of ours."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sefa
from sefa.errors import CheckpointError

# One of each format that torch.save wrote.
FILES = [
    "basicsr_16/net_g.pth",
    "biggan_hier_64/G_ema.pth",
    "biggandeep_32/G_ema.pth",
    "dcgan_small_64/netG.pth",
    "fastgan_256/50000.pth",
    "hf_biggan_deep_32/pytorch_model.bin",
    "lucidrains_32/model_5.pt",
    "mm_biggan_32/iter_500000.pth",
    "mm_biggandeep_32/iter_500000.pth",
    "mm_dcgan_32/iter_300000.pth",
    "mm_lsgan_32/iter_300000.pth",
    "mm_pggan_16/iter_5000.pth",
    "mm_sagan_32/iter_500000.pth",
    "mm_stylegan2_16/iter_800000.pth",
    "mm_stylegan3_16/iter_160000.pth",
    "mm_stylegan_16/iter_5000.pth",
    "mimicry_sagan_32/netG_1000_steps.pth",
    "projection_64/gen_0_iter_0001000.pth.tar",
    "psp_layers_16/psp.pt",
    "rosi_convert_32/checkpoint.pt",
    "rosi_stylegan_16/000002.model",
    "sefa_pggan_cond_16/checkpoint.pth",
    "sefa_stylegan2_cond_32/checkpoint.pth",
    "sefa_stylegan_64/checkpoint.pth",
    "studio_bigdeep_projected_32/model=G_ema-best-weights-step=1000.pth",
    "studio_dcgan_32/model=G_ema-best-weights-step=1000.pth",
]
CHANGES = 24  # of each


def state_dicts(content: Any) -> Iterator[dict[str, Tensor]]:
    if isinstance(content, dict):
        if any(isinstance(value, Tensor) for value in content.values()):
            yield content
        for value in content.values():
            yield from state_dicts(value)


def change(state: dict[str, Tensor], rng: random.Random) -> None:
    key = rng.choice([key for key, value in state.items() if isinstance(value, Tensor)])
    tensor = state.pop(key)
    renamed = key.replace("1", "2") if "1" in key else f"{key}_"
    changes = {
        key: [
            tensor.reshape(-1),
            tensor[None],
            tensor.transpose(0, -1).clone() if tensor.ndim else tensor.repeat(2),
            tensor.repeat(2) if tensor.ndim < 2 else torch.cat([tensor, tensor]),
            tensor.reshape(-1)[:1].clone(),
            torch.zeros_like(tensor),
            tensor.long(),
        ],
        renamed: [tensor],
    }
    name = rng.choice([key, key, key, renamed, ""])
    if name:
        state[name] = rng.choice(changes[name])


@pytest.mark.parametrize("name", FILES)
def test_changed_weights_load_or_are_refused(golden: Path, tmp_path: Path, name: str) -> None:
    for file in (golden / "checkpoints" / name).parent.glob("*config.json"):
        shutil.copy(file, tmp_path)
    path = tmp_path / Path(name).name
    refused = 0
    for seed in range(CHANGES):
        rng = random.Random(seed)
        content = torch.load(golden / "checkpoints" / name, weights_only=True)
        for _ in range(rng.choice([1, 1, 3])):
            change(rng.choice(list(state_dicts(content))), rng)
        torch.save(content, path)
        try:
            sefa.load(path)
        except CheckpointError:
            refused += 1
    assert refused  # Other networks' weights, which some of these files have, do not matter.
