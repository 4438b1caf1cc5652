"""PGAN from facebookresearch's pytorch_GAN_zoo.

A state dict, with the trainer's configuration beside it. The layers are formatLayer and groupScale0.0, then two of
scaleLayers for each further level; toRGBLayers are the levels' 1x1 convolutions to an image.
"""

import math
from collections.abc import Mapping
from functools import partial
from itertools import product
from reprlib import repr as short
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.parts.assembly import Assembly, Parameters
from sefa.checkpoints.parts.growing import SQRT2, Growth, count_levels, equalized, highest, up_kernel, weight_and_bias
from sefa.checkpoints.sizes import check_class_codes
from sefa.errors import CheckpointError
from sefa.generators.pggan import PGGAN
from sefa_runtime.json_text import read_json
from sefa_runtime.pickles.placeholders import Placeholder

DENSE = "formatLayer.module"
CONFIG = "config.json"  # beside a file of weights alone, such as .safetensors
BASE = (4, 4)
# Whether a tanh ends the generator, by the loss that it was trained with.
TANH = {"WGANGP": False, "Logistic": False, "MSE": True, "DCGAN": True}
MAX_CLASSES = 2**16


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the format's name for the first layer."""
    return f"{DENSE}.weight" in checkpoint.stored


def load(checkpoint: Checkpoint, options: LoadOptions) -> PGGAN:
    """Build the generator."""
    tensors, config = checkpoint.tensors, config_of(checkpoint)
    levels = count_levels(
        highest(tensors, r"toRGBLayers\.(\d{1,3})\..*"), 1 + highest(tensors, r"scaleLayers\.(\d{1,3})\..*")
    )
    layers = [DENSE, "groupScale0.0.module"]
    layers += [f"scaleLayers.{level}.{index}.module" for level in range(levels - 1) for index in (0, 1)]
    images = [f"toRGBLayers.{level}.module" for level in range(levels)]
    file = Assembly(tensors)
    file.require(*(key for name in (*layers, *images) for key in weight_and_bias(name).values()))
    inputs = file.shape(f"{DENSE}.weight", 2)[1]
    class_codes = _class_codes(file, config, inputs)
    widths = [file.shape(f"{name}.bias", 1)[0] for name in layers]
    widths[0] = _channels(file, widths[0])
    equalizes = setting(config, "equalizedlR", bool, True)
    usual = {"equalizedlR": True, "leakyReluLeak": 0.2, "alpha": 0.0, "categoryVectorDim": 0}
    silent = [f"{name} {value:g}" for name, value in usual.items() if name not in config]
    if silent:
        options.assumptions.note(f"where its config is silent: {', '.join(silent)}")
    growth = _growth(config, levels)
    classes, class_dim = (0, 0) if class_codes is None else class_codes.shape
    slope, tanh = setting(config, "leakyReluLeak", float, 0.2), ends_with_tanh(config)
    with torch.device("meta"):
        to_image = growth.to_image(widths[1::2], file.shape(f"{images[0]}.bias", 1)[0])
        generator = PGGAN(inputs - class_dim, (classes, class_dim), BASE, widths, to_image, slope=slope, tanh=tanh)
    if class_codes is not None:
        file.layer(generator, partial(dict, class_codes=class_codes))
    file.layer(generator.dense, partial(_layer, equalizes=equalizes), **weight_and_bias(DENSE))
    for k, conv in enumerate(generator.convs, start=1):
        make = partial(_layer if k % 2 else _up_conv, equalizes=equalizes)
        weight = (f"{layers[k]}.weight", (widths[k], widths[k - 1], 3, 3))
        file.layer(conv, make, weight=weight, bias=f"{layers[k]}.bias")
    for conv, name, share in growth.images(generator.to_image, images):
        make = partial(_image, equalizes=equalizes, share=share)
        file.layer(conv, make, **weight_and_bias(name))
    return file.fill(generator)


def _layer(weight: Tensor, bias: Tensor, equalizes: bool) -> Parameters:
    """Scale weight and bias alike: all layers, including those to an image, compute (W·x + b)·√(2/fan_in)."""
    if not equalizes:
        return {"weight": weight, "bias": bias}
    return {"weight": equalized(weight), "bias": bias * (SQRT2 / math.sqrt(weight[0].numel()))}


def _up_conv(weight: Tensor, bias: Tensor, equalizes: bool) -> Parameters:
    layer = _layer(weight, bias, equalizes)
    return {**layer, "weight": up_kernel(layer["weight"], fused=False)}


def _image(weight: Tensor, bias: Tensor, equalizes: bool, share: float) -> Parameters:
    return {name: tensor * share for name, tensor in _layer(weight, bias, equalizes).items()}


