"""StyleGAN2 as NVlabs' PyTorch code pickles it: stylegan2-ada-pytorch, stylegan3's StyleGAN2 configuration.

The network's modules are mapping.embed and mapping.fc0, ...; and synthesis.b4, b8, ..., one for every resolution.
Gains, clamps and activations are attributes of the modules. There are three architectures: skip sums the images of all
resolutions; resnet has a path around each block and, like orig, one ToRGB at the end.
"""

from functools import partial

import torch
from torch import Tensor, nn

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, clean
from sefa.checkpoints.parts import stylegan2_layers
from sefa.checkpoints.parts.assembly import Assembly, Parameters
from sefa.checkpoints.parts.stylegan2_layers import RESIDUAL, SQRT2, Sizes, dense, up_filter
from sefa.checkpoints.pickled_networks import PersistedModule
from sefa.errors import CheckpointError
from sefa.generators import StyleGAN2
from sefa.generators.common.mapping import Mapping
from sefa.generators.common.to_rgb import ToRGB
from sefa.generators.stylegan2 import ModulatedConv, Shortcut, SynthesisBlock

FIRST = "synthesis.b4"
CENTER = "mapping.w_avg"
# Every layer registers them; only those that change the size use them.
UNUSED_KERNELS = r"synthesis\.b\d+\.(conv1\.)?resample_filter"
NOISE = r"synthesis\.b\d+\.conv[01]\.noise_(const|strength)"


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise a synthesis network that begins with a 4x4 block of a constant; StyleGAN-T's are sinusoids."""
    synthesis = checkpoint.persisted.modules.get("synthesis") if checkpoint.persisted else None
    first = synthesis.modules.get("b4") if isinstance(synthesis, PersistedModule) else None
    return isinstance(first, PersistedModule) and "input" not in first.modules


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN2:
    """Build the generator."""
    assert checkpoint.persisted is not None
    return read(checkpoint.persisted, options)


def read(network: PersistedModule, options: LoadOptions) -> StyleGAN2:
    """Build the generator of a network whose modules have their attributes."""
    reader = _Reader(network, options.noise == "const")
    with torch.device("meta"):
        mapping, blocks = reader.mapping(), reader.blocks()
    return stylegan2_layers.build(
        reader.file,
        mapping,
        reader.sizes,
        blocks,
        const=f"{FIRST}.const",
        center=CENTER,
        ignored=[UNUSED_KERNELS] if reader.with_noise else [UNUSED_KERNELS, NOISE],
    )


