"""StyleGAN3 as NVlabs' PyTorch code pickles it, in any configuration.

Filters, factors and paddings are read as they are stored, not designed anew.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, clean
from sefa.checkpoints.parts.assembly import Source, assemble, check_keys, combine, shape_of, source
from sefa.checkpoints.pickled_networks import PersistedModule
from sefa.errors import CheckpointError
from sefa.generators.common.mapping import Mapping as MappingNetwork
from sefa.generators.common.polyphase import Resampling
from sefa.generators.common.to_rgb import ToRGB
from sefa.generators.stylegan3 import StyleGAN3, SynthesisInput, SynthesisLayer, padded
from sefa_runtime.pickles.numpy_arrays import StoredArray

SQRT2 = math.sqrt(2)
INPUT = "synthesis.input"
CENTER = "mapping.w_avg"
EMBED = "mapping.embed"
LAYER_NAME = re.compile(r"L(\d+)_\d+_\d+")
FILTERS = ("up_filter", "down_filter")
# What the designs keep far below; a damaged file could ask for any amount of memory.
MAX_FACTOR = 16
MAX_PADDING = 1000


@dataclass(frozen=True)
class Embedding:
    """What the labels become before they join the latent: [num_classes, dim]."""

    table: Source
    dim: int


def recognises(checkpoint: Checkpoint) -> bool:
    """A synthesis network that begins with sinusoids; StyleGAN-XL's mapping network has more layers."""
    return has_sinusoids(checkpoint.persisted) and not is_stylegan_xl(checkpoint.persisted)


def has_sinusoids(network: PersistedModule | None) -> bool:
    """Whether this is a StyleGAN3 or a descendant of it."""
    synthesis = network.modules.get("synthesis") if network else None
    return isinstance(synthesis, PersistedModule) and isinstance(synthesis.modules.get("input"), PersistedModule)


def is_stylegan_xl(network: PersistedModule | None) -> bool:
    """Whether labels are embedded as StyleGAN-XL does it, or the class is its own."""
    mapping = network.modules.get("mapping") if network else None
    embeds = isinstance(mapping, PersistedModule) and "embed_proj" in mapping.modules
    return embeds or (network is not None and network.class_name == "SuperresGenerator")


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN3:
    """Build the generator."""
    network = checkpoint.persisted
    assert network is not None
    tensors = clean(network.tensors())
    if not network.attribute("c_dim", int):
        return build(network, tensors, None)
    # Labels are one-hot: each class is a column of the weight.
    table = combine(*dense(network, EMBED), convert=lambda weight, bias: weight.T + bias)
    return build(network, tensors, Embedding(table, shape_of(tensors, f"{EMBED}.weight", 2)[0]))


def build(network: PersistedModule, tensors: Mapping[str, Tensor], embedding: Embedding | None) -> StyleGAN3:
    """Assemble the generator.

    Args:
        network: The pickled object.
        tensors: Its parameters and buffers, cleaned.
        embedding: Of the labels; None if there are none.

    Raises:
        CheckpointError: If keys are missing, not understood, or of the wrong shape, or layers do not fit together.
    """
    reader = _Reader(network, tensors)
    check_keys(tensors, [*reader.keys(), *(embedding.table.keys if embedding else ())], [re.escape(CENTER)])
    with torch.device("meta"):
        generator = reader.generator(embedding)
    assemble(generator, reader.plan, tensors)
    generator.truncation_center = "stored"
    if CENTER not in tensors:
        generator.estimate_center()
    return generator


def dense(
    network: PersistedModule, path: str, gain: float = 1.0, activation: str = "linear", more_rows: int = 0
) -> tuple[Source, Source]:
    """Effective weight [out, in] and bias [out] of a linear layer.

    Args:
        network: The pickled object.
        path: Of the layer.
        gain: Factor behind it.
        activation: What must follow it.
        more_rows: Zeros to append to `out`.

    Raises:
        CheckpointError: If the layer is missing, or another activation follows.
    """
    module = network.module(path)
    found = module.attribute("activation", str)
    if found != activation:
        raise CheckpointError(f"{path} has the activation {found}, {activation} was expected")
    weight_gain, bias_gain = (module.attribute(name, float) * gain for name in ("weight_gain", "bias_gain"))
    return (
        source(f"{path}.weight", convert=lambda weight: append_zeros(weight * weight_gain, more_rows)),
        source(f"{path}.bias", convert=lambda bias: append_zeros(bias * bias_gain, more_rows)),
    )


