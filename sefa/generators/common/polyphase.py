"""Activations on a finer grid than the image's: upsample, activate, downsample, each with a low-pass filter.

Upsampling by u stuffs zeros between the pixels and filters; downsampling by d filters and keeps every d-th pixel. Here
the fine image is kept as its phases, the pixels n = g·j + p of each axis for one p, where g is the greatest common
divisor of u and d. Each phase is a filter of an image that is g times coarser, and the result is a sum of filtered
phases: no pixel is computed to be dropped, hardly a stuffed zero is multiplied (none where u = g), and the activation
does not mind the order. All of it is depthwise convolution, which onnxruntime vectorizes if the channels are a multiple
of its block, 8 or 16.
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
    """The grids: zeros stuffed in, padding, a filter; then a filter, and every `down`-th pixel. Both axes are alike.

    Attributes:
        size: Height and width of the image.
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
    def phases(self) -> int:
        """Phases of the fine image along an axis, g."""
        return gcd(self.up, self.down)

    @property
    def stuffing(self) -> int:
        """Factor by which zeros are really stuffed in, before phases make the rest of `up`."""
        return self.up // self.phases

    @property
    def stride(self) -> int:
        """Of the result's pixels in a phase."""
        return self.down // self.phases

    @property
    def margin(self) -> tuple[int, int]:
        """Zeros that the phases need before and after the stuffed image; negative where they leave out its border."""
        pixels = (self.out_size - 1) * self.stride + self.down_length  # of a phase
        origin = self._origin
        return -origin, origin + pixels + self.up_length - 1 - self.size * self.stuffing

    @property
    def crop(self) -> tuple[int, int]:
        """Pixels at the beginning and the end of the image that no phase needs."""
        before, after = (max(-side, 0) // self.stuffing for side in self.margin)
        return before, after

    @property
    def up_length(self) -> int:
        """Taps of a phase of the upsampling filter."""
        return max(place for _, place in self._up_places()) - self._origin + 1

    @property
    def down_length(self) -> int:
        """Taps of a phase of the downsampling filter."""
        return -(-self.down_taps // self.phases)

    def up_kernels(self, taps: Tensor) -> Tensor:
        """Split the upsampling filter [up_taps] into phases, to be correlated, of gain u: [g, up_length]."""
        kernels = taps.new_zeros(self.phases, self.up_length)
        for tap, (phase, place) in zip(taps.flip(0) * self.up, self._up_places(), strict=True):
            kernels[phase, place - self._origin] = tap
        return kernels

    def down_kernels(self, taps: Tensor) -> Tensor:
        """Split the downsampling filter, [down_taps] or [down_taps, down_taps], into phases: [g, R] or [g, g, R, R]."""
        missing = self.down_length * self.phases - self.down_taps
        for axis in range(taps.ndim):
            # Place n of a filter to be correlated is place n // g of phase n % g.
            taps = torch.cat([taps.flip(axis), torch.zeros_like(taps.narrow(axis, 0, missing))], dim=axis)
        if taps.ndim == 1:
            return taps.reshape(self.down_length, self.phases).T
        grid = taps.reshape(self.down_length, self.phases, self.down_length, self.phases)
        return grid.permute(1, 3, 0, 2)

    @property
    def _origin(self) -> int:
        return min(place for _, place in self._up_places())

    def _up_places(self) -> Iterator[tuple[int, int]]:
        """Yield for each tap the phase it is part of, and which stuffed pixel it reads there, counted from j."""
        for tap in range(self.up_taps):
            phase = (self.padding[0] - tap) % self.phases
            yield phase, (phase - self.padding[0] + tap) // self.phases


class FilteredActivation(nn.Module):
    """down(clamp(lrelu(up(x)))), channel by channel.

    Attributes:
        up: To the phases of the fine image.
        identity: A convolution that changes nothing, before clamping; None if nothing is clamped. onnxruntime lays
            images out for vectorized convolution and applies an activation within one; for any other operator it
            brings them back into plain order, which takes longer than one more convolution.
        down: From the phases.
    """

    def __init__(self, channels: int, resampling: Resampling, clamp: float | None, square: bool) -> None:
        """Build without values.

        Args:
            channels: Channels of the image.
            resampling: The grids.
            clamp: Greatest magnitude on the fine grid, if it is limited.
            square: Whether the downsampling filter has two axes, not being a column times a row.
        """
        super().__init__()
        self.channels = channels
        self.clamp = clamp
        self.up = Upsampling(channels, resampling)
        self.identity = None if clamp is None else _depthwise(channels, (1, 1))
        self.down = SquareDownsampling(channels, resampling) if square else Downsampling(channels, resampling)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, h, h], which is the image without `Resampling.crop` -> [N, C, out_size, out_size]."""
        image: Tensor = self.down([[self._activate(phase) for phase in row] for row in self.up(x)])
        return image

    def _activate(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(x, 0.2)
        if self.identity is None or self.clamp is None:
            return x
        return torch.clamp(self.identity(x), -self.clamp, self.clamp)

    def weights(self, up_taps: Tensor, down_taps: Tensor) -> dict[str, Tensor]:
        """Return the state for filters [up_taps], and [down_taps] or, if it is square, [down_taps, down_taps]."""
        kernels = {f"up.{name}": kernel for name, kernel in self.up.kernels(up_taps).items()}
        kernels |= {f"down.{name}": kernel for name, kernel in self.down.kernels(down_taps).items()}
        if self.identity is not None:
            kernels["identity.weight"] = torch.ones(1, 1)
        return {name: kernel.expand(self.channels, 1, *kernel.shape) for name, kernel in kernels.items()}


class Upsampling(nn.Module):
    """From an image to the phases of a finer one.

    Attributes:
        rows: A filter along the height for each phase.
        columns: Along the width.
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
        """From [N, C, h, h], which is the image without `Resampling.crop`."""
        x = _stuff(x, self.resampling.stuffing)
        if any(self.padding):
            x = pad(x, self.padding)
        return [[column(row) for column in self.columns] for row in _each(self.rows, x)]

    def kernels(self, taps: Tensor) -> dict[str, Tensor]:
        """Return every channel's part of the state, for a filter [up_taps]."""
        kernels = self.resampling.up_kernels(taps)
        return _named("rows", kernels[:, :, None]) | _named("columns", kernels[:, None])


class Downsampling(nn.Module):
    """From the phases of a fine image to a coarser one.

    Attributes:
        rows: A filter along the height for each phase.
        columns: Along the width.
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
        """Return every channel's part of the state, for a filter [down_taps]."""
        kernels = self.resampling.down_kernels(taps)
        return _named("rows", kernels[:, :, None]) | _named("columns", kernels[:, None])


class SquareDownsampling(nn.Module):
    """As `Downsampling`, by a filter that is not a column times a row.

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
        """Return every channel's part of the state, for a filter [down_taps, down_taps]."""
        return _named("squares", self.resampling.down_kernels(taps).flatten(0, 1))


def pad(x: Tensor, sides: tuple[int, int, int, int]) -> Tensor:
    """Add zeros at the left, right, top and bottom of [N, C, H, W]; negative numbers crop.

    F.pad also crops, but onnxscript before 0.7.2 turns that and what follows into a convolution of negative padding,
    which onnxruntime refuses or does not survive.
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
    """Add up all phases, each filtered with its own filter."""
    filtered: list[Tensor] = [filter_(phase) for filter_, phase in zip(filters, phases, strict=True)]
    return reduce(torch.add, filtered)


def _stuff(x: Tensor, factor: int) -> Tensor:
    """Put factor - 1 zeros after every pixel of [N, C, H, W], along both axes."""
    if factor == 1:
        return x
    _, channels, height, width = x.shape
    # Rows of zeros after the rows lie between them in memory; single zeros need an axis moved inwards.
    x = F.pad(x, (0, (factor - 1) * width)).reshape(-1, channels, 1, height * factor * width)
    x = F.pad(x, (0, 0, 0, factor - 1)).transpose(2, 3)  # [N, C, pixels, factor]
    return x.reshape(-1, channels, height * factor, width * factor)


def _named(name: str, kernels: Tensor) -> dict[str, Tensor]:
    """Return kernels [count, kh, kw] by their names in the state of a ModuleList of convolutions."""
    return {f"{name}.{index}.weight": kernel for index, kernel in enumerate(kernels)}
