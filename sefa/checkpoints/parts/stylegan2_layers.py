"""A StyleGAN2 generator from its parts' tensors, whichever format's keys they come from."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from sefa.checkpoints.parts.assembly import Source, Weights, assemble, combine, source
from sefa.checkpoints.sizes import MAX_NOISE, check_pixels
from sefa.errors import CheckpointError
from sefa.generators.common.fir import separate
from sefa.generators.common.mapping import LabelNorm
from sefa.generators.common.mapping import Mapping as MappingNetwork
from sefa.generators.common.to_rgb import ToRGB
from sefa.generators.stylegan2 import KernelShape, ModulatedConv, Shortcut, StyleGAN2, SynthesisBlock, UpFilter

SQRT2 = math.sqrt(2)
# For files of a time when noise was not stored but drawn anew for every image.
NOISE_SEED = 0


@dataclass(frozen=True)
class Kernel:
    """An upsampling filter of sum 4: even numbers of taps, [kh, kw]."""

    taps: Source
    shape: KernelShape


@dataclass(frozen=True)
class Conv:
    """A modulated convolution.

    Attributes:
        inputs: Channels of the input.
        weight: [out, in, 3, 3] of the scale that demodulation sees; for a layer that doubles the size, oriented as a
            transposed convolution takes it.
        bias: [out].
        affine: The style's transform, whose bias is around 1.
        noise: Constant noise times its strength, [1, 1, H, W]; None if the layer has none.
        clamp: Greatest magnitude of the output, before the √½ of a sum with a residual path.
        kernel: The filter of a layer that doubles the size.
    """

    inputs: int
    weight: Source
    bias: Source
    affine: Weights
    noise: Source | None
    clamp: float | None = None
    kernel: Kernel | None = None


@dataclass(frozen=True)
class RGB:
    """A ToRGB: effective weight [channels, in, 1, 1] and bias [channels]."""

    channels: int
    weight: Source
    bias: Source
    affine: Weights
    clamp: float | None = None


@dataclass(frozen=True)
class Block:
    """The layers of one resolution.

    Attributes:
        channels: Of its features.
        up: The convolution that doubles the size; None in the first block.
        conv: The one behind it.
        rgb: ToRGB, if the block has one.
        image_kernel: The filter that brings the previous block's image to this size, if images are summed.
        shortcut: Effective weight [out, in, 1, 1] of the residual path, without its √½, and its filter.
    """

    channels: int
    up: Conv | None
    conv: Conv
    rgb: RGB | None
    image_kernel: Kernel | None = None
    shortcut: tuple[Source, Kernel] | None = None


@dataclass(frozen=True)
class MappingParts:
    """The mapping network.

    Attributes:
        z_dim: Length of z.
        widths: Length of each layer's output.
        layers: Effective, the √2 behind the activation included.
        embedding: One row per class, [num_classes, embed_dim], and its shape; None if there are no classes.
        label_norm: How the embedding joins z.
    """

    z_dim: int
    widths: Sequence[int]
    layers: Sequence[Weights]
    embedding: tuple[Source, tuple[int, int]] | None = None
    label_norm: LabelNorm = LabelNorm.SEPARATE


def build(
    tensors: Mapping[str, Tensor],
    mapping: MappingParts,
    const: tuple[Source, tuple[int, int, int]],
    blocks: Sequence[Block],
    w_dim: int,
    center: Source | None,
    noise: str,
    ignored: Iterable[str] = (),
) -> StyleGAN2:
    """Assemble the generator.

    Args:
        tensors: The file's tensors.
        mapping: The mapping network.
        const: The learned input, [1, C, h, w], and its shape without the first axis.
        blocks: One per resolution, smallest first.
        w_dim: Length of w.
        center: Centre of truncation, [w_dim]; None if it must be estimated.
        noise: `const` or `none`: see LoadOptions.
        ignored: Regular expressions of keys without a use.

    Raises:
        CheckpointError: If keys are missing, not understood, or of the wrong shape.
    """
    produced = (
        mapping.widths[-1] if mapping.widths else mapping.z_dim + (mapping.embedding[1][1] if mapping.embedding else 0)
    )
    if produced != w_dim:
        raise CheckpointError(f"its mapping network ends in {produced} features, its styles read {w_dim}")
    if not blocks or blocks[-1].rgb is None:
        raise CheckpointError("its last resolution has no ToRGB")
    if noise == "none":
        blocks = [_without_noise(block) for block in blocks]
    height, width = const[1][1:]
    check_pixels(height << len(blocks) - 1, width << len(blocks) - 1)
    plan = {
        "const": const[0],
        # A centre that is to be estimated needs the mapping network first.
        "center": center or source(convert=lambda: torch.zeros(w_dim)),
        **_mapping_plan(mapping),
    }
    with torch.device("meta"):
        modules = []
        for index, block in enumerate(blocks):
            module, of_block = _block(block, (height << index, width << index), w_dim)
            modules.append(module)
            plan |= {f"blocks.{index}.{name}": entry for name, entry in of_block.items()}
        classes, embed_dim = mapping.embedding[1] if mapping.embedding else (0, 0)
        network = MappingNetwork(mapping.z_dim, mapping.widths, classes, embed_dim, mapping.label_norm)
        generator = StyleGAN2(network, const[1], modules, w_dim)
    assemble(generator, plan, tensors, ignored)
    generator.noise = noise if any(conv.noise for block in blocks for conv in _convs(block)) else "none"
    generator.truncation_center = "stored"
    if center is None:
        generator.estimate_center()
    return generator


def dense(weight: Source, bias: Source, gain: float, bias_gain: float) -> Weights:
    """A linear layer's raw weight [out, in] and bias, times their gains."""
    return Weights(scaled(weight, gain), scaled(bias, bias_gain))


