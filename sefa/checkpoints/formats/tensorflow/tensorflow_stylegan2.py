"""StyleGAN2 as NVlabs' TensorFlow code pickles it: stylegan2, stylegan2-ada."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sefa.checkpoints.assumptions import Assumptions, mapping_rate
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, clean
from sefa.checkpoints.parts.assembly import Source, Weights, combine, count, shape_of, source
from sefa.checkpoints.parts.stylegan2_layers import (
    RGB,
    SQRT2,
    Block,
    Conv,
    Kernel,
    MappingParts,
    build,
    dense,
    kernel,
    scaled,
)
from sefa.errors import CheckpointError
from sefa.generators import StyleGAN2
from sefa.generators.common.mapping import LabelNorm

CONST = "synthesis/4x4/Const/const"
CENTER = "dlatent_avg"
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
    told = checkpoint.tensorflow.static_kwargs
    settings = {**DEFAULTS, **told}
    if "mapping_lrmul" not in told:
        settings["mapping_lrmul"] = mapping_rate(options.assumptions, settings["mapping_lrmul"])
    if "resample_kernel" not in told:
        settings["resample_kernel"] = _usual_taps(options.assumptions)
    options.assumptions.note("the original's defaults where its options are silent: lrelu, no clamp")
    for name in ("mapping_nonlinearity", "nonlinearity", "normalize_latents"):
        if settings[name] != DEFAULTS[name]:
            raise CheckpointError(f"it has {name} = {settings[name]!r}, {DEFAULTS[name]!r} was expected")
    reader = _Reader(tensors, settings)
    _, channels, height, width = shape_of(tensors, CONST, 4)
    ignored = ["lod"]  # How far a progressive training had grown; not used without growing.
    if options.noise == "none":
        ignored += [r"synthesis/noise\d+", r"synthesis/.*/noise_strength"]
    return build(
        tensors,
        reader.mapping(),
        (source(CONST), (channels, height, width)),
        reader.blocks(),
        shape_of(tensors, "synthesis/4x4/Conv/mod_weight", 2)[0],
        source(CENTER) if CENTER in tensors else None,
        options.noise,
        ignored,
    )


class _Reader:
    """The parts of a generator's variables. A dense layer's weight is [in, out], a convolution's [k, k, in, out]."""

    def __init__(self, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> None:
        self.tensors = tensors
        self.lr: float = _number(settings, "mapping_lrmul")
        self.clamp = None if settings["conv_clamp"] is None else _number(settings, "conv_clamp")
        self.taps = _taps(settings["resample_kernel"])

    def mapping(self) -> MappingParts:
        layers, widths = [], []
        for index in range(count(self.tensors, "mapping/Dense{}/weight")):
            name = f"mapping/Dense{index}"
            inputs, width = shape_of(self.tensors, f"{name}/weight", 2)
            gain = self.lr * SQRT2
            layers.append(self._dense(f"{name}/weight", f"{name}/bias", gain / math.sqrt(inputs), gain))
            widths.append(width)
        z_dim = shape_of(self.tensors, "mapping/Dense0/weight", 2)[0]
        if "mapping/LabelConcat/weight" in self.tensors:
            classes, embed_dim = shape_of(self.tensors, "mapping/LabelConcat/weight", 2)
            embedding = (source("mapping/LabelConcat/weight"), (classes, embed_dim))
            return MappingParts(z_dim - embed_dim, widths, layers, embedding, LabelNorm.JOINT)
        if "mapping/LabelEmbed/weight" in self.tensors:
            classes, embed_dim = shape_of(self.tensors, "mapping/LabelEmbed/weight", 2)
            rows = source(
                "mapping/LabelEmbed/weight",
                "mapping/LabelEmbed/bias",
                convert=lambda weight, bias: weight / math.sqrt(classes) + bias,
            )
            return MappingParts(z_dim - embed_dim, widths, layers, (rows, (classes, embed_dim)), LabelNorm.SEPARATE)
        return MappingParts(z_dim, widths, layers)

    def blocks(self) -> list[Block]:
        resolutions = [4]
        while f"synthesis/{_scope(2 * resolutions[-1])}/Conv1/weight" in self.tensors:
            resolutions.append(2 * resolutions[-1])
        return [self._block(index, f"synthesis/{_scope(size)}") for index, size in enumerate(resolutions)]

    def _block(self, index: int, scope: str) -> Block:
        conv = f"{scope}/Conv1" if index else f"{scope}/Conv"
        has_rgb = f"{scope}/ToRGB/weight" in self.tensors
        sums_images = index > 0 and "synthesis/4x4/ToRGB/weight" in self.tensors
        shortcut = None
        if index and f"{scope}/Skip/weight" in self.tensors:
            inputs = shape_of(self.tensors, f"{scope}/Skip/weight", 4)[2]
            shortcut = (scaled(_conv_weight(f"{scope}/Skip"), 1 / math.sqrt(inputs)), self._kernel())
        return Block(
            channels=shape_of(self.tensors, f"{conv}/weight", 4)[3],
            up=self._conv(f"{scope}/Conv0_up", 2 * index - 1, up=True) if index else None,
            conv=self._conv(conv, 2 * index, up=False),
            rgb=self._rgb(f"{scope}/ToRGB") if has_rgb else None,
            image_kernel=self._kernel() if sums_images else None,
            shortcut=shortcut,
        )

    def _conv(self, name: str, index: int, up: bool) -> Conv:
        inputs = shape_of(self.tensors, f"{name}/weight", 4)[2]
        weight = scaled(_conv_weight(name), 1 / math.sqrt(9 * inputs))
        if up:
            # For a convolution of the stuffed image.
            weight = combine(weight, convert=partial(torch.flip, dims=(2, 3)))
        strength, noise = f"{name}/noise_strength", f"synthesis/noise{index}"
        return Conv(
            inputs,
            weight,
            source(f"{name}/bias"),
            self._affine(name),
            source(noise, strength, convert=_times) if strength in self.tensors else None,
            self.clamp,
            self._kernel() if up else None,
        )

    def _rgb(self, name: str) -> RGB:
        _, _, inputs, channels = shape_of(self.tensors, f"{name}/weight", 4)
        weight = scaled(_conv_weight(name), 1 / math.sqrt(inputs))
        return RGB(channels, weight, source(f"{name}/bias"), self._affine(name), self.clamp)

    def _affine(self, name: str) -> Weights:
        w_dim = shape_of(self.tensors, f"{name}/mod_weight", 2)[0]
        affine = self._dense(f"{name}/mod_weight", f"{name}/mod_bias", 1 / math.sqrt(w_dim), 1.0)
        return Weights(affine.weight, combine(affine.bias, convert=_plus_one))

    def _dense(self, weight: str, bias: str, gain: float, bias_gain: float) -> Weights:
        return dense(source(weight, convert=lambda raw: raw.T), source(bias), gain, bias_gain)

    def _kernel(self) -> Kernel:
        return kernel(self.taps, source(convert=lambda: self.taps), 4.0)


def _scope(resolution: int) -> str:
    return f"{resolution}x{resolution}"


def _conv_weight(name: str) -> Source:
    return source(f"{name}/weight", convert=lambda weight: weight.permute(3, 2, 0, 1))


def _times(noise: Tensor, strength: Tensor) -> Tensor:
    return noise * strength


def _plus_one(bias: Tensor) -> Tensor:
    return bias + 1


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
