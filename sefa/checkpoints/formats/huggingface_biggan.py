"""Hugging Face's pytorch_pretrained_biggan: DeepMind's BigGAN-deep.

pytorch_model.bin, a state dict, and beside it config.json, which tells what no shape does: which blocks double the
size. Weights are divided by their spectral norm, which the vectors stored beside them give.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.parts.assembly import Source, assemble, combine, shape_of, source
from sefa.errors import CheckpointError
from sefa.generators.biggan_deep import AttentionSizes, BigGANDeep, DeepBlockSizes
from sefa_runtime.json_text import read_json

MODEL = "pytorch_model.bin"
CONFIG = "config.json"
EMBEDDING = "embeddings.weight"
LINEAR = "generator.gen_z"
LAYER = "generator.layers.{}"
ATTENTION = LAYER + ".snconv1x1_{}"
ATTENTION_CONVS = {"theta": "theta", "phi": "phi", "g": "g", "o": "o_conv"}  # ours, and the file's
COLORS = 3  # of the channels that the last convolution gives


def recognises(checkpoint: Checkpoint) -> bool:
    """The names of the class embedding and of the first layer."""
    tensors = checkpoint.stored
    return EMBEDDING in tensors and any(key.startswith(f"{LINEAR}.") for key in tensors)


def load(checkpoint: Checkpoint, options: LoadOptions) -> BigGANDeep:
    """Build the generator."""
    file = _File.of(checkpoint.tensors)
    config = _Config.read(_config_path(checkpoint.path))
    config.check_fits(file)
    layers: list[DeepBlockSizes | AttentionSizes] = []
    plan = {
        "embedding": source(EMBEDDING, convert=torch.t),
        "linear.weight": combine(file.weight(LINEAR), convert=file.channels_first),
        "linear.bias": source(f"{LINEAR}.bias", convert=file.channels_first),
    }
    doubles = iter(config.doubles)
    for index, block in enumerate(file.layers):
        ours, name = f"layers.{index}", LAYER.format(index)
        if isinstance(block, AttentionSizes):
            layers.append(block)
            for conv, its_name in ATTENTION_CONVS.items():
                plan[f"{ours}.{conv}.weight"] = file.weight(ATTENTION.format(index, its_name))
            plan[f"{ours}.o.weight"] = combine(plan[f"{ours}.o.weight"], source(f"{name}.gamma"), convert=torch.mul)
            continue
        in_channels, hidden_channels, out_channels = block
        layers.append(DeepBlockSizes(in_channels, hidden_channels, out_channels, next(doubles)))
        for part in range(4):
            conv, norm = f"{name}.conv_{part}", f"{name}.bn_{part}"
            plan[f"{ours}.conv{part + 1}.weight"] = file.weight(conv)
            plan[f"{ours}.conv{part + 1}.bias"] = source(f"{conv}.bias")
            plan[f"{ours}.bn{part + 1}.affine.weight"] = combine(
                file.weight(f"{norm}.scale"), file.weight(f"{norm}.offset"), convert=lambda *weights: torch.cat(weights)
            )
            plan[f"{ours}.bn{part + 1}.affine.bias"] = source(f"{norm}.running_means", convert=_one_plus_gain)
            plan[f"{ours}.bn{part + 1}.statistics.weight"] = _statistics(norm, config.epsilon)
    plan |= {
        "norm.weight": source("generator.bn.weight"),
        "norm.bias": source("generator.bn.bias"),
        "norm.statistics.weight": _statistics("generator.bn", config.epsilon),
        "conv.weight": combine(file.weight("generator.conv_to_rgb"), convert=lambda weight: weight[:COLORS]),
        "conv.bias": source("generator.conv_to_rgb.bias", convert=lambda bias: bias[:COLORS]),
    }
    with torch.device("meta"):
        generator = BigGANDeep(
            z_dim=file.z_dim,
            embedding_shape=(file.num_classes, file.embed_dim),
            bottom_width=file.bottom_width,
            layers=layers,
            channels=min(COLORS, file.channel_width),
            rows=file.rows,
        )
    # Files of torch 1.0 hold the normalised weight itself beside what it was made of.
    ignored = () if file.normalizable else (r".*\.weight_orig", r".*\.weight_u")
    return assemble(generator, plan, file.tensors, ignored)


@dataclass(frozen=True)
class _File:
    """A state dict, and the sizes in it.

    Attributes:
        tensors: The state dict.
        normalizable: Whether weights come with both vectors that give their spectral norm; otherwise they are
            normalised already.
        num_classes: Classes.
        embed_dim: Length of a class's embedding.
        z_dim: Length of z.
        bottom_width: Size of the image that the first layer makes.
        channel_width: Channels that the last convolution gives.
        rows: How many statistics each batch norm has.
        layers: Attention, or a block's channels: those that it takes, has within and gives.
    """

    tensors: Mapping[str, Tensor]
    normalizable: bool
    num_classes: int
    embed_dim: int
    z_dim: int
    bottom_width: int
    channel_width: int
    rows: int
    layers: tuple[tuple[int, int, int] | AttentionSizes, ...]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "_File":
        """Derive the sizes.

        Raises:
            CheckpointError: If one cannot be derived.
        """
        for key, tensor in tensors.items():
            if key.endswith("running_vars") and tensor.min() < 0:
                raise CheckpointError(f"{key} has negative variances, which no training gives")
        normalizable = any(key.endswith(".weight_v") for key in tensors)

        def shape(name: str, ndim: int) -> tuple[int, ...]:
            return shape_of(tensors, f"{name}.weight_orig" if normalizable else f"{name}.weight", ndim)

        layers: list[tuple[int, int, int] | AttentionSizes] = []
        for index in range(_count_layers(tensors)):
            if any(key.startswith(ATTENTION.format(index, "")) for key in tensors):
                key_dim, channels, *_ = shape(ATTENTION.format(index, "theta"), 4)
                layers.append(AttentionSizes(channels, key_dim, shape(ATTENTION.format(index, "g"), 4)[0]))
            else:
                hidden, channels, *_ = shape(f"{LAYER.format(index)}.conv_0", 4)
                layers.append((channels, hidden, shape(f"{LAYER.format(index)}.conv_3", 4)[0]))
        blocks = [layer for layer in layers if isinstance(layer, tuple)]
        if not blocks:
            raise CheckpointError("it has no blocks")
        embed_dim, num_classes = shape_of(tensors, EMBEDDING, 2)
        features, condition_dim = shape(LINEAR, 2)
        if condition_dim <= embed_dim:
            raise CheckpointError(f"{LINEAR} reads {condition_dim} numbers, a latent and {embed_dim} were expected")
        bottom_width = math.isqrt(features // blocks[0][0])
        if not bottom_width or blocks[0][0] * bottom_width**2 != features:
            raise CheckpointError(f"{LINEAR} has {features} rows, which are no square image of {blocks[0][0]} channels")
        rows = shape_of(tensors, "generator.bn.running_means", 2)[0]
        if rows < 2:
            raise CheckpointError("its batch norms have one row of statistics, several were expected")
        return cls(
            tensors=tensors,
            normalizable=normalizable,
            num_classes=num_classes,
            embed_dim=embed_dim,
            z_dim=condition_dim - embed_dim,
            bottom_width=bottom_width,
            channel_width=shape("generator.conv_to_rgb", 4)[0],
            rows=rows,
            layers=tuple(layers),
        )

    def weight(self, name: str) -> Source:
        """A layer's effective weight."""
        if not self.normalizable:
            return source(f"{name}.weight")
        return source(f"{name}.weight_orig", f"{name}.weight_u", f"{name}.weight_v", convert=_spectrally_normalized)

    def channels_first(self, features: Tensor) -> Tensor:
        """The first layer's features as ours order them, [C·H·W, ...] of [H·W·C, ...]."""
        pixels = features.reshape(self.bottom_width**2, -1, *features.shape[1:])  # [H·W, C, ...]
        return pixels.transpose(0, 1).flatten(0, 1)


