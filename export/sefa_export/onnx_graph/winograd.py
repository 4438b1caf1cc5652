"""3x3 convolutions in Winograd's form: 36 multiplications for 16 pixels instead of 144.

A tile of 4x4 pixels is the interpolation of products of polynomials at 6 x 6 points: the image and the kernel are
transformed to values at the points, multiplied there, and transformed back. The kernels are transformed here. In the
graph, each row of the image's transform is a depthwise convolution whose stride is that of the tiles, and the
multiplication at a point is a 1x1 convolution: onnxruntime keeps both in the order of its vectorized convolutions. The
transform back is a product with a small matrix. The weights take 36/9 of their space.

The transforms cost as much for each channel, and the multiplications grow with their number: see `LEAST_CHANNELS`.

Source: Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
"""

from collections.abc import Collection
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from sefa_export.onnx_graph.rewriting import Rewriting, strides_and_pads

TILE, TAPS = 4, 3
# And infinity. Of those tried, with random images and kernels in float32, these have the least error: 1.1e-6 of the
# result's root mean square, and 2.4e-6 with the usual 0, ±1, ±2.
POINTS = tuple(map(Fraction, ("0", "5/8", "-5/8", "3/2", "-3/2")))
SIZE = TILE + TAPS - 1  # of a tile of the input
# Where the form is faster than onnxruntime's convolution in generators of published sizes, on a CPU with AVX-512 and at
# batch sizes 1 and 4 (benchmarks/winograd.py measures single ones): at least so many input and output channels, and
# sides of the output from, to.
LEAST_CHANNELS = 128
SIDES = (16, 128)
# onnxruntime vectorizes depthwise convolutions of multiples of this.
BLOCK = 16
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
    for node, weight, size in rewriting.convolutions_3x3():
        channels = min(weight.shape[:2])
        if resolutions is None:
            fast = channels >= LEAST_CHANNELS and weight.shape[1] % BLOCK == 0
            chosen = fast and SIDES[0] <= min(size) and max(size) <= SIDES[1]
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
    rows, columns = (-(-side // TILE) for side in size)  # of tiles
    y_end = bottom + TILE * rows - size[0]  # The last tiles may reach beyond the image.
    x_end = right + TILE * columns - size[1]
    to_points, to_pixels, of_kernel = transforms()
    kernels = np.einsum("ia,jb,ocab->ijoc", of_kernel, of_kernel, weight.astype(np.float64), optimize=True)
    # These values at the points are 1 at every pixel: the bias is added there, inside the 1x1 convolutions.
    one = np.linalg.pinv(to_pixels).sum(1)  # [6]

    def constant(array: NDArray[np.floating]) -> str:
        return rewriting.constant(array.astype(weight.dtype))

    def transform(x: str, row: Matrix, axis: int, pads: list[int]) -> str:
        """Compute one row of the transform along an axis, for each channel and tile."""
        shape = [len(row) if index == axis else 1 for index in (0, 1)]
        strides = [TILE if index == axis else 1 for index in (0, 1)]
        kernel = constant(np.tile(row.reshape(1, 1, *shape), (inputs, 1, 1, 1)))
        return rewriting.add("Conv", x, kernel, group=inputs, kernel_shape=shape, strides=strides, pads=pads)

    rewriting.begin(node)
    products = []
    for i in range(SIZE):
        y = transform(node.input[0], to_points[i], 0, [top, 0, y_end, 0])  # [batch, in, rows, W]
        for j in range(SIZE):
            x = transform(y, to_points[j], 1, [0, left, 0, x_end])  # [batch, in, rows, columns]
            kernel = constant(kernels[i, j, :, :, None, None])
            bias = [rewriting.scaled(name, one[i] * one[j]) for name in node.input[2:]]
            products.append(rewriting.add("Conv", x, kernel, *bias, kernel_shape=[1, 1]))
    back = np.split(np.kron(to_pixels, to_pixels).astype(weight.dtype), 2, axis=1)
    halves = []
    # CUDA's Concat takes at most 32 inputs while a graph is captured.
    for matrix, values in zip(back, (products[: SIZE**2 // 2], products[SIZE**2 // 2 :]), strict=True):
        x = rewriting.add("Concat", *values, axis=1)  # [batch, 18·out, rows, columns]
        x = rewriting.add("Reshape", x, rewriting.integers(-1, len(values), outputs * rows * columns))
        halves.append(rewriting.multiply(matrix, x))
    x = rewriting.add("Add", *halves)  # [batch, 16, out·rows·columns]
    pixels = rewriting.split(x, TILE**2, axis=1)
    grid = [pixels[TILE * row : TILE * (row + 1)] for row in range(TILE)]
    whole = (TILE * rows, TILE * columns) == size
    x = rewriting.interleave(grid, outputs, (rows, columns), output=node.output[0] if whole else None)
    if not whole:
        begin, end, axes = rewriting.integers(0, 0), rewriting.integers(*size), rewriting.integers(2, 3)
        rewriting.add("Slice", x, begin, end, axes, output=node.output[0])


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
