"""Activations on a finer grid than the image's: upsample, activate, downsample, each with a low-pass filter.

Upsampling by u stuffs zeros between the pixels and filters; downsampling by d filters and keeps every d-th pixel.
Here the fine image is kept as its phases, the pixels n = u·j + p of each axis for one p. Each phase is a filter of the
coarse image's pixels, and the result is a sum of filtered phases. Nothing is multiplied by a stuffed zero, no pixel is
computed to be dropped, and the activation does not mind the order. All of it is depthwise convolution of images of the
coarse size, which onnxruntime vectorizes if the channels are a multiple of its block, 8 or 16.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import product
from math import gcd

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Phases = list[list[Tensor]]  # by row, by column: [N, C, h, w] each


@dataclass(frozen=True)
class Resampling:
    """The grids: zeros stuffed in, padding, a filter; then a filter, and every `down`-th pixel. Both axes are alike.

    Attributes:
        size: Height and width of the coarse image.
        up: Factor of upsampling, u.
        down: Factor of downsampling, d.
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
        """How many phases the result is computed in, e: after as many pixels it meets the same phases again."""
        return self.up // gcd(self.up, self.down)

    @property
    def stride(self) -> int:
        """How far one pixel of a result's phase is from the next in the fine image's phases."""
        return self.down // gcd(self.up, self.down)

    @property
    def margin(self) -> tuple[int, int]:
        """Zeros that the phases need before and after the coarse image; negative where they leave out its border."""
        pixels = (-(-self.out_size // self.out_phases) - 1) * self.stride + self.down_length  # of a phase
        origin = self._origin
        return -origin, origin + pixels + self.up_length - 1 - self.size

    @property
    def up_length(self) -> int:
        """Taps of a phase of the upsampling filter."""
        return max(place for _, place in self._up_places()) - self._origin + 1

    @property
    def down_length(self) -> int:
        """Taps of a phase of the downsampling filter."""
        return (self.down * (self.out_phases - 1) + self.down_taps - 1) // self.up + 1

    def up_kernels(self, taps: Tensor) -> Tensor:
        """The upsampling filter [up_taps] by phases, to be correlated, of gain u: [u, up_length]."""
        kernels = taps.new_zeros(self.up, self.up_length)
        for tap, (phase, place) in zip(taps.flip(0) * self.up, self._up_places(), strict=True):
            kernels[phase, place - self._origin] = tap
        return kernels

    def down_kernels(self, taps: Tensor) -> Tensor:
        """The downsampling filter [down_taps] by the result's phases and the fine image's: [e, u, down_length]."""
        kernels = taps.new_zeros(self.out_phases, self.up, self.down_length)
        for phase in range(self.out_phases):
            n = self._down_places(phase)
            kernels[phase, n % self.up, n // self.up] = taps.flip(0)
        return kernels

    def square_down_kernels(self, taps: Tensor) -> Tensor:
        """As `down_kernels`, of a filter [down_taps, down_taps]: [e, e, u, u, down_length, down_length]."""
        e, u, length = self.out_phases, self.up, self.down_length
        kernels = taps.new_zeros(e, e, u, u, length, length)
        for row, column in product(range(e), repeat=2):
            y, x = self._down_places(row)[:, None], self._down_places(column)
            kernels[row, column, y % u, x % u, y // u, x // u] = taps.flip(0, 1)
        return kernels

    @property
    def _origin(self) -> int:
        return min(place for _, place in self._up_places())

    def _up_places(self) -> Iterator[tuple[int, int]]:
        """For each tap, the phase it is part of, and which coarse pixel it reads there, counted from j."""
        for tap in range(self.up_taps):
            phase = (self.padding[0] - tap) % self.up
            yield phase, (phase - self.padding[0] + tap) // self.up

    def _down_places(self, phase: int) -> Tensor:
        """For each tap, which fine pixel it reads for the first pixel of a result's phase."""
        return torch.arange(self.down_taps) + self.down * phase


class Upsampling(nn.Module):
    """From an image to the phases of a finer one.

    Attributes:
        rows: A filter along the height for each phase.
        columns: Along the width.
    """

    def __init__(self, channels: int, resampling: Resampling) -> None:
        super().__init__()
        self.resampling = resampling
        before, after = (max(side, 0) for side in resampling.margin)
        both = min(before, after)  # Convolutions pad both sides alike.
        self.more = (before - both, after - both)
        length, phases = resampling.up_length, range(resampling.up)
        self.rows = nn.ModuleList(_depthwise(channels, (length, 1), padding=(both, 0)) for _ in phases)
        self.columns = nn.ModuleList(_depthwise(channels, (1, length), padding=(0, both)) for _ in phases)

    def forward(self, x: Tensor) -> Phases:
        """From [N, C, size, size], cropped where `Resampling.margin` is negative."""
        if any(self.more):
            x = F.pad(x, self.more * 2)
        return [[column(row) for column in self.columns] for row in _apply(self.rows, x)]

    def kernels(self, taps: Tensor) -> dict[str, Tensor]:
        """What every channel's part of the state is, for a filter [up_taps]."""
        kernels = self.resampling.up_kernels(taps)
        return _named("rows", kernels[:, :, None]) | _named("columns", kernels[:, None])


class Downsampling(nn.Module):
    """From the phases of a fine image to a coarser one.

    Attributes:
        rows: A filter along the height for each phase of the result and of the fine image.
        columns: Along the width.
    """

    def __init__(self, channels: int, resampling: Resampling) -> None:
        super().__init__()
        self.resampling = resampling
        length, stride = resampling.down_length, resampling.stride
        kernels = range(resampling.out_phases * resampling.up)
        self.rows = nn.ModuleList(_depthwise(channels, (length, 1), stride=(stride, 1)) for _ in kernels)
        self.columns = nn.ModuleList(_depthwise(channels, (1, length), stride=(1, stride)) for _ in kernels)

    def forward(self, fine: Phases) -> Tensor:
        """To [N, C, out_size, out_size]."""
        narrow = [_merge(self.columns, row) for row in fine]
        columns = [_merge(self.rows, list(column)) for column in zip(*narrow, strict=True)]
        return _interleave([list(row) for row in zip(*columns, strict=True)], self.resampling.out_size)

    def kernels(self, taps: Tensor) -> dict[str, Tensor]:
        """What every channel's part of the state is, for a filter [down_taps]."""
        kernels = self.resampling.down_kernels(taps).flatten(0, 1)
        return _named("rows", kernels[:, :, None]) | _named("columns", kernels[:, None])


class SquareDownsampling(nn.Module):
    """As `Downsampling`, by a filter that is not the product of a column and a row.

    Attributes:
        squares: A filter for each phase of the result and of the fine image.
    """

    def __init__(self, channels: int, resampling: Resampling) -> None:
        super().__init__()
        self.resampling = resampling
        length, stride = (resampling.down_length,) * 2, (resampling.stride,) * 2
        kernels = range((resampling.out_phases * resampling.up) ** 2)
        self.squares = nn.ModuleList(_depthwise(channels, length, stride=stride) for _ in kernels)

    def forward(self, fine: Phases) -> Tensor:
        """To [N, C, out_size, out_size]."""
        phases = _merge(self.squares, [phase for row in fine for phase in row])
        e = self.resampling.out_phases
        return _interleave([phases[e * row : e * (row + 1)] for row in range(e)], self.resampling.out_size)

    def kernels(self, taps: Tensor) -> dict[str, Tensor]:
        """What every channel's part of the state is, for a filter [down_taps, down_taps]."""
        return _named("squares", self.resampling.square_down_kernels(taps).flatten(0, 3))


class FilteredActivation(nn.Module):
    """down(clamp(lrelu(up(x)))), channel by channel.

    Attributes:
        up: To the fine image.
        identity: A convolution that changes nothing, before clamping; None if nothing is clamped. onnxruntime lays
            images out for vectorized convolution and applies an activation within one; for any other operator it
            brings them back into plain order, which takes longer than one more convolution.
        down: From the fine image.
    """

    def __init__(self, channels: int, resampling: Resampling, clamp: float | None, square: bool) -> None:
        """Build without values.

        Args:
            channels: Channels of the image.
            resampling: The grids.
            clamp: Greatest magnitude on the fine grid, if it is limited.
            square: Whether the downsampling filter has two axes.
        """
        super().__init__()
        self.channels = channels
        self.clamp = clamp
        self.up = Upsampling(channels, resampling)
        self.identity = None if clamp is None else _depthwise(channels, (1, 1))
        self.down = SquareDownsampling(channels, resampling) if square else Downsampling(channels, resampling)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, size, size], cropped where `Resampling.margin` is negative -> [N, C, out_size, out_size]."""
        image: Tensor = self.down([[self._activate(phase) for phase in row] for row in self.up(x)])
        return image

    def _activate(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(x, 0.2)
        if self.identity is None or self.clamp is None:
            return x
        return torch.clamp(self.identity(x), -self.clamp, self.clamp)

    def weights(self, up_taps: Tensor, down_taps: Tensor) -> dict[str, Tensor]:
        """The state for filters [up_taps], and [down_taps] or, if it is square, [down_taps, down_taps]."""
        kernels = {f"up.{name}": kernel for name, kernel in self.up.kernels(up_taps).items()}
        kernels |= {f"down.{name}": kernel for name, kernel in self.down.kernels(down_taps).items()}
        if self.identity is not None:
            kernels["identity.weight"] = torch.ones(1, 1)
        return {name: kernel.expand(self.channels, 1, *kernel.shape) for name, kernel in kernels.items()}


def _depthwise(
    channels: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1), padding: tuple[int, int] = (0, 0)
) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels, bias=False)


def _apply(filters: nn.ModuleList, x: Tensor) -> list[Tensor]:
    return [filter_(x) for filter_ in filters]


def _merge(filters: nn.ModuleList, phases: list[Tensor]) -> list[Tensor]:
    """One sum of filtered phases for each phase of the result."""
    count = len(phases)
    sums = range(len(filters) // count)
    return [
        reduce(torch.add, [filters[count * index + place](phase) for place, phase in enumerate(phases)])
        for index in sums
    ]


def _interleave(phases: Phases, size: int) -> Tensor:
    """e·e of [N, C, h, w], by row and column -> [N, C, size, size], whose last rows and columns may be left out."""
    e = len(phases)
    if e == 1:
        return phases[0][0]
    _, channels, height, width = phases[0][0].shape
    # Pixels of a row by moving an axis inwards; rows by laying them one behind the other in memory.
    rows = [torch.stack(row, dim=2).permute(0, 1, 3, 4, 2).reshape(-1, channels, height, e * width) for row in phases]
    x = torch.cat(rows, dim=3).reshape(-1, channels, e * height, e * width)
    return x if e * height == size else x[:, :, :size, :size]


def _named(name: str, kernels: Tensor) -> dict[str, Tensor]:
    """Kernels [count, kh, kw] by their names in the state of a ModuleList of convolutions."""
    return {f"{name}.{index}.weight": kernel for index, kernel in enumerate(kernels)}
