"""Weights for a module of the user's own: files as training scripts write them, and which entry and prefix fits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sefa import CheckpointError
from sefa.custom import load_weights

State = dict[str, Tensor]


class Net(nn.Module):
    grid: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.main = nn.Linear(4, 8), nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 3))
        self.register_buffer("grid", torch.zeros(2), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = self.main(self.first(z))
        return x + self.grid.sum()


def net(seed: int) -> Net:
    torch.manual_seed(seed)
    return Net()


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


def lightning(state: State) -> dict[str, Any]:
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.1",
        "state_dict": prefixed(state, "generator.") | prefixed(nn.Linear(3, 1).state_dict(), "discriminator."),
        "optimizer_states": [torch.optim.Adam(nn.Linear(2, 2).parameters()).state_dict()],
        "hyper_parameters": {"lr": 1e-3, "latent_dim": 4},
    }


FILES: dict[str, Callable[[Net], Any]] = {
    "state dict": lambda net: net.state_dict(),
    "data parallel": lambda net: nn.DataParallel(net).state_dict(),
    "compiled, in data parallel": lambda net: prefixed(net.state_dict(), "module._orig_mod."),
    "wrapper inside": lambda net: {key.replace("main.", "main.module."): one for key, one in net.state_dict().items()},
    "training dict": lambda net: {"G": net.state_dict(), "D": nn.Linear(3, 1).state_dict(), "step": 7},
    "averaged": lambda n: {"netG": net(5).state_dict(), "netG_ema": n.state_dict(), "opt": {"state": {}}},
    "lightning": lambda net: lightning(net.state_dict()),
    "deep prefix": lambda net: {"model": prefixed(net.state_dict(), "gan.netG.module.")},
    "whole module": lambda net: net,
    "whole module in a dict": lambda net: {"generator": nn.DataParallel(net), "epoch": 1},
    "persistent buffer": lambda net: net.state_dict() | {"grid": torch.zeros(2)},
    "older batch norm": lambda net: {k: one for k, one in net.state_dict().items() if "num_batches" not in k},
}


@pytest.mark.parametrize("name", FILES)
def test_the_entry_and_prefix_that_fit_are_found(tmp_path: Path, name: str) -> None:
    original, module = net(1), net(2)
    torch.save(FILES[name](original), tmp_path / "w.ckpt")
    load_weights(module, tmp_path / "w.ckpt")
    torch.testing.assert_close(module.state_dict(), original.state_dict(), rtol=0, atol=0)


def test_a_buffer_outside_the_state_dict_is_loaded_where_the_file_has_it(tmp_path: Path) -> None:
    module = net(1)
    torch.save(net(2).state_dict() | {"grid": torch.tensor([1.0, 2.0])}, tmp_path / "w.pth")
    load_weights(module, tmp_path / "w.pth")
    assert module.grid.tolist() == [1, 2]
    torch.save(net(2).state_dict() | {"grid": torch.ones(3)}, tmp_path / "w.pth")
    with pytest.raises(
        CheckpointError, match=r"do not fit Net: of the wrong shape grid \[3\] where \[2\] was expected"
    ):
        load_weights(module, tmp_path / "w.pth")


class Wrapper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.DataParallel(Net())


@pytest.mark.parametrize("name", ["state dict", "data parallel", "training dict", "whole module in a dict"])
def test_a_module_that_wraps_the_saved_one_gets_its_weights(tmp_path: Path, name: str) -> None:
    original, module = net(1), Wrapper()
    torch.save(FILES[name](original), tmp_path / "w.pth")
    if name in ("training dict", "whole module in a dict"):
        state = {"G": original.state_dict(), "D": nn.Linear(3, 1).state_dict()}
        torch.save(state if name == "training dict" else {"generator": original}, tmp_path / "w.pth")
    load_weights(module, tmp_path / "w.pth")
    torch.testing.assert_close(module.generator.module.state_dict(), original.state_dict(), rtol=0, atol=0)


def test_safetensors_are_read_under_their_prefix(tmp_path: Path) -> None:
    original, module = net(1), net(2)
    save_file(
        prefixed(original.state_dict(), "generator.") | {"discriminator.weight": torch.ones(3)},
        tmp_path / "w.safetensors",
    )
    assert load_weights(module, tmp_path / "w.safetensors") == "generator"
    torch.testing.assert_close(module.state_dict(), original.state_dict(), rtol=0, atol=0)


class OldNorm(nn.Module):
    def __init__(self, norm: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.first = norm(nn.Linear(4, 8))


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_keys_that_the_class_itself_converts_fit(tmp_path: Path) -> None:
    """torch's weight norm was a hook once, whose keys the newer one converts when it loads them."""
    original = OldNorm(nn.utils.weight_norm)
    torch.save({"G": OldNorm(nn.utils.weight_norm).state_dict(), "G_ema": original.state_dict()}, tmp_path / "w.pth")
    module = OldNorm(nn.utils.parametrizations.weight_norm)
    assert load_weights(module, tmp_path / "w.pth") == "G_ema, of G, G_ema"
    z = torch.randn(2, 4)
    torch.testing.assert_close(module.first(z), original.first(z))
    torch.save({"G": {"first.weight_g": torch.ones(8, 1)}}, tmp_path / "w.pth")
    with pytest.raises(
        CheckpointError, match=r"the nearest, G, has missing first\.bias, first\.param.*unexpected first\.weight_g"
    ):
        load_weights(module, tmp_path / "w.pth")


def test_the_nearest_entry_is_named_with_what_does_not_fit(tmp_path: Path) -> None:
    state = net(1).state_dict()
    del state["first.bias"]
    state["main.1.weight"] = torch.ones(3, 9)
    state["extra"] = torch.ones(1)
    torch.save({"opt": {}, "D": nn.Linear(4, 8).state_dict(), "nets": {"gen": state}}, tmp_path / "w.pth")
    message = (
        r"w\.pth: its weights do not fit Net: the nearest, nets\.gen, has missing first\.bias; unexpected extra; "
        r"of the wrong shape main\.1\.weight \[3, 9\] where \[3, 8\] was expected"
    )
    for entry in (None, "gen"):
        module = net(2)
        with pytest.raises(CheckpointError, match=message):
            load_weights(module, tmp_path / "w.pth", entry)


def test_a_module_without_shapes_gets_them_from_the_file(tmp_path: Path) -> None:
    original, module = net(1), net(2)
    module.first = nn.LazyLinear(8)
    torch.save(original.state_dict(), tmp_path / "w.pth")
    load_weights(module, tmp_path / "w.pth")
    torch.testing.assert_close(module.first.weight, original.first.weight)
