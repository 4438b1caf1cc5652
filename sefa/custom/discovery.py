"""Find out, by trying, what a user's module takes and gives: the options that it needs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sefa.custom.calls.call_text import parse_call
from sefa.custom.custom_generator import CustomGenerator
from sefa.custom.probing import trial_codes
from sefa.custom.purity import RandomNumbersError
from sefa.custom.style_space.search import AUTO, FoundLayers, find_layers
from sefa.custom.user_code import kind
from sefa.custom.wrapping import wrap
from sefa.errors import ArgumentError

# Attributes that usually say how long the latent is.
LATENT_NAMES = (
    "z_dim",
    "latent_dim",
    "latent_size",
    "z_size",
    "dim_z",
    "nz",
    "noise_dim",
    "style_dim",
    "latent_channels",
)
MAX_TRIED = 24  # lengths of the latent
IMAGES = 16  # in which values are looked at
FREEZING_SEED = 0


@dataclass(frozen=True)
class Discovery:
    """What was found out of a user's module.

    Attributes:
        generator: The module as a generator, without layers.
        layers: The layers that read its style code or its latent.
        options: Arguments of `sefa.wrap` that were found, and that the caller did not give.
        values: The smallest and the largest value in its images, as the module gives them.
    """

    generator: CustomGenerator
    layers: FoundLayers
    options: dict[str, Any]
    values: tuple[float, float]


def discover(module: nn.Module, given: Mapping[str, Any], mapping: str | None = None) -> Discovery:
    """Find out what a module takes and gives.

    Args:
        module: The module.
        given: Arguments of `sefa.wrap` that are known.
        mapping: Name of the mapping, if it is known.

    Raises:
        ArgumentError: If no way of calling it gives images; the message is of the likeliest way.
    """
    classes = [given["num_classes"]] if "num_classes" in given else [0, *_class_counts(module)]
    if given.get("call") is not None and "num_classes" not in given:
        classes = classes[1:] if parse_call(given["call"]).takes_label else [0]
    refused: list[ArgumentError] = []
    for num_classes in classes:
        for latent_dim in [given["latent_dim"]] if "latent_dim" in given else _latent_dims(module, num_classes):
            tried = {"latent_dim": latent_dim, "num_classes": num_classes}
            try:
                generator, frozen = _wrapped(module, {**given, **tried})
            except ArgumentError as error:
                refused.append(error)
                continue
            options = {key: value for key, value in tried.items() if key not in given and value} | frozen
            values = _values(generator)
            if given.get("image_range") is None and values[0] >= 0 and values[1] <= 1:
                options["image_range"] = (0.0, 1.0)
            return Discovery(generator, find_layers(generator, mapping or AUTO), options, values)
    raise _likeliest(module, refused)


def _wrapped(module: nn.Module, arguments: dict[str, Any]) -> tuple[CustomGenerator, dict[str, int]]:
    """Wrap a module, with its random numbers frozen if it draws some."""
    try:
        return wrap(module, layers=[], **arguments), {}
    except RandomNumbersError:
        if arguments.get("freeze_noise") is not None:
            raise
    return wrap(module, layers=[], **{**arguments, "freeze_noise": FREEZING_SEED}), {"freeze_noise": FREEZING_SEED}


def _likeliest(module: nn.Module, refused: list[ArgumentError]) -> ArgumentError:
    """Return the error that got furthest: one that is not about how the module is called."""
    if not refused:
        return ArgumentError(
            f"what {kind(module)} reads cannot be found out: say how long its latent is with --latent-dim D, and how "
            "many classes it has with --num-classes N"
        )
    return next((error for error in refused if "cannot be called" not in str(error)), refused[0])


def _latent_dims(module: nn.Module, num_classes: int) -> list[int]:
    """Return lengths that the latent may have, the likeliest first."""
    named = [vars(module).get(name) for name in LATENT_NAMES]
    # A layer may read the latent alone, or with a one-hot class or its embedding beside it.
    beside = [0, num_classes, *(one.embedding_dim for one in module.modules() if isinstance(one, nn.Embedding))]
    sizes = [size - other for size in _sizes(module) for other in dict.fromkeys(beside if num_classes else [0])]
    return list(dict.fromkeys(size for size in (*named, *sizes) if type(size) is int and size > 1))[:MAX_TRIED]


def _sizes(module: nn.Module) -> Iterator[int]:
    """Yield how much each layer with a weight may read: what torch's layers say, or their weights' first two axes."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            yield layer.in_features
        elif isinstance(layer, nn.modules.conv._ConvNd):
            yield layer.in_channels
        elif not isinstance(layer, nn.Embedding):
            shapes = [one.shape for one in layer.parameters(recurse=False) if one.ndim >= 2]
            yield from (shape[axis] for shape in shapes for axis in (1, 0))


def _class_counts(module: nn.Module) -> list[int]:
    """Return the sizes of the module's embeddings, which are usually of classes."""
    return list(dict.fromkeys(one.num_embeddings for one in module.modules() if isinstance(one, nn.Embedding)))


@torch.no_grad()
def _values(generator: CustomGenerator) -> tuple[float, float]:
    images = generator.decode(trial_codes(IMAGES, generator.z_dim, generator.num_classes)[:, None])
    low, high = generator.image_range
    images = (images + 1) * ((high - low) / 2) + low
    return float(images.min()), float(images.max())
