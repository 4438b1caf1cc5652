"""FastGAN, and the generators of that architecture from Projected GAN, as NVlabs' code pickles them or state dicts.

The layers are init; feat_8, feat_16, ..., one for every resolution; se_64, se_128, ..., which gate them; and to_big.
FastGAN alternates levels of two convolutions with levels of one; Projected GAN's have two, those of its lite variant
one. Convolutions have torch's spectral norm. The file stores no noise: the original draws it for every image.
"""

import itertools
from collections.abc import Iterable
from functools import partial
from typing import cast

import torch
from torch import nn

from sefa.checkpoints.assumptions import one_of
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, clean
from sefa.checkpoints.parts import fastgan_layers
from sefa.checkpoints.parts.assembly import Assembly, Stored
from sefa.checkpoints.parts.biggan_layers import add_norm, check_variances
from sefa.checkpoints.parts.fastgan_layers import EPSILON, ConvNames, names_of_level
from sefa.checkpoints.parts.spectral_norm import SpectralLayers
from sefa.checkpoints.parts.stylegan2_layers import NOISE_SEED
from sefa.checkpoints.pickled_networks import module_tensors
from sefa.checkpoints.sizes import check_pixels
from sefa.generators.biggan import Norm
from sefa.generators.fastgan import FastGAN, Gate, GatedConv
from sefa_runtime.pickles.placeholders import Placeholder

