"""SNGAN and SAGAN from OpenMMLab's mmgeneration and mmagic.

The layers are noise2feat, conv_blocks.0, conv_blocks.1, ..., attention among them, and to_rgb. Spectral norms are
torch's. Norms have one gain and bias for each class, stored around 1 or around 0: it depends on how they began.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sefa.checkpoints.assumptions import one_of, positive
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.formats.openmmlab.openmmlab_files import COUNTER, configuration, generator_options, in_rgb
from sefa.checkpoints.parts.assembly import Assembly, Parameters
from sefa.checkpoints.parts.biggan_layers import add_norm, bottom_width, check_variances, conditional_norm, statistics
from sefa.checkpoints.parts.growing import highest
from sefa.checkpoints.parts.spectral_norm import SpectralLayers, normalized
from sefa.generators.biggan import Attention, Block, ConditionalNorm, Norm
from sefa.generators.sngan import SNGAN

FIRST = "conv_blocks.0.norm_1"
EPSILON = 1e-4  # of batch norms
IMAGE = r"to_rgb\.conv\.(weight|weight_orig|weight_u|bias)"
# The kinds of initialisation after which 1 is added to the stored gains.
AROUND_0 = ("BIGGAN", "STUDIO")


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the names of the last layer and the first norm."""
    return {f"{FIRST}.norm.running_mean", "to_rgb.bn.running_mean"} <= checkpoint.stored.keys()


def load(checkpoint: Checkpoint, options: LoadOptions) -> SNGAN:
    """Build the generator."""
    config, assumptions = configuration(checkpoint), options.assumptions
    check_variances(checkpoint.tensors, "running_var")
    file = Assembly(in_rgb(checkpoint.tensors, IMAGE, config, assumptions))
    layers = SpectralLayers(file)
    names = [f"conv_blocks.{i}" for i in range(1 + highest(file.tensors, r"conv_blocks\.(\d{1,2})\..*"))]
    attended = {name for name in names if f"{name}.gamma" in file.tensors}
    blocks = [name for name in names if name not in attended]
    widths = [layers.shape(f"{blocks[0]}.conv_1.conv", 4)[1] if blocks else 1]
    widths += [layers.shape(f"{name}.conv_2.conv", 4)[0] for name in blocks]
    rows, z_dim = layers.shape("noise2feat", 2)
    width = bottom_width(file, rows, widths[0])
    table = f"{FIRST}.weight_embedding"
    num_classes = layers.shape(table, 2)[0] if layers.has(table) else 0
    epsilon, offset = _norms(generator_options(config), num_classes, options)
    with torch.device("meta"):
        modules: list[Block | Attention] = []
        for name in names:
            before = sum(isinstance(module, Block) for module in modules)
            if name in attended:
                sizes = [layers.shape(f"{name}.{part}.conv", 4)[0] for part in ("theta", "g")]
                modules.append(Attention(widths[before], *sizes))
            else:
                modules.append(Block(widths[before], widths[before + 1], num_classes))
        conv = nn.Conv2d(widths[-1], layers.shape("to_rgb.conv", 4)[0], 3, padding=1)
        generator = SNGAN(z_dim, num_classes, (widths[0], width, width), modules, Norm(widths[-1]), conv, nn.ReLU())
    layers.add(generator.linear, "noise2feat")
    for name, module in zip(names, modules, strict=True):
        if isinstance(module, Attention):
            layers.add_attention(module, f"{name}.{{}}.conv", "o", f"{name}.gamma")
            continue
        for part, ours in (("conv_1", module.conv1), ("conv_2", module.conv2), ("shortcut", module.conv_sc)):
            layers.add(ours, f"{name}.{part}.conv")
        for part, norm in (("norm_1", module.bn1), ("norm_2", module.bn2)):
            _add_norm(layers, norm, f"{name}.{part}", epsilon, offset)
    assert generator.norm is not None
    add_norm(file, generator.norm, "to_rgb.bn", epsilon)
    layers.add(conv, "to_rgb.conv")
    return file.fill(generator, (COUNTER, r".*\.num_batches_tracked"))


def _norms(told: Mapping[str, Any], num_classes: int, options: LoadOptions) -> tuple[float, float]:
    """Return the blocks' norms' epsilon, and what is added to their stored gains."""
    eps = told.get("norm_eps")
    usual = float(eps) if isinstance(eps, float | int) and eps > 0 else EPSILON
    epsilon = options.assumptions.take("bn_eps", usual, positive)
    options.assumptions.note(f"batch norms' eps {epsilon:g}", "bn_eps")
    if not num_classes:
        return epsilon, 0.0
    kind = told.get("init_cfg")
    kind = kind.get("type") if isinstance(kind, Mapping) else AROUND_0[0]
    around = options.assumptions.take(
        "gains", "0" if str(kind).upper() in AROUND_0 else "1", partial(one_of, names=("0", "1"))
    )
    options.assumptions.note(f"gains of classes stored around {around}", "gains")
    return epsilon, 1.0 - float(around)


def _add_norm(layers: SpectralLayers, module: nn.Module, name: str, epsilon: float, offset: float) -> None:
    if isinstance(module, Norm):
        add_norm(layers.file, module, f"{name}.norm", epsilon)
        return
    assert isinstance(module, ConditionalNorm)
    channels, num_classes = module.affine.out_features // 2, module.affine.in_features
    tensors = statistics(f"{name}.norm", channels)
    for part, key in (("gain", "weight_embedding"), ("bias", "bias_embedding")):
        tensors |= layers.weight(f"{name}.{key}", (num_classes, channels), part)
    layers.file.layer(module, partial(_by_class, epsilon=epsilon, offset=offset), **tensors)


def _by_class(mean: Tensor, variance: Tensor, epsilon: float, offset: float, **tensors: Tensor) -> Parameters:
    """Return the parameters of a norm from its gains and biases for each class, [num_classes, C]."""
    gain, bias = normalized(tensors, "gain"), normalized(tensors, "bias")
    return conditional_norm(gain.T + (offset - 1), bias.T, mean, variance, epsilon)


FORMAT = Format("OpenMMLab SNGAN", recognises, load)
