"""Convolutions in Winograd's form: what PyTorch's convolution gives in float64."""

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
from sefa.errors import ArgumentError
from sefa_export import bake, export_onnx
from sefa_export.onnx_graph import winograd
from sefa_export.onnx_graph.winograd import to_winograd
from support.paths import CHECKPOINTS

RANDOM = np.random.default_rng(0)


def make(
    size: tuple[int | str, int], weight: np.ndarray[Any, Any], bias: np.ndarray[Any, Any] | None, **attributes: Any
) -> ModelProto:
    names = ["x", "w"] + ([] if bias is None else ["b"])
    node = helper.make_node("Conv", names, ["y"], **attributes)
    channels = weight.shape[1] * int(attributes.get("group", 1))
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", channels, *size])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, list("nchw"))
    tensors = [numpy_helper.from_array(weight, "w")] + ([] if bias is None else [numpy_helper.from_array(bias, "b")])
    model = helper.make_model(helper.make_graph([node], "g", [image], [result], tensors), ir_version=8)
    model.opset_import[0].version = 18
    return model


def random(*shape: int) -> np.ndarray[Any, Any]:
    return RANDOM.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "pads"),
    [((16, 16), (1, 1, 1, 1)), ((17, 22), (1, 1, 1, 1)), ((5, 3), (1, 1, 1, 1)), ((9, 8), (0, 2, 1, 0))],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_convolution(size: tuple[int, int], pads: tuple[int, int, int, int], batch: int) -> None:
    x, weight, bias = random(batch, 24, *size), random(16, 24, 3, 3), random(16)
    model = make(size, weight, bias if batch == 3 else None, pads=pads)
    rows = size[0] + pads[0] + pads[2] - 2
    assert to_winograd(model, [rows]) == (rows,)
    onnx.checker.check_model(model, full_check=True)
    kernels = Counter(tuple(tensor.dims) for tensor in model.graph.initializer if len(tensor.dims) == 4)
    assert kernels == {(24, 1, 6, 1): 6, (24, 1, 1, 6): 6, (16, 24, 1, 1): 36}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (image,) = session.run(None, {"x": x})
    padded = F.pad(torch.from_numpy(x).double(), (pads[1], pads[3], pads[0], pads[2]))
    expected = F.conv2d(padded, torch.from_numpy(weight).double()).numpy()
    expected = expected + (bias[:, None, None] if batch == 3 else 0)
    np.testing.assert_allclose(image, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_exact_in_float64() -> None:
    to_points, to_pixels, of_kernel = winograd.transforms()
    image, kernel = RANDOM.standard_normal((6, 6)), RANDOM.standard_normal((3, 3))
    at_points = (to_points @ image @ to_points.T) * (of_kernel @ kernel @ of_kernel.T)
    expected = F.conv2d(torch.from_numpy(image)[None, None], torch.from_numpy(kernel)[None, None])[0, 0]
    np.testing.assert_allclose(to_pixels @ at_points @ to_pixels.T, expected.numpy(), rtol=0, atol=1e-13)


def test_sizes_that_become_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 32)
    for size, channels, chosen in [
        ((16, 128), 32, True),
        ((15, 16), 32, False),
        ((16, 129), 32, False),
        ((32, 32), 16, False),
        ((32, 32), 40, False),
    ]:
        model = make(size, random(40, channels, 3, 3), None, pads=[1, 1, 1, 1])
        assert to_winograd(model) == ((size[0],) if chosen else ())


@pytest.mark.parametrize(
    ("size", "weight", "attributes"),
    [
        (("height", 16), (16, 16, 3, 3), {}),
        ((16, 16), (16, 16, 1, 1), {}),
        ((16, 16), (16, 1, 3, 3), {"group": 16}),
        ((33, 16), (16, 16, 3, 3), {"strides": [2, 2]}),
        ((18, 18), (16, 16, 3, 3), {"dilations": [2, 2]}),
        ((16, 16), (3, 16, 3, 3), {}),
    ],
    ids=["any height", "1x1", "groups", "stride", "dilation", "few channels"],
)
def test_what_stays_as_it_is(size: tuple[int | str, int], weight: tuple[int, ...], attributes: dict[str, Any]) -> None:
    model = make(size, random(*weight), None, **{"pads": [1, 1, 1, 1]} | attributes)
    before = model.SerializeToString()
    assert to_winograd(model, range(100)) == ()
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    ("checkpoint", "options"),
    [
        ("sefa_stylegan2_cond_32/checkpoint.pth", {"winograd": [8, 32]}),
        ("tf_pggan_16/network.pkl", {"winograd": [8], "batch": 2, "external_data": "weights.safetensors"}),
    ],
)
def test_a_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: str, options: dict[str, Any]) -> None:
    monkeypatch.setattr(winograd, "FEWEST_CHANNELS", 2)
    generator = sefa.load(CHECKPOINTS / checkpoint)
    bank = sefa.factorize(generator, layers=[generator.num_layers - 1], top=3)
    editor = sefa_runtime.load(export_onnx(generator, bank, tmp_path / "model.onnx", "float32", **options), "cpu")
    assert list(editor.info.winograd) == options["winograd"]
    assert (editor.info.prefix is None) == ("batch" in options)
    z = sefa_runtime.latents_from_seeds([1, 2], generator.z_dim)
    inputs = [z, np.array([[1], [2]]), np.full((2, 1), 2.0, np.float32)]
    inputs += [np.array([0, 1])] if generator.num_classes else []
    expected = bake(generator, bank, "float32")(*map(torch.from_numpy, inputs)).detach().numpy()
    np.testing.assert_allclose(editor.run(*inputs), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"winograd": True}, "no convolution becomes faster .* 128 channels or more at 16 to 128 pixels"),
        ({"winograd": [7]}, "no 3x3 convolution .* at 7 pixels"),
        ({"winograd": True, "precision": "fp16"}, "for precision fp32"),
    ],
)
def test_what_it_is_not_for(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    generator = sefa.load(CHECKPOINTS / "tf_pggan_16/network.pkl")
    with pytest.raises(ArgumentError, match=message):
        export_onnx(generator, sefa.factorize(generator, top=2), tmp_path / "model.onnx", **options)
    assert not list(tmp_path.iterdir())
