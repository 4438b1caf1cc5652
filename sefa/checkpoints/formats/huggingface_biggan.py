"""Hugging Face's pytorch_pretrained_biggan: DeepMind's BigGAN-deep.

pytorch_model.bin, a state dict, and beside it config.json, which tells what no shape does: which blocks double the
size. Weights are divided by their spectral norm, which the vectors stored beside them give.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.parts.assembly import Assembly, Parameters, Stored
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
LAYER = "generator.layers.{}"
ATTENTION = LAYER + ".snconv1x1_{}"
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
    doubles = iter(config.doubles)
    layers = [
        layer if isinstance(layer, AttentionSizes) else DeepBlockSizes(*layer, next(doubles)) for layer in file.layers
    ]
    with torch.device("meta"):
        generator = BigGANDeep(
            z_dim=file.z_dim,
            embedding_shape=(file.num_classes, file.embed_dim),
            bottom_width=file.bottom_width,
            layers=layers,
            channels=min(COLORS, file.channel_width),
            rows=file.rows,
        )
    file.assembly.layer(generator, _embedding, embedding=(EMBEDDING, (file.embed_dim, file.num_classes)))
    _add_dense(file, generator.linear, LINEAR, partial(_linear, pixels=file.bottom_width**2))
    for index, layer in enumerate(generator.layers):
        name = LAYER.format(index)
        if isinstance(layer, Attention):
            for conv in ("theta", "phi", "g"):
                _add_dense(file, getattr(layer, conv), ATTENTION.format(index, conv))
            _add_dense(file, layer.o, ATTENTION.format(index, "o_conv"), _attended, gamma=(f"{name}.gamma", 1))
            continue
        for part in range(4):
            _add_dense(file, getattr(layer, f"conv{part + 1}"), f"{name}.conv_{part}")
            _add_norm(file, getattr(layer, f"bn{part + 1}"), f"{name}.bn_{part}", config.epsilon)
    _add_last_norm(file, generator.norm, config.epsilon)
    _add_last_conv(file, generator.conv)
    # Files of torch 1.0 hold the normalised weight itself beside what it was made of.
    ignored = () if file.normalizable else (r".*\.weight_orig", r".*\.weight_u")
    return file.assembly.fill(generator, ignored)


@dataclass(frozen=True)
class _File:
    """A state dict, and the sizes in it.

    Attributes:
        assembly: The state dict.
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

    assembly: Assembly
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
        file = Assembly(tensors)
        normalizable = any(key.endswith(".weight_v") for key in tensors)

        def shape(name: str, ndim: int) -> tuple[int, ...]:
            return file.shape(f"{name}.weight_orig" if normalizable else f"{name}.weight", ndim)

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
            raise file.misfit("it has no blocks")
        embed_dim, num_classes = file.shape(EMBEDDING, 2)
        features, condition_dim = shape(LINEAR, 2)
        if condition_dim <= embed_dim:
            raise file.misfit(f"{LINEAR} reads {condition_dim} numbers, a latent and {embed_dim} were expected")
        bottom_width = math.isqrt(features // blocks[0][0])
        if not bottom_width or blocks[0][0] * bottom_width**2 != features:
            raise file.misfit(f"{LINEAR} has {features} rows, which are no square image of {blocks[0][0]} channels")
        rows = file.shape("generator.bn.running_means", 2)[0]
        if rows < 2:
            raise file.misfit("its batch norms have one row of statistics, several were expected")
        return cls(
            assembly=file,
            normalizable=normalizable,
            num_classes=num_classes,
            embed_dim=embed_dim,
            z_dim=condition_dim - embed_dim,
            bottom_width=bottom_width,
            channel_width=shape("generator.conv_to_rgb", 4)[0],
            rows=rows,
            layers=tuple(layers),
        )

    def weight(self, name: str, shape: tuple[int, ...], argument: str = "weight") -> dict[str, Stored]:
        """Where a layer's weight is, and the vectors of its spectral norm, if it is to be divided by it."""
        if not self.normalizable:
            return {argument: (f"{name}.weight", shape)}
        return {
            argument: (f"{name}.weight_orig", shape),
            f"{argument}_u": (f"{name}.weight_u", shape[:1]),
            f"{argument}_v": (f"{name}.weight_v", (math.prod(shape[1:]),)),
        }


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
            raise file.assembly.misfit(f"{self.path} does not fit it: {'; '.join(differing)}")


def _config_path(path: Path) -> Path:
    """Where the configuration lies: config.json, with the prefix that the model's name may have."""
    prefixed = path.with_name(path.name.removesuffix(MODEL) + CONFIG)
    return prefixed if path.name.endswith(MODEL) and prefixed.is_file() else path.with_name(CONFIG)


def _count_layers(tensors: Mapping[str, Tensor]) -> int:
    """One more than the highest index of a layer."""
    pattern = re.compile(LAYER.format(r"(\d+)") + r"\.")
    return 1 + max((int(match[1]) for key in tensors if (match := pattern.match(key))), default=-1)


def _add_dense(
    file: _File, module: nn.Module, name: str, make: Callable[..., Parameters] | None = None, **more: Stored
) -> None:
    """Add a linear layer or a convolution."""
    bias = {} if module.bias is None else {"bias": f"{name}.bias"}
    file.assembly.layer(
        module, make or _dense, **file.weight(name, tuple(module.get_parameter("weight").shape)), **bias, **more
    )


def _add_norm(file: _File, norm: SelectedConditionalNorm, name: str, epsilon: float) -> None:
    shape = (norm.affine.out_features // 2, norm.affine.in_features)
    file.assembly.layer(
        norm,
        partial(_conditional_norm, epsilon=epsilon),
        **file.weight(f"{name}.scale", shape, "scale"),
        **file.weight(f"{name}.offset", shape, "offset"),
        **_statistics_keys(file, name, shape[0]),
    )


def _add_last_norm(file: _File, norm: nn.Module, epsilon: float) -> None:
    name = "generator.bn"
    statistics = _statistics_keys(file, name, len(norm.get_parameter("weight")))
    file.assembly.layer(
        norm, partial(_norm, epsilon=epsilon), weight=f"{name}.weight", bias=f"{name}.bias", **statistics
    )


def _add_last_conv(file: _File, conv: nn.Conv2d) -> None:
    name, channels = "generator.conv_to_rgb", file.channel_width
    weight = file.weight(name, (channels, *conv.weight.shape[1:]))
    file.assembly.layer(conv, _to_rgb, **weight, bias=(f"{name}.bias", (channels,)))


def _statistics_keys(file: _File, name: str, channels: int) -> dict[str, Stored]:
    shape = (file.rows, channels)
    return {"variances": (f"{name}.running_vars", shape), "means": (f"{name}.running_means", shape)}


def _embedding(embedding: Tensor) -> Parameters:
    return {"embedding": embedding.T}


def _dense(
    weight: Tensor, bias: Tensor | None = None, weight_u: Tensor | None = None, weight_v: Tensor | None = None
) -> Parameters:
    weight = _normalized(weight, weight_u, weight_v)
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def _linear(pixels: int, **tensors: Tensor) -> Parameters:
    """The first layer, whose features are [H·W·C, ...] in the file, and ours [C·H·W, ...]."""
    return {
        name: features.reshape(pixels, -1, *features.shape[1:]).transpose(0, 1).flatten(0, 1)
        for name, features in _dense(**tensors).items()
    }


def _attended(gamma: Tensor, **tensors: Tensor) -> Parameters:
    return {"weight": _dense(**tensors)["weight"] * gamma.reshape(())}


def _conditional_norm(
    scale: Tensor,
    offset: Tensor,
    variances: Tensor,
    means: Tensor,
    scale_u: Tensor | None = None,
    scale_v: Tensor | None = None,
    offset_u: Tensor | None = None,
    offset_v: Tensor | None = None,
    *,
    epsilon: float,
) -> Parameters:
    gain_and_bias = torch.cat([_normalized(scale, scale_u, scale_v), _normalized(offset, offset_u, offset_v)])
    channels = len(scale)
    return {
        "affine.weight": gain_and_bias,
        "affine.bias": torch.cat([torch.ones(channels), torch.zeros(channels)]),  # What they are added to.
        "statistics.weight": _statistics(variances, means, epsilon),
    }


def _norm(weight: Tensor, bias: Tensor, variances: Tensor, means: Tensor, epsilon: float) -> Parameters:
    return {"weight": weight, "bias": bias, "statistics.weight": _statistics(variances, means, epsilon)}


def _statistics(variances: Tensor, means: Tensor, epsilon: float) -> Tensor:
    """A norm's variances, epsilon included, and means, [2C, rows]."""
    return torch.cat([variances + epsilon, means], dim=1).T


def _to_rgb(**tensors: Tensor) -> Parameters:
    return {name: tensor[:COLORS] for name, tensor in _dense(**tensors).items()}


def _normalized(weight: Tensor, u: Tensor | None, v: Tensor | None) -> Tensor:
    return weight if u is None or v is None else _spectrally_normalized(weight, u, v)


def _spectrally_normalized(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """A weight divided by its spectral norm uᵀ·W·v, u and v as they are."""
    sigma = u.double() @ weight.flatten(1).double() @ v.double()
    if sigma == 0:
        raise CheckpointError(f"a weight of shape {list(weight.shape)} has a spectral norm of 0")
    return (weight / sigma).float()


FORMAT = Format("Hugging Face BigGAN-deep", recognises, load)
