"""The line of a user's own code that keeps a generator from becoming a graph is named, with what to write instead."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sefa
import sefa_runtime
from sefa_export import ExportError, export_onnx, export_pt2, export_torchscript
from sefa_runtime.model.reading import read_info

HERE = Path(__file__).name


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(10, 3 * 8 * 8)

    def render(self, z: Tensor) -> Tensor:
        return torch.tanh(self.first(z)).view(-1, 3, 8, 8)


class Branch(Net):
    def forward(self, z: Tensor) -> Tensor:
        x = self.render(z)
        if x.abs().max() > 9:  # the line
            x = -x
        return x


class Number(Net):
    def forward(self, z: Tensor) -> Tensor:
        scale = float(z.abs().sum().item() < 1e9)  # the line
        return self.render(z) * scale


class Length(Net):
    def forward(self, z: Tensor) -> Tensor:
        noise = torch.zeros(len(z), 1, 1, 1)  # the line
        return self.render(z) + noise


class Loop(Net):
    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([self.render(one[None]) for one in z])  # the line


class InANestedLayer(Net):
    """The reason is in a layer's forward, called by way of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.last = Branch()
        self.last.render = lambda z: z  # type: ignore[method-assign]

    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = nn.Sequential(self.last)(self.render(z))
        return x


class Numpy(Net):
    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = torch.from_numpy(np.tanh(self.render(z).detach().numpy()))  # the line
        return x


class PastRecords(Net):
    def forward(self, z: Tensor) -> Tensor:
        x = self.render(z)
        x.data.mul_(0.5)  # the line
        return x


class Shape(Net):
    def forward(self, z: Tensor) -> Tensor:
        x = self.render(z)
        kept = (z[:, 0] > -1e9).nonzero()[:, 0]  # the line
        return x[kept]


class Operator(Net):
    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = torch.special.i0e(self.render(z))  # the line
        return x


class Modulated(Net):
    """Convolutions whose weights are of each image's own, as groups: their number is that of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.style, self.weight = nn.Linear(10, 3), nn.Parameter(torch.randn(5, 3, 3, 3))

    def forward(self, z: Tensor) -> Tensor:
        count = int(z.shape[0])  # the line
        x = self.render(z).reshape(1, count * 3, 8, 8)
        styles = torch.stack([one + 1 for one in self.style(z).unbind(dim=1)], dim=1)
        weights = self.weight * styles.reshape(count, 1, 3, 1, 1)  # [count, 5, 3, 3, 3]
        x = nn.functional.conv2d(x, weights.reshape(count * 5, 3, 3, 3), padding=1, groups=count)
        return torch.tanh(x.reshape(count, 5, 8, 8)[:, :3])


def line_of(cls: type) -> str:
    """The line that the comment marks."""
    import inspect

    lines, start = inspect.getsourcelines(cls)
    (number,) = (index for index, line in enumerate(lines, start) if "# the line" in line)
    return f"{cls.__name__}, {HERE}:{number}: `{lines[number - start].strip()}`"


def wrapped(cls: type[nn.Module]) -> tuple[sefa.Generator, sefa.DirectionBank]:
    torch.manual_seed(0)
    generator = sefa.wrap(cls(), latent_dim=10, layers=["first"], image_range=(-1, 1))
    return generator, sefa.factorize(generator, top=2)


@pytest.mark.parametrize(
    ("cls", "export", "way_on"),
    [
        (Branch, export_pt2, "decides by a tensor's values, and a graph has no branches: .*torch.where"),
        (Number, export_pt2, "makes a Python number of a tensor .* keep the tensor"),
        (Length, export_pt2, r"fixes the batch size: write x\.shape\[0\] for len\(x\)"),
        (Length, export_onnx, r"fixes the batch size: write x\.shape\[0\] for len\(x\)"),
        (Loop, export_pt2, "one by one: compute the whole batch at once"),
        (Numpy, export_pt2, "leaves torch for numpy, where no exporter follows"),
        (PastRecords, export_onnx, "past torch's records: make a new tensor instead"),
        (Shape, export_onnx, "a tensor whose size depends on values: keep the size"),
        (Operator, export_onnx, "ONNX has no operator for aten::special_i0e: .*--format pt2 or torchscript"),
    ],
)
def test_the_line_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], cls: type[nn.Module], export: Callable[..., Any], way_on: str
) -> None:
    generator, bank = wrapped(cls)
    with pytest.raises(ExportError, match=way_on) as error:
        export(generator, bank, tmp_path / "model")
    assert str(error.value).startswith(line_of(cls))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_in_a_nested_layer_its_own_line_is_named(tmp_path: Path) -> None:
    generator, bank = wrapped(InANestedLayer)
    with pytest.raises(ExportError, match=r"InANestedLayer, .*`if x\.abs") as error:
        export_pt2(generator, bank, tmp_path / "model")
    assert line_of(Branch).partition(", ")[2] in str(error.value)


@pytest.mark.parametrize(("export", "name"), [(export_onnx, "g.onnx"), (export_torchscript, "g.ts")])
def test_a_branch_that_a_trace_fixed_is_described(tmp_path: Path, export: Callable[..., Any], name: str) -> None:
    generator, bank = wrapped(Branch)
    export(generator, bank, tmp_path / name)
    expected = "goes as it went for the images that were compared: " + line_of(Branch).partition(", ")[2]
    info = read_info(tmp_path / name)
    assert info.assumptions == (expected,)


def test_code_that_makes_a_number_of_its_batch_is_told_of_a_fixed_batch(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportError, match="; with --batch 1 it can be exported as it is") as error:
        export_onnx(*wrapped(Modulated), tmp_path / "g.onnx")
    assert str(error.value).startswith(line_of(Modulated))
    assert "unbind" not in str(error.value)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("export", [export_torchscript, export_pt2])
def test_such_code_is_exported_for_a_fixed_batch(tmp_path: Path, export: Callable[..., Any]) -> None:
    info = read_info(export(*wrapped(Modulated), tmp_path / "model", batch=2))
    assert (info.batch, info.parity.batches) == (2, (2,))
    assert info.parity.max_abs_error <= 1  # levels


def test_one_image_at_a_time_it_gives_its_own_images(tmp_path: Path) -> None:
    generator, bank = wrapped(Modulated)
    editor = sefa_runtime.load(export_onnx(generator, bank, tmp_path / "g.onnx", "float32", batch=1), "cpu")
    z = torch.randn(3, 10)
    with torch.no_grad():
        expected = generator.module(z + 2 * bank.vectors[1])  # type: ignore[operator]
    found = editor.infer({"z": z[:1].numpy(), "direction": np.array([[1]]), "alpha": np.array([[2]], np.float32)})
    np.testing.assert_allclose(found, expected[:1], atol=1e-5)


@pytest.mark.parametrize(("cls", "export"), [(Numpy, export_pt2), (Shape, export_onnx)])
def test_a_batch_of_one_is_no_way_on_where_something_else_is_wrong(
    tmp_path: Path, cls: type[nn.Module], export: Callable[..., Any]
) -> None:
    with pytest.raises(ExportError) as error:
        export(*wrapped(cls), tmp_path / "model")
    assert "--batch" not in str(error.value)