def append_zeros(tensor: Tensor, *counts: int) -> Tensor:
    """`tensor` with zeros behind it along its first axes, as many as are given for each."""
    behind = [*counts, *[0] * (tensor.ndim - len(counts))]
    return F.pad(tensor, [amount for count in reversed(behind) for amount in (0, count)])


class _Reader:
    """Makes modules without values, and notes where these come from.

    Attributes:
        plan: Of the modules made so far.
    """

    def __init__(self, network: PersistedModule, tensors: Mapping[str, Tensor]) -> None:
        self.network = network
        self.tensors = tensors
        self.plan: dict[str, Source] = {}
        self.w_dim = network.attribute("w_dim", int)
        self.mapping_layers = _mapping_layers(network.module("mapping"))
        self.layers = _synthesis_layers(network.module("synthesis"))

    def keys(self) -> list[str]:
        """Keys that the file must have, beside those of the labels."""
        names = {
            INPUT: ["weight", "freqs", "phases", "transform", "affine.weight", "affine.bias"],
            **{path: ["weight", "bias"] for path in self.mapping_layers},
        }
        for path in self.layers:
            parameters = self.network.module(path).parameters
            # None stands for a filter that changes nothing.
            filters = [name for name in FILTERS if parameters.get(name, "missing") is not None]
            names[path] = ["weight", "bias", "magnitude_ema", "affine.weight", "affine.bias", *filters]
        return [f"{path}.{name}" for path in names for name in names[path]]

    def generator(self, embedding: Embedding | None) -> StyleGAN3:
        """All of it.

        Raises:
            CheckpointError: If the sizes do not fit together.
        """
        mapping = self._mapping(embedding)
        first = self._input()
        channels, size = shape_of(self.tensors, f"{INPUT}.weight", 2)[0], first.size
        layers: list[SynthesisLayer] = []
        for path in self.layers[:-1]:
            layers.append(self._layer(path, f"layers.{len(layers)}", channels, size))
            channels, size = shape_of(self.tensors, f"{path}.weight", 4)[0], layers[-1].out_size
        rgb = self._rgb(self.layers[-1], channels, size)
        resolution = self.network.attribute("img_resolution", int)
        if size != resolution:
            raise CheckpointError(f"its layers end in {size}x{size} pixels, but img_resolution is {resolution}")
        center = self.tensors.get(CENTER)
        # A centre that is to be estimated needs the mapping network first.
        self.plan["center"] = source(convert=lambda: torch.zeros(self.w_dim)) if center is None else source(CENTER)
        return StyleGAN3(mapping, first, layers, rgb, self.w_dim, center is not None and center.ndim == 2)

    def _mapping(self, embedding: Embedding | None) -> MappingNetwork:
        z_dim, num_classes = (self.network.attribute(name, int) for name in ("z_dim", "c_dim"))
        if embedding:
            self.plan["mapping.embedding"] = embedding.table
        for index, path in enumerate(self.mapping_layers):
            self._plan_dense(f"mapping.layers.{index}", dense(self.network, path, SQRT2, "lrelu"))
        embed_dim = embedding.dim if embedding else 0
        widths = [shape_of(self.tensors, f"{path}.weight", 2)[0] for path in self.mapping_layers]
        features = [z_dim + embed_dim, *widths][-1]
        if features != self.w_dim:
            raise CheckpointError(f"its mapping network ends in {features} features, its layers read {self.w_dim}")
        return MappingNetwork(z_dim, widths, num_classes, embed_dim)

    def _input(self) -> SynthesisInput:
        module = self.network.module(INPUT)
        channels = shape_of(self.tensors, f"{INPUT}.weight", 2)[0]
        more = padded(channels) - channels
        width, height = _integers(module, "size", 2)
        if width != height or width < 1:
            raise CheckpointError(f"its input has {width}x{height} pixels, a square was expected")
        sampling_rate, bandwidth = (module.attribute(name, float) for name in ("sampling_rate", "bandwidth"))
        if not 0 <= bandwidth < sampling_rate / 2:
            raise CheckpointError(f"its input has a bandwidth of {bandwidth} at a sampling rate of {sampling_rate}")

        def effective(weight: Tensor) -> Tensor:
            return append_zeros(weight / math.sqrt(channels), more)[:, :, None, None]

        self._plan_dense("input.affine", dense(self.network, f"{INPUT}.affine"))
        self.plan["input.weight"] = source(f"{INPUT}.weight", convert=effective)
        for name in ("freqs", "phases", "transform"):
            self.plan[f"input.{name}"] = source(f"{INPUT}.{name}")
        return SynthesisInput(channels, width, sampling_rate, bandwidth, self.w_dim)

    def _layer(self, path: str, name: str, inputs: int, size: int) -> SynthesisLayer:
        module = self.network.module(path)
        if module.attribute("is_torgb", bool):
            raise CheckpointError(f"{path} gives colours, but it is not the last layer")
        outputs, _, kernel, _ = shape_of(self.tensors, f"{path}.weight", 4)
        more_inputs, more_outputs = padded(inputs) - inputs, padded(outputs) - outputs
        up_taps, down_taps = (self.tensors.get(f"{path}.{which}") for which in FILTERS)
        resampling = self._resampling(path, size + kernel - 1, up_taps, down_taps)

        # Demodulation undoes any scale of an output's weights; this one keeps its sums around 1.
        def weight(raw: Tensor) -> Tensor:
            return append_zeros(raw / raw.square().sum(dim=(1, 2, 3), keepdim=True).sqrt(), more_outputs, more_inputs)

        def energy(raw: Tensor, magnitude: Tensor) -> Tensor:
            return (weight(raw).square().sum(dim=(2, 3)) * magnitude / 2).T  # Its rsqrt contains √2/√magnitude.

        self._plan_dense(f"{name}.affine", dense(self.network, f"{path}.affine", more_rows=more_inputs))
        self.plan[f"{name}.weight"] = source(f"{path}.weight", convert=weight)
        self.plan[f"{name}.energy"] = source(f"{path}.weight", f"{path}.magnitude_ema", convert=energy)
        self.plan[f"{name}.bias"] = source(
            f"{path}.bias", convert=lambda bias: append_zeros(bias * SQRT2, more_outputs)
        )
        radial = down_taps is not None and down_taps.ndim == 2
        layer = SynthesisLayer(inputs, outputs, kernel, resampling, _clamp(module), radial, self.w_dim)
        filters = [_taps(path, which, self.tensors) for which in FILTERS]
        for part in layer.activation.state_dict():
            self.plan[f"{name}.activation.{part}"] = combine(
                *filters, convert=lambda up, down, part=part: layer.activation.weights(up, down)[part]
            )
        return layer

    def _resampling(self, path: str, size: int, up_taps: Tensor | None, down_taps: Tensor | None) -> Resampling:
        module = self.network.module(path)
        if up_taps is not None and up_taps.ndim != 1:
            raise CheckpointError(f"{path}.up_filter has shape {list(up_taps.shape)}, 1 axis was expected")
        if down_taps is not None and list(down_taps.shape) not in ([len(down_taps)], [len(down_taps)] * 2):
            raise CheckpointError(
                f"{path}.down_filter has shape {list(down_taps.shape)}, a line or square was expected"
            )
        up, down = (_integers(module, name, 1)[0] for name in ("up_factor", "down_factor"))
        if not (1 <= up <= MAX_FACTOR and 1 <= down <= MAX_FACTOR):
            raise CheckpointError(f"{path} resamples by {up}/{down}, factors in 1..{MAX_FACTOR} were expected")
        left, right, top, bottom = _integers(module, "padding", 4)
        if (left, right) != (top, bottom) or max(abs(left), abs(right)) > MAX_PADDING:
            raise CheckpointError(f"{path} pads by {[left, right, top, bottom]}, both axes alike were expected")
        lengths = (1 if taps is None else len(taps) for taps in (up_taps, down_taps))
        resampling = Resampling(size, up, down, (left, right), *lengths)
        if resampling.out_size < 1:
            raise CheckpointError(f"{path} leaves nothing of {size}x{size} pixels")
        return resampling

    def _rgb(self, path: str, inputs: int, size: int) -> ToRGB:
        module = self.network.module(path)
        factors = [_integers(module, name, 1)[0] for name in ("up_factor", "down_factor")]
        if (
            not module.attribute("is_torgb", bool)
            or factors != [1, 1]
            or any(_integers(module, "padding", 4))
            or any(module.parameters.get(which) is not None for which in FILTERS)
        ):
            raise CheckpointError(f"{path}, its last layer, is not one that only mixes channels to colours")
        channels = shape_of(self.tensors, f"{path}.weight", 4)[0]
        more_inputs = padded(inputs) - inputs
        scale = self.network.module("synthesis").attribute("output_scale", float)

        def weight(raw: Tensor, magnitude: Tensor) -> Tensor:
            effective = raw.reshape(raw.shape[:2]) * (scale / math.sqrt(inputs)) / magnitude.sqrt()
            return append_zeros(effective, 0, more_inputs)

        self._plan_dense("rgb.affine", dense(self.network, f"{path}.affine", more_rows=more_inputs))
        self.plan["rgb.weight"] = source(f"{path}.weight", f"{path}.magnitude_ema", convert=weight)
        self.plan["rgb.bias"] = source(f"{path}.bias", convert=lambda bias: bias * scale)
        clamp = _clamp(module)
        return ToRGB(padded(inputs), channels, (size, size), self.w_dim, None if clamp is None else clamp * abs(scale))

    def _plan_dense(self, name: str, layer: tuple[Source, Source]) -> None:
        self.plan[f"{name}.weight"], self.plan[f"{name}.bias"] = layer