def scaled(tensor: Source, factor: float) -> Source:
    """`tensor` times a number."""
    return tensor if factor == 1 else combine(tensor, convert=lambda raw: raw * factor)


def kernel(taps: Tensor | None, tensor: Source, gain: float) -> Kernel:
    """An upsampling filter as a file has it: [k] for both axes, or [.., kh, kw].

    Args:
        taps: Its tensor, for the shape; None if it is missing, which assembling will report.
        tensor: Where it comes from.
        gain: What its sum must be multiplied with to become 4.
    """
    shape = KernelShape(4, 4, separable=True)
    if taps is not None and taps.ndim and taps.shape[-2:].numel() == taps.numel():
        square = _square(taps, gain)
        shape = KernelShape(square.shape[0], square.shape[1], separable=separate(square) is not None)
    return Kernel(combine(tensor, convert=partial(_square, gain=gain)), shape)


def seeded_noise(index: int, size: tuple[int, int]) -> Tensor:
    """Noise for layer `index` of a file that stores none, [1, 1, H, W], the same every time.

    Raises:
        CheckpointError: If that were beyond any real generator's.
    """
    height, width = size
    if height * width > MAX_NOISE:
        raise CheckpointError(
            f"it would have images of {width}x{height} pixels, which is beyond any real one: damaged?"
        )
    return torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(NOISE_SEED + index))


def _square(taps: Tensor, gain: float) -> Tensor:
    """[kh, kw] of sum 4, with a zero before an odd number of taps, which leaves their place."""
    taps = taps.reshape(taps.shape[-2:]) if taps.ndim > 1 else torch.outer(taps, taps)
    return torch.nn.functional.pad(taps * gain, (taps.shape[1] % 2, 0, taps.shape[0] % 2, 0))


def _mapping_plan(mapping: MappingParts) -> dict[str, Source]:
    plan = {"mapping.embedding": mapping.embedding[0]} if mapping.embedding else {}
    for index, layer in enumerate(mapping.layers):
        plan |= {f"mapping.layers.{index}.weight": layer.weight, f"mapping.layers.{index}.bias": layer.bias}
    return plan