@dataclass(frozen=True)
class _Config:
    """config.json.

    Attributes:
        path: The file.
        entries: All that stands in it.
        doubles: Whether a block doubles the size, for every block.
        multiples: Channels that each block takes and gives, in multiples of channel_width.
        epsilon: Of all batch norms.
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
            CheckpointError: If it is missing or no configuration of a BigGAN.
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
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{path} is no configuration of a BigGAN: {error!r}") from error
        if not 0 < epsilon < math.inf:
            raise CheckpointError(f"{path}: eps is {epsilon}, a positive number was expected")
        doubles, taken, given = zip(*layers, strict=True) if layers else ((), (), ())
        return cls(path, entries, doubles, tuple(zip(taken, given, strict=True)), epsilon)

    def check_fits(self, file: _File) -> None:
        """Compare it with the weights.

        Raises:
            CheckpointError: If sizes differ.
        """
        blocks = [layer for layer in file.layers if isinstance(layer, tuple)]
        attentions = [index for index, layer in enumerate(file.layers) if isinstance(layer, AttentionSizes)]
        weights: dict[str, Any] = {
            "z_dim": file.z_dim,
            "num_classes": file.num_classes,
            "n_stats": file.rows,
            "channel_width": file.channel_width,
            "channels": [(taken, given) for taken, _, given in blocks],
            "attention": attentions,
            "output_dim": file.bottom_width * 2 ** sum(self.doubles),
        }
        width, position = file.channel_width, self.entries.get("attention_layer_position")
        config = {
            **self.entries,
            "channels": [(taken * width, given * width) for taken, given in self.multiples],
            # A position behind the last block is none.
            "attention": [position] if position in range(len(self.multiples)) else [],
        }
        differing = [
            f"{name} is {config[name]}, not {weights[name]}"
            for name in weights
            if name in config and config[name] != weights[name]
        ]
        if differing:
            raise CheckpointError(f"{self.path} does not fit it: {'; '.join(differing)}")


def _config_path(path: Path) -> Path:
    """Where the configuration lies: config.json, with the prefix that the model's name may have."""
    prefixed = path.with_name(path.name.removesuffix(MODEL) + CONFIG)
    return prefixed if path.name.endswith(MODEL) and prefixed.is_file() else path.with_name(CONFIG)


def _count_layers(tensors: Mapping[str, Tensor]) -> int:
    """One more than the highest index of a layer."""
    pattern = re.compile(LAYER.format(r"(\d+)") + r"\.")
    return 1 + max((int(match[1]) for key in tensors if (match := pattern.match(key))), default=-1)


def _one_plus_gain(means: Tensor) -> Tensor:
    """The constants to which gain and bias are added, 1 and 0; `means` is of the norm's size, [rows, C]."""
    return torch.cat([torch.ones(means.shape[1]), torch.zeros(means.shape[1])])


def _statistics(name: str, epsilon: float) -> Source:
    """A norm's variances, epsilon included, and means, [2C, rows]."""
    return source(
        f"{name}.running_vars",
        f"{name}.running_means",
        convert=lambda variances, means: torch.cat([variances + epsilon, means], dim=1).T,
    )


def _spectrally_normalized(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """A weight divided by its spectral norm uᵀ·W·v, u and v as they are."""
    sigma = u.double() @ weight.flatten(1).double() @ v.double()
    if sigma == 0:
        raise CheckpointError(f"a weight of shape {list(weight.shape)} has a spectral norm of 0")
    return (weight / sigma).float()


FORMAT = Format("Hugging Face BigGAN-deep", recognises, load)
