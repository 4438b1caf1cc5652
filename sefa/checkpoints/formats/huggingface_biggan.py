"""Hugging Face's pytorch_pretrained_biggan: DeepMind's BigGAN-deep.

A state dict, pytorch_model.bin, with config.json beside it, which says what no shape shows: which blocks double the
size. Weights are divided by their spectral norm, which is computed from the vectors stored beside them.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.parts.assembly import Assembly, Parameters, Stored
from sefa.checkpoints.parts.biggan_layers import bottom_width, check_variances
from sefa.checkpoints.parts.spectral_norm import SpectralLayers, dense, normalized
from sefa.errors import CheckpointError
from sefa.generators.biggan import Attention
from sefa.generators.biggan_deep import (
    AttentionSizes,
    BigGANDeep,
    DeepBlockSizes,
    SelectedConditionalNorm,
)
from sefa_runtime.json_text import read_json

MODEL = "pytorch_model.bin"
CONFIG = "config.json"
EMBEDDING = "embeddings.weight"
LINEAR = "generator.gen_z"
LAST_NORM = "generator.bn"
LAST_CONV = "generator.conv_to_rgb"
LAYER = "generator.layers.{}"
ATTENTION = LAYER + ".snconv1x1_{}"
COLORS = 3  # how many of the last convolution's channels are the image


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the format's names for the class embedding and the first layer."""
    tensors = checkpoint.stored
    return EMBEDDING in tensors and any(key.startswith(f"{LINEAR}.") for key in tensors)


def load(checkpoint: Checkpoint, options: LoadOptions) -> BigGANDeep:
    """Build the generator."""
    reader = _Reader(checkpoint.tensors)
    config = _Config.read(_config_path(checkpoint.path))
    config.check_fits(reader)
    return reader.generator(config)


