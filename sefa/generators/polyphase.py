"""Activations on a finer grid than the image's: upsample, activate, downsample, each with a low-pass filter.

Upsampling by u stuffs zeros between the pixels and filters; downsampling by d filters and keeps every d-th pixel. Here
the fine image is kept as its phases, the pixels n = u·j + p of each axis for one p: every phase is a filter of the
coarse image's pixels, and the result is a sum of filtered phases. Nothing is multiplied by a stuffed zero, no pixel is
computed to be dropped, and the activation does not mind the order. All of it is stride-1 depthwise convolution of
images of the coarse size, which onnxruntime vectorizes.
"""

from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import product
from math import gcd

import torch
from torch import Tensor
from torch.nn import functional as F

Phases = list[list[Tensor]]  # of rows, of columns: [N, C, h, w] each


@dataclass(frozen=True)
class Resampling:
    """Zero-stuffing by `up`, padding, `up_taps`; then `down_taps`, every `down`-th pixel; the same along both axes.

    Attributes:
        size: Height and width of the coarse image.
        up: Factor of upsampling.
        down: Factor of downsampling.
        padding: Zeros before and after the stuffed image; negative numbers crop it.
        up_taps: Length of the upsampling filter.
        down_taps: Length of the downsampling filter.
    """

    size: int
    up: int
    down: int
    padding: tuple[int, int]
    up_taps: int
    down_taps: int

    @property
    def out_size(self) -> int:
        """Height and width of the result."""
        fine = self.size * self.up + sum(self.padding) - self.up_taps + 1
        return (fine - self.down_taps) // self.down + 1

    @property
    def out_phases(self) -> int:
        """The result is computed in phases too, as many as make a period with the fine image's."""
        return self.up // gcd(self.up, self.down)

    @property
    def stride(self) -> int:
        """How far one pixel of a result's phase is from the next in the fine image's phases."""
        return self.down // gcd(self.up, self.down)

    @property
    def margin(self) -> tuple[int, int]:
        """Zeros that `split` needs before and after the coarse image; negative where it does not read the border."""
        phase_size = (-(-self.out_size // self.out_phases) - 1) * self.stride + self._down_length
        return -self._origin, self._origin + phase_size + self._up_length - 1 - self.size

    def up_kernels(self, taps: Tensor) -> Tensor:
        """An upsampling filter, [up_taps] for both axes or [up_taps, up_taps] -> one for each phase, for `split`.

        Returns:
            Shape [u, R] or [u, u, R, R], to be correlated, of gain u along each axis.
        """
        taps = _flip(taps) * self.up**taps.ndim
        phase, place = (torch.tensor(column) for column in zip(*self._up_places, strict=True))
        place = place - self._origin
        if taps.ndim == 1:
            kernels = taps.new_zeros(self.up, self._up_length)
            kernels[phase, place] = taps
            return kernels
        kernels = taps.new_zeros(self.up, self.up, self._up_length, self._up_length)
        kernels[phase[:, None], phase, place[:, None], place] = taps
        return kernels

    def down_kernels(self, taps: Tensor) -> Tensor:
        """A downsampling filter, [down_taps] or [down_taps, down_taps] -> one for each pair of phases, for `merge`.

        Returns:
            Shape [e, u, R] or [e, e, u, u, R, R], to be correlated; e is `out_phases`.
        """
        taps = _flip(taps)
        kernels = taps.new_zeros(*(size for size in (self.out_phases, self.up, self._down_length) for _ in taps.shape))
        # The fine pixels that each phase of the result begins at.
        places = [torch.arange(self.down_taps) + self.down * phase for phase in range(self.out_phases)]
        if taps.ndim == 1:
            for phase, n in enumerate(places):
                kernels[phase, n % self.up, n // self.up] = taps
            return kernels
        for (row, y), (column, x) in product(enumerate(places), repeat=2):
            kernels[row, column, y[:, None] % self.up, x % self.up, y[:, None] // self.up, x // self.up] = taps
        return kernels

    def up_shape(self, axes: int) -> tuple[int, ...]:
        """Shape of `up_kernels` of a filter with `axes` axes."""
        return tuple(size for size in (self.up, self._up_length) for _ in range(axes))

    def down_shape(self, axes: int) -> tuple[int, ...]:
        """Shape of `down_kernels` of a filter with `axes` axes."""
        return tuple(size for size in (self.out_phases, self.up, self._down_length) for _ in range(axes))

    @cached_property
    def _up_places(self) -> list[tuple[int, int]]:
        """For each tap, the phase it is part of, and which coarse pixel it reads there, counted from j."""
        before = self.padding[0]
        phases = [(before - tap) % self.up for tap in range(self.up_taps)]
        return [(phase, (phase - before + tap) // self.up) for tap, phase in enumerate(phases)]

    @property
    def _origin(self) -> int:
        return min(place for _, place in self._up_places)

    @property
    def _up_length(self) -> int:
        return max(place for _, place in self._up_places) - self._origin + 1

    @property
    def _down_length(self) -> int:
        return (self.down * (self.out_phases - 1) + self.down_taps - 1) // self.up + 1


def split(x: Tensor, kernels: Tensor, padding: tuple[int, int]) -> Phases:
    """Upsample to phases.

    Args:
        x: Shape [N, C, size, size].
        kernels: See `Resampling.up_kernels`.
        padding: `Resampling.margin`, less what `x` already has of it.
    """
    phases = range(kernels.shape[0])
    if kernels.ndim == 4:
        x = pad(x, padding, padding)
        return [[filter_channels(x, kernels[p, q]) for q in phases] for p in phases]
    rows = [filter_channels(x, kernels[p][:, None], rows=padding) for p in phases]
    return [[filter_channels(row, kernels[q][None], columns=padding) for q in phases] for row in rows]


def merge(phases: Phases, kernels: Tensor, resampling: Resampling) -> Tensor:
    """Downsample from phases.

    Args:
        phases: Of the fine image.
        kernels: See `Resampling.down_kernels`.
        resampling: The grids.

    Returns:
        Shape [N, C, out_size, out_size].
    """
    fine, out, stride = range(resampling.up), range(resampling.out_phases), resampling.stride
    if kernels.ndim == 6:
        merged = [
            [_sum([filter_channels(phases[p][q], kernels[b, c, p, q], (stride, stride)) for p in fine for q in fine])
             for c in out]
            for b in out
        ]  # fmt: skip
    else:
        narrow = [
            [_sum([filter_channels(row[q], kernels[c, q][None], (1, stride)) for q in fine]) for c in out]
            for row in phases
        ]
        merged = [
            [_sum([filter_channels(narrow[p][c], kernels[b, p][:, None], (stride, 1)) for p in fine]) for c in out]
            for b in out
        ]
    return interleave(merged)[:, :, : resampling.out_size, : resampling.out_size]


def interleave(phases: Phases) -> Tensor:
    """The image whose pixels were split by row and column: e·e of [N, C, h, w] -> [N, C, e·h, e·w]."""
    e = len(phases)
    if e == 1:
        return phases[0][0]
    _, channels, height, width = phases[0][0].shape
    # Columns by moving an axis inwards, rows by laying them one behind the other in memory.
    rows = [torch.stack(row, dim=2).permute(0, 1, 3, 4, 2).reshape(-1, channels, height, width * e) for row in phases]
    return torch.cat(rows, dim=3).reshape(-1, channels, height * e, width * e)


def clamp_phase(x: Tensor, limit: float) -> Tensor:
    """Clamp to ±limit, behind a convolution that changes nothing.

    onnxruntime lays images out for vectorized convolution, applies an activation within one, and brings them back to
    plain order for any other operator, which takes longer than one more convolution with a single tap.
    """
    return filter_channels(x, x.new_ones(1, 1)).clamp(-limit, limit)


def filter_channels(
    x: Tensor,
    kernel: Tensor,
    stride: tuple[int, int] = (1, 1),
    rows: tuple[int, int] = (0, 0),
    columns: tuple[int, int] = (0, 0),
) -> Tensor:
    """Cross-correlate every channel of [N, C, H, W] with a kernel [kh, kw], padding rows and columns."""
    channels = x.shape[1]
    return convolve(x, kernel.repeat(channels, 1, 1, 1), rows, columns, stride, channels)


def convolve(
    x: Tensor,
    weight: Tensor,
    rows: tuple[int, int],
    columns: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Convolve [N, C, H, W], with any padding before and after its rows and columns, cropping included."""
    if rows[0] == rows[1] >= 0 and columns[0] == columns[1] >= 0:
        return F.conv2d(x, weight, padding=(rows[0], columns[0]), stride=stride, groups=groups)
    return F.conv2d(pad(x, rows, columns), weight, stride=stride, groups=groups)


def pad(x: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Add zeros before and after the rows and columns of [N, C, H, W], or crop them."""
    return F.pad(x, (*columns, *rows)) if any((*rows, *columns)) else x


def _flip(taps: Tensor) -> Tensor:
    """A convolution's filter as a correlation's."""
    return taps.flip(tuple(range(taps.ndim)))


def _sum(images: list[Tensor]) -> Tensor:
    return reduce(torch.add, images)
