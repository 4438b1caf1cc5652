"""StyleGAN2 as NVlabs' TensorFlow code pickles it: stylegan2, stylegan2-ada.

The variables' scopes are mapping/Dense0, ...; and synthesis/4x4 with Conv, then 8x8, ..., each with Conv0_up and Conv1;
any may have ToRGB, and all but the first Skip. Weights are stored without their gains. The options that the network was
built with are stored beside the variables.

Forks that train on images of other shapes begin with another constant, such as 3x5 (height x width). skyflynil's names
the scopes by such sizes, eps696's as if images were square.
"""

import math
import re
from collections.abc import Mapping
from functools import partial
from itertools import count, takewhile
from typing import Any, TypeVar

import torch
from torch import Tensor

from sefa.checkpoints.assumptions import Assumptions, mapping_rate, resample_kernel
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, clean
from sefa.checkpoints.parts import stylegan2_layers
from sefa.checkpoints.parts.assembly import Assembly, Parameters
from sefa.checkpoints.parts.stylegan2_layers import (
    RESIDUAL,
    SQRT2,
    Sizes,
    empty_filter,
    filter_parameters,
    mapping_layer,
    shortcut,
    square_taps,
    tensorflow_conv,
    tensorflow_style,
    to_rgb,
)
from sefa.checkpoints.parts.tensorflow_variables import in_torchs_layout
from sefa.errors import CheckpointError
from sefa.generators import StyleGAN2
from sefa.generators.common.mapping import LabelNorm
from sefa.generators.common.mapping import Mapping as MappingNetwork
from sefa.generators.common.to_rgb import ToRGB
from sefa.generators.stylegan2 import ModulatedConv, Shortcut, SynthesisBlock, UpFilter

S = TypeVar("S", ModulatedConv, ToRGB)

FIRST = re.compile(r"synthesis/([1-9]\d{0,4})x([1-9]\d{0,4})/Conv/mod_weight")
CENTER = "dlatent_avg"
CONCATENATED, EMBEDDED = "mapping/LabelConcat", "mapping/LabelEmbed"
# How far a progressive training had grown the generator; unused without growing.
LOD = "lod"
NOISE = (r"synthesis/noise\d+", r"synthesis/.*/noise_strength")
# The code's defaults, for options that its caller did not pass: the file does not contain those.
DEFAULTS: Mapping[str, Any] = {
    "mapping_lrmul": 0.01,
    "mapping_nonlinearity": "lrelu",
    "nonlinearity": "lrelu",
    "normalize_latents": True,
    "resample_kernel": (1, 3, 3, 1),
    "conv_clamp": None,
}


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise styles that modulate weights; StyleGAN's StyleMod modulates features."""
    network = checkpoint.tensorflow
    return network is not None and any(map(FIRST.fullmatch, network.tensors()))


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN2:
    """Build the generator."""
    assert checkpoint.tensorflow is not None
    tensors = clean(checkpoint.tensorflow.tensors())
    if any("/ToRGB_lod" in key for key in tensors):
        raise CheckpointError("it is one of configurations B to D, which grow progressively: only E and F can be read")
    settings = _settings(checkpoint.tensorflow.static_kwargs, options.assumptions)
    reader = _Reader(Assembly(in_torchs_layout(tensors)), settings, options.noise == "const")
    with torch.device("meta"):
        mapping, blocks = reader.mapping(), reader.blocks()
    return stylegan2_layers.build(
        reader.file,
        mapping,
        reader.sizes,
        blocks,
        const=f"{reader.scopes[0]}/Const/const",
        center=CENTER,
        ignored=[LOD] if reader.with_noise else [LOD, *NOISE],
    )


def _settings(told: Mapping[str, Any], assumptions: Assumptions) -> dict[str, Any]:
    settings = {**DEFAULTS, **told}
    if "mapping_lrmul" not in told:
        settings["mapping_lrmul"] = mapping_rate(assumptions, settings["mapping_lrmul"])
    if "resample_kernel" not in told:
        settings["resample_kernel"] = resample_kernel(assumptions, DEFAULTS["resample_kernel"])
    assumptions.note("the original's defaults where its options are silent: lrelu, no clamp")
    for name in ("mapping_nonlinearity", "nonlinearity", "normalize_latents"):
        if settings[name] != DEFAULTS[name]:
            raise CheckpointError(f"it has {name} = {settings[name]!r}, {DEFAULTS[name]!r} was expected")
    return settings


