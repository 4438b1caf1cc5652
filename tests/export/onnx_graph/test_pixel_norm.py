"""The normalisation of pixels in a faster form: what PyTorch gives in float64."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch.nn import functional as F

from sefa_export.onnx_graph.pixel_norm import speed_up_pixel_norm

CHANNELS, SIZE, INNER, OUTER = 24, (6, 10), 0.25, 0.5
RANDOM = np.random.default_rng(0)
WEIGHTS = {
    "mean": np.full((1, CHANNELS, 1, 1), 1 / CHANNELS, np.float32),
    "inner": np.array(INNER, np.float32),
    "outer": np.array([OUTER], np.float32),
    "narrow": RANDOM.standard_normal((3, CHANNELS, 1, 1)).astype(np.float32),
    "bias": RANDOM.standard_normal(3).astype(np.float32),
}


def make(last: list[str], divided: str = "x") -> ModelProto:
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"]),
        helper.make_node("Conv", ["square", "mean"], ["m"]),
        helper.make_node("Add", ["m", "inner"], ["m_1"]),  # A name that a new value must not take.
        helper.make_node("Sqrt", ["m_1"], ["r"]),
        helper.make_node("Add", ["r", "outer"], ["b"]),
        helper.make_node("Abs", ["x"], ["absolute"]),
        helper.make_node("Div", [divided, "b"], ["n"]),
        helper.make_node("Conv", ["n", *last], ["y"]) if last else helper.make_node("Relu", ["n"], ["y"]),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", CHANNELS, *SIZE])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, list("nchw"))
    tensors = [numpy_helper.from_array(array, name) for name, array in WEIGHTS.items()]
    opset = helper.make_opsetid("", 18)
    return helper.make_model(helper.make_graph(nodes, "g", [image], [result], tensors), opset_imports=[opset])


def expected(x: NDArray[np.float32], last: list[str]) -> NDArray[np.float64]:
    image = torch.from_numpy(x).double()
    normalised = image / ((image.square().mean(1, keepdim=True) + INNER).sqrt() + OUTER)
    if not last:
        return normalised.relu().numpy()
    weight, bias = (torch.from_numpy(WEIGHTS[name]).double() for name in ("narrow", "bias"))
    return F.conv2d(normalised, weight, bias if "bias" in last else None).numpy()


@pytest.mark.parametrize("last", [[], ["narrow"], ["narrow", "bias"]], ids=["norm", "to image", "to image with bias"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_same_in_another_form(last: list[str], batch: int) -> None:
    model = make(last)
    speed_up_pixel_norm(model)
    onnx.checker.check_model(model, full_check=True)
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["Conv"] == 2 * bool(last)
    if last:  # The division is of the few channels.
        (division,) = (node for node in model.graph.node if node.op_type == "Div")
        assert division.input[0] != "x"
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = RANDOM.standard_normal((batch, CHANNELS, *SIZE)).astype(np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected(x, last), rtol=0, atol=1e-5)


def test_another_division_stays() -> None:
    model = make(["narrow"], divided="absolute")
    before = model.SerializeToString()
    speed_up_pixel_norm(model)
    assert model.SerializeToString() == before
