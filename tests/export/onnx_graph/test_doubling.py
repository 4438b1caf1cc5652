"""Layers that double the size, as convolutions of the smaller image: what PyTorch's operators give in float64."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional as F

import sefa
from sefa.generators.dcgan import DCGAN
from sefa_export import export_onnx
from sefa_export.onnx_graph.doubling import split_doubling

CHANNELS = 16
RANDOM = np.random.default_rng(0)


def make(
    nodes: list[onnx.NodeProto], size: tuple[int | str, int | str], channels: int = CHANNELS, **weights: NDArray[Any]
) -> ModelProto:
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", channels, *size])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, list("nchw"))
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    model = helper.make_model(helper.make_graph(nodes, "g", [image], [result], tensors), ir_version=8)
    model.opset_import[0].version = 18
    return model


def random(*shape: int) -> NDArray[np.float32]:
    return (RANDOM.standard_normal(shape) / 8).astype(np.float32)


def double(array: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float64))


def operators(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def check(model: ModelProto, x: NDArray[np.float32], expected: torch.Tensor) -> None:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (image,) = session.run(None, {"x": x})
    np.testing.assert_allclose(image, expected.numpy(), rtol=0, atol=3e-6)


PLAIN: dict[str | None, Callable[[torch.Tensor], torch.Tensor]] = {
    None: lambda t: t,
    "Relu": F.relu,
    "LeakyRelu": lambda t: F.leaky_relu(t, 0.01),
}


@pytest.mark.parametrize("activation", PLAIN)
@pytest.mark.parametrize(
    ("kernel", "pads"), [(4, (1, 1, 1, 1)), (4, (0, 0, 0, 0)), (4, (1, 0, 1, 2)), (3, (1, 1, 0, 0))]
)
def test_a_transposed_convolution(kernel: int, pads: tuple[int, ...], activation: str | None) -> None:
    x, weight, bias = random(2, CHANNELS, 17, 16), random(CHANNELS, 24, kernel, kernel), random(24)
    nodes = [helper.make_node("ConvTranspose", ["x", "w", "b"], ["t"], strides=[2, 2], pads=pads)]
    nodes.append(helper.make_node(activation or "Identity", ["t"], ["y"]))
    model = make(nodes, (17, 16), w=weight, b=bias)
    split_doubling(model)
    assert operators(model)["Conv"] == 4
    assert operators(model)["ConvTranspose"] == 0
    full = F.conv_transpose2d(double(x), double(weight), double(bias), stride=2)
    top, left, bottom, right = pads
    cropped = full[:, :, top : full.shape[2] - bottom, left : full.shape[3] - right]
    check(model, x, PLAIN[activation](cropped))


@pytest.mark.parametrize("separable", [True, False])
def test_the_filter_after_one_takes_its_odd_row_and_column(separable: bool) -> None:
    x, weight = random(2, CHANNELS, 16, 17), random(CHANNELS, 16, 3, 3)
    column, row = np.array([1, 2, 3, 4], np.float32), np.array([2, 1, -1, 3], np.float32)
    kernel = np.tile(np.outer(column, row), (16, 1, 1, 1))
    nodes = [helper.make_node("ConvTranspose", ["x", "w"], ["t"], strides=[2, 2])]
    if separable:
        nodes.append(helper.make_node("Conv", ["t", "column"], ["c"], group=16, pads=[1, 0, 1, 0]))
        nodes.append(helper.make_node("Conv", ["c", "row"], ["y"], group=16, pads=[0, 1, 0, 1]))
    else:
        nodes.append(helper.make_node("Conv", ["t", "kernel"], ["y"], group=16, pads=[1, 1, 1, 1]))
    weights = {"column": kernel[:, :, :, :1] / 2, "row": kernel[:, :, :1] / kernel[0, 0, 0, 0] * 2, "kernel": kernel}
    model = make(nodes, (16, 17), w=weight, **weights)
    split_doubling(model)
    assert operators(model)["ConvTranspose"] == 0
    full = F.conv_transpose2d(double(x), double(weight), stride=2)
    check(model, x, F.conv2d(full, double(kernel), padding=1, groups=16))


# (channels of input and output, taps of each pair of channels)
SHARED = [((16, 24), 16), ((40, 32), 12), ((112, 96), 9)]


@pytest.mark.parametrize(("channels", "taps"), SHARED)
@pytest.mark.parametrize("size", [(8, 5), (4, 4)])
@pytest.mark.parametrize("activation", [None, "LeakyRelu"])
def test_nearest_doubling_before_a_convolution(
    channels: tuple[int, int], taps: int, size: tuple[int, int], activation: str | None
) -> None:
    inputs, outputs = channels
    x, weight, bias = random(2, inputs, *size), random(outputs, inputs, 3, 3), random(outputs)
    nodes = [*enlarged(result="c"), helper.make_node(activation or "Identity", ["c"], ["y"])]
    model = make(nodes, size, inputs, w=weight, b=bias, s=SCALES)
    split_doubling(model)
    assert operators(model)["Resize"] == 0
    assert weights_between(inputs, outputs, model) == taps * inputs * outputs
    expected = F.conv2d(F.interpolate(double(x), scale_factor=2), double(weight), double(bias), padding=1)
    check(model, x, PLAIN[activation](expected))


@pytest.mark.parametrize(("channels", "taps"), SHARED)
@pytest.mark.parametrize("side", [3, 9])
def test_a_transposed_convolution_into_which_doubling_was_merged(
    channels: tuple[int, int], taps: int, side: int
) -> None:
    inputs, outputs = channels
    x, weight, bias = random(2, inputs, side, side), random(outputs, inputs, 3, 3), random(outputs)
    padded = np.pad(weight, ((0, 0), (0, 0), (1, 1), (1, 1)))
    boxes = np.stack([padded[..., row : row + 4, column : column + 4] for row in (0, 1) for column in (0, 1)])
    merged = boxes.sum(0)[..., ::-1, ::-1]
    nodes = [helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1])]
    model = make(nodes, (side, side), inputs, w=np.ascontiguousarray(merged.transpose(1, 0, 2, 3)), b=bias)
    split_doubling(model)
    assert operators(model)["ConvTranspose"] == 0
    assert weights_between(inputs, outputs, model) == taps * inputs * outputs
    check(model, x, F.conv2d(F.interpolate(double(x), scale_factor=2), double(weight), double(bias), padding=1))


def test_a_kernel_that_nearly_has_doubling_in_it() -> None:
    x, box = random(1, CHANNELS, 8, 8), np.ones((2, 2), np.float32)
    weight = np.zeros((CHANNELS, 24, 4, 4), np.float32)
    weight[:, :, :2, :2] = random(CHANNELS, 24, 1, 1) * box
    weight[0, 0, 0, 0] += 1e-4
    nodes = [helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1])]
    model = make(nodes, (8, 8), w=weight)
    split_doubling(model)
    assert operators(model)["Conv"] == 4
    check(model, x, F.conv_transpose2d(double(x), double(weight), stride=2, padding=1))


def test_a_weak_channel_without_doubling_in_it_keeps_its_image() -> None:
    x, weight = random(1, CHANNELS, 8, 8), np.zeros((CHANNELS, 24, 4, 4), np.float32)
    weight[:, :, :2, :2] = random(CHANNELS, 24, 1, 1)
    weight[:, 0] = random(CHANNELS, 4, 4) * np.float32(1e-7)  # Small beside the others' rounding errors.
    nodes = [helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1])]
    model = make(nodes, (8, 8), w=weight)
    split_doubling(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (image,) = session.run(None, {"x": x})
    expected = F.conv_transpose2d(double(x), double(weight), stride=2, padding=1)[:, 0]
    np.testing.assert_allclose(image[:, 0], expected.numpy(), rtol=0, atol=1e-6 * float(expected.abs().max()))


def weights_between(inputs: int, outputs: int, model: ModelProto) -> int:
    """Count the weights that lead from all input channels to all output channels."""
    kernels = [tensor.dims for tensor in model.graph.initializer if list(tensor.dims[:2]) == [outputs, inputs]]
    return sum(int(np.prod(kernel)) for kernel in kernels)


def enlarged(mode: str = "nearest", result: str = "y") -> list[onnx.NodeProto]:
    given = {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return [
        helper.make_node("Resize", ["x", "", "s"], ["t"], **given),
        helper.make_node("Conv", ["t", "w", "b"], [result], pads=[1, 1, 1, 1]),
    ]


SCALES = np.array([1, 1, 2, 2], np.float32)


@pytest.mark.parametrize(
    ("nodes", "size", "weight"),
    [
        (enlarged("linear"), (16, 16), (24, 16, 3, 3)),
        (enlarged(), ("height", 16), (24, 16, 3, 3)),
        (enlarged(), (16, 16), (3, 16, 3, 3)),
        ([helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])], (16, 16), (16, 16, 3, 3)),
        ([helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], strides=[1, 1])], (16, 16), (16, 24, 4, 4)),
        ([helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], group=16)], (16, 16), (16, 1, 4, 4)),
        ([helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])], (4, 4), (16, 16, 4, 4)),
    ],
    ids=["bilinear", "any height", "few channels", "odd", "no doubling", "groups", "small"],
)
def test_what_stays_as_it_is(nodes: list[onnx.NodeProto], size: tuple[int | str, int], weight: tuple[int, ...]) -> None:
    model = make(nodes, size, w=random(*weight), b=random(weight[0] if weight[0] != 16 else 24), s=SCALES)
    before = model.SerializeToString()
    split_doubling(model)
    assert model.SerializeToString() == before


def test_an_image_that_is_also_read_elsewhere_stays() -> None:
    x, weight, bias = random(1, CHANNELS, 8, 8), random(16, CHANNELS, 3, 3), random(16)
    nodes = [*enlarged(), helper.make_node("Add", ["t", "y"], ["z"])]
    model = make(nodes, (8, 8), w=weight, b=bias, s=SCALES)
    model.graph.output[0].name = "z"
    split_doubling(model)
    assert (operators(model)["Resize"], operators(model)["Conv"]) == (1, 4)
    large = F.interpolate(double(x), scale_factor=2)
    check(model, x, large + F.conv2d(large, double(weight), double(bias), padding=1))


@pytest.mark.parametrize(("options", "transposed"), [({}, 1), ({"keep_layers": True}, 2), ({"precision": "fp16"}, 2)])
def test_the_generators_form_can_be_kept(tmp_path: Path, options: dict[str, Any], transposed: int) -> None:
    torch.manual_seed(0)
    layers = [
        nn.ConvTranspose2d(6, 16, 8),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 16, 4, 2, 1),
        nn.Conv2d(16, 3, 1),
        nn.Tanh(),
    ]
    generator = DCGAN(layers, (16, 16), 3).eval()
    path = export_onnx(generator, sefa.factorize(generator, top=1), tmp_path / "g.onnx", **options)
    assert operators(onnx.load(path))["ConvTranspose"] == transposed
