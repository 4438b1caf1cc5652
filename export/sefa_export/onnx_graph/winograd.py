"""3x3 convolutions in Winograd's form: 36 multiplications for 16 pixels instead of 144.

A tile of 4x4 pixels is the interpolation of products of polynomials at 6 x 6 points: the image and the kernel are
transformed to values at the points, multiplied there, and transformed back. The kernels are transformed here. In the
graph, a transform of whole rows or columns, tiles, overlaps and border included, is one product with a dense matrix,
and the multiplication at the points is a batch of 36 matrix products: plain operators that every runtime has. The
weights take 36/9 of their space.

The dense matrices grow with the square of an image's side, the gain with the number of channels: see `LEAST_CHANNELS`.

Source: Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
"""

from collections.abc import Collection
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from sefa_export.onnx_graph.rewriting import Rewriting, is_plain, strides_and_pads

TILE, TAPS = 4, 3
# And infinity. Of those tried, with random images and kernels in float32, these have the least error: 1.1e-6 of the
# result's root mean square, and 2.4e-6 with the usual 0, ±1, ±2.
POINTS = tuple(map(Fraction, ("0", "5/8", "-5/8", "3/2", "-3/2")))
SIZE = TILE + TAPS - 1  # of a tile of the input
# Where the form is faster than onnxruntime's convolution on a CPU with AVX-512, at batch sizes 1 and 4, as
# benchmarks/winograd.py measures it: at least so many input and output channels, and sides of the output from, to.
LEAST_CHANNELS = 512
SIDES = (32, 64)
# With fewer channels it is out of the question, whatever the resolution.
FEWEST_CHANNELS = 16

Matrix = NDArray[np.float64]


def to_winograd(model: ModelProto, resolutions: Collection[int] | None = None) -> tuple[int, ...]:
    """Replace 3x3 convolutions of stride 1 with constant weights; the model is changed in place.

    Args:
        model: A graph in float32.
        resolutions: Replace those whose output has one of these numbers of rows; None: those that become faster.

    Returns:
        The numbers of rows of the outputs of those replaced, each once, ascending.
    """
    rewriting = Rewriting(model)
    replaced = set()
    for node in rewriting.nodes:
        if node.op_type != "Conv" or strides_and_pads(node)[0] != [1, 1] or not is_plain(node):
            continue
        size, weight = rewriting.size(node.output[0]), rewriting.array(node.input[1])
        if size is None or weight is None or weight.shape[2:] != (TAPS, TAPS):
            continue
        channels = min(weight.shape[:2])
        if resolutions is None:
            chosen = channels >= LEAST_CHANNELS and SIDES[0] <= min(size) and max(size) <= SIDES[1]
        else:
            chosen = channels >= FEWEST_CHANNELS and size[0] in resolutions
        if chosen:
            _replace(rewriting, node, weight, size)
            replaced.add(size[0])
    rewriting.apply()
    return tuple(sorted(replaced))


