"""State dicts of NVlabs' networks: what the recorded pickles hold of tensors is enough to build the same generators.

tests/sefa/checkpoints/formats/test_formats.py compares the pickles with the original code's recorded output.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import sefa
from sefa import ArgumentError, CheckpointError
from sefa.checkpoints.checkpoint import Checkpoint, LoadOptions
from sefa.checkpoints.contents import read_contents
from sefa.checkpoints.formats import FORMATS
from sefa.checkpoints.pickled_networks import PersistedModule
from support.golden_checkpoints import MANIFEST, GoldenCheckpoint

NAMES = [name for name in MANIFEST if name.startswith("nv_")]
# What their training scripts were told, and no tensor shows.
TOLD: dict[str, dict[str, object]] = {
    "nv_ada_orig_gray_32": {"conv_clamp": "none"},
    "nv_ada_resnet_32": {"conv_clamp": 1.5},
}


def state_dict(name: str, entry: str = "G_ema") -> dict[str, Tensor]:
    network = read_contents(GoldenCheckpoint(name).path)[entry]
    assert isinstance(network, PersistedModule)
    return {key: tensor.clone() for key, tensor in network.tensors().items()}


def assert_equal(ours: sefa.Generator, pickled: sefa.Generator) -> None:
    """Same parameters, same hyperparameters: the modules print the latter."""
    one, other = ours.state_dict(), pickled.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    for mine, theirs in zip(ours.modules(), pickled.modules(), strict=True):
        assert plain(mine) == plain(theirs)


def plain(module: torch.nn.Module) -> dict[str, Any]:
    skipped = ("assumptions", "checkpoint_format", "source_entry", "source_sha256")
    return {key: value for key, value in vars(module).items() if not key.startswith("_") and key not in skipped}


@pytest.mark.parametrize("name", NAMES)
def test_a_state_dict_gives_the_pickles_generator(name: str, tmp_path: Path) -> None:
    path = tmp_path / "network.pt"
    torch.save({"G": state_dict(name), "G_ema": state_dict(name)}, path)
    ours = sefa.load(path, assume=TOLD.get(name))
    assert_equal(ours, GoldenCheckpoint(name).load())
    assert any("learning rate 0.01" in words for words in ours.assumptions)


WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda state: state,
    "G_ema": lambda state: {"G_ema": state, "iteration": 3},
    "Lightning": lambda state: {"state_dict": {f"G_ema.{key}": value for key, value in state.items()}},
    "DataParallel": lambda state: {f"module.{key}": value for key, value in state.items()},
}


@pytest.mark.parametrize("name", ["nv_ada_cond_map2_32", "nv_xl_stem_cond_16"])
@pytest.mark.parametrize("wrapper", WRAPPED)
def test_wrapped(name: str, wrapper: str, tmp_path: Path) -> None:
    path = tmp_path / "network.pt"
    torch.save(WRAPPED[wrapper](state_dict(name)), path)
    assert_equal(sefa.load(path), GoldenCheckpoint(name).load())


def test_from_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in state_dict("nv_sg3_r_cond_32").items()}, path)
    assert_equal(sefa.load(path), GoldenCheckpoint("nv_sg3_r_cond_32").load())


def saved(state: dict[str, Tensor], path: Path) -> Path:
    torch.save(state, path / "network.pt")
    return path / "network.pt"


def test_an_xl_without_classes_keeps_its_embeddings_unused(tmp_path: Path) -> None:
    state = state_dict("nv_xl_stem_cond_16")
    z_dim = state["mapping.embed_proj.bias"].numel()
    del state["mapping.embed_proj.weight"], state["mapping.embed_proj.bias"]
    state["mapping.fc0.weight"] = state["mapping.fc0.weight"][:, :z_dim].clone()
    state["mapping.w_avg"] = state["mapping.w_avg"][0].clone()
    generator = sefa.load(saved(state, tmp_path))
    assert (generator.num_classes, generator.z_dim, generator.checkpoint_format) == (
        0,
        z_dim,
        "StyleGAN-XL, a state dict",
    )


def test_what_no_tensor_shows_can_be_told(tmp_path: Path) -> None:
    name = "nv_sg3_t_32"
    told = {"output_scale": 0.5, "mapping_lr": 0.02, "conv_clamp": 7, "first_cutoff": 2.5}
    path = saved(state_dict(name), tmp_path)
    ours, usual = sefa.load(path, assume=told), sefa.load(path)
    assert isinstance(ours, sefa.generators.StyleGAN3)
    assert isinstance(usual, sefa.generators.StyleGAN3)
    torch.testing.assert_close(ours.rgb.weight, usual.rgb.weight * 2)
    one, other = ours.state_dict(), usual.state_dict()
    torch.testing.assert_close(one["mapping.layers.0.weight"], other["mapping.layers.0.weight"] * 2)
    assert ours.rgb.clamp == 3.5
    assert ours.input.bandwidth == 2.5
    assert sum("as told" in words for words in ours.assumptions) == 4


def longer(state: dict[str, Tensor], which: str) -> None:
    for key in state:
        if key.endswith(which):
            state[key] = torch.nn.functional.pad(state[key], (state[key].shape[-1] // 2,) * 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: longer(state, "_filter"), "12 taps per factor instead of 6.*--assume lrelu_upsampling=2"),
        (
            lambda state: longer(state, "L3_52_16.up_filter"),
            "do not fit together at L2_36_16, with filters of 12 and 12",
        ),
        (lambda state: state["synthesis.input.freqs"].mul_(2), r"up to 3\..*, beyond .* --assume first_cutoff=4"),
        (lambda state: state.pop("synthesis.input.affine.weight"), r"missing synthesis\.input\.affine\.weight"),
        (lambda state: state.pop("synthesis.L2_36_16.up_filter"), "at L2_36_16, with filters of 1 and 12 taps"),
        (
            lambda state: [state.pop(key) for key in list(state) if ".L4_" in key],
            "its layers are L0_36_16, L1_36_16, .*: some are missing",
        ),
    ],
)
def test_what_does_not_fit_is_named(change: Callable[[dict[str, Tensor]], Any], message: str, tmp_path: Path) -> None:
    state = state_dict("nv_sg3_t_32")
    change(state)
    with pytest.raises(CheckpointError, match=message):
        sefa.load(saved(state, tmp_path))


def test_longer_filters_are_read_as_told(tmp_path: Path) -> None:
    """With zeros around them, filters of twice the length do the same, with the same padding around them."""
    state = state_dict("nv_sg3_t_32")
    longer(state, "_filter")
    ours, usual = sefa.load(saved(state, tmp_path), assume={"lrelu_upsampling": 2}), GoldenCheckpoint("nv_sg3_t_32")
    codes = usual.encode()[:1]
    with torch.no_grad():
        torch.testing.assert_close(ours.decode(codes), usual.generator.decode(codes), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("value", ["0", "two", "-1"])
def test_a_factor_that_is_none_is_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=re.escape(f"lrelu_upsampling={value}: a whole number from 1 on")):
        sefa.load(saved(state_dict("nv_sg3_t_32"), tmp_path), assume={"lrelu_upsampling": value})


def test_an_xl_without_its_centres_is_refused(tmp_path: Path) -> None:
    state = state_dict("nv_xl_stem_cond_16")
    del state["mapping.w_avg"]
    with pytest.raises(CheckpointError, match="the number of classes is unknown"):
        sefa.load(saved(state, tmp_path))


# Without it, the centre is estimated; and only layers that change the size use their filters.
OPTIONAL = re.compile(r"(mapping\.)?w_avg|synthesis\.b\d+\.(conv1\.)?resample_filter")


@pytest.mark.parametrize("name", ["nv_ada_resnet_32", "nv_ada_cond_map2_32", "nv_sg3_r_cond_32", "nv_xl_superres_32"])
def test_every_weight_is_needed(name: str) -> None:
    state = state_dict(name)
    unneeded = set()
    for key in state:
        file = Checkpoint(Path("network.pt"), {other: tensor for other, tensor in state.items() if other != key})
        reader = next((format_ for format_ in FORMATS if format_.recognises(file)), None)
        try:
            if reader is not None:
                reader.load(file, LoadOptions())
                unneeded.add(key)
        except CheckpointError:
            pass
    assert [key for key in unneeded if not OPTIONAL.fullmatch(key)] == []
    assert ("mapping.w_avg" in unneeded) != (name == "nv_xl_superres_32")  # Its rows say how many classes there are.
