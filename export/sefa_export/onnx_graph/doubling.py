"""Layers that double height and width, as convolutions of the smaller image whose pixels are interleaved.

A transposed convolution of stride 2 computes pixels of even and odd rows and columns from different taps of its kernel.
Each of the four kinds is a convolution of the smaller image, and so is each of nearest-neighbour doubling followed by a
3x3 convolution, which share much of their work (`nearest_doubling.py`). onnxruntime's convolutions on the CPU run
nearer to the processor's limit than its transposed ones, and fuse the activation that follows.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from sefa_export.onnx_graph.nearest_doubling import add_doubling, merged_kernel
from sefa_export.onnx_graph.rewriting import Rewriting, attributes, is_plain, strides_and_pads

# onnxruntime's vectorized convolutions round channels up to this.
LEAST_CHANNELS = 16
# For a kernel of 3 or 4 taps along an axis: the least pixels of the input from which four convolutions are faster than
# a transposed one, on a processor with AVX-512 and at batch sizes of 1 to 8. Other kernels stay as they are.
LEAST_PIXELS = {3: 16 * 16, 4: 8 * 8}
ACTIVATIONS = {"LeakyRelu", "Relu"}


def split_doubling(model: ModelProto) -> None:
    """Replace transposed convolutions and those after nearest-neighbour doubling; the model is changed in place.

    Kernels that depend on inputs, sizes that the graph does not fix, and other transposed convolutions of small images
    stay as they are.
    """
    rewriting = Rewriting(model)
    makers = {name: node for node in rewriting.nodes for name in node.output}
    for node in rewriting.nodes:
        if node.op_type == "ConvTranspose":
            _split_transposed(rewriting, node)
        elif node.op_type == "Conv" and node.input[0] in makers:
            _split_enlarged(rewriting, node, makers[node.input[0]])
    rewriting.apply()


def _split_transposed(rewriting: Rewriting, node: NodeProto) -> None:
    size, weight = rewriting.size(node.input[0]), rewriting.array(node.input[1])
    strides, pads = strides_and_pads(node)
    if size is None or weight is None or weight.ndim != 4 or strides != [2, 2] or not is_plain(node):
        return
    kernel = weight.shape[2]
    if weight.shape[3] != kernel or min(weight.shape[:2]) < LEAST_CHANNELS:
        return
    merged = merged_kernel(weight) if kernel == 4 and pads == [1, 1, 1, 1] else None
    if merged is not None:
        _replace_by_nearest(rewriting, node, node.input[0], merged, size)
        return
    if math.prod(size) < LEAST_PIXELS.get(kernel, math.inf):
        return
    result = [2 * (size[axis] - 1) + kernel - pads[axis] - pads[axis + 2] for axis in (0, 1)]
    if any(side % 2 for side in result):
        # Four equal parts make one more row and column, of zeros: a filter afterwards may have them in place of its
        # padding.
        cropped = any(pads[axis + 2] and result[axis] % 2 for axis in (0, 1))
        has_bias = len(node.input) > 2
        absorbing = [_absorbing(rewriting, node.output[0], axis) for axis in (0, 1) if result[axis] % 2]
        if cropped or has_bias or None in absorbing:
            return
        for axis, filters in zip((axis for axis in (0, 1) if result[axis] % 2), absorbing, strict=True):
            assert filters is not None
            for filter_ in filters:
                rewriting.forget_shape(filter_.input[0])
            _pads(filters[-1])[axis + 2] -= 1
    _replace_by_four(rewriting, node, weight, pads, size)


def _split_enlarged(rewriting: Rewriting, node: NodeProto, resize: NodeProto) -> None:
    size, weight = rewriting.size(resize.input[0]), rewriting.array(node.input[1])
    if size is None or weight is None or weight.shape[2:] != (3, 3) or not _is_nearest_doubling(rewriting, resize):
        return
    if strides_and_pads(node) != ([1, 1], [1, 1, 1, 1]) or not is_plain(node):
        return
    if min(weight.shape[:2]) < LEAST_CHANNELS:
        return
    _replace_by_nearest(rewriting, node, resize.input[0], weight, size)


def _replace_by_nearest(
    rewriting: Rewriting, node: NodeProto, x: str, weight: NDArray[np.floating], size: tuple[int, int]
) -> None:
    """Put nearest-neighbour doubling of x, of a height and width, and a 3x3 convolution in the place of a node."""
    last = _begin(rewriting, node)
    images = add_doubling(rewriting, x, weight, node.input[2:])
    _finish(rewriting, node, last, images, weight.shape[0], size)


def _replace_by_four(
    rewriting: Rewriting, node: NodeProto, weight: NDArray[np.floating], pads: list[int], size: tuple[int, int]
) -> None:
    """Put four convolutions in the place of a transposed one.

    Args:
        rewriting: Where.
        node: The transposed convolution.
        weight: [in, out, k, k].
        pads: What it leaves out: top, left, bottom, right.
        size: Height and width of its input.
    """
    channels, kernel = weight.shape[1], weight.shape[2]
    last = _begin(rewriting, node)
    result = [2 * (size[axis] - 1) + kernel - pads[axis] - pads[axis + 2] for axis in (0, 1)]
    half = (-(-result[0] // 2), -(-result[1] // 2))
    images: list[list[str]] = [[], []]
    for row in (0, 1):
        y_taps, top = _taps(kernel, pads[0], row)
        for column in (0, 1):
            x_taps, left = _taps(kernel, pads[1], column)
            part = weight[:, :, y_taps][..., x_taps].transpose(1, 0, 2, 3)  # [out, in, taps, taps]
            bottom = half[0] - size[0] - top + len(y_taps) - 1
            right = half[1] - size[1] - left + len(x_taps) - 1
            image = rewriting.add(
                "Conv",
                node.input[0],
                rewriting.constant(part),
                *node.input[2:],
                kernel_shape=[len(y_taps), len(x_taps)],
                pads=[top, left, bottom, right],
            )
            images[row].append(image)
    _finish(rewriting, node, last, images, channels, half)


def _begin(rewriting: Rewriting, node: NodeProto) -> NodeProto:
    """Begin what replaces a node and the activation after it, if there is one; return the last of the two."""
    activation = rewriting.only_reader(node.output[0])
    last = activation if activation is not None and activation.op_type in ACTIVATIONS else node
    rewriting.begin(last)
    return last


def _finish(
    rewriting: Rewriting,
    node: NodeProto,
    last: NodeProto,
    images: list[list[str]],
    channels: int,
    size: tuple[int, int],
) -> None:
    """Add the activation of each image, if `last` is one, and what interleaves them; see `Rewriting.interleave`."""
    if last is not node:
        images = [[rewriting.add(last.op_type, image, **attributes(last)) for image in row] for row in images]
    rewriting.interleave(images, channels, size, output=last.output[0])


def _taps(kernel: int, pad: int, parity: int) -> tuple[list[int], int]:
    """Return the taps of a convolution that makes the pixels of one parity along an axis, and its padding before.

    Pixel 2p + parity is the sum over i of x[i]·tap[2p + parity + pad - 2i].
    """
    first = (parity + pad) % 2
    taps = list(reversed(range(first, kernel, 2)))
    return taps, len(taps) - 1 - (parity + pad - first) // 2


def _absorbing(rewriting: Rewriting, name: str, axis: int) -> list[NodeProto] | None:
    """Return the convolutions from `name` to the first that pads the end of an axis; None if there is none.

    Those before it leave a row or column of zeros as it is.
    """
    found = []
    while True:
        node = rewriting.only_reader(name)
        if node is None or node.op_type != "Conv" or node.input[0] != name:
            return None
        shape = rewriting.shape(node.input[1])
        strides, pads = strides_and_pads(node)
        if shape is None or strides != [1, 1] or len(pads) != 4:
            return None
        found.append(node)
        if pads[axis + 2]:
            return found
        if shape[axis + 2] != 1 or len(node.input) > 2:
            return None
        name = node.output[0]


def _pads(node: NodeProto) -> Any:
    """Return a convolution's padding, to be changed in place."""
    return next(item.ints for item in node.attribute if item.name == "pads")


def _is_nearest_doubling(rewriting: Rewriting, node: NodeProto) -> bool:
    given = attributes(node)
    mode = (given.get("mode"), given.get("coordinate_transformation_mode"), given.get("nearest_mode"))
    if node.op_type != "Resize" or mode != (b"nearest", b"asymmetric", b"floor") or given.get("axes"):
        return False
    scales = rewriting.array(node.input[2]) if len(node.input) == 3 else None
    return scales is not None and scales.tolist() == [1, 1, 2, 2]
