import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import sefa
import sefa_export
import sefa_runtime

Command = Callable[..., Any]


@pytest.fixture
def bank(golden: Path, tmp_path: Path) -> Path:
    generator = sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")
    return sefa.factorize(generator, top=4).save(tmp_path / "bank.safetensors")


@pytest.fixture
def model(golden: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(golden / "tiny.onnx", tmp_path / "model.onnx"))


def test_names_signs_and_ranges_go_into_the_bank(sefa_command: Command, bank: Path) -> None:
    before = sefa.DirectionBank.load(bank)
    result = sefa_command("name", bank, "0=pose:[-4,4]", "3=smile:-1", "--range", "smile=-1:2", "--range", "1=0:5")
    assert result.code == 0, result.err
    assert "smile" in result.out
    after = sefa.DirectionBank.load(bank)
    assert after.names == ("pose", "direction-1", "direction-2", "smile")
    assert after.alpha_range.tolist() == [[-4, 4], [0, 5], [-3, 3], [-1, 2]]
    torch.testing.assert_close(after.vectors, before.vectors * torch.tensor([[1.0], [1.0], [1.0], [-1.0]]))


def test_directions_are_dropped_and_reordered(sefa_command: Command, bank: Path, tmp_path: Path) -> None:
    assert sefa_command("name", bank, "3=smile", "--keep", "smile,0", "-o", tmp_path / "some.safetensors").code == 0
    some, whole = sefa.DirectionBank.load(tmp_path / "some.safetensors"), sefa.DirectionBank.load(bank)
    assert some.names == ("smile", "direction-0")
    torch.testing.assert_close(some.vectors, whole.vectors[[3, 0]])
    assert len(whole) == 4
    assert sefa_command("name", bank, "0=pose", "--keep", "direction-0,2", "--json").code == 0  # By its old name, too.
    assert sefa.DirectionBank.load(bank).names == ("pose", "direction-2")


def test_a_model_is_named_where_torch_is_not_installed(without_torch: Command, model: Path, tmp_path: Path) -> None:
    result = without_torch("name", model, "0=smile:[-4,4]", "2=turn", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)[0] == {"index": 0, "name": "smile", "alpha_range": [-4, 4]}
    info = sefa_runtime.load(model, provider="cpu").info
    assert info.names == ("smile", "light", "turn", "direction-3")
    assert without_torch("edit", model, "-o", tmp_path / "a.png", "--edit", "turn=2").code == 0
    assert without_torch("edit", model, "-o", tmp_path / "b.png", "--edit", "2=2").code == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [(("0=smile:-1",), "turning pose"), (("--keep", "0,1"), "--keep"), (("1=:-1",), "turning light")],
)
def test_what_would_change_a_models_vectors_is_refused(
    sefa_command: Command, golden: Path, model: Path, arguments: tuple[str, ...], what: str
) -> None:
    result = sefa_command("name", model, *arguments)
    assert result.code == 1
    assert f"{what} would change the vectors inside the model" in result.err
    assert "`sefa export --bank`" in result.err
    assert model.read_bytes() == (golden / "tiny.onnx").read_bytes()


def test_names_of_a_bank_reach_the_exported_model(
    sefa_command: Command, golden: Path, bank: Path, tmp_path: Path
) -> None:
    checkpoint = golden / "checkpoints/dcgan_small_64/netG.pth"
    assert sefa_command("name", bank, "1=nod:[-2,5]").code == 0
    for kind in ("onnx", "torchscript"):
        model = tmp_path / f"model.{kind}"
        assert sefa_command("export", checkpoint, "--bank", bank, "-o", model, "--format", kind).code == 0
        facts = json.loads(sefa_command("inspect", model, "--json").out)["info"]["directions"][1]
        assert (facts["name"], facts["alpha_range"]) == ("nod", [-2, 5])
    result = sefa_command("name", tmp_path / "model.torchscript", "0=a")
    assert result.code == 1
    assert "only ONNX models can be renamed, this is a TorchScript file: name the directions in the bank" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to change"),
        (("pose",), "a change looks like 0=pose"),
        (("0=3",), "'3' is not a name"),
        (("0=direction-1",), "two directions have the same name"),
        (("9=a",), "direction must be in 0..3 or a name, got 9"),
        (("0=a", "0=b"), "changed twice"),
        (("--keep", "0,0"), "listed twice"),
        (("--keep", "7"), "direction must be in 0..3"),
    ],
)
def test_mistakes_get_one_line_and_change_nothing(
    sefa_command: Command, bank: Path, arguments: tuple[str, ...], message: str
) -> None:
    content = bank.read_bytes()
    result = sefa_command("name", bank, *arguments)
    assert result.code == 1
    assert message in result.err
    assert result.err.count("\n") == 1
    assert bank.read_bytes() == content


def test_a_bank_is_known_whatever_its_first_byte(sefa_command: Command, golden: Path, bank: Path) -> None:
    # The length of its header comes first: of some banks it looks like an ONNX model's first field.
    for size in range(40):
        assert sefa_command("name", bank, f"0={'n' * (size + 1)}").code == 0
        if bank.read_bytes()[0] == 0x08:
            break
    else:
        pytest.fail("no length of a name gave that byte")
    assert json.loads(sefa_command("inspect", bank, "--json").out)["kind"] == "direction bank"
    assert sefa_command("name", bank, "0=pose").code == 0


def test_a_model_stays_beside_its_weights(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    generator = sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")
    model = tmp_path / "model.onnx"
    sefa_export.export_onnx(generator, sefa.factorize(generator, top=2), model, external_data="weights.safetensors")
    weights = (tmp_path / "weights.safetensors").read_bytes()
    assert sefa_command("name", model, "0=pose").code == 0
    assert sefa_runtime.load(model, provider="cpu").info.names[0] == "pose"
    assert sefa_command("name", model, "0=turn", "-o", tmp_path / "other.onnx").code == 0
    assert sefa_runtime.load(tmp_path / "other.onnx", provider="cpu").info.names[0] == "turn"
    (tmp_path / "elsewhere").mkdir()
    result = sefa_command("name", model, "0=nod", "-o", tmp_path / "elsewhere" / "model.onnx")
    assert result.code == 1
    assert "has its weights in weights.safetensors: the output must be beside it" in result.err
    assert not list((tmp_path / "elsewhere").iterdir())
    assert (tmp_path / "weights.safetensors").read_bytes() == weights