class _Reader:
    """The layers of a generator's variables."""

    def __init__(self, file: Assembly, settings: Mapping[str, Any], with_noise: bool) -> None:
        self.file = file
        self.with_noise = with_noise
        self.rate = _number(settings, "mapping_lrmul")
        self.clamp = None if settings["conv_clamp"] is None else _number(settings, "conv_clamp")
        self.taps = square_taps(_taps(settings["resample_kernel"]), 4.0)
        height, width = next((int(m[1]), int(m[2])) for m in map(FIRST.fullmatch, file.tensors) if m)
        scopes = (f"synthesis/{height << block}x{width << block}" for block in count())
        self.scopes = [next(scopes), *takewhile(lambda scope: f"{scope}/Conv1/weight" in file.tensors, scopes)]
        self.sizes = Sizes(
            const=file.shape(f"{self.scopes[0]}/Const/const", 4)[1:],
            channels=[file.shape(f"{self._conv_name(2 * index)}/weight", 4)[0] for index in range(len(self.scopes))],
            w_dim=file.shape(f"{self.scopes[0]}/Conv/mod_weight", 2)[1],
        )

    def mapping(self) -> MappingNetwork:
        """Make the mapping network."""
        file = self.file
        scopes = [f"mapping/Dense{index}" for index in range(file.count("mapping/Dense{}/weight"))]
        shapes = [file.shape(f"{scope}/weight", 2) for scope in scopes or ["mapping/Dense0"]]
        inputs, widths = shapes[0][1], [width for width, _ in shapes[: len(scopes)]]
        label = next((scope for scope in (CONCATENATED, EMBEDDED) if f"{scope}/weight" in file.tensors), "")
        classes, embed_dim = file.shape(f"{label}/weight", 2) if label else (0, 0)
        norm = LabelNorm.JOINT if label == CONCATENATED else LabelNorm.SEPARATE
        mapping = MappingNetwork(inputs - embed_dim, widths, classes, embed_dim, norm)
        if label:
            bias = (f"{label}/bias", embed_dim) if label == EMBEDDED else None
            file.layer(mapping, _embedding, weight=(f"{label}/weight", (classes, embed_dim)), bias=bias)
        for scope, layer in zip(scopes, mapping.layers, strict=True):
            make = partial(mapping_layer, rate=self.rate)
            file.layer(layer, make, weight=f"{scope}/weight", bias=f"{scope}/bias")
        return mapping

    def blocks(self) -> list[SynthesisBlock]:
        """Make the synthesis network, one block per resolution."""
        return [self._block(index, scope) for index, scope in enumerate(self.scopes)]

    def _block(self, index: int, scope: str) -> SynthesisBlock:
        has_rgb = f"{scope}/ToRGB/weight" in self.file.tensors
        sums_images = index > 0 and f"{self.scopes[0]}/ToRGB/weight" in self.file.tensors
        path = self._shortcut(index) if index and f"{scope}/Skip/weight" in self.file.tensors else None
        return SynthesisBlock(
            up=self._conv(2 * index - 1) if index else None,
            conv=self._conv(2 * index, RESIDUAL if path else 1.0),
            rgb=self._to_rgb(index) if has_rgb else None,
            image_up=self._up_filter() if sums_images else None,
            shortcut=path,
        )

    def _conv_name(self, index: int) -> str:
        scope = self.scopes[(index + 1) // 2]
        return f"{scope}/Conv0_up" if index % 2 else f"{scope}/Conv1" if index else f"{scope}/Conv"

    def _conv(self, index: int, scale: float = 1.0) -> ModulatedConv:
        name, up = self._conv_name(index), index % 2 == 1
        inputs, outputs, _, _ = self.sizes.conv(index)
        has_noise = self.with_noise and f"{name}/noise_strength" in self.file.tensors
        module = ModulatedConv(
            *self.sizes.conv(index),
            SQRT2 * scale,
            has_noise,
            clamp=None if self.clamp is None else self.clamp * scale,
            blur=self._up_filter() if up else None,
        )
        self.file.layer(
            module,
            partial(tensorflow_conv, up=up, scale=scale),
            weight=(f"{name}/weight", (outputs, inputs, 3, 3)),
            bias=f"{name}/bias",
            noise=f"synthesis/noise{index}" if has_noise else None,
            strength=(f"{name}/noise_strength", 1) if has_noise else None,
        )
        return self._with_style(module, name)

    def _to_rgb(self, block: int) -> ToRGB:
        name, inputs = f"{self.scopes[block]}/ToRGB", self.sizes.channels[block]
        channels = self.file.shape(f"{name}/weight", 4)[0]
        module = ToRGB(inputs, channels, self.sizes.size(block), self.sizes.w_dim, self.clamp)
        weight = (f"{name}/weight", (channels, inputs, 1, 1))
        self.file.layer(module, to_rgb, weight=weight, bias=f"{name}/bias")
        return self._with_style(module, name)

    def _with_style(self, module: S, name: str) -> S:
        self.file.layer(module.affine, tensorflow_style, weight=f"{name}/mod_weight", bias=f"{name}/mod_bias")
        return module

    def _shortcut(self, block: int) -> Shortcut:
        inputs, outputs = self.sizes.channels[block - 1 : block + 1]
        module = Shortcut(inputs, outputs, self._up_filter())
        make = partial(shortcut, gain=1 / math.sqrt(inputs))
        return self.file.layer(module, make, weight=f"{self.scopes[block]}/Skip/weight")

    def _up_filter(self) -> UpFilter:
        return self.file.layer(empty_filter(self.taps), partial(filter_parameters, self.taps))


def _embedding(weight: Tensor, bias: Tensor | None = None) -> Parameters:
    """Return the embeddings, one row per class: rows of the weight, which is a dense layer's if it has a bias."""
    return {"embedding": weight if bias is None else weight / math.sqrt(len(weight)) + bias}


def _number(settings: Mapping[str, Any], name: str) -> float:
    value = settings[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise CheckpointError(f"it has {name} = {value!r}, a number was expected")
    return float(value)


def _taps(taps: Any) -> Tensor:
    """Return the taps in a 1-D or 2-D list, [kh, kw] of sum 1."""
    try:
        tensor = torch.tensor(taps, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        tensor = torch.zeros(0)
    if tensor.ndim not in (1, 2) or not tensor.numel() or not tensor.isfinite().all() or not tensor.sum():
        raise CheckpointError(f"it has resample_kernel = {taps!r}, a list of numbers was expected")
    square = torch.outer(tensor, tensor) if tensor.ndim == 1 else tensor
    return square / square.sum()


FORMAT = Format("TensorFlow StyleGAN2", recognises, load)
