"""What is recorded of an original's code, of a DCGAN whose code is torch's own."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

import sefa
from support.record_golden import Directions, record


def test_a_recorded_checkpoint_is_what_our_reading_computes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = nn.ConvTranspose2d(6, 5, 4)
    original = nn.Sequential(first, nn.ReLU(), nn.ConvTranspose2d(5, 3, 4, 2, 1), nn.Tanh())
    checkpoint = tmp_path / "mine_8" / "netG.pth"
    checkpoint.parent.mkdir()
    torch.save(original.state_dict(), checkpoint)
    weight = first.weight.permute(1, 2, 3, 0).reshape(-1, 6)
    golden = record(
        checkpoint,
        lambda z, _: original(z[:, :, None, None]),
        6,
        {"linear": Directions(weight, columns=(0, 6))},
        source="mine/gan",
        commit="0123abc",
        config={"nz": 6},
        folder=tmp_path,
    )
    generator = sefa.load(checkpoint)
    bank = sefa.factorize(generator, top=6)
    with np.load(golden) as arrays, torch.no_grad():
        z, step = torch.from_numpy(arrays["z"]), -2.0 * bank.vectors[1]
        assert np.abs(generator.decode(z[:2, None]).numpy() - arrays["img"]).max() < 1e-6
        assert np.abs(bank.vectors.numpy() - arrays["dirs__linear"]).max() < 1e-5
        assert np.allclose(bank.eigenvalues.numpy(), arrays["eigvals__linear"], rtol=1e-5)
        assert int(arrays["rank__linear"]) == 6
        edited = generator.decode(z[:1, None] + step).numpy()[..., 2:6, 2:6]
        assert np.abs(edited - arrays["imgcrop_edit__linear"][1]).max() < 1e-5
    entry = json.loads((tmp_path / "MANIFEST.json").read_text())["mine_8"]
    assert (entry["checkpoint"], entry["sets"]) == ("netG.pth", {"linear": {"z_columns": [0, 6]}})
