"""Make the layers of a StyleGAN2, whichever format their tensors come from.

The functions that do not take an `Assembly` return a layer's parameters.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sefa.checkpoints.parts.assembly import Assembly, Parameters
from sefa.checkpoints.sizes import MAX_NOISE, check_pixels
from sefa.errors import CheckpointError
from sefa.generators.common.fir import separate
from sefa.generators.common.mapping import Mapping
from sefa.generators.stylegan2 import StyleGAN2, SynthesisBlock, UpFilter

SQRT2 = math.sqrt(2)
# Scale of each of two paths of unit variance that are summed.
RESIDUAL = math.sqrt(0.5)
# For files from before noise was stored, when it was drawn anew for every image.
NOISE_SEED = 0


@dataclass(frozen=True)
class Sizes:
    """The sizes of a synthesis network.

    Attributes:
        const: Shape of the learned input without its batch axis, [C, h, w].
        channels: Channels of the features at each resolution, smallest first.
        w_dim: Length of w.
    """

    const: tuple[int, ...]
    channels: Sequence[int]
    w_dim: int

    def __post_init__(self) -> None:
        if self.channels:
            check_pixels(*self.size(len(self.channels) - 1))

    def size(self, block: int) -> tuple[int, int]:
        """Return the height and width of a block's features."""
        return self.const[1] << block, self.const[2] << block

    def conv(self, index: int) -> tuple[int, int, tuple[int, int], int]:
        """Return a `ModulatedConv`'s first arguments: input and output channels, size of the output, and w_dim.

        Args:
            index: The layer's index: 0 in the first block, 1 and 2 in the second, ...; odd layers double the size.
        """
        inputs = self.channels[index // 2] if index else self.const[0]
        block = (index + 1) // 2
        return inputs, self.channels[block], self.size(block), self.w_dim


def build(
    file: Assembly,
    mapping: Mapping,
    sizes: Sizes,
    blocks: Sequence[SynthesisBlock],
    *,
    const: str,
    center: str,
    ignored: Iterable[str] = (),
) -> StyleGAN2:
    """Join the parts into a generator, and fill it.

    Args:
        file: The tensors that the parts are made from.
        mapping: The mapping network.
        sizes: The sizes of the synthesis network.
        blocks: One per resolution, smallest first.
        const: Key of the learned input.
        center: Key of the centre of truncation, or of one for each class or layer; estimated if the file has none.
        ignored: Regular expressions for keys that are not used.

    Raises:
        CheckpointError: If keys are missing, not understood, or of the wrong shape, or sizes do not fit together.
    """
    check_mapping(file, mapping, sizes.w_dim)
    if not blocks or blocks[-1].rgb is None:
        raise file.misfit("its last resolution has no ToRGB")
    has_center = center in file.tensors
    numbers = file.tensors[center].numel() if has_center else 0
    per_class = mapping.num_classes > 1 and numbers == mapping.num_classes * sizes.w_dim
    with torch.device("meta"):
        generator = StyleGAN2(mapping, sizes.const, blocks, sizes.w_dim, per_class)
        if not per_class and numbers == generator.num_layers * sizes.w_dim:
            generator.center_per_layer = True
            generator.center = torch.empty(generator.num_layers, sizes.w_dim)
    center_shape = tuple(generator.center.shape)
    file.layer(
        generator,
        partial(_ends, sizes=sizes, center_shape=center_shape),
        const=(const, math.prod(sizes.const)),
        center=(center, math.prod(center_shape)) if has_center else None,
    )
    file.fill(generator, ignored)
    generator.noise = "const" if any(name.endswith(".noise") for name in generator.state_dict()) else "none"
    which = ", one for each class" if per_class else ", one for each layer" if generator.center_per_layer else ""
    generator.truncation_center = f"stored{which}"
    if not has_center:
        generator.estimate_center()
    return generator


def check_mapping(file: Assembly, mapping: Mapping, w_dim: int) -> None:
    """Check the input and output sizes of a mapping network.

    Raises:
        CheckpointError: If the label leaves no room for z, or the output is not of the size that the styles read.
    """
    embed_dim = 0 if mapping.embedding is None else mapping.embedding.shape[1]
    inputs = mapping.z_dim + embed_dim
    if mapping.z_dim < 0:
        raise file.misfit(f"its mapping network takes {inputs} values, of which {embed_dim} are the label's: no z")
    outputs = mapping.layers[-1].out_features if len(mapping.layers) else inputs
    if outputs != w_dim:
        raise file.misfit(f"its mapping network ends in {outputs} features, its styles read {w_dim}")


def up_filter(file: Assembly, key: str, gain: float) -> UpFilter:
    """Return an upsampling filter that the file stores as [k], for both axes, or as [.., kh, kw].

    Args:
        file: The file.
        key: The filter's key.
        gain: The factor that brings the filter's sum to 4.
    """
    taps = file.tensors.get(key)
    if taps is None or not taps.ndim or taps.shape[-2:].numel() != taps.numel():
        return file.layer(UpFilter(4, 4, separable=True), taps=(key, (4, 4)))
    return file.layer(empty_filter(square_taps(taps, gain)), partial(stored_filter, gain=gain), taps=(key, None))


def empty_filter(square: Tensor) -> UpFilter:
    """Return a filter for taps [kh, kw], still without values."""
    return UpFilter(square.shape[0], square.shape[1], separable=separate(square) is not None)


def stored_filter(taps: Tensor, gain: float) -> Parameters:
    """Return the parameters of a filter from its taps in a file."""
    return filter_parameters(square_taps(taps, gain))


def filter_parameters(square: Tensor) -> Parameters:
    """Return the parameters of a filter with taps [kh, kw] of sum 4."""
    separated = separate(square)
    return {"kernel": square} if separated is None else {"column": separated[0], "row": separated[1]}


def square_taps(taps: Tensor, gain: float) -> Tensor:
    """Return taps [kh, kw] of sum 4; an odd number gets a zero in front, which keeps the taps in place."""
    taps = taps.reshape(taps.shape[-2:]) if taps.ndim > 1 else torch.outer(taps, taps)
    return torch.nn.functional.pad(taps * gain, (taps.shape[1] % 2, 0, taps.shape[0] % 2, 0))


def dense(weight: Tensor, bias: Tensor, gain: float, bias_gain: float = 1.0) -> Parameters:
    """Return the parameters of a linear layer with raw weight [out, in] and bias [out]."""
    return {"weight": weight * gain, "bias": bias * bias_gain}


def mapping_layer(weight: Tensor, bias: Tensor, rate: float) -> Parameters:
    """Return the parameters of a mapping layer, including its learning rate and the √2 after its activation."""
    return dense(weight, bias, rate * SQRT2 / math.sqrt(weight.shape[1]), rate * SQRT2)


def conv(
    weight: Tensor,
    bias: Tensor,
    noise: Tensor | None = None,
    strength: Tensor | None = None,
    *,
    up: bool,
    scale: float = 1.0,
) -> Parameters:
    """Return the parameters of a modulated convolution, without those of its style.

    Args:
        weight: [out, in, 3, 3], at the scale that demodulation sees; if the layer doubles the size, oriented for a
            transposed convolution.
        bias: [out].
        noise: Constant noise, [.., H, W]; None if the layer has none.
        strength: The single number that the noise is multiplied by.
        up: Whether the layer doubles the size.
        scale: Factor on the output: √½ where it is summed with a residual path.
    """
    gain = SQRT2 * scale
    parameters = {
        "weight": weight.transpose(0, 1) if up else weight,
        "energy": weight.square().sum(dim=(2, 3)).T / gain**2,
        "bias": bias * gain,
    }
    if noise is not None and strength is not None:
        parameters["noise"] = noise.reshape(1, 1, *noise.shape[-2:]) * strength.reshape(()) * gain
    return parameters


def to_rgb(weight: Tensor, bias: Tensor, gain: float | None = None) -> Parameters:
    """Return the parameters of a ToRGB with raw weight [.., channels, in, 1, 1], without those of its style.

    Its gain is 1/√in unless it is given.
    """
    channels, inputs = weight.shape[-4:-2]
    gain = 1 / math.sqrt(inputs) if gain is None else gain
    return {"weight": (weight * gain).reshape(channels, inputs), "bias": bias.reshape(-1)}


def tensorflow_conv(weight: Tensor, bias: Tensor, *, up: bool, scale: float = 1.0, **noise: Tensor) -> Parameters:
    """Return the parameters of a modulated convolution with raw weight [out, in, 3, 3], without those of its style."""
    weight = weight * (1 / math.sqrt(9 * weight.shape[1]))
    if up:  # Stored for a plain convolution of the zero-stuffed image.
        weight = weight.flip(2, 3)
    return conv(weight, bias, up=up, scale=scale, **noise)


def tensorflow_style(weight: Tensor, bias: Tensor) -> Parameters:
    """Return the parameters of a style's transform with raw weight [in, w_dim] and a bias stored around 0."""
    return {"weight": weight * (1 / math.sqrt(weight.shape[1])), "bias": bias + 1}


def shortcut(weight: Tensor, gain: float) -> Parameters:
    """Return the parameters of a residual path with raw weight [out, in, 1, 1], including the √½ of the sum."""
    return {"weight": weight * gain * RESIDUAL}


def seeded_noise(index: int, size: tuple[int, int]) -> Tensor:
    """Return noise [1, 1, H, W] for layer `index` of a file that stores none, the same every time.

    Raises:
        CheckpointError: If the size is beyond any real generator's.
    """
    height, width = size
    if height * width > MAX_NOISE:
        raise CheckpointError(
            f"it would have images of {width}x{height} pixels, which is beyond any real one: damaged?"
        )
    return torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(NOISE_SEED + index))


def _ends(const: Tensor, center: Tensor | None = None, *, sizes: Sizes, center_shape: tuple[int, ...]) -> Parameters:
    """Return the learned input and the centre of truncation, which is zeros if it is still to be estimated."""
    return {
        "const": const.reshape(1, *sizes.const),
        "center": torch.zeros(center_shape) if center is None else center.reshape(center_shape),
    }
