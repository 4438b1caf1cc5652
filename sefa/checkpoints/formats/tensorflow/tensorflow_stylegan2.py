"""StyleGAN2 as NVlabs' TensorFlow code pickles it: stylegan2, stylegan2-ada.

The variables' scopes: mapping/Dense0, ...; synthesis/4x4, 8x8, ..., each with Conv0_up, Conv1 and perhaps ToRGB and
Skip. A dense layer's weight is [in, out], a convolution's [k, k, in, out]; both are stored without their gains. What
the network was built with stands beside the variables.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from sefa.checkpoints.assumptions import Assumptions, mapping_rate
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
    square_taps,
)
from sefa.errors import CheckpointError
from sefa.generators import StyleGAN2
from sefa.generators.common.mapping import LabelNorm
from sefa.generators.common.mapping import Mapping as MappingNetwork
from sefa.generators.common.to_rgb import ToRGB
from sefa.generators.stylegan2 import ModulatedConv, Shortcut, SynthesisBlock, UpFilter

S = TypeVar("S", ModulatedConv, ToRGB)

CONST = "synthesis/4x4/Const/const"
CENTER = "dlatent_avg"
CONCATENATED, EMBEDDED = "mapping/LabelConcat", "mapping/LabelEmbed"
# How far a progressive training had grown; not used without growing.
LOD = "lod"
NOISE = (r"synthesis/noise\d+", r"synthesis/.*/noise_strength")
# What the code used for options that its caller did not pass, which the file does not tell.
DEFAULTS: Mapping[str, Any] = {
    "mapping_lrmul": 0.01,
    "mapping_nonlinearity": "lrelu",
    "nonlinearity": "lrelu",
    "normalize_latents": True,
    "resample_kernel": (1, 3, 3, 1),
    "conv_clamp": None,
}


def recognises(checkpoint: Checkpoint) -> bool:
    """Styles that modulate weights, rather than StyleGAN's StyleMod."""
    network = checkpoint.tensorflow
    return network is not None and "synthesis/4x4/Conv/mod_weight" in network.tensors()


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN2:
    """Build the generator."""
    assert checkpoint.tensorflow is not None
    tensors = clean(checkpoint.tensorflow.tensors())
    if any("/ToRGB_lod" in key for key in tensors):
        raise CheckpointError("it is one of configurations B to D, which grow progressively: only E and F can be read")
    settings = _settings(checkpoint.tensorflow.static_kwargs, options.assumptions)
    reader = _Reader(Assembly(tensors), settings, options.noise == "const")
    with torch.device("meta"):
        mapping, blocks = reader.mapping(), reader.blocks()
    return stylegan2_layers.build(
        reader.file,
        mapping,
        reader.sizes,
        blocks,
        const=CONST,
        center=CENTER,
        ignored=[LOD] if reader.with_noise else [LOD, *NOISE],
    )


