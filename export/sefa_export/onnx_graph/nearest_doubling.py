"""Nearest-neighbour doubling followed by a 3x3 convolution, with a quarter of its multiplications.

Along an axis, the taps (a, b, c) make a·x[i-1] + (b+c)·x[i] of pixel 2i, and (a+b)·x[i] + c·x[i+1] of pixel 2i + 1.
With what both share these are

    (a+b+c)·x[i] - a·(x[i] - x[i-1])   and   (a+b+c)·x[i] + c·(x[i+1] - x[i]),

three multiplications instead of four, and nine for the four pixels of both axes instead of sixteen, or of the 36 that
come with the enlarged image. The weights take no more space than the kernel's nine taps.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from sefa_export.onnx_graph.rewriting import Rewriting

# The least channels, of input and output, from which sharing is faster along one axis and along both, at batch sizes of
# 1 and 4 on processors with AVX-512 and AVX2: differences and sums cost as much for each channel, and what they save
# grows with the number of channels.
LEAST_TO_SHARE_ROWS, LEAST_TO_SHARE_BOTH = 32, 96

Kernel = NDArray[np.float64]


def add_doubling(rewriting: Rewriting, x: str, weight: NDArray[np.floating], bias: Sequence[str]) -> list[list[str]]:
    """Add what computes the pixels of even and odd rows and columns; return the four images' names, by row and column.

    Args:
        rewriting: Where.
        x: The image before doubling, [batch, in, H, W].
        weight: [out, in, 3, 3].
        bias: Its name, or none.
    """
    inputs, channels = weight.shape[1], min(weight.shape[:2])

    def convolve(x: str, kernel: Kernel, parities: tuple[int, int], *bias: str) -> str:
        """Convolve with one tap along an axis or, for the pixels of a parity, with two."""
        shape = list(kernel.shape[2:])
        before = [(taps - 1) * (1 - parity) for taps, parity in zip(shape, parities, strict=True)]
        after = [taps - 1 - pad for taps, pad in zip(shape, before, strict=True)]
        constant = rewriting.constant(kernel.astype(weight.dtype))
        return rewriting.add("Conv", x, constant, *bias, kernel_shape=shape, pads=before + after)

    def difference(x: str, axis: int, parity: int) -> str:
        """Subtract from each pixel the one before it (parity 0), or each from the one after it (1)."""
        shape, pads = [1, 1], [0, 0, 0, 0]
        shape[axis], pads[axis + 2 * parity] = 2, 1
        kernel = np.tile(np.array([-1, 1], weight.dtype).reshape(1, 1, *shape), (inputs, 1, 1, 1))
        return rewriting.add("Conv", x, rewriting.constant(kernel), group=inputs, kernel_shape=shape, pads=pads)

    def columns(x: str, kernel: Kernel, row: int, bias: Sequence[str], added: Sequence[str]) -> list[str]:
        """Compute even and odd columns with a kernel [out, in, taps, 3], and add to each what is `added`, if any."""
        if channels < LEAST_TO_SHARE_BOTH:
            halves = enumerate(_halves(kernel, 3))
            images = [convolve(x, half, (row, column), *bias) for column, half in halves]
            return [rewriting.add("Add", *pair) for pair in zip(images, added, strict=True)] if added else images
        whole, *parts = _shared(kernel, 3)
        shared = convolve(x, whole, (row, 0), *bias)
        sums = [rewriting.add("Add", shared, image) for image in added] or [shared, shared]
        images = [convolve(difference(x, 1, column), part, (row, 0)) for column, part in enumerate(parts)]
        return [rewriting.add("Add", *pair) for pair in zip(images, sums, strict=True)]

    kernel = weight.astype(np.float64)
    if channels < LEAST_TO_SHARE_ROWS:
        return [columns(x, half, row, bias, ()) for row, half in enumerate(_halves(kernel, 2))]
    whole, *parts = _shared(kernel, 2)
    shared = columns(x, whole, 0, bias, ())
    return [columns(difference(x, 0, row), part, 0, (), shared) for row, part in enumerate(parts)]


def _halves(kernel: Kernel, axis: int) -> tuple[Kernel, Kernel]:
    """Return the two taps for even pixels, and those for odd ones, of three along an axis."""
    a, b, c = np.split(kernel, 3, axis)
    return np.concatenate([a, b + c], axis), np.concatenate([a + b, c], axis)


def _shared(kernel: Kernel, axis: int) -> tuple[Kernel, Kernel, Kernel]:
    """Return the tap for both, and those of the differences for even and odd pixels, of three along an axis."""
    a, b, c = np.split(kernel, 3, axis)
    return a + b + c, -a, c


def merged_kernel(weight: NDArray[np.floating]) -> NDArray[np.floating] | None:
    """Return the 3x3 kernel that was merged with nearest-neighbour doubling into a transposed convolution, if any.

    Such a convolution has stride 2 and padding 1, and along an axis the taps (c, b+c, a+b, a).

    Args:
        weight: [in, out, 4, 4].

    Returns:
        [out, in, 3, 3]; None if the taps are others, by more than rounding.
    """
    kernel = weight.astype(np.float64).transpose(1, 0, 2, 3)
    for axis in (2, 3):
        first, second, third, fourth = np.split(kernel, 4, axis)
        kernel = np.concatenate([fourth, (second - first + third - fourth) / 2, first], axis)
    merged = np.zeros_like(weight, np.float64)
    for y, x in product(range(2), repeat=2):
        merged[:, :, y : y + 3, x : x + 3] += kernel[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    # Each pair of channels has its own scale. Of a million random kernels, rounding moves none by more than 2 epsilons.
    tolerance = 8 * np.finfo(weight.dtype).eps * np.abs(weight).max((2, 3), keepdims=True)
    return kernel.astype(weight.dtype) if (np.abs(merged - weight) <= tolerance).all() else None
