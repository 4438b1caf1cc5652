from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sefa
from sefa import CheckpointError
from support.trained_generators import trained_faces


@pytest.fixture
def state_dict(golden: Path) -> dict[str, Tensor]:
    content: dict[str, Tensor] = torch.load(
        golden / "checkpoints/dcgan_small_64/netG.pth", weights_only=True, map_location="cpu"
    )
    return content


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Any], Path]:
    def save_to(content: Any) -> Path:
        torch.save(content, tmp_path / "netG.pth")
        return tmp_path / "netG.pth"

    return save_to


Save = Callable[[Any], Path]
State = dict[str, Tensor]


def image_of(generator: sefa.Generator) -> Tensor:
    with torch.no_grad():
        return generator.decode(generator.encode(torch.ones(1, generator.z_dim)))


def test_the_architecture_is_read_from_the_tensors(golden: Path) -> None:
    generator = sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")
    assert (generator.family, generator.z_dim, generator.code_dim, generator.num_layers) == ("dcgan", 20, 20, 1)
    assert (generator.resolution, generator.channels, generator.num_classes) == ((64, 64), 3, 0)
    assert not generator.training


def test_the_trained_faces_are_read() -> None:
    generator = sefa.load(trained_faces())
    assert (generator.z_dim, generator.resolution, generator.channels) == (100, (64, 64), 3)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"netG": state},
        lambda state: {"netG_state_dict": state},
        lambda state: {"generator": state, "discriminator": {"a": torch.ones(1)}, "epoch": 7, "loss": 0.5},
        lambda state: {"state_dict": {"G": state}},
        lambda state: {"epoch": 3, "model": {"state_dict": state}},
        lambda state: {"netG": state, "fixed_noise": torch.ones(3)},
        lambda state: state | {"epoch": 3},
        lambda state: {f"module.{key}": tensor for key, tensor in state.items()},
        lambda state: {f"_orig_mod.module.{key}": tensor for key, tensor in state.items()},
        lambda state: {key.removeprefix("main."): tensor for key, tensor in state.items()},
        lambda state: {key.replace("main.", "net.layers."): tensor for key, tensor in state.items()},
        lambda state: {key: tensor for key, tensor in state.items() if "num_batches_tracked" not in key},
        lambda state: {key: tensor.double() if tensor.is_floating_point() else tensor for key, tensor in state.items()},
    ],
)
def test_a_state_dict_is_found_wherever_training_scripts_put_it(
    state_dict: State, save: Save, golden: Path, wrap: Callable[[State], Any]
) -> None:
    expected = image_of(sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth"))
    torch.testing.assert_close(image_of(sefa.load(save(wrap(state_dict)))), expected)


def test_the_averaged_copy_is_preferred(state_dict: State, save: Save, golden: Path) -> None:
    untrained = {key: torch.zeros_like(tensor) for key, tensor in state_dict.items()}
    generator = sefa.load(save({"netG": untrained, "netG_ema": state_dict}))
    torch.testing.assert_close(image_of(generator), image_of(sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")))


def test_half_precision_is_brought_to_single(state_dict: State, save: Save) -> None:
    generator = sefa.load(save({key: tensor.half() for key, tensor in state_dict.items()}))
    assert image_of(generator).dtype == torch.float32


def test_the_format_before_zip_archives_is_read(state_dict: State, tmp_path: Path, golden: Path) -> None:
    torch.save(state_dict, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    expected = image_of(sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth"))
    torch.testing.assert_close(image_of(sefa.load(tmp_path / "old.pth")), expected)


@pytest.mark.parametrize("kind", [AssertionError, AttributeError, IndexError, MemoryError, RuntimeError, TypeError])
def test_a_mistake_of_ours_in_a_format_is_not_called_a_damaged_file(
    golden: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def mistaken(*arguments: object) -> None:
        raise kind("ours")

    monkeypatch.setattr("sefa.checkpoints.formats.dcgan.build", mistaken)
    with pytest.raises(kind, match=r"^ours$") as caught:
        sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")
    assert caught.traceback[-1].name == "mistaken"


class Own(nn.Module):
    """Of a program that is not installed where the file is read."""


def test_a_whole_module_is_refused_with_what_to_save_instead(save: Save) -> None:
    with pytest.raises(CheckpointError, match=r"save the generator's state_dict\(\) instead"):
        sefa.load(save(nn.Sequential(nn.ConvTranspose2d(4, 3, 4))))
    with pytest.raises(CheckpointError, match=r"whole module of class \S*test_loading\.Own, .*state_dict\(\) inst"):
        sefa.load(save({"generator": Own(), "epoch": 3}))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(state_dict: State, save: Save, value: float) -> None:
    state_dict["main.3.weight"][0, 0, 0, 0] = value
    with pytest.raises(CheckpointError, match=r"main\.3\.weight has NaN or infinite values"):
        sefa.load(save(state_dict))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"encoder.weight": torch.ones(3, 3)}, r"no known generator; .* its keys begin with encoder\.weight"),
        ({"main.0.weight": torch.ones(3, 3)}, "no known generator"),
        ({}, "no generator inside: it holds a dict of nothing"),
        ({"main.0.weight": torch.ones(9, 0, 4, 4)}, r"main\.0\.weight is not an ordinary tensor"),
        ({"main.0.weight": torch.ones(9, 3).to_sparse()}, r"main\.0\.weight is not an ordinary tensor"),
        ({"main.0.weight": torch.ones(9, 3, 4, 4, device="meta")}, r"main\.0\.weight is not an ordinary tensor"),
        ({"0.weight": torch.ones(2, 3, 4, 4), "module.0.weight": torch.ones(2, 3, 4, 4)}, "is there twice"),
        ({"9" * 5000 + ".weight": torch.ones(9, 3, 4, 4)}, "a weight.s name of more than 500 characters"),
        ([torch.ones(1)], "no generator inside: it holds a list"),
        ({"epoch": 3, "lr": 0.1}, "no generator inside: it holds a dict of epoch, lr"),
        ({"main.0.weight": torch.ones(9, 3, 4, 4, dtype=torch.int64)}, r"main\.0\.weight is torch\.int64"),
    ],
)
def test_a_torch_file_without_a_generator_is_refused(save: Save, content: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        sefa.load(save(content))