def _settings(told: Mapping[str, Any], assumptions: Assumptions) -> dict[str, Any]:
    settings = {**DEFAULTS, **told}
    if "mapping_lrmul" not in told:
        settings["mapping_lrmul"] = mapping_rate(assumptions, settings["mapping_lrmul"])
    if "resample_kernel" not in told:
        settings["resample_kernel"] = _usual_taps(assumptions)
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
        self.scopes = ["synthesis/4x4"]
        while f"{(scope := _scope(len(self.scopes)))}/Conv1/weight" in file.tensors:
            self.scopes.append(scope)
        self.sizes = Sizes(
            const=file.shape(CONST, 4)[1:],
            channels=[file.shape(f"{self._conv_name(2 * index)}/weight", 4)[3] for index in range(len(self.scopes))],
            w_dim=file.shape("synthesis/4x4/Conv/mod_weight", 2)[0],
        )

    def mapping(self) -> MappingNetwork:
        """The mapping network."""
        file = self.file
        scopes = [f"mapping/Dense{index}" for index in range(file.count("mapping/Dense{}/weight"))]
        shapes = [file.shape(f"{scope}/weight", 2) for scope in scopes or ["mapping/Dense0"]]
        inputs, widths = shapes[0][0], [width for _, width in shapes[: len(scopes)]]
        label = next((scope for scope in (CONCATENATED, EMBEDDED) if f"{scope}/weight" in file.tensors), "")
        classes, embed_dim = file.shape(f"{label}/weight", 2) if label else (0, 0)
        norm = LabelNorm.JOINT if label == CONCATENATED else LabelNorm.SEPARATE
        mapping = MappingNetwork(inputs - embed_dim, widths, classes, embed_dim, norm)
        if label == CONCATENATED:
            file.layer(mapping, embedding=f"{label}/weight")
        elif label:
            file.layer(
                mapping, _embedding, weight=(f"{label}/weight", (classes, embed_dim)), bias=(f"{label}/bias", embed_dim)
            )
        for scope, layer in zip(scopes, mapping.layers, strict=True):
            weight, bias = (f"{scope}/weight", tuple(layer.get_parameter("weight").T.shape)), f"{scope}/bias"
            file.layer(layer, partial(_mapping_layer, rate=self.rate), weight=weight, bias=bias)
        return mapping

    def blocks(self) -> list[SynthesisBlock]:
        """The synthesis network, one block per resolution."""
        return [self._block(index, scope) for index, scope in enumerate(self.scopes)]

    def _block(self, index: int, scope: str) -> SynthesisBlock:
        has_rgb = f"{scope}/ToRGB/weight" in self.file.tensors
        sums_images = index > 0 and "synthesis/4x4/ToRGB/weight" in self.file.tensors
        shortcut = self._shortcut(index) if index and f"{scope}/Skip/weight" in self.file.tensors else None
        return SynthesisBlock(
            up=self._conv(2 * index - 1) if index else None,
            conv=self._conv(2 * index, RESIDUAL if shortcut else 1.0),
            rgb=self._to_rgb(index) if has_rgb else None,
            image_up=self._up_filter() if sums_images else None,
            shortcut=shortcut,
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
            partial(_conv, up=up, scale=scale),
            weight=(f"{name}/weight", (3, 3, inputs, outputs)),
            bias=f"{name}/bias",
            noise=f"synthesis/noise{index}" if has_noise else None,
            strength=(f"{name}/noise_strength", 1) if has_noise else None,
        )
        return self._with_style(module, name)

    def _to_rgb(self, block: int) -> ToRGB:
        name, inputs = f"{self.scopes[block]}/ToRGB", self.sizes.channels[block]
        channels = self.file.shape(f"{name}/weight", 4)[3]
        module = ToRGB(inputs, channels, self.sizes.size(block), self.sizes.w_dim, self.clamp)
        self.file.layer(module, _to_rgb, weight=(f"{name}/weight", (1, 1, inputs, channels)), bias=f"{name}/bias")
        return self._with_style(module, name)

    def _with_style(self, module: S, name: str) -> S:
        weight, bias = (f"{name}/mod_weight", tuple(module.affine.weight.T.shape)), f"{name}/mod_bias"
        self.file.layer(module.affine, _style, weight=weight, bias=bias)
        return module

    def _shortcut(self, block: int) -> Shortcut:
        inputs, outputs = self.sizes.channels[block - 1 : block + 1]
        weight = (f"{self.scopes[block]}/Skip/weight", (1, 1, inputs, outputs))
        return self.file.layer(Shortcut(inputs, outputs, self._up_filter()), _shortcut, weight=weight)

    def _up_filter(self) -> UpFilter:
        return self.file.layer(empty_filter(self.taps), partial(filter_parameters, self.taps))


def _scope(block: int) -> str:
    return f"synthesis/{4 << block}x{4 << block}"


def _mapping_layer(weight: Tensor, bias: Tensor, rate: float) -> Parameters:
    return mapping_layer(weight.T, bias, rate)


def _embedding(weight: Tensor, bias: Tensor) -> Parameters:
    """A dense layer of one-hot labels."""
    return {"embedding": weight / math.sqrt(len(weight)) + bias}


def _conv(weight: Tensor, bias: Tensor, up: bool, scale: float, **noise: Tensor) -> Parameters:
    weight = weight.permute(3, 2, 0, 1) * (1 / math.sqrt(9 * weight.shape[2]))
    if up:  # Stored for a convolution of the stuffed image.
        weight = weight.flip(2, 3)
    return stylegan2_layers.conv(weight, bias, up=up, scale=scale, **noise)


def _to_rgb(weight: Tensor, bias: Tensor) -> Parameters:
    return stylegan2_layers.to_rgb(weight.permute(3, 2, 0, 1) * (1 / math.sqrt(weight.shape[2])), bias)


def _style(weight: Tensor, bias: Tensor) -> Parameters:
    return {"weight": weight.T * (1 / math.sqrt(weight.shape[0])), "bias": bias + 1}


def _shortcut(weight: Tensor) -> Parameters:
    return stylegan2_layers.shortcut(weight.permute(3, 2, 0, 1), 1 / math.sqrt(weight.shape[2]))


def _number(settings: Mapping[str, Any], name: str) -> float:
    value = settings[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise CheckpointError(f"it has {name} = {value!r}, a number was expected")
    return float(value)


def _usual_taps(assumptions: Assumptions) -> list[float]:
    taps = assumptions.take(
        "resample_kernel", list(DEFAULTS["resample_kernel"]), lambda text: [float(tap) for tap in text.split(",")]
    )
    assumptions.note(f"filter {','.join(f'{tap:g}' for tap in taps)}", "resample_kernel")
    return taps


def _taps(taps: Any) -> Tensor:
    """[k, k] of sum 1 of a 1-D or 2-D list."""
    try:
        tensor = torch.tensor(taps, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        tensor = torch.zeros(0)
    if tensor.ndim not in (1, 2) or not tensor.numel() or not tensor.isfinite().all() or not tensor.sum():
        raise CheckpointError(f"it has resample_kernel = {taps!r}, a list of numbers was expected")
    square = torch.outer(tensor, tensor) if tensor.ndim == 1 else tensor
    return square / square.sum()


FORMAT = Format("TensorFlow StyleGAN2", recognises, load)
