"""Which of a file's entries is read: the same rule for checkpoints and for a module of the user's own."""

import argparse
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import sefa
from sefa import CheckpointError
from sefa.checkpoints.entries import MAX_ENTRIES, choose, find_entries
from sefa.custom import load_weights
from support.stylegan2_files import (
    Network,
    Spec,
    importable,
    nvidia_network,
    random_tensors,
    reconstruct_persistent_obj,
    tensorflow_network,
    tensorflow_variables,
)

Z = 6
State = dict[str, Tensor]


class Dcgan(nn.Module):
    """A plain one, with batch norm, whose buffers an average of parameters lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(Z, 5, 4, 1, 0, bias=False), nn.BatchNorm2d(5), nn.ReLU(),
            nn.ConvTranspose2d(5, 3, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.main(z)
        return image


def weights(seed: int) -> State:
    torch.manual_seed(seed)
    return {key: tensor.clone() for key, tensor in Dcgan().state_dict().items()}


PLAIN, AVERAGED, OTHER = weights(0), weights(1), weights(2)
# An average of the parameters alone is used with the buffers of the copy in training.
AVERAGED |= {key: tensor for key, tensor in PLAIN.items() if "running" in key}
PARAMETERS = {key: tensor for key, tensor in AVERAGED.items() if not ("running" in key or "num_batches" in key)}
DISCRIMINATOR = {"main.0.weight": torch.ones(5, 3, 4, 4), "main.2.weight": torch.ones(1, 5, 4, 4)}


def under(prefix: str, state: State) -> State:
    return {f"{prefix}.{key}": tensor for key, tensor in state.items()}


def without_dots(state: State) -> State:
    return {key.replace(".", ""): tensor for key, tensor in state.items()}


LIGHTNING = under("generator", PLAIN) | under("discriminator", DISCRIMINATOR)
AVERAGED_MODEL = under("module", AVERAGED) | {"n_averaged": torch.tensor(5)}
# Each with the entry that is to be read.
WITH_AN_AVERAGE: dict[str, tuple[Any, str]] = {
    "generator": ({"generator": PLAIN, "generator_ema": AVERAGED, "epoch": 3}, "generator_ema"),
    "genforce": ({"models": {"generator": PLAIN, "generator_smooth": AVERAGED}}, "models.generator_smooth"),
    "state dicts": ({"G_state_dict": PLAIN, "G_ema_state_dict": AVERAGED}, "G_ema_state_dict"),
    "params": ({"params": PLAIN, "params_ema": AVERAGED}, "params_ema"),
    "model and ema": ({"model": PLAIN, "ema": AVERAGED, "discriminator": DISCRIMINATOR}, "ema"),
    "timm": ({"state_dict": PLAIN, "state_dict_ema": AVERAGED}, "state_dict_ema"),
    "netG": ({"netG": PLAIN, "netG_ema": AVERAGED, "netD": DISCRIMINATOR}, "netG_ema"),
    "glued": ({"netgema": AVERAGED, "netg": PLAIN}, "netgema"),
    "moving average": ({"G": PLAIN, "G_moving_average": AVERAGED}, "G_moving_average"),
    "in a bag": ({"nets": argparse.Namespace(G=PLAIN, G_ema=AVERAGED, lr=0.1)}, "nets.G_ema"),
    "netGEMA": ({"netG": PLAIN, "netGEMA": AVERAGED}, "netGEMA"),
    "ema first": ({"ema_G": AVERAGED, "G": PLAIN}, "ema_G"),
    "avgG": ({"netG": PLAIN, "avgG": AVERAGED}, "avgG"),
    "running": ({"G": PLAIN, "g_running": AVERAGED}, "g_running"),
    "averaged": ({"G": PLAIN, "averaged": AVERAGED}, "averaged"),
    "with its decay": ({"G": PLAIN, "ema_0.999": AVERAGED}, "ema_0.999"),
    "nested": ({"model": {"G": PLAIN, "D": DISCRIMINATOR}, "ema": {"G": AVERAGED}}, "ema.G"),
    "in a list": ({"nets": [{"G": PLAIN, "G_ema": AVERAGED}]}, "nets.0.G_ema"),
    "AveragedModel": ({"G": PLAIN, "swa": AVERAGED_MODEL}, "swa"),
    "AveragedModel of no name": ({"G": PLAIN, "model": AVERAGED_MODEL}, "model"),
    "shadow": ({"generator": PLAIN, "ema": {"decay": 0.999, "shadow": PARAMETERS}}, "ema.shadow"),
    "shadow without names": ({"G": PLAIN, "ema": {"shadow_params": list(PARAMETERS.values())}}, "ema.shadow_params"),
    "shadow of DataParallel": ({"G": PLAIN, "shadow": under("module", PARAMETERS)}, "shadow"),
    "Lightning": (
        {"state_dict": LIGHTNING | under("generator_ema", AVERAGED), "pytorch-lightning_version": "2.1.0"},
        "state_dict.generator_ema",
    ),
    "Lightning, prefixes in one": (
        {"state_dict": under("model", LIGHTNING | under("ema.module", AVERAGED))},
        "state_dict.model.ema",
    ),
    "Lightning's LitEma": (
        {"state_dict": LIGHTNING | under("generator_ema", without_dots(PARAMETERS) | {"decay": torch.tensor(0.9)})},
        "state_dict.generator_ema",
    ),
    "Lightning's WeightAveraging": ({"current_model_state": PLAIN, "state_dict": AVERAGED}, "state_dict"),
    "ema_pytorch": (
        under("online_model", PLAIN) | under("ema_model", AVERAGED) | {"step": torch.tensor([3])},
        "ema_model",
    ),
    "ema_pytorch, beside the generator": (
        {"model": PLAIN, "ema": under("online_model", PLAIN) | under("ema_model", AVERAGED)}, "ema.ema_model"
    ),
    "ema_pytorch alone": (
        {"ema": under("online_model", PLAIN) | under("ema_model", AVERAGED) | {"initted": torch.tensor(True)}},
        "ema.ema_model",
    ),
}  # fmt: skip


def draw(path: Path, **options: Any) -> tuple[Tensor, str]:
    generator = sefa.load(path, **options)
    return render(generator), generator.source_entry


def render(generator: sefa.Generator) -> Tensor:
    z = torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return generator.decode(generator.encode(z))


def expected(state: State) -> Tensor:
    module = Dcgan().eval()
    module.load_state_dict(state)
    with torch.no_grad():
        image: Tensor = module(torch.randn(2, Z, generator=torch.Generator().manual_seed(0))[:, :, None, None])
        return image


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("case", WITH_AN_AVERAGE)
def test_the_averaged_copy_is_read_and_named(tmp_path: Path, case: str) -> None:
    content, entry = WITH_AN_AVERAGE[case]
    image, read = draw(save(tmp_path / "a.pth", content))
    torch.testing.assert_close(image, expected(AVERAGED), atol=1e-6, rtol=0)
    assert read == entry or read.startswith(f"{entry}, of ")


@pytest.mark.parametrize("case", WITH_AN_AVERAGE)
def test_into_a_module_of_the_users_own_goes_the_same_copy(tmp_path: Path, case: str) -> None:
    content, entry = WITH_AN_AVERAGE[case]
    module = Dcgan()
    read = load_weights(module, save(tmp_path / "a.pth", content))
    for key, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, AVERAGED[key])
    assert read == entry or read.startswith(f"{entry}, of ")


def test_what_was_read_is_said_with_what_there_was(tmp_path: Path) -> None:
    content = {"generator": PLAIN, "generator_ema": AVERAGED, "discriminator": DISCRIMINATOR}
    assert draw(save(tmp_path / "a.pth", content))[1] == "generator_ema, of generator, generator_ema"
    assert draw(save(tmp_path / "b.pth", {"netG": PLAIN, "epoch": 3}))[1] == "netG"
    assert draw(save(tmp_path / "c.pth", PLAIN))[1] == ""


def test_an_average_that_does_not_fit_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    content = {"generator": PLAIN, "generator_ema": {"a.weight": torch.ones(3, 3)}}
    image, read = draw(save(tmp_path / "a.pth", content))
    torch.testing.assert_close(image, expected(PLAIN), atol=1e-6, rtol=0)
    assert read == "generator; generator_ema does not fit"


SEVERAL: dict[str, tuple[Any, str, str]] = {
    "gen_a, gen_b": ({"gen_a": PLAIN, "gen_b": OTHER}, "gen_a, gen_b", "gen_b"),
    "CycleGAN's": ({"G_AB": PLAIN, "G_BA": OTHER, "D_A": DISCRIMINATOR}, "G_AB, G_BA", "G_BA"),
    "two with averages": (
        {"G_A": PLAIN, "G_A_ema": AVERAGED, "G_B": PLAIN, "G_B_ema": OTHER},
        "G_A, G_A_ema, G_B, G_B_ema",
        "G_B_ema",
    ),
    "two of a list": ([PLAIN, OTHER], "0, 1", "1"),
    "Lightning's": ({"state_dict": under("gen_a", PLAIN) | under("gen_b", OTHER)}, "state_dict.gen_a, ", "gen_b"),
    "two averages": ({"G": PLAIN, "ema_0.9": AVERAGED, "ema_0.999": OTHER}, "ema_0.9, ema_0.999", "ema_0.999"),
    "of different steps": ({"step_1": {"G": PLAIN}, "step_2": {"G": OTHER}}, "step_1.G, step_2.G", "step_2.G"),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_several_generators_are_named_not_picked(tmp_path: Path, case: str) -> None:
    content, names, entry = SEVERAL[case]
    path = save(tmp_path / "a.pth", content)
    for read in (sefa.load, lambda path: load_weights(Dcgan(), path)):
        with pytest.raises(CheckpointError, match=rf"several .*{names}.*--entry"):
            read(path)
    image, said = draw(path, entry=entry)
    torch.testing.assert_close(image, expected(OTHER), atol=1e-6, rtol=0)
    assert said == f"{entry}, as asked for"
    module = Dcgan()
    load_weights(module, path, entry)
    torch.testing.assert_close(module.state_dict(), OTHER)


def test_one_generator_under_two_names_is_one(tmp_path: Path) -> None:
    image, _ = draw(save(tmp_path / "a.pth", {"G": PLAIN, "best": PLAIN}))
    torch.testing.assert_close(image, expected(PLAIN), atol=1e-6, rtol=0)


def test_an_entry_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no entry 'netX'; it has netG, netG_ema"):
        sefa.load(save(tmp_path / "a.pth", {"netG": PLAIN, "netG_ema": AVERAGED}), entry="netX")


def test_a_part_beside_unknown_parts_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    state = under("generator", PLAIN) | {"label_embedding.weight": torch.ones(3, Z)}
    path = save(tmp_path / "a.pth", {"state_dict": state})
    with pytest.raises(CheckpointError, match=r"generator, label_embedding side by side, .*--entry .*MODULE:CLASS"):
        sefa.load(path)
    torch.testing.assert_close(draw(path, entry="state_dict.generator")[0], expected(PLAIN), atol=1e-6, rtol=0)


def test_layers_that_are_sequentials_are_not_taken_for_generators(tmp_path: Path) -> None:
    module = nn.Module()
    module.layer1 = nn.Sequential(nn.ConvTranspose2d(Z, 5, 4), nn.BatchNorm2d(5), nn.ReLU())
    module.layer2 = nn.Sequential(nn.ConvTranspose2d(5, 3, 4, 2, 1), nn.Tanh())
    with pytest.raises(CheckpointError, match=r"layer1, layer2 side by side, which may be parts of one .*MODULE:CLASS"):
        sefa.load(save(tmp_path / "a.pth", module.state_dict()))


def test_a_whole_module_gives_its_tensors_to_a_module_of_the_users_own(tmp_path: Path) -> None:
    original, module = Dcgan(), Dcgan()
    load_weights(module, save(tmp_path / "a.pth", {"netG": original, "epoch": 3}))
    torch.testing.assert_close(module.state_dict(), original.state_dict())
    whole = nn.ModuleDict({"generator": original, "discriminator": nn.Conv2d(3, 1, 4)})
    module = Dcgan()
    assert load_weights(module, save(tmp_path / "b.pth", whole)) == "generator"
    torch.testing.assert_close(module.state_dict(), original.state_dict())


def test_a_whole_module_in_a_wrapper_is_one_generator(tmp_path: Path) -> None:
    original = Dcgan()
    original.load_state_dict(PLAIN)
    module = Dcgan()
    load_weights(module, str(save(tmp_path / "a.pth", nn.DataParallel(original))))
    torch.testing.assert_close(module.state_dict(), original.state_dict(), atol=0, rtol=0)


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "pytorch_model-00002-of-00002.bin"])
def test_a_part_of_a_divided_checkpoint_is_not_taken_for_the_whole(tmp_path: Path, name: str) -> None:
    first = {key: tensor for key, tensor in PLAIN.items() if not key.startswith("main.3")}
    path = tmp_path / name
    save_file(first, path) if path.suffix == ".safetensors" else save(path, first)
    for read in (sefa.load, lambda path: load_weights(Dcgan(), path)):
        with pytest.raises(CheckpointError, match=f"{name}: one of 2 parts of a checkpoint: put the tensors of all"):
            read(path)
    whole = save(tmp_path / "pytorch_model-00001-of-00001.bin", PLAIN)
    torch.testing.assert_close(draw(whole)[0], expected(PLAIN), atol=1e-6, rtol=0)


def test_safetensors_are_read_by_both_routes(tmp_path: Path) -> None:
    state = {key: tensor.contiguous() for key, tensor in LIGHTNING.items()}
    save_file(state, tmp_path / "a.safetensors", {"format": "pt"})
    image, read = draw(tmp_path / "a.safetensors")
    torch.testing.assert_close(image, expected(PLAIN), atol=1e-6, rtol=0)
    assert read == "generator"
    module = Dcgan()
    load_weights(module, tmp_path / "a.safetensors")
    torch.testing.assert_close(module.state_dict(), PLAIN)


def test_safetensors_that_are_no_generator_are_told_apart(tmp_path: Path) -> None:
    bank = sefa.factorize(sefa.load(save(tmp_path / "a.pth", PLAIN)), top=2).save(tmp_path / "bank.safetensors")
    with pytest.raises(CheckpointError, match="a direction bank, not a generator's weights"):
        sefa.load(bank)
    save_file({"encoder.weight": torch.ones(3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"keys begin with encoder\.weight; .*MODULE:CLASS --weights"):
        sefa.load(tmp_path / "other.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes((tmp_path / "other.safetensors").read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="a safetensors file, truncated or damaged"):
        sefa.load(damaged)


def test_without_the_package_safetensors_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"0.weight": torch.ones(3, 3, 4, 4)}, tmp_path / "a.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(CheckpointError, match="a safetensors file, which needs the package: pip install safetensors"):
        sefa.load(tmp_path / "a.safetensors")


# NVlabs' networks.

SPEC = Spec(channels=(4, 3), noise=True)


def nvidia(seed: int) -> Any:
    return nvidia_network(SPEC, random_tensors(SPEC, seed))


@pytest.mark.parametrize(
    ("wrap", "entry"),
    [
        (lambda plain, averaged: averaged, ""),
        (lambda plain, averaged: {"G": averaged}, "G"),
        (lambda plain, averaged: {"G": plain, "G_ema": averaged}, "G_ema, of G, G_ema"),
        (lambda plain, averaged: {"G": plain, "D": None, "ema": {"G": averaged}}, "ema.G, of G, ema.G"),
        (lambda plain, averaged: (averaged,), "0"),
        (lambda plain, averaged: [{"networks": {"G": averaged}}, 3], "0.networks.G"),
        (lambda plain, averaged: {"G": argparse.Namespace(module=averaged)}, "G.module"),
    ],
)
@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_nvlabs_networks_are_found_wherever_they_lie(
    tmp_path: Path, wrap: Callable[[Any, Any], Any], entry: str, write: Callable[[Any, Path], object]
) -> None:
    with importable(reconstruct_persistent_obj):
        write({"G_ema": nvidia(1)}, tmp_path / "usual.pkl")
        write(wrap(nvidia(0), nvidia(1)), tmp_path / "a.pkl")
    image, read = draw(tmp_path / "a.pkl")
    torch.testing.assert_close(image, draw(tmp_path / "usual.pkl")[0], atol=0, rtol=0)
    assert read == entry


def tensorflow(seed: int, name: str = "Gs") -> Network:
    network = tensorflow_network(tensorflow_variables(SPEC, random_tensors(SPEC, seed)))
    network.name = name
    return network


@pytest.mark.parametrize(
    ("wrap", "entry"),
    [
        (lambda plain, averaged: averaged, ""),
        (lambda plain, averaged: (averaged,), "Gs"),
        (lambda plain, averaged: {"Gs": averaged}, "Gs"),
        (lambda plain, averaged: {"G": plain, "Gs": averaged}, "Gs, of G, Gs"),
        (lambda plain, averaged: (plain, averaged), "Gs, of G, Gs"),
        (lambda plain, averaged: {"nets": [plain, averaged]}, "nets.Gs, of nets.G, nets.Gs"),
    ],
)
def test_tensorflow_networks_are_found_wherever_they_lie(
    tmp_path: Path, wrap: Callable[[Any, Any], Any], entry: str
) -> None:
    with importable(Network):
        (tmp_path / "usual.pkl").write_bytes(pickle.dumps((Network(), Network(), tensorflow(1))))
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(wrap(tensorflow(0, "G"), tensorflow(1))))
    image, read = draw(tmp_path / "a.pkl")
    torch.testing.assert_close(image, draw(tmp_path / "usual.pkl")[0], atol=0, rtol=0)
    assert read == entry


def test_what_contains_itself_is_looked_at_a_bounded_number_of_times() -> None:
    content: dict[str, Any] = {"G": PLAIN}
    content |= {f"copy {index}": content for index in range(18)}
    assert 1 <= len(find_entries(content)) <= MAX_ENTRIES
    generators = choose(find_entries(content), lambda network: isinstance(network, dict) and "main.0.weight" in network)
    assert generators is not None
    assert generators.entry.network["main.0.weight"] is PLAIN["main.0.weight"]  # type: ignore[index]
