"""Normalisation of each pixel's channels, in a form that onnxruntime runs faster on a CPU.

A generator computes the mean over channels as a 1x1 convolution with one output (`sefa.generators.pggan`). For that,
onnxruntime brings the whole tensor into the order of its vectorized convolutions, which pad the output to 16 channels,
while the division that follows wants the plain order. A product with a row of ones reads the plain order.

Where only a 1x1 convolution to fewer channels reads the result, as before the image, the division comes after it: both
act on each pixel alone.
"""

import math
from collections.abc import Mapping

from onnx import ModelProto, NodeProto

from sefa_export.onnx_graph.rewriting import Rewriting, attributes, is_plain, strides_and_pads


def speed_up_pixel_norm(model: ModelProto) -> None:
    """Rewrite x / √(mean of x² over channels), with an epsilon or without; the model is changed in place."""
    rewriting = Rewriting(model)
    makers = {name: node for node in rewriting.nodes for name in node.output}
    for node in rewriting.nodes:
        mean = _mean(rewriting, makers, node) if node.op_type == "Div" else None
        if mean is None:
            continue
        reader = rewriting.only_reader(node.output[0])
        if reader is not None and _is_pointwise(rewriting, reader) and reader.input[0] == node.output[0]:
            _divide_after(rewriting, node, reader)
        else:
            _sum_by_product(rewriting, mean)
    rewriting.apply()


def _mean(rewriting: Rewriting, makers: Mapping[str, NodeProto], node: NodeProto) -> NodeProto | None:
    """Return the convolution that computes the mean of x², if a division of x is a normalisation of pixels."""
    x, divisor = node.input
    maker, roots = makers.get(divisor), 0
    while maker is not None and (maker.op_type == "Sqrt" or _adds_a_number(rewriting, maker)):
        roots += maker.op_type == "Sqrt"
        maker = makers.get(maker.input[0])
    if maker is None or roots != 1 or not _is_pointwise(rewriting, maker) or len(maker.input) > 2:
        return None
    square, shape = makers.get(maker.input[0]), rewriting.shape(maker.input[1])
    squares = square is not None and square.op_type == "Mul" and list(square.input) == [x, x]
    return maker if squares and shape is not None and shape[0] == 1 and rewriting.size(x) else None


def _adds_a_number(rewriting: Rewriting, node: NodeProto) -> bool:
    shape = rewriting.shape(node.input[1]) if node.op_type == "Add" else None
    return shape is not None and math.prod(shape) == 1


def _is_pointwise(rewriting: Rewriting, node: NodeProto) -> bool:
    """Whether a node is a 1x1 convolution to fewer channels."""
    shape = rewriting.shape(node.input[1]) if node.op_type == "Conv" else None
    if shape is None or shape[2:] != (1, 1) or shape[0] >= shape[1]:
        return False
    return is_plain(node) and strides_and_pads(node) == ([1, 1], [0, 0, 0, 0])


def _divide_after(rewriting: Rewriting, division: NodeProto, convolution: NodeProto) -> None:
    x, divisor = division.input
    rewriting.begin(convolution)
    image = rewriting.add("Conv", x, convolution.input[1], **attributes(convolution))
    if len(convolution.input) < 3:
        rewriting.add("Div", image, divisor, output=convolution.output[0])
        return
    image = rewriting.add("Div", image, divisor)
    bias = rewriting.add("Unsqueeze", convolution.input[2], rewriting.integers(1, 2))  # [out, 1, 1]
    rewriting.add("Add", image, bias, output=convolution.output[0])


def _sum_by_product(rewriting: Rewriting, mean: NodeProto) -> None:
    weight, size = rewriting.array(mean.input[1]), rewriting.size(mean.input[0])
    assert weight is not None
    assert size is not None
    rewriting.begin(mean)
    x = rewriting.add("Reshape", mean.input[0], rewriting.integers(-1, weight.shape[1], math.prod(size)))
    x = rewriting.multiply(weight[:, :, 0, 0], x)  # [batch, 1, H·W]
    rewriting.add("Reshape", x, rewriting.integers(-1, 1, *size), output=mean.output[0])
