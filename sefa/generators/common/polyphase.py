"""Activations on a finer grid than the image's: upsample, activate, downsample, with low-pass filters.

Upsampling by u inserts zeros between the pixels and filters; downsampling by d filters and keeps every d-th pixel. Here
the fine image is kept as its phases: phase p holds the pixels n = g·j + p of each axis, where g is the greatest common
divisor of u and d. Each phase is a filtered image that is g times coarser, and the result is a sum of filtered phases.
So no pixel is computed only to be dropped, few inserted zeros are multiplied (none if u = g), and the activation can be
applied to each phase separately. All of it is depthwise convolution, which onnxruntime vectorizes if the number of
channels is a multiple of its block, 8 or 16.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from math import gcd

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Phases = list[list[Tensor]]  # by row, by column: [N, C, h, w] each


@dataclass(frozen=True)
class Resampling:
    """The grids of a resampling, the same on both axes.

    Zeros are inserted, the image is padded and filtered; then it is filtered again and every `down`-th pixel is kept.

    Attributes:
        size: Height and width of the image.
        up: Factor of upsampling, u.
        down: Factor of downsampling, d.
        padding: Zeros before and after the image with inserted zeros; negative numbers crop it.
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
    def phases(self) -> int:
        """Number of phases of the fine image along an axis, g."""
        return gcd(self.up, self.down)

    @property
    def stuffing(self) -> int:
        """Factor by which zeros are actually inserted; the phases make up the rest of `up`."""
        return self.up // self.phases

    @property
    def stride(self) -> int:
        """Stride of the result's pixels within a phase."""
        return self.down // self.phases

    @property
    def margin(self) -> tuple[int, int]:
        """Zeros the phases need before and after the image with inserted zeros; negative if they skip its border."""
        pixels = (self.out_size - 1) * self.stride + self.down_length  # in a phase
        origin = self._origin
        return -origin, origin + pixels + self.up_length - 1 - self.size * self.stuffing

    @property
    def crop(self) -> tuple[int, int]:
        """Pixels at the beginning and the end of the image that no phase needs."""
        before, after = (max(-side, 0) // self.stuffing for side in self.margin)
        return before, after

    @property
    def up_length(self) -> int:
        """Number of taps in a phase of the upsampling filter."""
        return max(place for _, place in self._up_places()) - self._origin + 1

    @property
    def down_length(self) -> int:
        """Number of taps in a phase of the downsampling filter."""
        return -(-self.down_taps // self.phases)

    def up_kernels(self, taps: Tensor) -> Tensor:
        """Split the upsampling filter [up_taps], times its gain u, into phases for correlation: [g, up_length]."""
        kernels = taps.new_zeros(self.phases, self.up_length)
        for tap, (phase, place) in zip(taps.flip(0) * self.up, self._up_places(), strict=True):
            kernels[phase, place - self._origin] = tap
        return kernels

    def down_kernels(self, taps: Tensor) -> Tensor:
        """Split the downsampling filter, [down_taps] or [down_taps, down_taps], into phases: [g, R] or [g, g, R, R]."""
        missing = self.down_length * self.phases - self.down_taps
        for axis in range(taps.ndim):
            # Tap n of a correlation filter is tap n // g of phase n % g.
            taps = torch.cat([taps.flip(axis), torch.zeros_like(taps.narrow(axis, 0, missing))], dim=axis)
        if taps.ndim == 1:
            return taps.reshape(self.down_length, self.phases).T
        grid = taps.reshape(self.down_length, self.phases, self.down_length, self.phases)
        return grid.permute(1, 3, 0, 2)

    @property
    def _origin(self) -> int:
        return min(place for _, place in self._up_places())

    def _up_places(self) -> Iterator[tuple[int, int]]:
        """Yield, for each tap, its phase and the place, counted from j, that it reads in the image with zeros."""
        for tap in range(self.up_taps):
            phase = (self.padding[0] - tap) % self.phases
            yield phase, (phase - self.padding[0] + tap) // self.phases


class FilteredActivation(nn.Module):
    """down(clamp(lrelu(up(x)))), channel by channel.

    Attributes:
        up: From the image to the phases of the fine image.
        identity: A convolution that changes nothing, before clamping; None if nothing is clamped. onnxruntime keeps
            images in a layout for vectorized convolution and fuses an activation into a convolution; for any other
            operator it converts them back to plain order, which takes longer than one more convolution.
        down: From the phases to the result.
    """

    def __init__(self, channels: int, resampling: Resampling, clamp: float | None, square: bool) -> None:
        """Build without values.

        Args:
            channels: Channels of the image.
            resampling: The grids.
            clamp: Largest magnitude on the fine grid; None: no limit.
            square: Whether the downsampling filter has two axes because it is not a column times a row.
        """
        super().__init__()
        self.channels = channels
        self.clamp = clamp
        self.up = Upsampling(channels, resampling)
        self.identity = None if clamp is None else _depthwise(channels, (1, 1))
        self.down = SquareDownsampling(channels, resampling) if square else Downsampling(channels, resampling)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, h, h], the image without `Resampling.crop` -> [N, C, out_size, out_size]."""
        image: Tensor = self.down([[self._activate(phase) for phase in row] for row in self.up(x)])
        return image

    def _activate(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(x, 0.2)
        if self.identity is None or self.clamp is None:
            return x
        return torch.clamp(self.identity(x), -self.clamp, self.clamp)

    def weights(self, up_taps: Tensor, down_taps: Tensor) -> dict[str, Tensor]:
        """Return the state for filters [up_taps], and [down_taps] or, if `square`, [down_taps, down_taps]."""
        kernels = {f"up.{name}": kernel for name, kernel in self.up.kernels(up_taps).items()}
        kernels |= {f"down.{name}": kernel for name, kernel in self.down.kernels(down_taps).items()}
        if self.identity is not None:
            kernels["identity.weight"] = torch.ones(1, 1)
        return {name: kernel.expand(self.channels, 1, *kernel.shape) for name, kernel in kernels.items()}


class Upsampling(nn.Module):
    """From an image to the phases of a finer image.

    Attributes:
        rows: A filter along the height for each phase.
        columns: A filter along the width for each phase.
    """

    def __init__(self, channels: int, resampling: Resampling) -> None:
        super().__init__()
        self.resampling = resampling
        cropped = [side * resampling.stuffing for side in resampling.crop]
        before, after = (side + crop for side, crop in zip(resampling.margin, cropped, strict=True))
        both = max(min(before, after), 0)  # Convolutions pad both sides alike.
        self.padding = (before - both, after - both, before - both, after - both)
        length, phases = resampling.up_length, range(resampling.phases)
        self.rows = nn.ModuleList(_depthwise(channels, (length, 1), padding=(both, 0)) for _ in phases)
        self.columns = nn.ModuleList(_depthwise(channels, (1, length), padding=(0, both)) for _ in phases)

    def forward(self, x: Tensor) -> Phases:
        """Return the phases of [N, C, h, h], the image without `Resampling.crop`."""
        x = _stuff(x, self.resampling.stuffing)
        if any(self.padding):
            x = pad(x, self.padding)
        return [[column(row) for column in self.columns] for row in _each(self.rows, x)]

    def kernels(self, taps: Tensor) -> dict[str, Tensor]:
        """Return one channel's part of the state, for a filter [up_taps]; all channels have the same."""
        kernels = self.resampling.up_kernels(taps)
        return _named("rows", kernels[:, :, None]) | _named("columns", kernels[:, None])


class Downsampling(nn.Module):
    """From the phases of a fine image to a coarser image.

    Attributes:
        rows: A filter along the height for each phase.
        columns: A filter along the width for each phase.
    """

    def __init__(self, channels: int, resampling: Resampling) -> None:
        super().__init__()
        self.resampling = resampling
        length, stride, phases = resampling.down_length, resampling.stride, range(resampling.phases)
        self.rows = nn.ModuleList(_depthwise(channels, (length, 1), stride=(stride, 1)) for _ in phases)
        self.columns = nn.ModuleList(_depthwise(channels, (1, length), stride=(1, stride)) for _ in phases)

    def forward(self, phases: Phases) -> Tensor:
        """To [N, C, out_size, out_size]."""
        return _merge(self.rows, [_merge(self.columns, row) for row in phases])

    def kernels(self, taps: Tensor) -> dict[str, Tensor]:
        """Return one channel's part of the state, for a filter [down_taps]; all channels have the same."""
        kernels = self.resampling.down_kernels(taps)
        return _named("rows", kernels[:, :, None]) | _named("columns", kernels[:, None])


class SquareDownsampling(nn.Module):
    """Like `Downsampling`, with a filter that is not a column times a row.

    Attributes:
        squares: A filter for each phase, row by row.
    """

    def __init__(self, channels: int, resampling: Resampling) -> None:
        super().__init__()
        self.resampling = resampling
        length, stride = (resampling.down_length,) * 2, (resampling.stride,) * 2
        phases = range(resampling.phases**2)
        self.squares = nn.ModuleList(_depthwise(channels, length, stride=stride) for _ in phases)

    def forward(self, phases: Phases) -> Tensor:
        """To [N, C, out_size, out_size]."""
        return _merge(self.squares, [phase for row in phases for phase in row])

    def kernels(self, taps: Tensor) -> dict[str, Tensor]:
        """Return one channel's part of the state, for a filter [down_taps, down_taps]; all channels have the same."""
        return _named("squares", self.resampling.down_kernels(taps).flatten(0, 1))


def pad(x: Tensor, sides: tuple[int, int, int, int]) -> Tensor:
    """Add zeros at the left, right, top and bottom of [N, C, H, W]; negative numbers crop.

    F.pad also crops, but onnxscript before 0.7.2 turns that and what follows into a convolution with negative padding,
    which onnxruntime rejects or crashes on.
    """
    left, right, top, bottom = (max(-side, 0) for side in sides)
    x = x[..., top : x.shape[2] - bottom, left : x.shape[3] - right]
    zeros = tuple(max(side, 0) for side in sides)
    return F.pad(x, zeros) if any(zeros) else x


def _depthwise(
    channels: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1), padding: tuple[int, int] = (0, 0)
) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels, bias=False)