def _channels(file: Assembly, rows: int) -> int:
    """Return how many channels the first layer outputs."""
    channels, rest = divmod(rows, BASE[0] * BASE[1])
    if rest or not channels:
        raise file.misfit(f"{DENSE}.bias has {rows} values, which are no channels of {BASE[0]}x{BASE[1]}")
    return channels


def config_of(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Return the trainer's configuration.

    Raises:
        CheckpointError: If there is none, or if the original would render no image with it.
    """
    content = checkpoint.beside.get("config")
    config = content.state if isinstance(content, Placeholder) else content
    path = checkpoint.path.with_name(CONFIG)
    if config is None and path.exists():
        try:
            config = read_json(path)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"its {CONFIG} cannot be read: {error}") from error
    if not isinstance(config, Mapping):
        raise CheckpointError(
            "missing config, which stands beside the weights where pytorch_GAN_zoo saves them: without it, the image's "
            f"blending and activation are unknown; put its entries, as JSON, at {path}"
        )
    if setting(config, "perChannelNormalization", bool, True) is False:
        raise CheckpointError(
            "its config has perChannelNormalization = False, with which the original renders no image"
        )
    return config


def setting(config: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    """Return an entry of the configuration.

    Raises:
        CheckpointError: If it is of another type.
    """
    value = config.get(name, default)
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < 2**63 else math.inf
    if type(value) is not kind:
        raise CheckpointError(f"its config has {name} = {short(value)}, {kind.__name__} was expected")
    return value


def _growth(config: Mapping[str, Any], levels: int) -> Growth:
    """Read `alpha`, the image's share of the level before; the first level has none before it."""
    alpha = setting(config, "alpha", float, 0.0)
    if not 0 <= alpha <= 1 or (alpha and levels == 1):
        raise CheckpointError(f"its config has alpha = {alpha:g} for {levels} levels, 0 to 1 was expected")
    return Growth(levels, alpha, 1)


def ends_with_tanh(config: Mapping[str, Any]) -> bool:
    """Return whether a tanh ends the generator, which the loss decides.

    Raises:
        CheckpointError: If the loss is none of the original's.
    """
    loss = setting(config, "lossCriterion", str, "")
    if loss not in TANH:
        raise CheckpointError(f"its config has lossCriterion = {loss!r}, one of {', '.join(TANH)} was expected")
    return TANH[loss]


def _class_codes(file: Assembly, config: Mapping[str, Any], inputs: int) -> Tensor | None:
    """Return what follows z for each class, [num_classes, length]: a one-hot vector per attribute; None without labels.

    Classes are the combinations of the attributes' values; the last attribute varies fastest.
    """
    length = label_length(file, config, inputs)
    if not length:
        return None
    sizes = attribute_sizes(config.get("attribKeysOrder"), length)
    if math.prod(sizes) > MAX_CLASSES:
        raise CheckpointError(
            f"its {len(sizes)} attributes have {math.prod(sizes)} combinations; up to {MAX_CLASSES} can be numbered"
        )
    check_class_codes(math.prod(sizes), length)
    rows = [F.one_hot(torch.arange(size), size).float() for size in sizes]
    return torch.stack([torch.cat(row) for row in product(*rows)])  # [num_classes, length]


def label_length(file: Assembly, config: Mapping[str, Any], inputs: int) -> int:
    """Return how many of the first layer's inputs, the last ones, are the label.

    Raises:
        CheckpointError: If the configuration says otherwise than the weights.
    """
    length: int = setting(config, "categoryVectorDim", int, 0)
    noise = setting(config, "noiseVectorDim", int, inputs - length)
    if length < 0 or noise < 1 or noise + length != inputs:
        raise file.misfit(
            f"its config has noiseVectorDim = {noise} and categoryVectorDim = {length}, "
            f"but its first layer takes {inputs} values"
        )
    return length


def attribute_sizes(attributes: object, length: int) -> list[int]:
    """Return how many values each attribute has, in the order of their one-hot vectors."""
    if attributes is None:
        return [length]
    sizes = []
    if isinstance(attributes, Mapping):
        try:
            ordered = sorted(attributes.values(), key=lambda attribute: int(attribute["order"]))
            sizes = [len(attribute["values"]) for attribute in ordered]
        except (LookupError, TypeError, ValueError):  # A file may contain anything here.
            sizes = []
    if sum(sizes) != length or 0 in sizes:
        raise CheckpointError(f"its config's attribKeysOrder does not tell what {length} values of the label mean")
    return sizes


FORMAT = Format("pytorch_GAN_zoo PGAN", recognises, load)
