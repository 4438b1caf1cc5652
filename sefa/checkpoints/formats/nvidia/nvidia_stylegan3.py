"""StyleGAN3 as NVlabs' PyTorch code pickles it, in any configuration.

The network's modules are mapping.embed and mapping.fc0, ...; synthesis.input, the sinusoids; then the layers, whose
names begin with L0, L1, ... Filters, factors and paddings are read as stored, not designed anew.
"""

import math
import re
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, clean
from sefa.checkpoints.parts.assembly import Assembly, Parameters, Stored
from sefa.checkpoints.pickled_networks import PersistedModule
from sefa.errors import CheckpointError
from sefa.generators.common.mapping import Mapping as MappingNetwork
from sefa.generators.common.polyphase import FilteredActivation, Resampling
from sefa.generators.common.to_rgb import ToRGB
from sefa.generators.stylegan3 import StyleGAN3, SynthesisInput, SynthesisLayer, padded
from sefa_runtime.pickles.numpy_arrays import StoredArray

SQRT2 = math.sqrt(2)
INPUT = "synthesis.input"
CENTER = "mapping.w_avg"
EMBED = "mapping.embed"
LAYER_NAME = re.compile(r"L(\d+)_\d+_\d+")
FILTERS = ("up_filter", "down_filter")
# Limits far above any design, as a damaged file could ask for any amount of memory.
MAX_FACTOR = 16
MAX_PADDING = 1000


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise a synthesis network that begins with sinusoids, unless it is a StyleGAN-XL."""
    return has_sinusoids(checkpoint.persisted) and not is_stylegan_xl(checkpoint.persisted)


def has_sinusoids(network: PersistedModule | None) -> bool:
    """Return whether the network is a StyleGAN3 or a descendant of it."""
    synthesis = network.modules.get("synthesis") if network else None
    return isinstance(synthesis, PersistedModule) and isinstance(synthesis.modules.get("input"), PersistedModule)


def is_stylegan_xl(network: PersistedModule | None) -> bool:
    """Return whether the network has StyleGAN-XL's embeddings, used or not, or is of StyleGAN-XL's own class."""
    mapping = network.modules.get("mapping") if network else None
    embed = mapping.modules.get("embed") if isinstance(mapping, PersistedModule) else None
    # An nn.Embedding; a StyleGAN3 has a linear layer.
    embeds = embed is not None and not (isinstance(embed, PersistedModule) and "bias" in embed.parameters)
    return embeds or (network is not None and network.class_name == "SuperresGenerator")


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN3:
    """Build the generator."""
    assert checkpoint.persisted is not None
    return read(checkpoint.persisted)


def read(network: PersistedModule) -> StyleGAN3:
    """Build the generator of a network whose modules have their attributes."""
    reader = Reader(network, clean(network.tensors()))
    if not reader.num_classes:
        return reader.build(0)
    outputs, inputs = reader.file.shape(f"{EMBED}.weight", 2)
    weight_gain, bias_gain = gains(network, EMBED)
    make = partial(_embedding, weight_gain=weight_gain, bias_gain=bias_gain)
    return reader.build(outputs, make, weight=(f"{EMBED}.weight", (outputs, inputs)), bias=(f"{EMBED}.bias", outputs))


class Reader:
    """The layers of a pickled generator.

    Args:
        network: The pickled object.
        tensors: Its parameters and buffers, cleaned.
    """

    def __init__(self, network: PersistedModule, tensors: Mapping[str, Tensor]) -> None:
        self.network = network
        self.file = Assembly(tensors)
        self.w_dim = network.attribute("w_dim", int)
        self.num_classes = network.attribute("c_dim", int)

    def build(self, embed_dim: int, embedding: Callable[..., Parameters] = dict, **stored: Stored) -> StyleGAN3:
        """Build the generator.

        Args:
            embed_dim: Length of a label's embedding; 0 if there are no labels.
            embedding: Makes the embeddings, one row per class.
            stored: The tensors that it makes them from; see `Assembly.layer`.

        Raises:
            CheckpointError: If keys are missing, not understood, or of the wrong shape, or layers do not fit together.
        """
        center = self.file.tensors.get(CENTER)
        with torch.device("meta"):
            mapping = self._mapping(embed_dim)
            generator = StyleGAN3(mapping, *self._synthesis(), self.w_dim, center is not None and center.ndim == 2)
        if embed_dim:
            self.file.layer(mapping, embedding, **stored)
        if center is None:  # Estimating it needs the mapping network.
            self.file.layer(generator, partial(dict, center=torch.zeros(self.w_dim)))
        else:
            self.file.layer(generator, center=CENTER)
        self.file.fill(generator)
        generator.truncation_center = "stored"
        if center is None:
            generator.estimate_center()
        return generator

    def _mapping(self, embed_dim: int) -> MappingNetwork:
        z_dim = self.network.attribute("z_dim", int)
        modules = self.network.module("mapping").modules
        paths: list[str] = []
        while f"fc{len(paths)}" in modules:
            paths.append(f"mapping.fc{len(paths)}")
        widths = [self.file.shape(f"{path}.weight", 2)[0] for path in paths]
        mapping = MappingNetwork(z_dim, widths, self.num_classes, embed_dim)
        for path, layer in zip(paths, mapping.layers, strict=True):
            weight_gain, bias_gain = gains(self.network, path, SQRT2, "lrelu")
            make = partial(dense, weight_gain=weight_gain, bias_gain=bias_gain)
            self.file.layer(layer, make, weight=f"{path}.weight", bias=f"{path}.bias")
        features = [z_dim + embed_dim, *widths][-1]
        if features != self.w_dim:
            raise self.file.misfit(f"its mapping network ends in {features} features, its layers read {self.w_dim}")
        return mapping

    def _synthesis(self) -> tuple[SynthesisInput, list[SynthesisLayer], ToRGB]:
        first = self._input()
        channels, size = first.weight.shape[1], first.size
        layers: list[SynthesisLayer] = []
        *paths, last = _synthesis_layers(self.network.module("synthesis"))
        for path in paths:
            layers.append(self._layer(path, channels, size))
            channels, size = self.file.shape(f"{path}.weight", 4)[0], layers[-1].out_size
        rgb = self._rgb(last, channels, size)
        resolution = self.network.attribute("img_resolution", int)
        if size != resolution:
            raise self.file.misfit(f"its layers end in {size}x{size} pixels, but img_resolution is {resolution}")
        return first, layers, rgb

    def _input(self) -> SynthesisInput:
        module = self.network.module(INPUT)
        channels = self.file.shape(f"{INPUT}.weight", 2)[0]
        width, height = _integers(module, "size", 2)
        if width != height or width < 1:
            raise CheckpointError(f"its input has {width}x{height} pixels, a square was expected")
        sampling_rate, bandwidth = (module.attribute(name, float) for name in ("sampling_rate", "bandwidth"))
        if not 0 <= bandwidth < sampling_rate / 2:
            raise CheckpointError(f"its input has a bandwidth of {bandwidth} at a sampling rate of {sampling_rate}")
        first = SynthesisInput(channels, width, sampling_rate, bandwidth, self.w_dim)
        self._add_style(first.affine, INPUT, 4)
        return self.file.layer(
            first,
            _input,
            weight=(f"{INPUT}.weight", (channels, channels)),
            freqs=f"{INPUT}.freqs",
            phases=f"{INPUT}.phases",
            transform=f"{INPUT}.transform",
        )

    def _layer(self, path: str, inputs: int, size: int) -> SynthesisLayer:
        module = self.network.module(path)
        if module.attribute("is_torgb", bool):
            raise CheckpointError(f"{path} gives colours, but it is not the last layer")
        outputs, _, kernel, _ = self.file.shape(f"{path}.weight", 4)
        # None means that there is no filtering.
        up_taps, down_taps = (self._taps(path, which) for which in FILTERS)
        resampling = self._resampling(path, size + kernel - 1, up_taps, down_taps)
        radial = down_taps is not None and down_taps.ndim == 2
        layer = SynthesisLayer(inputs, outputs, kernel, resampling, _clamp(module), radial, self.w_dim)
        self._add_style(layer.affine, path, inputs)
        self.file.layer(
            layer.activation,
            partial(_activation, layer.activation),
            up=None if up_taps is None else (f"{path}.up_filter", None),
            down=None if down_taps is None else (f"{path}.down_filter", None),
        )
        return self.file.layer(
            layer,
            _layer,
            weight=(f"{path}.weight", (outputs, inputs, kernel, kernel)),
            bias=(f"{path}.bias", (outputs,)),
            magnitude=(f"{path}.magnitude_ema", 1),
        )

    def _taps(self, path: str, which: str) -> Tensor | None:
        """Return a filter's taps; None if there is no filter, or if it is missing, which `fill` will report."""
        if self.network.module(path).parameters.get(which, "missing") is not None:
            self.file.require(f"{path}.{which}")
        return self.file.tensors.get(f"{path}.{which}")

    def _resampling(self, path: str, size: int, up_taps: Tensor | None, down_taps: Tensor | None) -> Resampling:
        module = self.network.module(path)
        if up_taps is not None and up_taps.ndim != 1:
            raise CheckpointError(f"{path}.up_filter has shape {list(up_taps.shape)}, 1 axis was expected")
        if down_taps is not None and not (down_taps.ndim in (1, 2) and len(set(down_taps.shape)) == 1):
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
            raise self.file.misfit(f"{path} leaves nothing of {size}x{size} pixels")
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
        channels = self.file.shape(f"{path}.weight", 4)[0]
        scale = self.network.module("synthesis").attribute("output_scale", float)
        clamp = _clamp(module)
        rgb = ToRGB(padded(inputs), channels, (size, size), self.w_dim, None if clamp is None else clamp * abs(scale))
        self._add_style(rgb.affine, path, inputs)
        return self.file.layer(
            rgb,
            partial(_rgb, scale=scale),
            weight=(f"{path}.weight", (channels, inputs, 1, 1)),
            bias=f"{path}.bias",
            magnitude=(f"{path}.magnitude_ema", 1),
        )

    def _add_style(self, affine: nn.Linear, path: str, outputs: int) -> None:
        path = f"{path}.affine"
        weight_gain, bias_gain = gains(self.network, path)
        more_rows = affine.out_features - outputs
        make = partial(dense, weight_gain=weight_gain, bias_gain=bias_gain, more_rows=more_rows)
        weight, bias = (f"{path}.weight", (outputs, self.w_dim)), (f"{path}.bias", (outputs,))
        self.file.layer(affine, make, weight=weight, bias=bias)


