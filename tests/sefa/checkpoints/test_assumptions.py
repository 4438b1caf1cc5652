"""What the formats take for granted: said, and changed by the owner's word."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sefa
from sefa import ArgumentError
from sefa.checkpoints.contents import read_contents
from support.golden_checkpoints import GoldenCheckpoint
from support.stylegan2_files import Spec, random_tensors, tensorflow_network, tensorflow_variables, write_tensorflow

State = dict[str, Tensor]


def render(generator: sefa.Generator) -> Tensor:
    z = torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 1]) if generator.num_classes else None
    with torch.no_grad():
        return generator.decode(generator.encode(z, label))


def halved(pattern: str) -> Callable[[str, Tensor], Tensor]:
    return lambda key, tensor: tensor / 2 if pattern in key else tensor


def larger_variance(key: str, tensor: Tensor) -> Tensor:
    if key.endswith("running_var"):  # StudioGAN's
        return tensor - (0.01 - 1e-4)
    return tensor - (0.01 - 1e-5) if key.startswith("blocks.") and key.endswith("stored_var") else tensor


def turned(key: str, tensor: Tensor) -> Tensor:
    ups = [f"synthesis.layer{k}.weight" for k in (2, 4, 6, 8)]
    return tensor.flip(2, 3) if key in ups else tensor


# A golden file, its entry, a change of its weights that undoes what is told, and the words for both.
TOLD: dict[str, Any] = {
    "rosinality": ("rosi_convert_32", "g_ema", halved("style."), {"mapping_lr": 0.02}, "learning rate 0.01", "0.02"),
    "BasicSR": (
        "basicsr_16", "params_ema", halved("style_mlp."), {"mapping_lr": 0.02}, "not bilinear filter 1,3,3,1", "0.02",
    ),
    "genforce StyleGAN2": (
        "sefa_stylegan2_cond_32", "generator", halved("mapping.dense"), {"mapping_lr": 0.02},
        "learning rate 0.01", "0.02",
    ),
    "lucidrains": ("lucidrains_32", "GAN", halved("SE.net"), {"mapping_lr": 0.2}, "learning rate 0.1", "0.2"),
    "genforce StyleGAN": (
        "sefa_stylegan_64", "generator_smooth", turned, {"fused": "all"},
        "upsampling fused from 128 pixels on", "upsampling fused (as told)",
    ),
    "StudioGAN": (
        "studio_biggan_32", "state_dict", larger_variance, {"bn_eps": 0.01},
        "batch norms' eps 0.0001", "eps 0.01 (as told)",
    ),
    "BigGAN": (
        "biggan_cifar_32", "", larger_variance, {"bn_eps": 0.01}, "batch norms' eps 1e-05", "eps 0.01 (as told)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TOLD)
def test_what_is_told_is_meant_and_said(tmp_path: Path, case: str) -> None:
    name, entry, change, told, usual, said = TOLD[case]
    golden = GoldenCheckpoint(name)
    content: Any = read_contents(golden.path)
    state = content[entry] if entry else content
    if case == "BigGAN":  # Room for the difference.
        state = {key: tensor + 0.1 if key.endswith("stored_var") else tensor for key, tensor in state.items()}
    torch.save(state, tmp_path / "as_it_is.pt")
    torch.save({key: change(key, tensor) for key, tensor in state.items()}, tmp_path / "changed.pt")
    plain = sefa.load(tmp_path / "as_it_is.pt")
    changed = sefa.load(tmp_path / "changed.pt", assume=told)
    torch.testing.assert_close(render(changed), render(plain), atol=1e-4, rtol=0)
    assert usual in " ".join(plain.assumptions)
    assert said in " ".join(changed.assumptions)
    # And without a word it would have been another image.
    assert (render(sefa.load(tmp_path / "changed.pt")) - render(plain)).abs().max() > 1e-3


def test_the_owner_says_how_many_blocks_of_a_biggan_deep_make_a_stage() -> None:
    path = GoldenCheckpoint("biggandeep_32").path
    assert "2 blocks in a stage" in sefa.load(path).assumptions
    generator = sefa.load(path, assume={"depth": 1})
    assert "1 blocks in a stage (as told)" in generator.assumptions
    assert generator.resolution > sefa.load(path).resolution
    with pytest.raises(ArgumentError, match=r"depth=3: one of 1, 2 was expected"):
        sefa.load(path, assume={"depth": 3})


def test_the_owner_says_what_is_at_the_end_of_a_pggan() -> None:
    path = GoldenCheckpoint("sefa_pggan_32").path
    plain = sefa.load(path)
    assert "nothing after the last layer" in plain.assumptions
    told = sefa.load(path, assume={"output": "tanh"})
    torch.testing.assert_close(render(told), render(plain).tanh())
    assert (render(sefa.load(path, assume={"slope": 0.1})) - render(plain)).abs().max() > 1e-3


def test_of_tensorflows_options_those_that_are_silent_can_be_told(tmp_path: Path) -> None:
    spec = Spec(taps=torch.tensor([1.0, 2.0, 1.0, 0.5]), channels=(4, 3))
    variables = tensorflow_variables(spec, random_tensors(spec))
    taps = [1.0, 2.0, 1.0, 0.5]
    silent = write_tensorflow(tmp_path / "silent.pkl", tensorflow_network(variables))
    settled = sefa.load(
        write_tensorflow(
            tmp_path / "settled.pkl", tensorflow_network(variables, resample_kernel=taps, mapping_lrmul=0.01)
        )
    )
    assert not [words for words in settled.assumptions if "filter" in words or "rate" in words]
    assert "filter 1,3,3,1" in sefa.load(silent).assumptions
    told = sefa.load(silent, assume={"resample_kernel": taps})
    torch.testing.assert_close(render(told), render(settled))
    assert "filter 1,2,1,0.5 (as told)" in told.assumptions


def test_a_format_of_which_nothing_is_assumed_takes_no_word() -> None:
    path = GoldenCheckpoint("nv_ada_skip_64").path
    assert sefa.load(path).assumptions == ()
    with pytest.raises(ArgumentError, match="no fact 'stride' is assumed of it: nothing can be told"):
        sefa.load(path, assume={"stride": 2})