def _each(filters: nn.ModuleList, x: Tensor) -> list[Tensor]:
    return [filter_(x) for filter_ in filters]


def _merge(filters: nn.ModuleList, phases: list[Tensor]) -> Tensor:
    """Filter each phase with its own filter and add them up."""
    filtered: list[Tensor] = [filter_(phase) for filter_, phase in zip(filters, phases, strict=True)]
    return reduce(torch.add, filtered)


def _stuff(x: Tensor, factor: int) -> Tensor:
    """Put factor - 1 zeros after every pixel of [N, C, H, W], along both axes."""
    if factor == 1:
        return x
    _, channels, height, width = x.shape
    # Rows of zeros can be appended to each row in memory; single zeros after each pixel need an axis moved inwards.
    x = F.pad(x, (0, (factor - 1) * width)).reshape(-1, channels, 1, height * factor * width)
    x = F.pad(x, (0, 0, 0, factor - 1)).transpose(2, 3)  # [N, C, pixels, factor]
    return x.reshape(-1, channels, height * factor, width * factor)


def _named(name: str, kernels: Tensor) -> dict[str, Tensor]:
    """Name kernels [count, kh, kw] as in the state of a ModuleList of convolutions."""
    return {f"{name}.{index}.weight": kernel for index, kernel in enumerate(kernels)}