def gains(network: PersistedModule, path: str, gain: float = 1.0, activation: str = "linear") -> tuple[float, float]:
    """Return the factors of a linear layer's weight and bias.

    Args:
        network: The pickled object.
        path: The layer's path.
        gain: A further factor for both.
        activation: The activation that must follow the layer.

    Raises:
        CheckpointError: If the layer is missing, or another activation follows it.
    """
    module = network.module(path)
    found = module.attribute("activation", str)
    if found != activation:
        raise CheckpointError(f"{path} has the activation {found}, {activation} was expected")
    return module.attribute("weight_gain", float) * gain, module.attribute("bias_gain", float) * gain


def dense(weight: Tensor, bias: Tensor, weight_gain: float, bias_gain: float, more_rows: int = 0) -> Parameters:
    """Return the parameters of a linear layer with raw weight [out, in] and `more_rows` rows of zeros appended."""
    return {
        "weight": append_zeros(weight * weight_gain, more_rows),
        "bias": append_zeros(bias * bias_gain, more_rows),
    }


def append_zeros(tensor: Tensor, *counts: int) -> Tensor:
    """Return `tensor` with zeros appended along its first axes: `counts` says how many for each."""
    after = [*counts, *[0] * (tensor.ndim - len(counts))]
    return F.pad(tensor, [amount for count in reversed(after) for amount in (0, count)])


