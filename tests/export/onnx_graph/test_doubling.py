"""Layers that double the size, split into four convolutions: the same images as PyTorch's own operators in float64."""

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


def make(nodes: list[onnx.NodeProto], size: tuple[int | str, int | str], **weights: NDArray[Any]) -> ModelProto:
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", CHANNELS, *size])
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


@pytest.mark.parametrize(("side", "operator", "count"), [(8, "Conv", 4), (4, "ConvTranspose", 1)])
def test_nearest_doubling_before_a_convolution(side: int, operator: str, count: int) -> None:
    x, weight, bias = random(2, CHANNELS, side, side), random(24, CHANNELS, 3, 3), random(24)
    model = make(enlarged(), (side, side), w=weight, b=bias, s=np.array([1, 1, 2, 2], np.float32))
    split_doubling(model)
    assert operators(model)["Resize"] == 0
    assert operators(model)[operator] == count
    check(model, x, F.conv2d(F.interpolate(double(x), scale_factor=2), double(weight), double(bias), padding=1))


def enlarged(mode: str = "nearest") -> list[onnx.NodeProto]:
    given = {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return [
        helper.make_node("Resize", ["x", "", "s"], ["t"], **given),
        helper.make_node("Conv", ["t", "w", "b"], ["y"], pads=[1, 1, 1, 1]),
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


@pytest.mark.parametrize(
    ("options", "transposed"), [({}, 1), ({"keep_upsampling": True}, 2), ({"precision": "fp16"}, 2)]
)
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
