"""The generator of letters as it is trained: a class-conditional StyleGAN2.

The parameters are raw, at scales that give every layer the same learning rate. Their names and scales are those of
genforce's files, so that the trained state dict is one that `sefa.load` reads. Source: Karras, Laine, Aittala,
Hellsten, Lehtinen & Aila, "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020.
"""

import math
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from sefa.checkpoints.class_names import class_names_metadata

SQRT2 = math.sqrt(2)
MAPPING_RATE = 0.01  # what `sefa.load` assumes of this format
FILTER = (1.0, 3.0, 3.0, 1.0)
CONST_SIZE = 4
CENTERS = "truncation.w_avg"
CENTER_SAMPLES = 1000  # latents whose mean style code of a class is its centre of truncation


@dataclass(frozen=True)
class Sizes:
    """The sizes of a generator.

    Attributes:
        num_classes: Number of classes.
        channels: Channels of the features at 4x4, 8x8, ... pixels.
        z_dim: Length of z.
        embed_dim: Length of a class's embedding.
        w_dim: Length of w.
        mapping_layers: Layers of the mapping network.
    """

    num_classes: int = 62
    channels: Sequence[int] = (128, 128, 96, 48, 32)
    z_dim: int = 64
    embed_dim: int = 64
    w_dim: int = 96
    mapping_layers: int = 4