class _Reader:
    """The layers of a pickled generator."""

    def __init__(self, network: PersistedModule, with_noise: bool) -> None:
        self.network = network
        self.with_noise = with_noise
        self.file = Assembly(clean(network.tensors()))
        modules = network.module("synthesis").modules
        self.names = [FIRST]
        while f"b{4 << len(self.names)}" in modules:
            self.names.append(f"synthesis.b{4 << len(self.names)}")
        self.sizes = Sizes(
            const=self.file.shape(f"{FIRST}.const", 3),
            channels=[self.file.shape(f"{name}.conv1.weight", 4)[0] for name in self.names],
            w_dim=network.attribute("w_dim", int),
        )

    def mapping(self) -> Mapping:
        """Make the mapping network."""
        z_dim, classes = (self.network.attribute(name, int) for name in ("z_dim", "c_dim"))
        modules = self.network.module("mapping").modules
        names: list[str] = []
        while f"fc{len(names)}" in modules:
            names.append(f"mapping.fc{len(names)}")
        widths = [self.file.shape(f"{name}.weight", 2)[0] for name in names]
        embed_dim = self.file.shape("mapping.embed.weight", 2)[0] if classes else 0
        mapping = Mapping(z_dim, widths, classes, embed_dim)
        for name, layer in zip(names, mapping.layers, strict=True):
            self._expect_activation(name, "lrelu")
            self._add_dense(layer, name, SQRT2)
        if classes:
            self._expect_activation("mapping.embed", "linear")
            gain, bias_gain = self._gains("mapping.embed")
            make = partial(_embedding, gain=gain, bias_gain=bias_gain)
            weight, bias = ("mapping.embed.weight", (embed_dim, classes)), ("mapping.embed.bias", embed_dim)
            self.file.layer(mapping, make, weight=weight, bias=bias)
        return mapping

    def blocks(self) -> list[SynthesisBlock]:
        """Make the synthesis network, one block per resolution."""
        return [self._block(index, name) for index, name in enumerate(self.names)]

    def _block(self, index: int, name: str) -> SynthesisBlock:
        modules = self.network.module(name).modules
        shortcut = self._shortcut(f"{name}.skip", index) if "skip" in modules and index else None
        sums_images = index > 0 and "torgb" in self.network.module(FIRST).modules
        return SynthesisBlock(
            up=self._conv(f"{name}.conv0", 2 * index - 1) if index else None,
            conv=self._conv(f"{name}.conv1", 2 * index, RESIDUAL if shortcut else 1.0),
            rgb=self._to_rgb(f"{name}.torgb", index) if "torgb" in modules else None,
            image_up=up_filter(self.file, f"{name}.resample_filter", 4.0) if sums_images else None,
            shortcut=shortcut,
        )

    def _conv(self, name: str, index: int, scale: float = 1.0) -> ModulatedConv:
        attributes, up = self.network.module(name), index % 2 == 1
        self._expect_activation(name, "lrelu")
        has_noise = attributes.attribute("use_noise", bool) and self.with_noise
        inputs, outputs, size, _ = self.sizes.conv(index)
        clamp = _clamp(attributes)
        module = ModulatedConv(
            *self.sizes.conv(index),
            SQRT2 * scale,
            has_noise,
            clamp=None if clamp is None else clamp * scale,
            blur=up_filter(self.file, f"{name}.resample_filter", 4.0) if up else None,
        )
        self._add_dense(module.affine, f"{name}.affine")
        return self.file.layer(
            module,
            partial(stylegan2_layers.conv, up=up, scale=scale),
            weight=(f"{name}.weight", (outputs, inputs, 3, 3)),
            bias=f"{name}.bias",
            noise=(f"{name}.noise_const", size) if has_noise else None,
            strength=(f"{name}.noise_strength", 1) if has_noise else None,
        )

    def _to_rgb(self, name: str, block: int) -> ToRGB:
        attributes, inputs = self.network.module(name), self.sizes.channels[block]
        channels = self.file.shape(f"{name}.weight", 4)[0]
        module = ToRGB(inputs, channels, self.sizes.size(block), self.sizes.w_dim, _clamp(attributes))
        self._add_dense(module.affine, f"{name}.affine")
        return self.file.layer(
            module,
            partial(stylegan2_layers.to_rgb, gain=attributes.attribute("weight_gain", float)),
            weight=(f"{name}.weight", (channels, inputs, 1, 1)),
            bias=f"{name}.bias",
        )

    def _shortcut(self, name: str, block: int) -> Shortcut:
        gain = self.network.module(name).attribute("weight_gain", float)
        up = up_filter(self.file, f"{name}.resample_filter", 4.0)
        module = Shortcut(self.sizes.channels[block - 1], self.sizes.channels[block], up)
        return self.file.layer(module, partial(stylegan2_layers.shortcut, gain=gain), weight=f"{name}.weight")

    def _add_dense(self, module: nn.Module, name: str, gain: float = 1.0) -> None:
        weight_gain, bias_gain = self._gains(name)
        make = partial(dense, gain=gain * weight_gain, bias_gain=gain * bias_gain)
        self.file.layer(module, make, weight=f"{name}.weight", bias=f"{name}.bias")

    def _gains(self, name: str) -> tuple[float, float]:
        module = self.network.module(name)
        return module.attribute("weight_gain", float), module.attribute("bias_gain", float)

    def _expect_activation(self, name: str, expected: str) -> None:
        activation = self.network.module(name).attribute("activation", str)
        if activation != expected:
            raise CheckpointError(f"{name} has the activation {activation}, {expected} was expected")


def _embedding(weight: Tensor, bias: Tensor, gain: float, bias_gain: float) -> Parameters:
    """Return the embeddings, one row per class: labels are one-hot, so each class is a column of the weight."""
    return {"embedding": (weight * gain).T + bias * bias_gain}


def _clamp(module: PersistedModule) -> float | None:
    return None if module.attribute("conv_clamp") is None else float(module.attribute("conv_clamp", float))


FORMAT = Format("NVIDIA StyleGAN2", recognises, load)
