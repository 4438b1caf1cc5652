"""Every golden checkpoint that is made of state dicts, as a `.safetensors` file of the same tensors."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import sefa
from sefa.checkpoints.contents import read_contents
from sefa_runtime import latents_from_seeds
from sefa_runtime.pickles.placeholders import Placeholder
from support.golden_checkpoints import MANIFEST, GoldenCheckpoint

# What the reader of a pickle needs besides tensors, and where a file of tensors has it: in a config.json beside it.
CONFIGURED = {"fb_dcgan_32", "fb_pgan_32"}
# What the reader of these finds beside the tensors, and must be told of a file that has only tensors.
TOLD_OTHERWISE: dict[str, dict[str, object]] = {
    "hammer_stylegan2_cond_resnet_16": {},
    "hammer_stylegan3_16": {},
    "hammer_stylegan_fused_16": {"fused": "all"},
    "mm_biggan_32": {"channels": "rgb"},
    "mm_sagan_32": {"gains": "1"},
}
HALF_GROWN = ("mm_pggan_16", "mm_stylegan_16")  # How far training had come is beside the tensors.
TRAINED = ("dcgan_real_face_64", "dcgan_real_eye_cond_128")  # made anew, in minutes


def flat(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested dicts, with the dicts' keys before theirs."""
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value.detach().clone().contiguous()
        elif isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")


def state_dicts() -> list[str]:
    names = [name for name in MANIFEST if name not in ("README", *TRAINED, *HALF_GROWN)]
    return [name for name in names if GoldenCheckpoint(name).path.suffix != ".pkl"]


@pytest.mark.parametrize("name", state_dicts())
def test_the_same_tensors_are_the_same_generator(tmp_path: Path, name: str) -> None:
    case = GoldenCheckpoint(name)
    content = read_contents(case.path)
    assert isinstance(content, Mapping)
    save_file(dict(flat(content)), tmp_path / "model.safetensors")
    for config in case.path.parent.glob("*config.json"):
        shutil.copy(config, tmp_path / (".config.json" if config.name.startswith(".") else "config.json"))
    if name in CONFIGURED:
        state = content["config"].state if isinstance(content["config"], Placeholder) else content["config"]
        (tmp_path / "config.json").write_text(json.dumps(state))
    expected = sefa.load(case.path, num_classes=case.num_classes)
    told = TOLD_OTHERWISE.get(name)
    generator = sefa.load(tmp_path / "model.safetensors", num_classes=case.num_classes, assume=told)
    assert generator.checkpoint_format == expected.checkpoint_format
    assert told is not None or generator.assumptions == expected.assumptions
    z = torch.from_numpy(latents_from_seeds([1, 2], expected.z_dim))
    label = torch.tensor([0, 1]) if expected.num_classes else None
    for psi in (1.0, 0.5) if expected.supports_truncation else (1.0,):
        with torch.no_grad():
            one, other = (each.decode(each.encode(z, label, psi)) for each in (expected, generator))
        torch.testing.assert_close(other, one, rtol=0, atol=0)