class Generator(nn.Module):
    """image = synthesis(w), w = mapping(z, label).

    Args:
        sizes: Its sizes.
        dtype: Type of the features. Style codes and the image are float32.
    """

    def __init__(self, sizes: Sizes, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.sizes = sizes
        self.mapping = Mapping(sizes)
        self.synthesis = Synthesis(sizes.channels, sizes.w_dim, dtype)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        """[N, z_dim] and [N] -> [N, 1, H, W]."""
        image: Tensor = self.synthesis(self.mapping(z, label))
        return image


class Mapping(nn.Module):
    """w = f(norm([z, embedding of the label]))."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.label_weight = nn.Parameter(torch.randn(sizes.num_classes, sizes.embed_dim))
        self.num_layers = sizes.mapping_layers
        for i in range(self.num_layers):
            inputs = sizes.w_dim if i else sizes.z_dim + sizes.embed_dim
            self.add_module(f"dense{i}", Dense(inputs, sizes.w_dim, MAPPING_RATE))

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        """[N, z_dim] and [N] -> [N, w_dim]."""
        x = torch.cat([z, F.embedding(label, self.label_weight)], dim=1)
        x = x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for i in range(self.num_layers):
            x = F.leaky_relu(self.get_submodule(f"dense{i}")(x), 0.2) * SQRT2
        return x


class Synthesis(nn.Module):
    """x = constant; x = layer(x) once at 4x4 and twice at each larger size; image = Σ up(output(x)) over the sizes."""

    def __init__(self, channels: Sequence[int], w_dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.num_blocks = len(channels)
        self.early_layer = Constant(channels[0])
        self.upsample = UpFilter()
        for block, outputs in enumerate(channels):
            size = CONST_SIZE << block
            if block:
                up = StyledConv(channels[block - 1], outputs, size, w_dim, up=True)
                self.add_module(f"layer{2 * block - 1}", up)
            self.add_module(f"layer{2 * block}", StyledConv(outputs, outputs, size, w_dim))
            self.add_module(f"output{block}", ToImage(outputs, w_dim))

    def forward(self, w: Tensor) -> Tensor:
        """[N, w_dim] -> [N, 1, H, W]."""
        x = self.early_layer.const.to(self.dtype, memory_format=torch.channels_last)  # [1, C, 4, 4]
        image: Tensor | None = None
        for block in range(self.num_blocks):
            if block:
                x = self.get_submodule(f"layer{2 * block - 1}")(x, w)
            x = self.get_submodule(f"layer{2 * block}")(x, w)
            output = self.get_submodule(f"output{block}")(x, w)
            image = output if image is None else self.upsample.upsample(image) + output
        return cast("Tensor", image)


class Dense(nn.Module):
    """y = (rate·W/√in)·x + rate·b + offset."""

    def __init__(self, inputs: int, outputs: int, rate: float = 1.0, offset: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain, self.rate, self.offset = rate / math.sqrt(inputs), rate, offset

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.gain, self.bias * self.rate + self.offset)


class Constant(nn.Module):
    """The learned input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.const = nn.Parameter(torch.randn(1, channels, CONST_SIZE, CONST_SIZE))


class UpFilter(nn.Module):
    """The low-pass filter of doubling the size; its taps sum to 4, as three of four pixels are zeros."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.row = torch.tensor(FILTER) * 2 / sum(FILTER)
        self.register_buffer("kernel", torch.outer(self.row, self.row))

    def forward(self, x: Tensor) -> Tensor:
        """Filter what a transposed convolution made: [N, C, 2H + 1, 2W + 1] -> [N, C, 2H, 2W]."""
        channels = x.shape[1]
        row = self.row.to(x).expand(channels, 1, 1, -1)
        x = F.conv2d(x, row, padding=(0, 1), groups=channels)
        return F.conv2d(x, row.mT, padding=(1, 0), groups=channels)

    def upsample(self, image: Tensor) -> Tensor:
        """[N, 1, H, W] -> [N, 1, 2H, 2W]."""
        return F.conv_transpose2d(image, self.kernel[None, None], stride=2, padding=1)


class StyledConv(nn.Module):
    """√2·lrelu(demodulate(conv(s·x)) + b), s = style(w); a transposed convolution and a filter double the size.

    The factor √2 commutes with lrelu, so the small tensors before it carry it.
    """

    noise: Tensor
    noise_strength: Tensor

    def __init__(self, inputs: int, outputs: int, size: int, w_dim: int, up: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.style = Dense(w_dim, inputs, offset=1.0)
        self.filter = UpFilter() if up else None
        self.gain = 1 / math.sqrt(9 * inputs)
        # Layers of this format have noise. Glyphs have no random detail: its strength is 0, and it is never computed.
        self.register_buffer("noise", torch.zeros(1, 1, size, size))
        self.register_buffer("noise_strength", torch.zeros(1))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """[N or 1, in, h, w] and [N, w_dim] -> [N, out, H, W]."""
        s = self.style(w)  # [N, in]
        weight = self.weight * self.gain
        demodulation = SQRT2 * (s.square() @ weight.square().sum(dim=(2, 3)).T + 1e-8).rsqrt()  # [N, out]
        weight = weight.to(x.dtype)
        x = x * s.to(x.dtype)[:, :, None, None]
        if self.filter is None:
            x = F.conv2d(x, weight, padding=1)
        else:
            x = self.filter(F.conv_transpose2d(x, weight.transpose(0, 1).flip(2, 3), stride=2))
        bias = (SQRT2 * self.bias).to(x.dtype)[:, None, None]
        return F.leaky_relu_(torch.addcmul(bias, x, demodulation.to(x.dtype)[:, :, None, None]), 0.2)


class ToImage(nn.Module):
    """image = conv1x1(s·x) + b, s = style(w)."""

    def __init__(self, inputs: int, w_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1))
        self.style = Dense(w_dim, inputs, offset=1.0)
        self.gain = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """[N, in, H, W] and [N, w_dim] -> [N, 1, H, W], float32."""
        count, _, height, width = x.shape
        weight = self.weight.flatten() * self.gain * self.style(w)  # [N, in]
        image: Tensor = x.permute(0, 2, 3, 1).flatten(1, 2) @ weight.to(x.dtype)[:, :, None]  # [N, H·W, 1]
        return image.float().view(count, 1, height, width) + self.bias


@torch.no_grad()
def save_generator(
    generator: Generator, path: Path, class_names: Sequence[str] = (), metadata: MappingType[str, str] | None = None
) -> None:
    """Write a file in half precision that `sefa.load` reads: the state dict, and the mean of w of each class.

    Args:
        generator: The trained generator.
        path: The file.
        class_names: Names of the classes, in the order of their indices.
        metadata: What else the file says of itself, such as its licence.
    """
    tensors = {**generator.state_dict(), CENTERS: class_centers(generator)}
    says = {**(class_names_metadata(class_names) if class_names else {}), **(metadata or {})}
    beside = path.with_name(path.name + ".partial")
    save_file({name: tensor.half().cpu().contiguous() for name, tensor in tensors.items()}, beside, says or None)
    beside.replace(path)


def class_centers(generator: Generator) -> Tensor:
    """Return the mean style code of each class, [num_classes, w_dim]; the mean of all classes would be no letter."""
    random = torch.Generator().manual_seed(0)
    z = torch.randn(CENTER_SAMPLES, generator.sizes.z_dim, generator=random).to(generator.mapping.label_weight.device)
    labels = torch.arange(generator.sizes.num_classes, device=z.device)
    return torch.stack([generator.mapping(z, label.expand(CENTER_SAMPLES)).mean(dim=0) for label in labels])


def load_generator(path: Path) -> Generator:
    """Load the generator from a file of `save_generator`, in float32."""
    state = {name: tensor.float() for name, tensor in load_file(path).items() if name != CENTERS}
    blocks = range(sum(name.startswith("synthesis.output") and name.endswith("style.weight") for name in state))
    classes, embed_dim = state["mapping.label_weight"].shape
    w_dim, inputs = state["mapping.dense0.weight"].shape
    sizes = Sizes(
        num_classes=classes,
        channels=[len(state[f"synthesis.layer{2 * block}.weight"]) for block in blocks],
        z_dim=inputs - embed_dim,
        embed_dim=embed_dim,
        w_dim=w_dim,
        mapping_layers=sum(name.startswith("mapping.dense") and name.endswith("weight") for name in state),
    )
    generator = Generator(sizes)
    generator.load_state_dict(state)
    return generator.eval()
