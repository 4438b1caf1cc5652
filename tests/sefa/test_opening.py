"""Opening whatever holds a generator: what it is, how it is opened, and which of its directions are found."""

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import sefa
from sefa.choices import LabelFormat, Normalize
from sefa.errors import ArgumentError, CheckpointError
from sefa.finding import DirectionChoices, find_directions
from sefa.opening import Device, Kind, OpenOptions, kind_of, open_checkpoint, open_generator
from sefa_export import export_pt2, export_torchscript
from sefa_runtime.errors import InputError
from support.paths import GOLDEN

CHECKPOINT = GOLDEN / "checkpoints/dcgan_small_64/netG.pth"
CPU = OpenOptions(device=Device.CPU)

MODELS = """
from torch import nn


class Generator(nn.Module):
    def __init__(self, size=4):
        super().__init__()
        self.first = nn.Linear(6, 3 * size * size)
        self.size = size

    def forward(self, z):
        return self.first(z).view(-1, 3, self.size, self.size).sigmoid()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A class in a module where the user stands."""
    (tmp_path / "opened_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return Path("opened_models:Generator")


def test_what_a_file_is_shows_in_its_contents(tmp_path: Path) -> None:
    generator = sefa.load(CHECKPOINT)
    bank = sefa.factorize(generator, top=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises torch.export instead.
        torch.jit.script(nn.Linear(3, 2)).save(tmp_path / "archive")  # type: ignore[no-untyped-call]
    shutil.copy(CHECKPOINT, tmp_path / "checkpoint")
    shutil.copy(GOLDEN / "tiny.onnx", tmp_path / "onnx")
    bank.save(tmp_path / "bank")
    export_torchscript(generator, bank, tmp_path / "torchscript")
    export_pt2(generator, bank, tmp_path / "pt2")
    (tmp_path / "text").write_text("hello")
    kinds = {path.name: kind_of(path) for path in tmp_path.iterdir()}
    assert kinds == {
        "archive": Kind.ARCHIVE,
        "bank": Kind.BANK,
        "checkpoint": Kind.CHECKPOINT,
        "onnx": Kind.ONNX,
        "pt2": Kind.PT2,
        "text": Kind.CHECKPOINT,  # Whoever loads it says that it is none.
        "torchscript": Kind.TORCHSCRIPT,
    }
    assert {name for name, kind in kinds.items() if kind.is_model} == {"onnx", "pt2", "torchscript"}
    assert {name for name, kind in kinds.items() if kind.is_own} == {"archive"}


def test_a_class_is_a_name_that_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert kind_of(Path("models:Generator")) == Kind.CLASS
    for name in ("models:", "models:Gener-ator", "C:/models.pth"):
        with pytest.raises(InputError, match="no such file"):
            kind_of(Path(name))
    Path("models:Generator").write_text("hello")
    assert kind_of(Path("models:Generator")) == Kind.CHECKPOINT


def test_a_checkpoint_is_opened_as_load_does() -> None:
    opened = open_generator(CHECKPOINT, CPU)
    codes = opened.encode(torch.ones(1, 20))
    torch.testing.assert_close(opened.decode(codes), sefa.load(CHECKPOINT).decode(codes), rtol=0, atol=0)
    with pytest.raises(CheckpointError, match="no such file"):
        open_generator(Path("gone.pth"), CPU)
    with pytest.raises(CheckpointError, match="no such file"):
        open_checkpoint(Path("opened_models:Generator"), CPU)


def test_a_class_is_built_wrapped_and_warned_of(own: Path) -> None:
    told: list[str] = []
    options = OpenOptions(device=Device.CPU, latent_dim=6, kwargs={"size": 8})
    generator = open_generator(own, options, "first", warn=told.append)
    assert (generator.resolution, generator.z_dim, generator.checkpoint_format) == (
        (8, 8),
        6,
        "opened_models:Generator",
    )
    assert "no --weights" in told[0]
    assert "--image-range 0,1" in told[1]
    with pytest.raises(ArgumentError, match=r"--layers is needed.*first"):
        open_generator(own, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (OpenOptions(latent_dim=6), "--latent-dim is for a generator of your own"),
        (OpenOptions(label_format=LabelFormat.ONEHOT), "--label-input is for a generator of your own"),
        (OpenOptions(run_code=True), "--run-code is for a generator of your own"),
    ],
)
def test_options_of_ones_own_are_not_for_checkpoints(options: OpenOptions, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        open_generator(CHECKPOINT, options)


def test_facts_of_checkpoints_are_not_for_ones_own(own: Path) -> None:
    with pytest.raises(ArgumentError, match="--assume is for checkpoints"):
        open_generator(own, OpenOptions(assume={"stride": "2"}, latent_dim=6), "first")


def test_a_device_that_torch_cannot_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ArgumentError, match="--device cuda"):
        open_generator(CHECKPOINT, OpenOptions(device=Device.CUDA))


def test_directions_are_found_as_chosen(own: Path) -> None:
    generator = sefa.load(CHECKPOINT)
    found = find_directions(generator, DirectionChoices(top=3, normalize=Normalize.ROWS))
    expected = sefa.factorize(generator, top=3, normalize="rows")
    torch.testing.assert_close(found.vectors, expected.vectors)
    # The layers of a user's own module were named when it was opened: they are its only one.
    generator = open_generator(own, OpenOptions(latent_dim=6), "first")
    assert len(find_directions(generator, DirectionChoices(layers="first", top=2))) == 2


def test_the_weights_of_a_class_name_their_licence(own: Path, tmp_path: Path) -> None:
    weights = {"first.weight": torch.eye(48, 6), "first.bias": torch.zeros(48)}
    save_file(weights, tmp_path / "w.safetensors", {"license": "MIT"})
    options = OpenOptions(device=Device.CPU, weights=tmp_path / "w.safetensors", latent_dim=6, image_range=(0, 1))
    assert open_generator(own, options, "first", warn=print).license == "MIT"