def _embedding(weight: Tensor, bias: Tensor, weight_gain: float, bias_gain: float) -> Parameters:
    """Return the embeddings, one row per class: labels are one-hot, so each class is a column of the weight."""
    return {"embedding": (weight * weight_gain).T + bias * bias_gain}


def _input(weight: Tensor, freqs: Tensor, phases: Tensor, transform: Tensor) -> Parameters:
    channels = len(weight)
    effective = append_zeros(weight / math.sqrt(channels), padded(channels) - channels)[:, :, None, None]
    return {"weight": effective, "freqs": freqs, "phases": phases, "transform": transform}


def _layer(weight: Tensor, bias: Tensor, magnitude: Tensor) -> Parameters:
    outputs, inputs = weight.shape[:2]
    more_inputs, more_outputs = padded(inputs) - inputs, padded(outputs) - outputs
    # Demodulation undoes any scale of an output's weights; this scale makes their squares sum to 1.
    normed = weight / weight.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
    normed = append_zeros(normed, more_outputs, more_inputs)
    return {
        "weight": normed,
        "energy": (normed.square().sum(dim=(2, 3)) * magnitude / 2).T,  # Its rsqrt contains √2/√magnitude.
        "bias": append_zeros(bias * SQRT2, more_outputs),
    }


def _activation(activation: FilteredActivation, up: Tensor | None = None, down: Tensor | None = None) -> Parameters:
    return activation.weights(torch.ones(1) if up is None else up, torch.ones(1) if down is None else down)


def _rgb(weight: Tensor, bias: Tensor, magnitude: Tensor, scale: float) -> Parameters:
    outputs, inputs = weight.shape[:2]
    effective = weight.reshape(outputs, inputs) * (scale / math.sqrt(inputs)) / magnitude.sqrt()
    return {"weight": append_zeros(effective, 0, padded(inputs) - inputs), "bias": bias * scale}


def _synthesis_layers(synthesis: PersistedModule) -> list[str]:
    """Return the paths of the layers, in order.

    Raises:
        CheckpointError: If there are none, or the file's list of them is not a list of names.
    """
    matches = [match for name in synthesis.modules if (match := LAYER_NAME.fullmatch(name))]
    found = [match[0] for match in sorted(matches, key=lambda match: int(match[1]))]
    names = synthesis.attributes.get("layer_names", found)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"its layers are {names!r}, a list of names was expected")
    return [f"synthesis.{name}" for name in names]


def _integers(module: PersistedModule, name: str, count: int) -> list[int]:
    """Return the integers in an attribute that is a number, or an array or sequence of `count` numbers.

    Raises:
        CheckpointError: If it is something else.
    """
    value = module.attribute(name)
    flat = np.asarray(value.array if isinstance(value, StoredArray) else value, dtype=object).reshape(-1).tolist()
    if len(flat) != count or not all(
        isinstance(item, int) or (isinstance(item, float) and item.is_integer()) for item in flat
    ):
        raise CheckpointError(f"its {module.class_name} has {name} = {flat!r}, {count} integers were expected")
    return [int(item) for item in flat]


def _clamp(module: PersistedModule) -> float | None:
    return None if module.attribute("conv_clamp") is None else float(module.attribute("conv_clamp", float))


FORMAT = Format("NVIDIA StyleGAN3", recognises, load)
