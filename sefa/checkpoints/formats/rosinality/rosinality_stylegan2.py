"""StyleGAN2 from rosinality's stylegan2-pytorch: trained with it, or converted by it from TensorFlow; its descendants.

A state dict, with the centre of truncation beside it. The convolutions are conv1, convs.0, convs.1, ...: one for the
first resolution, two for each of the others. Each resolution ends in a ToRGB: to_rgb1, to_rgbs.0, ... Weights are
stored without their gains. StyleGAN-NADA, JoJoGAN and AnyCost GAN keep these names.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from sefa.checkpoints.assumptions import mapping_rate
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, clean
from sefa.checkpoints.parts import stylegan2_layers
from sefa.checkpoints.parts.assembly import Assembly, Parameters
from sefa.checkpoints.parts.stylegan2_layers import (
    NOISE_SEED,
    SQRT2,
    Sizes,
    dense,
    mapping_layer,
    seeded_noise,
    up_filter,
)
from sefa.generators import StyleGAN2
from sefa.generators.common.mapping import Mapping
from sefa.generators.common.to_rgb import ToRGB
from sefa.generators.stylegan2 import BilinearUp, ModulatedConv, SynthesisBlock, UpFilter

S = TypeVar("S", ModulatedConv, ToRGB)

CENTER = "latent_avg"
MAPPING_LR = 0.01  # the training script's value; in descendants it is an option


@dataclass(frozen=True)
class Names:
    """What an implementation calls its layers and tensors.

    Attributes:
        const: The learned input.
        mapping: The mapping network, a sequence that begins with the normalisation of z.
        convs: The first convolution, and the list of the others.
        conv: A layer's modulated convolution.
        modulation: The transform of a convolution's style.
        blur: The filter of a modulated convolution that doubles the size.
        strength: A layer's noise strength.
        noise: The beginning of the constant noises' keys, before their index.
    """

    const: str = "input.input"
    mapping: str = "style"
    convs: tuple[str, str] = ("conv1", "convs")
    conv: str = "conv"
    modulation: str = "modulation"
    blur: str = "blur.kernel"
    strength: str = "noise.weight"
    noise: str = "noises.noise_"

    def layer(self, index: int) -> str:
        """Return the name of a convolution, by its index in the order of the codes."""
        first, others = self.convs
        return f"{others}.{index - 1}" if index else first

    def style(self, layer: str) -> str:
        """Return the name of the transform of a layer's style."""
        return f"{layer}.{self.conv}.{self.modulation}"

    @property
    def noises(self) -> tuple[str, str]:
        """Regular expressions for the keys of noise."""
        first, others = self.convs
        return rf"{self.noise}\d+", rf"({first}|{others}\.\d+)\.{self.strength}"


ROSINALITY = Names()


def recognises(checkpoint: Checkpoint, names: Names = ROSINALITY) -> bool:
    """Recognise the names of the learned constant and the first style."""
    return first_keys(names) <= checkpoint.stored.keys()


def first_keys(names: Names = ROSINALITY) -> set[str]:
    """Return the keys of the learned constant and of the first style."""
    return {names.const, f"{names.style(names.layer(0))}.weight"}


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN2:
    """Build the generator."""
    tensors = checkpoint.tensors
    center = checkpoint.beside.get(CENTER, checkpoint.stored.get(CENTER))
    if isinstance(center, Tensor):
        tensors = tensors | {CENTER: _one_center(clean({CENTER: center})[CENTER])}
    return build(Assembly(tensors), ROSINALITY, options)


def build(
    file: Assembly, names: Names, options: LoadOptions, rate: float = MAPPING_LR, bilinear: bool = False
) -> StyleGAN2:
    """Build a generator from a file's tensors.

    Args:
        file: The tensors.
        names: What they are called.
        options: See LoadOptions.
        rate: The mapping network's usual learning rate.
        bilinear: Whether upsampling is bilinear, rather than by filters in the file.

    Raises:
        CheckpointError: If keys are missing, not understood, or of the wrong shape, or sizes do not fit together.
    """
    return _Reader(file, names, options, rate, bilinear).generator()


