"""What a FastGAN's file leaves open, and the other ways in which its weights are stored."""

import re
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import sefa
from sefa.checkpoints.contents import read_contents
from sefa.checkpoints.pickled_networks import module_tensors
from sefa.generators.fastgan import FastGAN
from support.paths import CHECKPOINTS

FASTGAN = CHECKPOINTS / "fastgan_256" / "50000.pth"
PROJECTED = CHECKPOINTS / "projected_fastgan_cond_128" / "network-snapshot.pkl"
BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "weight_u", "weight_v")


def weights() -> dict[str, Tensor]:
    content: dict[str, Any] = torch.load(FASTGAN, weights_only=True)
    return {key.removeprefix("module."): tensor for key, tensor in content["g"].items()}


def image(generator: sefa.Generator) -> Tensor:
    z = torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 2]) if generator.num_classes else None
    with torch.no_grad():
        return generator.decode(generator.encode(z, label))


def test_an_average_without_names_is_that_of_the_parameters(tmp_path: Path) -> None:
    plain = weights()
    average = [tensor * 1.01 for key, tensor in plain.items() if not key.endswith(BUFFERS)]
    torch.save({"g": plain, "d": {}, "g_ema": average}, tmp_path / "all_50000.pth")
    torch.save(
        {key: tensor if key.endswith(BUFFERS) else tensor * 1.01 for key, tensor in plain.items()}, tmp_path / "ema.pth"
    )
    generator = sefa.load(tmp_path / "all_50000.pth")
    assert generator.source_entry == "g_ema, of g, g_ema"
    assert image(generator).equal(image(sefa.load(tmp_path / "ema.pth")))


def test_the_end_is_what_the_owner_says() -> None:
    linear, bounded = sefa.load(FASTGAN), sefa.load(FASTGAN, assume={"output": "tanh"})
    assert linear.assumptions == ("nothing after the last layer",)
    assert bounded.assumptions == ("tanh at the end (as told)",)
    assert torch.allclose(image(bounded), image(linear).tanh())


def test_images_of_1024_pixels_end_in_a_tanh(tmp_path: Path) -> None:
    state = weights()
    for size in (512, 1024):  # Further levels, like the last: of two convolutions with noise, and of one.
        for place in (1, 5) if size == 512 else (1,):
            state |= {f"feat_{size}.{place}.weight": torch.full((2, 1, 3, 3), 0.1)}
            norm = place + 2 if size == 512 else 2
            state |= {f"feat_{size}.{norm}.{name}": torch.zeros(2) for name in ("bias", "running_mean")}
            state |= {f"feat_{size}.{norm}.{name}": torch.ones(2) for name in ("weight", "running_var")}
            state |= {f"feat_{size}.{place + 1}.weight": torch.ones(1)} if size == 512 else {}
    state |= {"se_512.main.1.weight": torch.ones(1, 4, 4, 4), "se_512.main.3.weight": torch.ones(1, 1, 1, 1)}
    torch.save(state, tmp_path / "large.pth")
    generator = sefa.load(tmp_path / "large.pth")
    assert generator.resolution == (1024, 1024)
    assert generator.assumptions == ("tanh at the end",)


def test_noise_is_the_same_every_time_or_left_out() -> None:
    generator = sefa.load(FASTGAN)
    assert generator.noise == "const, seed 0: the file stores none"
    assert image(generator).equal(image(sefa.load(FASTGAN)))
    assert not torch.allclose(image(generator), image(sefa.load(FASTGAN, noise="none")), atol=1e-3)


@pytest.mark.parametrize("alpha", [-3.0, 1.0])
def test_projected_gan_normalises_the_edited_latent(alpha: float) -> None:
    generator = sefa.load(PROJECTED)
    z = torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(1))
    label = torch.tensor([0, 1])
    bank = sefa.factorize(generator, top=1)
    moved = z + alpha * bank.vectors[0, : generator.latent_dim]
    longer = 3 * moved
    with torch.no_grad():
        edited = generator.decode(generator.encode(z, label) + alpha * bank.vectors[0])
        assert torch.allclose(edited, generator.decode(generator.encode(moved, label)), atol=1e-5)
        assert torch.allclose(edited, generator.decode(generator.encode(longer, label)), atol=1e-4)


def test_projected_gans_lite_levels_have_one_convolution_and_no_noise(tmp_path: Path) -> None:
    state = module_tensors(read_contents(PROJECTED)["G_ema"])
    lite = {}
    for key, tensor in state.items():
        short = re.sub(r"\.(conv|bn)1\.", r".\1.", key)
        if not re.search(r"\.(noise|conv2|bn2)\.", key):
            lite[short] = tensor
    torch.save(lite, tmp_path / "lite.pt")
    generator = sefa.load(tmp_path / "lite.pt")
    assert isinstance(generator, FastGAN)
    assert [len(level) for level in cast("list[nn.ModuleList]", list(generator.levels))] == [1] * 5
    assert not generator.has_noise
    assert generator.num_classes == 3
    assert image(generator).isfinite().all()