GATED = (64, 128, 256, 512)  # sizes of the levels that have a gate
# FastGAN's small second image, and what Projected GAN's images of 128x128 leave unused.
IGNORED = (r"to_128\..*", r".*\.num_batches_tracked")
ABOVE_128 = r"(feat|se)_256\..*"
STRENGTH = r"feat_\d+\.([26]|noise)\.weight"  # of the noise


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise a state dict by the first layer and the first level, or a pickled network by its class."""
    network = checkpoint.network
    if isinstance(network, Placeholder):
        return network.is_module and network.class_name.endswith("networks_fastgan.Generator")
    keys = checkpoint.stored.keys()
    return any(key.startswith("init.init.0.") for key in keys) and any(key.startswith("feat_8.") for key in keys)


def load(checkpoint: Checkpoint, options: LoadOptions) -> FastGAN:
    """Build the generator."""
    tensors = checkpoint.tensors
    if isinstance(checkpoint.network, Placeholder):
        stored = clean(module_tensors(checkpoint.network))
        tensors = {key.removeprefix("synthesis."): tensor for key, tensor in stored.items()}
    return _Reader(Assembly(tensors), options).generator()


class _Reader:
    """The layers of a state dict."""

    def __init__(self, file: Assembly, options: LoadOptions) -> None:
        self.file = file
        self.with_noise = options.noise == "const"
        self.assumptions = options.assumptions
        self.weights = SpectralLayers(file)
        self.noises = itertools.count()  # Layers that add noise, which has a seed of its own in each.
        check_variances(file.tensors, ".running_var", ".stored_var")
        self.is_conditional = "embed.weight" in file.tensors
        sizes = [8]
        while any(key.startswith(f"feat_{2 * sizes[-1]}.") for key in file.tensors):
            sizes.append(2 * sizes[-1])
            check_pixels(sizes[-1], sizes[-1])
        self.levels = {size: names_of_level(self.weights, size, self.is_conditional) for size in sizes}
        self.z_dim, rows, *_ = self.weights.shape("init.init.0", 4)
        outputs = [rows, *(self.weights.shape(names[0].conv, 4)[0] for names in self.levels.values())]
        self.widths = [max(1, count // 2) for count in outputs]  # One half gates the other.
        # Of 128x128 pixels, Projected GAN makes the next level as well, and does not use it.
        self.is_cut = sizes[-1] == 256 and self.weights.shape("to_big", 4)[1] != self.widths[-1]
        if self.is_cut:
            del self.levels[256], self.widths[-1]

    def generator(self) -> FastGAN:
        """Build the generator."""
        file, weights = self.file, self.weights
        sizes = list(self.levels)
        gated = {size: f"se_{size}.main" for size in sizes if size in GATED}
        channels, inputs, *_ = weights.shape("to_big", 4)
        is_projected = "to_big.bias" in file.tensors  # FastGAN's convolutions have no biases.
        usual = "tanh" if not is_projected and sizes[-1] >= 1024 else "none"
        output = self.assumptions.take("output", usual, partial(one_of, names=("tanh", "none")))
        self.assumptions.note("tanh at the end" if output == "tanh" else "nothing after the last layer", "output")
        num_classes, embed_dim = file.shape("embed.weight", 2) if self.is_conditional else (0, 0)
        with torch.device("meta"):
            generator = FastGAN(
                self.z_dim,
                (num_classes, embed_dim),
                self.widths,
                [len(names) for names in self.levels.values()],
                {1 + sizes.index(size): _gate_sizes(weights, name) for size, name in gated.items()},
                nn.Conv2d(inputs, channels, 3, padding=1, bias=is_projected),
                self.with_noise,
                normalizes_codes=is_projected,
                tanh=output == "tanh",
            )
        if generator.embedding is not None:
            file.layer(generator, embedding="embed.weight")
        first = weights.weight("init.init.0", (self.z_dim, 2 * self.widths[0], 4, 4), axis=1)
        file.layer(generator.linear, fastgan_layers.linear, **first)
        add_norm(file, generator.norm, "init.init.1", EPSILON)
        for level, (size, all_names) in zip(generator.levels, self.levels.items(), strict=True):
            for conv, names in zip(cast("nn.ModuleList", level), all_names, strict=True):
                self._add_conv(cast("GatedConv", conv), names, size)
        for gate, name in zip(cast("Iterable[Gate]", generator.gates.values()), gated.values(), strict=True):
            weights.add(gate.squeeze, f"{name}.1")
            weights.add(gate.excite, f"{name}.3")
        weights.add(generator.to_image, "to_big")
        ignored = [*IGNORED, *([ABOVE_128] if self.is_cut else []), *([] if self.with_noise else [STRENGTH])]
        file.fill(generator, ignored)
        if any(names[0].strength for names in self.levels.values()):
            generator.noise = f"const, seed {NOISE_SEED}: the file stores none" if self.with_noise else "none"
        return generator

    def _add_conv(self, module: GatedConv, names: ConvNames, size: int) -> None:
        outputs, inputs = module.conv.out_channels, module.conv.in_channels
        self.file.layer(
            module,
            partial(
                fastgan_layers.gated_conv,
                up=isinstance(module.conv, nn.ConvTranspose2d),
                size=size,
                index=next(self.noises) if names.strength else 0,
            ),
            **self.weights.weight(names.conv, (outputs, inputs, 3, 3)),
            strength=(names.strength, 1) if names.strength and module.noise is not None else None,
        )
        if isinstance(module.norm, Norm):
            add_norm(self.file, module.norm, names.norm, EPSILON)
            return
        tensors: dict[str, Stored] = {}
        for part in ("gain", "bias"):
            tensors |= self.weights.weight(f"{names.norm}.{part}", (outputs, module.norm.affine.in_features), part)
            tensors[f"{part}_bias"] = (f"{names.norm}.{part}.bias", (outputs,))
        mean, variance = ((f"{names.norm}.stored_{which}", (outputs,)) for which in ("mean", "var"))
        self.file.layer(module.norm, fastgan_layers.conditional_norm, **tensors, mean=mean, variance=variance)


def _gate_sizes(weights: SpectralLayers, name: str) -> tuple[int, int]:
    outputs, inputs, *_ = weights.shape(f"{name}.1", 4)
    return inputs, outputs


FORMAT = Format("FastGAN", recognises, load)
