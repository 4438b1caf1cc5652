import builtins
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sefa
from sefa import CheckpointError
from sefa.demo import find_faces


@pytest.fixture
def state_dict(golden: Path) -> dict[str, Tensor]:
    content: dict[str, Tensor] = torch.load(golden / "dcgan_small_64.pth", weights_only=True, map_location="cpu")
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
    generator = sefa.load(golden / "dcgan_small_64.pth")
    assert (generator.family, generator.z_dim, generator.code_dim, generator.num_layers) == ("dcgan", 20, 20, 1)
    assert (generator.resolution, generator.channels, generator.num_classes) == ((64, 64), 3, 0)
    assert not generator.training


def test_the_trained_faces_are_read() -> None:
    generator = sefa.load(find_faces())
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
    expected = image_of(sefa.load(golden / "dcgan_small_64.pth"))
    torch.testing.assert_close(image_of(sefa.load(save(wrap(state_dict)))), expected)


def test_the_averaged_copy_is_preferred(state_dict: State, save: Save, golden: Path) -> None:
    untrained = {key: torch.zeros_like(tensor) for key, tensor in state_dict.items()}
    generator = sefa.load(save({"netG": untrained, "netG_ema": state_dict}))
    torch.testing.assert_close(image_of(generator), image_of(sefa.load(golden / "dcgan_small_64.pth")))


def test_half_precision_is_brought_to_single(state_dict: State, save: Save) -> None:
    generator = sefa.load(save({key: tensor.half() for key, tensor in state_dict.items()}))
    assert image_of(generator).dtype == torch.float32


def test_the_format_before_zip_archives_is_read(state_dict: State, tmp_path: Path, golden: Path) -> None:
    torch.save(state_dict, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    expected = image_of(sefa.load(golden / "dcgan_small_64.pth"))
    torch.testing.assert_close(image_of(sefa.load(tmp_path / "old.pth")), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"  <!DOCTYPE html>\n<html>", "a web page"),
        (b"<html><body>Sign in</body></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00" + b'{"a":{}}' * 2, "a safetensors file"),
        (b"hello", "not a checkpoint file"),
        (b"\x00" * 1000, "not a checkpoint file"),
        (b"\x1f\x8b\x08compressed", "not a checkpoint file"),
        (b"PK\x03\x04 and no archive", "truncated or damaged"),
        (b"\x80\x04 no pickle", "a pickle that torch.save did not write, or damaged"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_called_what_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "netG.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"netG\.pth: {message}"):
        sefa.load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        sefa.load(tmp_path / "missing.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        sefa.load(tmp_path)


def test_exported_models_are_called_that(golden: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="an ONNX model, already exported"):
        sefa.load(golden / "tiny.onnx")
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/constants.pkl", b"")
    with pytest.raises(CheckpointError, match="a TorchScript archive"):
        sefa.load(tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "holiday.zip", "w") as archive:
        archive.writestr("beach.jpg", b"")
    with pytest.raises(CheckpointError, match="a zip archive that torch did not write"):
        sefa.load(tmp_path / "holiday.zip")


def test_a_checkpoint_cut_anywhere_is_refused(golden: Path, tmp_path: Path) -> None:
    content = (golden / "dcgan_small_64.pth").read_bytes()
    path = tmp_path / "cut.pth"
    for length in range(0, len(content) - 1, len(content) // 50):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"cut\.pth: (empty file|truncated or damaged|not a checkpoint)"):
            sefa.load(path)


def test_an_old_checkpoint_cut_anywhere_is_refused(state_dict: State, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(state_dict, buffer, _use_new_zipfile_serialization=False)
    path = tmp_path / "cut.pth"
    for length in range(1, len(buffer.getvalue()) - 1, len(buffer.getvalue()) // 50):
        path.write_bytes(buffer.getvalue()[:length])
        with pytest.raises(CheckpointError, match=r"cut\.pth: "):
            sefa.load(path)


class Exploit:
    """Runs a command when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("as_torch_file", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused_and_not_run(
    tmp_path: Path, state_dict: State, as_torch_file: bool
) -> None:
    content = {"netG": state_dict, "extra": Exploit(tmp_path / "was_run")}
    path = tmp_path / "netG.pth"
    if as_torch_file:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"extra": Exploit(tmp_path / "was_run")}))
    with pytest.raises(CheckpointError, match=r"wants to run .*system: refused, nothing in it was run"):
        sefa.load(path)
    assert not (tmp_path / "was_run").exists()


def test_a_whole_module_is_refused_with_what_to_save_instead(save: Save) -> None:
    with pytest.raises(CheckpointError, match=r"save the generator's state_dict\(\) instead"):
        sefa.load(save(nn.Sequential(nn.ConvTranspose2d(4, 3, 4))))


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
        ({"0.weight": torch.ones(2, 3, 4, 4), "module.0.weight": torch.ones(2, 3, 4, 4)}, "stands there twice"),
        ({"9" * 5000 + ".weight": torch.ones(9, 3, 4, 4)}, "no known generator"),
        ([torch.ones(1)], "no generator inside: it holds a list"),
        ({"epoch": 3, "lr": 0.1}, "no generator inside: it holds a dict of epoch, lr"),
        ({"main.0.weight": torch.ones(9, 3, 4, 4, dtype=torch.int64)}, r"main\.0\.weight is torch\.int64"),
    ],
)
def test_a_torch_file_without_a_generator_is_refused(save: Save, content: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        sefa.load(save(content))


def test_nothing_is_imported_for_a_checkpoint(golden: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sefa.load(golden / "dcgan_small_64.pth")  # Whatever torch imports on its first load, it has by now.
    path = tmp_path / "named.pth"
    path.write_bytes(pickle.dumps({"a": 1}, protocol=2)[:-1] + b"cthis_module_does_not_exist\nx\n0.")
    imported: list[str] = []
    original = builtins.__import__

    def spy(name: str, *arguments: Any, **options: Any) -> Any:
        imported.append(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", spy)
    with pytest.raises(CheckpointError, match="named"):
        sefa.load(path)
    assert "this_module_does_not_exist" not in imported