def _mapping_layers(mapping: PersistedModule) -> list[str]:
    """Paths of the mapping network's layers."""
    paths: list[str] = []
    while f"fc{len(paths)}" in mapping.modules:
        paths.append(f"mapping.fc{len(paths)}")
    return paths


def _synthesis_layers(synthesis: PersistedModule) -> list[str]:
    """Paths of the layers, in order.

    Raises:
        CheckpointError: If the file lists none, or others than it has.
    """
    matches = [match for name in synthesis.modules if (match := LAYER_NAME.fullmatch(name))]
    found = [match[0] for match in sorted(matches, key=lambda match: int(match[1]))]
    names = synthesis.attributes.get("layer_names", found)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"its layers are {names!r}, a list of names was expected")
    return [f"synthesis.{name}" for name in names]


def _integers(module: PersistedModule, name: str, count: int) -> list[int]:
    """An attribute that is a number, or an array or sequence of numbers.

    Raises:
        CheckpointError: If it is something else.
    """
    value = module.attribute(name)
    flat = np.asarray(value.array if isinstance(value, StoredArray) else value, dtype=object).reshape(-1).tolist()
    if len(flat) != count or not all(isinstance(item, int | float) and item == int(item) for item in flat):
        raise CheckpointError(f"its {module.class_name} has {name} = {flat!r}, {count} integers were expected")
    return [int(item) for item in flat]


def _taps(path: str, which: str, tensors: Mapping[str, Tensor]) -> Source:
    """A filter, or one that changes nothing where there is none."""
    key = f"{path}.{which}"
    return source(key) if key in tensors else source(convert=lambda: torch.ones(1))


def _clamp(module: PersistedModule) -> float | None:
    return None if module.attribute("conv_clamp") is None else float(module.attribute("conv_clamp", float))


FORMAT = Format("NVIDIA StyleGAN3", recognises, load)
