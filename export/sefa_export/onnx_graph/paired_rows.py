"""3x3 convolutions two rows at a time: four multiplications for the taps of a column instead of six.

Of rows x0 to x3, the taps (a, b, c) of a column make a·x0 + b·x1 + c·x2 and a·x1 + b·x2 + c·x3. With

    p = a·(x0 - x2), q = (a+b+c)/2·(x1 + x2), r = (a-b+c)/2·(x2 - x1), s = c·(x1 - x3)

these are p + q + r and q - r - s. Each of p to s is a convolution with a kernel of one row and half as many rows of
output. It is Winograd's F(2, 3) along one axis: less is saved than by `winograd.py`, but the weights take 12/9 of their
space, not 36/9, and the transforms are few.

Source: Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from sefa_export.onnx_graph.rewriting import Rewriting, strides_and_pads

# Where onnxruntime's CPU provider takes 0.70 to 0.87 of the time, at batch sizes of 1 and 4 with AVX-512 and AVX2: at
# least so many input and output channels, and sides of the output from, to.
LEAST_CHANNELS = 256
SIDES = (16, 128)
# What is multiplied by the kernels of p to s: sums of rows x0 to x3.
ROW_SUMS = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))


def pair_rows(model: ModelProto) -> None:
    """Replace 3x3 convolutions of stride 1 with constant weights where it is faster; the model is changed in place."""
    rewriting = Rewriting(model)
    for node, weight, size in rewriting.convolutions_3x3():
        fits = SIDES[0] <= min(size) and max(size) <= SIDES[1] and size[0] % 2 == 0
        if fits and min(weight.shape[:2]) >= LEAST_CHANNELS:
            _replace(rewriting, node, weight, size)
    rewriting.apply()


def _replace(rewriting: Rewriting, node: NodeProto, weight: NDArray[np.floating], size: tuple[int, int]) -> None:
    outputs, inputs = weight.shape[:2]
    top, left, bottom, right = strides_and_pads(node)[1]
    a, b, c = np.split(weight.astype(np.float64), 3, axis=2)  # [out, in, 1, 3] each
    kernels = (a, (a + b + c) / 2, (a - b + c) / 2, c)
    rewriting.begin(node)
    products = []
    for index, (row_sum, kernel) in enumerate(zip(ROW_SUMS, kernels, strict=True)):
        taps = rewriting.constant(np.tile(np.array(row_sum, weight.dtype).reshape(1, 1, 4, 1), (inputs, 1, 1, 1)))
        given = {"group": inputs, "kernel_shape": [4, 1], "strides": [2, 1], "pads": [top, 0, bottom, 0]}
        x = rewriting.add("Conv", node.input[0], taps, **given)  # [batch, in, H/2, W]
        constant = rewriting.constant(kernel.astype(weight.dtype))
        bias = node.input[2:] if index == 1 else ()  # q is part of both rows.
        products.append(rewriting.add("Conv", x, constant, *bias, kernel_shape=[1, 3], pads=[0, left, 0, right]))
    p, q, r, s = products
    even = rewriting.add("Add", p, rewriting.add("Add", q, r))
    odd = rewriting.add("Sub", rewriting.add("Sub", q, r), s)
    height, width = size
    rows = [
        rewriting.add("Reshape", row, rewriting.integers(-1, outputs, height // 2, 1, width)) for row in (even, odd)
    ]
    whole = rewriting.add("Concat", *rows, axis=3)  # [batch, out, H/2, 2, W]
    rewriting.add("Reshape", whole, rewriting.integers(-1, outputs, height, width), output=node.output[0])