def _replace(rewriting: Rewriting, node: NodeProto, weight: NDArray[np.floating], size: tuple[int, int]) -> None:
    """Put Winograd's form in the place of a convolution with a weight [out, in, 3, 3]; `size` is its output's."""
    outputs, inputs = weight.shape[:2]
    top, left, bottom, right = strides_and_pads(node)[1]
    height, width = size
    rows, columns = -(-height // TILE), -(-width // TILE)  # of tiles
    to_points, to_pixels, of_kernel = transforms()
    y_in = input_matrix(to_points, height + TAPS - 1 - top - bottom, rows, top)  # [6·rows, H]
    x_in = input_matrix(to_points, width + TAPS - 1 - left - right, columns, left)  # [6·columns, W]
    y_out = output_matrix(to_pixels, height, rows)  # [H', 6·rows]
    x_out = output_matrix(to_pixels, width, columns)  # [W', 6·columns]
    kernels = np.einsum("ia,jb,ocab->ijoc", of_kernel, of_kernel, weight.astype(np.float64), optimize=True)

    def constant(array: Matrix) -> str:
        return rewriting.constant(array.astype(weight.dtype))

    rewriting.begin(node)
    x = rewriting.add("MatMul", node.input[0], constant(x_in.T))  # [batch, in, H, 6·columns]
    x = rewriting.add("MatMul", constant(y_in), x)  # [batch, in, 6·rows, 6·columns]
    x = rewriting.add("Reshape", x, rewriting.integers(-1, inputs, SIZE, rows, SIZE, columns))
    x = rewriting.add("Transpose", x, perm=[0, 2, 4, 1, 3, 5])  # [batch, 6, 6, in, rows, columns]
    x = rewriting.add("Reshape", x, rewriting.integers(-1, SIZE * SIZE, inputs, rows * columns))
    x = rewriting.add("MatMul", constant(kernels.reshape(SIZE * SIZE, outputs, inputs)), x)
    x = rewriting.add("Reshape", x, rewriting.integers(-1, SIZE, SIZE, outputs, rows, columns))
    x = rewriting.add("Transpose", x, perm=[0, 3, 1, 4, 2, 5])  # [batch, out, 6, rows, 6, columns]
    x = rewriting.add("Reshape", x, rewriting.integers(-1, outputs, SIZE * rows, SIZE * columns))
    x = rewriting.add("MatMul", constant(y_out), x)  # [batch, out, H', 6·columns]
    if len(node.input) < 3:
        rewriting.add("MatMul", x, constant(x_out.T), output=node.output[0])
        return
    x = rewriting.add("MatMul", x, constant(x_out.T))  # [batch, out, H', W']
    bias = rewriting.array(node.input[2])
    shaped = (
        rewriting.add("Unsqueeze", node.input[2], rewriting.integers(1, 2))
        if bias is None
        else rewriting.constant(bias[:, None, None])
    )
    rewriting.add("Add", x, shaped, output=node.output[0])


def transforms() -> tuple[Matrix, Matrix, Matrix]:
    """Return the transforms of a tile of the image, [6, 6], back to its pixels, [4, 6], and of a kernel, [6, 3].

    Evaluating two polynomials at 6 points, multiplying, and interpolating multiplies them; the transposed algorithm
    correlates. Rows are scaled by powers of 2, so that values at all points are of like size.
    """
    evaluate = [[_powers(point, length) for point in POINTS] for length in (TILE, TAPS, SIZE)]
    pixels, kernel, product = (
        np.array([*rows, [Fraction(0)] * (len(rows[0]) - 1) + [Fraction(1)]]) for rows in evaluate
    )
    image = _inverse(product).T.astype(np.float64)
    scale = 2.0 ** np.round(np.log2(np.abs(image).sum(1, keepdims=True)))
    return image / scale, pixels.T.astype(np.float64), kernel.astype(np.float64) * scale


def input_matrix(to_points: Matrix, length: int, tiles: int, padding: int) -> Matrix:
    """Return what brings a column of `length` pixels to the points: [6·tiles, length], all tiles of a point together.

    Tile t reads pixels 4t - padding to 4t - padding + 5; those outside are zero.
    """
    matrix = np.zeros((SIZE, tiles, length))
    for tile in range(tiles):
        for tap in range(SIZE):
            pixel = TILE * tile + tap - padding
            if 0 <= pixel < length:
                matrix[:, tile, pixel] = to_points[:, tap]
    return matrix.reshape(SIZE * tiles, length)


def output_matrix(to_pixels: Matrix, length: int, tiles: int) -> Matrix:
    """Return what brings values at the points back to a column of `length` pixels: [length, 6·tiles]."""
    matrix = np.zeros((TILE * tiles, SIZE, tiles))
    for tile in range(tiles):
        matrix[TILE * tile : TILE * (tile + 1), :, tile] = to_pixels
    return matrix[:length].reshape(length, SIZE * tiles)


def _powers(point: Fraction, length: int) -> list[Fraction]:
    return [point**exponent for exponent in range(length)]


def _inverse(matrix: NDArray[np.object_]) -> NDArray[np.object_]:
    """Invert a matrix of fractions exactly, by Gauss-Jordan elimination."""
    count = len(matrix)
    rows = np.concatenate([matrix, np.array([[Fraction(i == j) for j in range(count)] for i in range(count)])], 1)
    for column in range(count):
        pivot = next(index for index in range(column, count) if rows[index, column])
        rows[[column, pivot]] = rows[[pivot, column]]
        rows[column] /= rows[column, column]
        for index in range(count):
            if index != column:
                rows[index] = rows[index] - rows[index, column] * rows[column]
    return rows[:, count:]