def _block(block: Block, size: tuple[int, int], w_dim: int) -> tuple[SynthesisBlock, dict[str, Source]]:
    """A block without values, and where they come from."""
    plan: dict[str, Source] = {}

    def add(name: str, entries: dict[str, Source]) -> None:
        plan.update({f"{name}.{entry}": value for entry, value in entries.items()})

    up = None
    if block.up is not None:
        up = _conv_module(block.up, block.channels, size, w_dim)
        add("up", _conv_plan(block.up))
    scale = math.sqrt(0.5) if block.shortcut else 1.0  # Two paths of unit variance are summed.
    conv = _conv_module(block.conv, block.channels, size, w_dim, scale)
    add("conv", _conv_plan(block.conv, scale))
    rgb = None
    if block.rgb is not None:
        rgb = ToRGB(block.channels, block.rgb.channels, size, w_dim, block.rgb.clamp)
        weight = combine(block.rgb.weight, convert=lambda raw: raw.reshape(raw.shape[-4:-2]))
        add("rgb", {"weight": weight, "bias": block.rgb.bias, **_affine_plan(block.rgb.affine)})
    image_up = None
    if block.image_kernel is not None:
        image_up = UpFilter(block.image_kernel.shape)
        add("image_up", _kernel_plan(block.image_kernel))
    shortcut = None
    if block.shortcut is not None:
        assert block.up is not None
        weight, filter_ = block.shortcut
        shortcut = Shortcut(block.up.inputs, block.channels, filter_.shape)
        add("shortcut", {"weight": scaled(weight, scale)})
        add("shortcut.up", _kernel_plan(filter_))
    return SynthesisBlock(up, conv, rgb, image_up, shortcut), plan


def _conv_module(conv: Conv, outputs: int, size: tuple[int, int], w_dim: int, scale: float = 1.0) -> ModulatedConv:
    return ModulatedConv(
        conv.inputs,
        outputs,
        size,
        w_dim,
        gain=SQRT2 * scale,
        noise=conv.noise is not None,
        clamp=None if conv.clamp is None else conv.clamp * scale,
        kernel=conv.kernel.shape if conv.kernel else None,
    )


def _conv_plan(conv: Conv, scale: float = 1.0) -> dict[str, Source]:
    gain = SQRT2 * scale
    energy = combine(conv.weight, convert=lambda weight: weight.square().sum(dim=(2, 3)).T / gain**2)
    plan = {"weight": conv.weight, "energy": energy, "bias": scaled(conv.bias, gain), **_affine_plan(conv.affine)}
    if conv.kernel is not None:
        plan["weight"] = combine(conv.weight, convert=lambda weight: weight.transpose(0, 1))
        plan |= {f"blur.{name}": entry for name, entry in _kernel_plan(conv.kernel).items()}
    if conv.noise is not None:
        plan["noise"] = scaled(conv.noise, gain)
    return plan


def _affine_plan(affine: Weights) -> dict[str, Source]:
    return {"affine.weight": affine.weight, "affine.bias": affine.bias}


def _kernel_plan(filter_: Kernel) -> dict[str, Source]:
    if not filter_.shape.separable:
        return {"kernel": filter_.taps}
    return {
        "column": combine(filter_.taps, convert=lambda taps: _separated(taps)[0]),
        "row": combine(filter_.taps, convert=lambda taps: _separated(taps)[1]),
    }


def _separated(taps: Tensor) -> tuple[Tensor, Tensor]:
    parts = separate(taps)
    if parts is None:
        raise ValueError("not separable")
    return parts


def _convs(block: Block) -> list[Conv]:
    return [conv for conv in (block.up, block.conv) if conv is not None]


def _without_noise(block: Block) -> Block:
    return replace(
        block, up=None if block.up is None else replace(block.up, noise=None), conv=replace(block.conv, noise=None)
    )
