import warnings
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional as F

import sefa
from sefa.generators import DCGAN
from sefa_export import ExportError, export_onnx, export_pt2, export_torchscript
from sefa_export.determinism import check_model, check_program, check_trace

RANDOM: dict[str, Callable[[Tensor], Tensor]] = {
    "randn_like": torch.randn_like,
    "randn": lambda x: torch.randn(x.shape),
    "rand": lambda x: torch.rand(4, 4),
    "normal_": lambda x: torch.empty(4, 4).normal_(),
    "uniform_": lambda x: torch.empty(4, 4).uniform_(),
    "bernoulli": lambda x: torch.bernoulli(x.sigmoid()),
    "multinomial": lambda x: torch.multinomial(x.flatten(1).softmax(1), 3)[:, :, None, None].float(),
    "randint": lambda x: torch.randint(0, 2, (4, 4)).float(),
    "dropout": lambda x: F.dropout(x, 0.5, training=True),
    "feature_dropout": lambda x: F.dropout2d(x, 0.5, training=True),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.5, training=True),
    "rrelu": lambda x: F.rrelu(x, training=True),
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
}
CONSTANT: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
    "feature_dropout": lambda x: F.dropout2d(x, 0.5, training=False),
    "rrelu": lambda x: F.rrelu(x, training=False),
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(x, x, x),
    "batch_norm": lambda x: F.batch_norm(x, torch.zeros(3), torch.ones(3), training=False),
    "instance_norm": F.instance_norm,
}


class Adding(nn.Module):
    """x plus a little of a function of x."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return x + 1e-4 * self.function(x)


EXAMPLE = (torch.ones(3, 3, 4, 4),)


def trace(module: nn.Module) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, EXAMPLE, check_trace=False)  # type: ignore[no-untyped-call]
    assert isinstance(traced, torch.jit.ScriptModule)
    return traced


@pytest.mark.parametrize("name", RANDOM)
def test_operators_that_draw_at_random_are_named_with_their_place(name: str) -> None:
    module = Adding(RANDOM[name])
    place = rf"the generator's graph has \w*{name}\w* .*test_determinism\.py:\d+\)"
    with pytest.raises(ExportError, match=place):
        check_trace(trace(module))
    with pytest.raises(ExportError, match=place):
        check_program(torch.export.export(module, EXAMPLE))


@pytest.mark.parametrize("name", CONSTANT)
def test_operators_that_are_switched_off_are_none(name: str) -> None:
    module = Adding(CONSTANT[name])
    check_trace(trace(module))
    check_program(torch.export.export(module, EXAMPLE))


def test_a_branch_of_a_scripted_module_is_looked_into() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if bool(x.sum() > 0):
                x = x + 1e-4 * torch.randn_like(x)
            return x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(Branching())
    with pytest.raises(ExportError, match=r"randn_like .*test_determinism\.py:\d+"):
        check_trace(trace(scripted))


def onnx_model(*nodes: onnx.NodeProto, functions: list[onnx.FunctionProto] | None = None) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    initializers = [onnx.helper.make_tensor(name, TensorProto.BOOL, [], [name == "on"]) for name in ("on", "off")]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:], initializers)
    return helper.make_model(graph, functions=functions)


def branches(node: onnx.NodeProto) -> onnx.NodeProto:
    output = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, [1])
    inner = helper.make_graph([node], "branch", [], [output])
    return helper.make_node("If", ["on"], ["y"], then_branch=inner, else_branch=inner)


RANDOM_NODE = helper.make_node("RandomNormalLike", ["x"], ["z"])


@pytest.mark.parametrize(
    "model",
    [
        onnx_model(RANDOM_NODE),
        onnx_model(helper.make_node("RandomUniform", [], ["y"], shape=[1])),
        onnx_model(helper.make_node("Dropout", ["x", "", "on"], ["y"])),
        onnx_model(helper.make_node("Dropout", ["x", "", "computed"], ["y"])),
        onnx_model(helper.make_node("BatchNormalization", ["x"] * 5, ["y", "m", "v"], training_mode=1)),
        onnx_model(branches(RANDOM_NODE)),
        onnx_model(branches(branches(RANDOM_NODE))),
        onnx_model(functions=[helper.make_function("own", "f", ["x"], ["z"], [RANDOM_NODE], [])]),
    ],
)
def test_random_nodes_are_found_at_any_depth(model: onnx.ModelProto) -> None:
    with pytest.raises(ExportError, match=r"the generator's graph has (Random|Dropout|BatchNormalization)"):
        check_model(model)


def test_nodes_that_are_switched_off_are_none() -> None:
    check_model(onnx_model(helper.make_node("Dropout", ["x"], ["y"])))
    check_model(onnx_model(helper.make_node("Dropout", ["x", "", "off"], ["y"])))
    check_model(onnx_model(helper.make_node("BatchNormalization", ["x"] * 5, ["y"])))


class Noisy(DCGAN):
    """Noise that comparing two runs does not show, except to the bit."""

    adding: nn.Module

    def decode(self, codes: Tensor) -> Tensor:
        image: Tensor = self.adding(super().decode(codes))
        return image


@pytest.mark.parametrize("write", [export_onnx, export_torchscript, export_pt2])
def test_a_generator_that_draws_at_random_is_not_exported(
    write: Callable[..., Path], golden: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    generator = sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")
    generator.__class__ = Noisy
    generator.adding = Adding(torch.randn_like)
    with pytest.raises(ExportError, match=r"randn_like .*test_determinism\.py:\d+\): .*constant") as error_info:
        write(generator, sefa.factorize(generator), tmp_path / "model")
    assert "\n" not in str(error_info.value)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")
