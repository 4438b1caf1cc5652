"""The layers of a StyleGAN, whichever format's tensors they are made of.

The functions without an `Assembly` take effective weights, and return a layer's parameters.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from sefa.checkpoints.assumptions import Assumptions, one_of
from sefa.checkpoints.parts.assembly import Assembly, Parameters
from sefa.checkpoints.parts.growing import SQRT2
from sefa.generators.common.mapping import LabelNorm, Mapping
from sefa.generators.stylegan import Layer, StyleGAN, instance_norm

# Of the mapping network, unless the file tells.
MAPPING_LR = 0.01
# From this size of the output on, the original fuses doubling and convolution.
FUSED_FROM = 128


def empty_mapping(file: Assembly, shapes: Sequence[tuple[int, ...]], label: str) -> Mapping:
    """Return a mapping network without values.

    Args:
        file: The file.
        shapes: Length of each layer's input and output.
        label: Key of the labels' embedding, [num_classes, embed_dim], which a file without labels does not have.

    Raises:
        CheckpointError: If it leaves no room for z.
    """
    classes, embed_dim = file.shape(label, 2) if label in file.tensors else (0, 0)
    inputs = shapes[0][0]
    if inputs <= embed_dim:
        raise file.misfit(f"its mapping network takes {inputs} values, of which {embed_dim} are the label's: no z")
    mapping = Mapping(inputs - embed_dim, [width for _, width in shapes], classes, embed_dim, LabelNorm.JOINT)
    return file.layer(mapping, embedding=label) if classes else mapping


def layers_of(generator: StyleGAN) -> list[Layer]:
    """Return all layers but the first."""
    return cast("list[Layer]", list(generator.layers))


def fill(file: Assembly, generator: StyleGAN, center: str, noise: str) -> StyleGAN:
    """Fill the generator; its centre of truncation, if there is none under this key, is estimated.

    Raises:
        CheckpointError: If keys are missing, not understood, or of the wrong shape.
    """
    has_center = center in file.tensors
    if has_center:
        file.layer(generator, center=center)
    else:  # Estimating it needs the mapping network.
        file.layer(generator, partial(dict, center=torch.zeros(generator.code_dim)))
    file.fill(generator)
    generator.noise = noise
    generator.truncation_center = "stored"
    if not has_center:
        generator.estimate_center()
    return generator


def fused_from(assumptions: Assumptions) -> float:
    """Return from which size of the output on the original fuses doubling and convolution: no tensor tells."""
    sizes = {"auto": FUSED_FROM, "all": 0, "none": math.inf}
    fused = assumptions.take("fused", "auto", partial(one_of, names=sizes))
    words = {
        "auto": f"upsampling fused from {FUSED_FROM} pixels on",
        "all": "upsampling fused",
        "none": "no upsampling fused",
    }
    assumptions.note(words[fused], "fused")
    return sizes[fused]


def mapping_layer(weight: Tensor, bias: Tensor, rate: float) -> Parameters:
    """Return the parameters of a mapping layer of raw weight [out, in]. Its activation adds no gain to this one's."""
    return {"weight": weight * (rate * SQRT2 / math.sqrt(weight.shape[1])), "bias": bias * rate}


def first_layer(
    const: Tensor, bias: Tensor, noise_weight: Tensor | None = None, noise: Tensor | None = None
) -> Parameters:
    """Return the features of the first layer, of which nothing but the style depends on the input.

    Args:
        const: The learned input, [1, C, h, w].
        bias: [C].
        noise_weight: [C]; None if there is no noise.
        noise: Constant noise, [1, 1, h, w].
    """
    offset = _as_channels(bias)
    if noise_weight is not None and noise is not None:
        offset = _as_channels(noise_weight) * noise + offset
    return {"constant": instance_norm(F.leaky_relu(const + offset, 0.2))}


def layer(
    weight: Tensor,
    bias: Tensor,
    noise_weight: Tensor | None = None,
    noise: Tensor | None = None,
    blur: Tensor | None = None,
) -> Parameters:
    """Return the parameters of a layer but the first.

    Args:
        weight: Effective, as `up_kernel` makes it in the first layer of a level.
        bias: [C].
        noise_weight: [C]; None if there is no noise.
        noise: Constant noise, [1, 1, H, W].
        blur: The filter after a doubling, [C, 1, 3, 3].
    """
    parameters = {"conv.weight": weight, "bias": _as_channels(bias)}
    if noise_weight is not None and noise is not None:
        parameters |= {"noise_weight": _as_channels(noise_weight), "noise": noise}
    return parameters if blur is None else {**parameters, "blur": blur}


def style(weight: Tensor, bias: Tensor) -> Parameters:
    """Return the parameters of a style's transform, [2C, D] and [2C]: the first half scales by 1 more than it says."""
    scale, shift = bias.chunk(2)
    return {"weight": weight, "bias": torch.cat([scale + 1, shift])}


def _as_channels(tensor: Tensor) -> Tensor:
    return tensor.reshape(1, -1, 1, 1)