class _Reader:
    """The layers of a state dict."""

    def __init__(self, file: Assembly, names: Names, options: LoadOptions, rate: float, bilinear: bool) -> None:
        self.file = file
        self.bilinear = bilinear
        self.names = names
        self.num_blocks = 1 + file.count(f"to_rgbs.{{}}.{names.conv}.weight")
        self.rate = mapping_rate(options.assumptions, rate)
        stores_noise = any(key.startswith(names.noise) for key in file.tensors)
        self.noise = "none" if options.noise == "none" else "stored" if stores_noise else "seeded"
        weights = [f"{names.layer(index)}.{names.conv}.weight" for index in range(0, 2 * self.num_blocks, 2)]
        self.sizes = Sizes(
            const=file.shape(names.const, 4)[1:],
            channels=[file.shape(weight, 5)[1] for weight in weights],
            w_dim=file.shape(f"{names.style(names.layer(0))}.weight", 2)[1],
        )

    def generator(self) -> StyleGAN2:
        """Build the generator."""
        with torch.device("meta"):
            mapping = self._mapping()
            blocks = [self._block(index) for index in range(self.num_blocks)]
        ignored = self.names.noises if self.noise == "none" else ()
        generator = stylegan2_layers.build(
            self.file, mapping, self.sizes, blocks, const=self.names.const, center=CENTER, ignored=ignored
        )
        if self.noise == "seeded":
            generator.noise = f"const, seed {NOISE_SEED}: the file stores none"
        return generator

    def _mapping(self) -> Mapping:
        file, mapping_name = self.file, self.names.mapping
        count = file.count(f"{mapping_name}.{{}}.weight", start=1)
        names = [f"{mapping_name}.{index}" for index in range(1, 1 + count)]
        shapes = [file.shape(f"{name}.weight", 2) for name in names]
        mapping = Mapping(shapes[0][1] if shapes else self.sizes.w_dim, [outputs for outputs, _ in shapes])
        for name, layer in zip(names, mapping.layers, strict=True):
            file.layer(layer, partial(mapping_layer, rate=self.rate), weight=f"{name}.weight", bias=f"{name}.bias")
        return mapping

    def _block(self, index: int) -> SynthesisBlock:
        rgb = f"to_rgbs.{index - 1}" if index else "to_rgb1"
        return SynthesisBlock(
            up=self._conv(2 * index - 1) if index else None,
            conv=self._conv(2 * index),
            rgb=self._to_rgb(rgb, index),
            image_up=self._up(f"{rgb}.upsample.kernel") if index else None,
        )

    def _conv(self, index: int) -> ModulatedConv:
        name = self.names.layer(index)
        conv = f"{name}.{self.names.conv}"
        inputs, outputs, size, _ = self.sizes.conv(index)
        blur = self._up(f"{conv}.{self.names.blur}") if index % 2 else None
        module = ModulatedConv(*self.sizes.conv(index), SQRT2, self.noise != "none", blur=blur)
        self.file.layer(
            module,
            partial(_conv_parameters, index=index, size=size),
            weight=(f"{conv}.weight", (1, outputs, inputs, 3, 3)),
            bias=f"{name}.activate.bias",
            strength=None if self.noise == "none" else (f"{name}.{self.names.strength}", 1),
            noise=f"{self.names.noise}{index}" if self.noise == "stored" else None,
        )
        return self._with_style(module, name)

    def _up(self, key: str) -> UpFilter | BilinearUp:
        return BilinearUp() if self.bilinear else up_filter(self.file, key, 1.0)

    def _to_rgb(self, name: str, block: int) -> ToRGB:
        key = f"{name}.{self.names.conv}.weight"
        _, image_channels, *_ = self.file.shape(key, 5)
        inputs = self.sizes.channels[block]
        module = ToRGB(inputs, image_channels, self.sizes.size(block), self.sizes.w_dim)
        weight, bias = (key, (1, image_channels, inputs, 1, 1)), (f"{name}.bias", image_channels)
        self.file.layer(module, stylegan2_layers.to_rgb, weight=weight, bias=bias)
        return self._with_style(module, name)

    def _with_style(self, module: S, name: str) -> S:
        """Add the transform of a layer's style; its bias is stored around 1."""
        gain, style = 1 / math.sqrt(module.affine.in_features), self.names.style(name)
        self.file.layer(module.affine, partial(dense, gain=gain), weight=f"{style}.weight", bias=f"{style}.bias")
        return module


def _one_center(center: Tensor) -> Tensor:
    """Return the first row of a centre that is the same for every layer, [L, D], as encoders' files repeat it."""
    return center[0] if center.ndim == 2 and bool((center == center[:1]).all()) else center


def _conv_parameters(
    weight: Tensor,
    bias: Tensor,
    strength: Tensor | None = None,
    noise: Tensor | None = None,
    *,
    index: int,
    size: tuple[int, int],
) -> Parameters:
    if strength is not None and noise is None:
        noise = seeded_noise(index, size)
    weight = weight.squeeze(0) / math.sqrt(9 * weight.shape[2])
    return stylegan2_layers.conv(weight, bias, noise, strength, up=index % 2 == 1)


FORMAT = Format("rosinality StyleGAN2", recognises, load)
