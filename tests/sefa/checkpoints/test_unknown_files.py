"""What is said of files that no format recognises.

`python tests/sefa/checkpoints/test_unknown_files.py` writes the kinds of keys of the golden checkpoints' formats anew.
"""

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sefa
from sefa import CheckpointError
from sefa.checkpoints.checkpoint import Checkpoint
from sefa.checkpoints.contents import read_contents
from sefa.checkpoints.entries import Entry, find_entries, parts_of
from sefa.checkpoints.formats import FORMATS
from sefa.checkpoints.pickled_networks import PersistedModule
from sefa.checkpoints.unknown_files import KNOWN_KEYS, first_layer, kind_of_key, known_keys

DEPTH = 4
TRAINED = ("dcgan_real_face_64", "dcgan_real_eye_cond_128")  # made anew, in minutes


def kinds_of_goldens() -> dict[str, set[str]]:
    """Return the kinds of keys of all golden state dicts, and of those of pickled networks, by their format."""
    from support.golden_checkpoints import MANIFEST, GoldenCheckpoint

    kinds: dict[str, set[str]] = {}
    for name in MANIFEST:
        if name != "README" and name not in TRAINED:
            path = GoldenCheckpoint(name).path
            for entry in find_entries(read_contents(path)):
                for found, keys in _recognised(path, entry, DEPTH):
                    kinds.setdefault(found, set()).update(map(kind_of_key, keys))
    return kinds


def _recognised(path: Path, entry: Entry, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    network = entry.network.tensors() if isinstance(entry.network, PersistedModule) else entry.network
    for format_ in FORMATS:
        if format_.recognises(Checkpoint(path, network)):
            if format_.is_supported and isinstance(network, Mapping):
                yield format_.name, network
            return
    for part in parts_of(entry) if depth else ():
        yield from _recognised(path, part, depth - 1)


def test_the_known_keys_are_those_of_the_golden_checkpoints() -> None:
    goldens = kinds_of_goldens()
    assert {name: goldens[name] for name in known_keys()} == known_keys(), f"python {__file__}"


def refusal(tmp_path: Path, content: object) -> str:
    torch.save(content, tmp_path / "my netG.pth")
    with pytest.raises(CheckpointError) as raised:
        sefa.load(tmp_path / "my netG.pth")
    message = str(raised.value)
    assert "\n" not in message
    return message


def renamed_stylegan2() -> dict[str, Tensor]:
    """A StyleGAN2 like rosinality's, of somebody who called a few layers otherwise."""
    kinds = sorted(known_keys()["rosinality StyleGAN2"])
    tensors = {kind.replace("#", "1"): torch.ones(2, 2) for kind in kinds}
    return {key.replace("conv1.conv.modulation", "conv1.conv.affine"): tensor for key, tensor in tensors.items()}


def test_the_nearest_format_is_named_with_what_differs(tmp_path: Path) -> None:
    message = refusal(tmp_path, renamed_stylegan2())
    count = len(known_keys()["rosinality StyleGAN2"])
    assert f"nearest known format is rosinality StyleGAN2, of whose {count} kinds of keys it has {count - 2}" in message
    assert "missing conv#.conv.modulation.bias, conv#.conv.modulation.weight, unexpected conv#.conv.affine" in message
    message = refusal(tmp_path, {f"net.{key}": value for key, value in renamed_stylegan2().items()})
    assert "nearest known format to its net is rosinality StyleGAN2" in message
    assert "nearest known" not in refusal(tmp_path, {"encoder.weight": torch.ones(3, 3)})


class Mine(nn.Module):
    """A generator that no format knows."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(12, 4 * 16)
        self.grow = nn.ConvTranspose2d(4, 3, 4, 2, 1)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.grow(self.start(z).reshape(-1, 4, 4, 4)))


@pytest.mark.parametrize("wrap", [lambda weights: weights, lambda weights: {"mine": weights, "step": 3}])
def test_the_command_is_right_for_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sefa_command: Any, wrap: Any
) -> None:
    message = refusal(tmp_path, wrap(Mine().state_dict()))
    command = shlex.split(message.split("`")[1])
    assert command[:2] == ["sefa", "export"]
    assert command[-2:] == ["-o", "my netG.onnx"]
    monkeypatch.chdir(tmp_path)
    arguments = [f"{__name__}:Mine" if part == "MODULE:CLASS" else part for part in command[2:]]
    done = sefa_command("inspect", *arguments[:-2])
    assert done.code == 0, done.err
    assert "latent z of 12" in done.out


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"fc.weight": (64, 100), "conv.weight": (8, 4, 3, 3)}, ("fc", 100)),
        ({"l1.0.bias": (64,), "l1.0.weight_orig": (64, 100)}, ("l1.0", 100)),
        ({"up.weight": (100, 64, 4, 4), "conv.weight": (8, 4, 3, 3)}, ("up", 100)),
        ({"mapping.0.weight": (64, 64), "mapping.1.weight": (64, 64)}, None),
        ({"label_emb.weight": (10, 10), "fc.weight": (64, 110)}, None),
        ({"conv.weight": (8, 4, 1, 1)}, None),
        ({"bias": (4,)}, None),
    ],
)
def test_the_first_layer_is_told_where_its_shape_shows_it(
    shapes: dict[str, tuple[int, ...]], expected: tuple[str, int] | None
) -> None:
    assert first_layer({key: torch.zeros(shape) for key, shape in shapes.items()}) == expected


def test_every_way_to_the_files_own_code_names_the_file(tmp_path: Path) -> None:
    whole = refusal(tmp_path, Mine())
    assert f"`sefa inspect {Mine.__module__}:Mine --weights '{tmp_path / 'my netG.pth'}'`" in whole
    assert "--weights FILE" not in whole


def test_a_file_cannot_suggest_functions_of_pythons_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Theirs(nn.Module):
        pass

    Theirs.__module__, Theirs.__qualname__ = "antigravity", "Generator"
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "antigravity", SimpleNamespace(Generator=Theirs))
        said = refusal(tmp_path, Theirs())
    assert "`sefa inspect MODULE:CLASS" in said


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    written = {name: sorted(kinds) for name, kinds in sorted(kinds_of_goldens().items())}
    KNOWN_KEYS.write_text(json.dumps(written, indent=1) + "\n")