class _Reader:
    """The layers of a state dict."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        check_variances(tensors, "running_vars")
        self.file = file = Assembly(tensors)
        self.spectral = SpectralLayers(file)
        # Whether weights come with both vectors for their spectral norm; otherwise they are already normalised.
        self.normalizable = any(key.endswith(".weight_v") for key in tensors)
        # The sizes of attention, or a block's input, hidden and output channels.
        self.layers = [self._layer_sizes(index) for index in range(_count_layers(tensors))]
        first = next((layer[0] for layer in self.layers if isinstance(layer, tuple)), None)
        if first is None:
            raise file.misfit("it has no blocks")
        self.embed_dim, self.num_classes = file.shape(EMBEDDING, 2)
        features, condition_dim = self.spectral.shape(LINEAR, 2)
        self.z_dim = condition_dim - self.embed_dim
        if self.z_dim <= 0:
            raise file.misfit(f"{LINEAR} reads {condition_dim} numbers, a latent and {self.embed_dim} were expected")
        self.bottom_width = bottom_width(file, features, first)
        self.rows = file.shape(f"{LAST_NORM}.running_means", 2)[0]  # How many statistics each batch norm has.
        if self.rows < 2:
            raise file.misfit("its batch norms have one row of statistics, several were expected")
        self.channel_width = self.spectral.shape(LAST_CONV, 4)[0]

    def generator(self, config: "_Config") -> BigGANDeep:
        """Build the generator."""
        doubles = iter(config.doubles)
        sizes = [
            layer if isinstance(layer, AttentionSizes) else DeepBlockSizes(*layer, next(doubles))
            for layer in self.layers
        ]
        with torch.device("meta"):
            generator = BigGANDeep(
                z_dim=self.z_dim,
                embedding_shape=(self.num_classes, self.embed_dim),
                bottom_width=self.bottom_width,
                layers=sizes,
                channels=min(COLORS, self.channel_width),
                rows=self.rows,
            )
        self.file.layer(generator, _embedding, embedding=(EMBEDDING, (self.embed_dim, self.num_classes)))
        self.spectral.add(generator.linear, LINEAR, partial(_linear, pixels=self.bottom_width**2))
        for index, layer in enumerate(generator.layers):
            if isinstance(layer, Attention):
                name = LAYER.format(index)
                self.spectral.add_attention(layer, f"{name}.snconv1x1_{{}}", "o_conv", f"{name}.gamma")
                continue
            for part in range(4):
                self.spectral.add(getattr(layer, f"conv{part + 1}"), f"{LAYER.format(index)}.conv_{part}")
                name = f"{LAYER.format(index)}.bn_{part}"
                self._add_conditional_norm(getattr(layer, f"bn{part + 1}"), name, config.epsilon)
        channels = generator.conv.in_channels
        weight_and_bias = {entry: f"{LAST_NORM}.{entry}" for entry in ("weight", "bias")}
        make = partial(_norm, epsilon=config.epsilon)
        self.file.layer(generator.norm, make, **weight_and_bias, **self._statistics(LAST_NORM, channels))
        weight = self.spectral.weight(LAST_CONV, (self.channel_width, channels, 3, 3))
        self.file.layer(generator.conv, _to_rgb, **weight, bias=(f"{LAST_CONV}.bias", (self.channel_width,)))
        # Files from torch 1.0 hold the normalised weight itself beside what it was computed from.
        ignored = () if self.normalizable else (r".*\.weight_orig", r".*\.weight_u")
        return self.file.fill(generator, ignored)

    def _layer_sizes(self, index: int) -> tuple[int, int, int] | AttentionSizes:
        if any(key.startswith(ATTENTION.format(index, "")) for key in self.file.tensors):
            key_dim, channels, *_ = self.spectral.shape(ATTENTION.format(index, "theta"), 4)
            return AttentionSizes(channels, key_dim, self.spectral.shape(ATTENTION.format(index, "g"), 4)[0])
        hidden, channels, *_ = self.spectral.shape(f"{LAYER.format(index)}.conv_0", 4)
        return channels, hidden, self.spectral.shape(f"{LAYER.format(index)}.conv_3", 4)[0]

    def _statistics(self, name: str, channels: int) -> dict[str, Stored]:
        shape = (self.rows, channels)
        return {"variances": (f"{name}.running_vars", shape), "means": (f"{name}.running_means", shape)}

    def _add_conditional_norm(self, norm: SelectedConditionalNorm, name: str, epsilon: float) -> None:
        shape = (norm.affine.out_features // 2, norm.affine.in_features)
        self.file.layer(
            norm,
            partial(_conditional_norm, epsilon=epsilon),
            **self.spectral.weight(f"{name}.scale", shape, "scale"),
            **self.spectral.weight(f"{name}.offset", shape, "offset"),
            **self._statistics(name, shape[0]),
        )


@dataclass(frozen=True)
class _Config:
    """The contents of config.json.

    Attributes:
        path: The file.
        entries: Everything in it.
        doubles: Whether each block doubles the size.
        multiples: Input and output channels of each block, in multiples of channel_width.
        epsilon: Epsilon of all batch norms.
    """

    path: Path
    entries: Mapping[str, Any]
    doubles: tuple[bool, ...]
    multiples: tuple[tuple[int, int], ...]
    epsilon: float

    @classmethod
    def read(cls, path: Path) -> "_Config":
        """Read the file.

        Raises:
            CheckpointError: If it is missing, cannot be read, or is not the configuration of a BigGAN.
        """
        try:
            entries = read_json(path)
            layers = [(bool(up), int(taken), int(given)) for up, taken, given in entries["layers"]]
            epsilon = float(entries["eps"])
        except FileNotFoundError:
            raise CheckpointError(
                f"its {CONFIG} is missing: which blocks double the size stands there, put it at {path}"
            ) from None
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise CheckpointError(f"{path} is no configuration of a BigGAN: {repr(error)[:200]}") from error
        if not 0 < epsilon < math.inf:
            raise CheckpointError(f"{path}: eps is {epsilon}, a positive number was expected")
        doubles, taken, given = zip(*layers, strict=True) if layers else ((), (), ())
        return cls(path, entries, doubles, tuple(zip(taken, given, strict=True)), epsilon)

    def check_fits(self, reader: "_Reader") -> None:
        """Check that it fits the weights.

        Raises:
            CheckpointError: If sizes differ.
        """
        blocks = [layer for layer in reader.layers if isinstance(layer, tuple)]
        attentions = [index for index, layer in enumerate(reader.layers) if isinstance(layer, AttentionSizes)]
        weights: dict[str, Any] = {
            "z_dim": reader.z_dim,
            "num_classes": reader.num_classes,
            "n_stats": reader.rows,
            "channel_width": reader.channel_width,
            "channels": [(taken, given) for taken, _, given in blocks],
            "attention": attentions,
            "output_dim": reader.bottom_width * 2 ** sum(self.doubles),
        }
        width, position = reader.channel_width, self.entries.get("attention_layer_position")
        config = {
            **self.entries,
            "channels": [(taken * width, given * width) for taken, given in self.multiples],
            # A position after the last block means no attention.
            "attention": [position] if position in range(len(self.multiples)) else [],
        }
        differing = [
            f"{name} is {config[name]}, not {weights[name]}"
            for name in weights
            if name in config and config[name] != weights[name]
        ]
        if differing:
            raise reader.file.misfit(f"{self.path} does not fit it: {'; '.join(differing)}")


def _config_path(path: Path) -> Path:
    """Return the configuration's path: config.json, with the same prefix as the model's file if that exists."""
    prefixed = path.with_name(path.name.removesuffix(MODEL) + CONFIG)
    return prefixed if path.name.endswith(MODEL) and prefixed.is_file() else path.with_name(CONFIG)


def _count_layers(tensors: Mapping[str, Tensor]) -> int:
    """Return one more than the highest index of a layer."""
    pattern = re.compile(LAYER.format(r"(\d+)") + r"\.")
    return 1 + max((int(match[1]) for key in tensors if (match := pattern.match(key))), default=-1)


def _embedding(embedding: Tensor) -> Parameters:
    return {"embedding": embedding.T}


def _linear(pixels: int, **tensors: Tensor) -> Parameters:
    """Return the parameters of the first layer, with its features reordered from [H·W·C, ...] to [C·H·W, ...]."""
    return {
        name: features.reshape(pixels, -1, *features.shape[1:]).transpose(0, 1).flatten(0, 1)
        for name, features in dense(**tensors).items()
    }


def _conditional_norm(variances: Tensor, means: Tensor, epsilon: float, **weights: Tensor) -> Parameters:
    """Return the parameters of a batch norm whose gain (scale) and bias (offset) are linear in the code."""
    channels = means.shape[1]
    return {
        "affine.weight": torch.cat([normalized(weights, "scale"), normalized(weights, "offset")]),
        "affine.bias": torch.cat([torch.ones(channels), torch.zeros(channels)]),  # The gain is 1 + scale.
        "statistics.weight": _statistics(variances, means, epsilon),
    }


def _norm(weight: Tensor, bias: Tensor, variances: Tensor, means: Tensor, epsilon: float) -> Parameters:
    return {"weight": weight, "bias": bias, "statistics.weight": _statistics(variances, means, epsilon)}


def _statistics(variances: Tensor, means: Tensor, epsilon: float) -> Tensor:
    """Return a norm's variances, including epsilon, and means, [2C, rows]."""
    return torch.cat([variances + epsilon, means], dim=1).T


def _to_rgb(**tensors: Tensor) -> Parameters:
    return {name: tensor[:COLORS] for name, tensor in dense(**tensors).items()}


FORMAT = Format("Hugging Face BigGAN-deep", recognises, load)
