"""Convolutions two rows at a time: what PyTorch's convolution gives in float64."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch.nn import functional as F

import sefa
import sefa_runtime
from sefa_export import bake, export_onnx
from sefa_export.onnx_graph import paired_rows
from sefa_export.onnx_graph.paired_rows import pair_rows
from support.paths import CHECKPOINTS

RANDOM = np.random.default_rng(0)
CHANNELS = 16


@pytest.fixture(autouse=True)
def few_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired_rows, "LEAST_CHANNELS", CHANNELS)


def make(size: tuple[int | str, int], weight: np.ndarray[Any, Any], bias: bool = False, **given: Any) -> ModelProto:
    node = helper.make_node("Conv", ["x", "w", "b"] if bias else ["x", "w"], ["y"], **given)
    channels = weight.shape[1] * int(given.get("group", 1))
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", channels, *size])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, list("nchw"))
    tensors = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(random(weight.shape[0]), "b")]
    graph = helper.make_graph([node], "g", [image], [result], tensors[: 1 + bias])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])


def random(*shape: int) -> np.ndarray[Any, Any]:
    return RANDOM.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("size", "pads"),
    [((16, 16), (1, 1, 1, 1)), ((18, 23), (1, 1, 1, 1)), ((20, 17), (0, 2, 0, 1)), ((17, 16), (1, 1, 2, 1))],
)
def test_a_convolution(size: tuple[int, int], pads: tuple[int, int, int, int], bias: bool) -> None:
    x, weight = random(3, 24, *size), random(20, 24, 3, 3)
    model = make(size, weight, bias, pads=pads)
    added = numpy_helper.to_array(model.graph.initializer[1])[:, None, None] if bias else 0
    pair_rows(model)
    onnx.checker.check_model(model, full_check=True)
    kernels = Counter(tuple(tensor.dims) for tensor in model.graph.initializer if len(tensor.dims) == 4)
    assert kernels == {(24, 1, 4, 1): 4, (20, 24, 1, 3): 4}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    padded = F.pad(torch.from_numpy(x).double(), (pads[1], pads[3], pads[0], pads[2]))
    expected = F.conv2d(padded, torch.from_numpy(weight).double()).numpy() + added
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=0, atol=4e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("size", "weight", "attributes"),
    [
        (("height", 16), (16, 16, 3, 3), {}),
        ((17, 16), (16, 16, 3, 3), {}),
        ((14, 16), (16, 16, 3, 3), {}),
        ((16, 130), (16, 16, 3, 3), {}),
        ((16, 16), (16, 16, 1, 1), {"pads": [0, 0, 0, 0]}),
        ((16, 16), (16, 1, 3, 3), {"group": 16}),
        ((32, 32), (16, 16, 3, 3), {"strides": [2, 2]}),
        ((20, 20), (16, 16, 3, 3), {"dilations": [2, 2]}),
        ((16, 16), (15, 16, 3, 3), {}),
    ],
    ids=["any height", "odd rows", "small", "large", "1x1", "groups", "stride", "dilation", "few channels"],
)
def test_what_stays_as_it_is(size: tuple[int | str, int], weight: tuple[int, ...], attributes: dict[str, Any]) -> None:
    model = make(size, random(*weight), **{"pads": [1, 1, 1, 1]} | attributes)
    before = model.SerializeToString()
    pair_rows(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize(("options", "paired"), [({}, True), ({"keep_layers": True}, False)])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], paired: bool, precision: str
) -> None:
    monkeypatch.setattr(paired_rows, "LEAST_CHANNELS", 2)
    generator = sefa.load(CHECKPOINTS / "sefa_stylegan2_cond_32/checkpoint.pth")
    bank = sefa.factorize(generator, layers=[generator.num_layers - 1], top=3)
    path = export_onnx(generator, bank, tmp_path / "model.onnx", "float32", precision=precision, **options)
    kernels = [tensor for tensor in onnx.load(path).graph.initializer if list(tensor.dims[2:]) == [1, 3]]
    assert len(kernels) >= 4 if paired and precision == "fp32" else not kernels
    editor = sefa_runtime.load(path, "cpu")
    assert editor.info.prefix is not None
    z = sefa_runtime.latents_from_seeds([1, 2], generator.z_dim)
    inputs = [z, np.array([[1], [2]]), np.full((2, 1), 2.0, np.float32), np.array([0, 1])]
    expected = bake(generator, bank, "float32")(*map(torch.from_numpy, inputs)).detach().numpy()
    tolerance = 1e-4 if precision == "fp32" else 5e-2
    np.testing.assert_allclose(editor.run(*inputs), expected, rtol=0, atol=tolerance * np.abs(expected).max())
