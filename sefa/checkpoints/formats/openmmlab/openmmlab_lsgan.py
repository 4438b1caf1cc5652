"""LSGAN from OpenMMLab's mmgeneration and mmagic: noise2feat_head.0, noise2feat_tail.0, conv_blocks.0, .1, ...

A linear layer with a batch norm, then transposed convolutions, each but the last with a batch norm. Pairs of them, of
which the first doubles the size, come before the last three, of which two double it.
"""

import torch
from torch import Tensor, nn

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.formats.openmmlab.openmmlab_files import COUNTER, configuration, in_rgb
from sefa.checkpoints.parts.assembly import Assembly, Parameters
from sefa.checkpoints.parts.biggan_layers import bottom_width, check_variances
from sefa.checkpoints.parts.growing import highest
from sefa.generators import DCGAN

LINEAR, NORM = "noise2feat_head.0", "noise2feat_tail.0"
PAIR, LAST = (2, 1), (2, 2, 1)  # strides
KERNEL = 3


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the names of the first layers."""
    return {f"{LINEAR}.weight", f"{NORM}.running_mean", "conv_blocks.0.conv.weight"} <= checkpoint.stored.keys()


def load(checkpoint: Checkpoint, options: LoadOptions) -> DCGAN:
    """Build the generator."""
    count = 1 + highest(checkpoint.tensors, r"conv_blocks\.(\d{1,2})\..*")
    image = rf"conv_blocks\.{count - 1}\.conv\.(weight|bias)"
    config = configuration(checkpoint)
    tensors = in_rgb(checkpoint.tensors, image, config, options.assumptions, transposed=True)
    check_variances(tensors, "running_var")
    file = Assembly(tensors)
    rows, z_dim = file.shape(f"{LINEAR}.weight", 2)
    channels = file.shape(f"{NORM}.weight", 1)[0]
    width = bottom_width(file, rows, channels)
    if count < len(LAST) or (count - len(LAST)) % len(PAIR):
        raise file.misfit(f"{count} convolutions, where pairs and three more were expected")
    strides = PAIR * ((count - len(LAST)) // len(PAIR)) + LAST
    with torch.device("meta"):
        layers: list[nn.Module] = [
            file.layer(nn.Linear(z_dim, rows), weight=f"{LINEAR}.weight", bias=f"{LINEAR}.bias"),
            nn.Unflatten(1, (channels, width, width)),
            _norm(file, channels, NORM),
            nn.ReLU(),
        ]
        for i, stride in enumerate(strides):
            name, is_last = f"conv_blocks.{i}", i == count - 1
            inputs, outputs, *_ = file.shape(f"{name}.conv.weight", 4)
            conv = nn.ConvTranspose2d(inputs, outputs, KERNEL, stride, 1, output_padding=stride - 1, bias=is_last)
            bias = f"{name}.conv.bias" if is_last else None
            layers.append(file.layer(conv, weight=f"{name}.conv.weight", bias=bias))
            layers += [nn.Tanh()] if is_last else [_norm(file, outputs, f"{name}.bn"), nn.ReLU()]
            width *= stride
        generator = DCGAN(layers, (width, width), outputs)
    return file.fill(generator, (COUNTER, r".*\.num_batches_tracked"))


def _norm(file: Assembly, channels: int, name: str) -> nn.BatchNorm2d:
    entries = ("weight", "bias", "running_mean", "running_var")
    return file.layer(nn.BatchNorm2d(channels), _batch_norm, **{entry: f"{name}.{entry}" for entry in entries})


def _batch_norm(**tensors: Tensor) -> Parameters:
    return {**tensors, "num_batches_tracked": torch.tensor(0)}  # It plays no part in inference.


FORMAT = Format("OpenMMLab LSGAN", recognises, load)
