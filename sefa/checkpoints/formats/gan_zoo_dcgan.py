"""DCGAN from facebookresearch's pytorch_GAN_zoo.

A state dict, with the trainer's configuration beside it. The layers are formatLayer, a transposed convolution that
reads z, and main, an nn.Sequential of named layers: batchNorm0, then convTranspose1, batchNorm1, ..., and outlayer.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.formats.gan_zoo import attribute_sizes, config_of, ends_with_tanh, label_length
from sefa.checkpoints.parts.activations import ACTIVATIONS, OUTPUTS
from sefa.checkpoints.parts.assembly import VARIANT, Assembly, Parameters
from sefa.checkpoints.parts.biggan_layers import check_variances
from sefa.checkpoints.parts.growing import highest
from sefa.errors import CheckpointError
from sefa.generators import DCGAN

FIRST = "formatLayer"
LAST = "main.outlayer"
KERNEL = 4


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the format's names for the first and the last layer."""
    return f"{FIRST}.weight" in checkpoint.stored and f"{LAST}.weight" in checkpoint.stored


def load(checkpoint: Checkpoint, options: LoadOptions) -> DCGAN:
    """Build the generator."""
    tensors, config = checkpoint.tensors, config_of(checkpoint)
    check_variances(tensors, "running_var")
    _check_statistics(tensors)
    file = Assembly(tensors)
    depth = highest(tensors, r"main\.convTranspose(\d{1,2})\..*")
    names = [FIRST, *(f"main.convTranspose{i}" for i in range(1, depth + 1)), LAST]
    shapes = [file.shape(f"{name}.weight", 4) for name in names]  # [in, out, 4, 4] each
    num_classes = _num_classes(file, config, shapes[0][0])
    output = "tanh" if ends_with_tanh(config) else "none"
    options.assumptions.note("batch norms' stored statistics, where the original takes each batch's own")
    layers: list[nn.Module] = []
    with torch.device("meta"):
        for i, (name, shape) in enumerate(zip(names, shapes, strict=True)):
            conv = nn.ConvTranspose2d(shape[0], shape[1], KERNEL, 2 if i else 1, padding=1 if i else 0, bias=False)
            layers.append(file.layer(conv, weight=f"{name}.weight"))
            if name != LAST:
                norm = nn.BatchNorm2d(shape[1])
                entries = ("weight", "bias", "running_mean", "running_var")
                keys = {entry: f"main.batchNorm{i}.{entry}" for entry in entries}
                layers += [file.layer(norm, _batch_norm, **keys), nn.ReLU()]
        layers.append(ACTIVATIONS[output]())
        side = KERNEL * 2 ** (depth + 1)
        generator = DCGAN(layers, (side, side), shapes[-1][1], num_classes, OUTPUTS[output])
    return file.fill(generator, (r".*\.num_batches_tracked",))


def _batch_norm(**tensors: Tensor) -> Parameters:
    return {**tensors, "num_batches_tracked": torch.tensor(0)}  # It plays no part in inference.


def _check_statistics(tensors: dict[str, Tensor]) -> None:
    """Refuse an average whose batch norms never saw an image: the original's training need not show it any.

    Raises:
        CheckpointError: If the statistics are those that a batch norm begins with.
    """
    means = [tensor for key, tensor in tensors.items() if key.endswith("running_mean")]
    if means and not any(tensor.any() for tensor in means):
        raise CheckpointError(
            "its batch norms have no statistics, which the training gives to the copies that it renders: "
            "if this is the average, read the other with --entry netG"
        )


def _num_classes(file: Assembly, config: Mapping[str, Any], inputs: int) -> int:
    length = label_length(file, config, inputs)
    if length and len(attribute_sizes(config.get("attribKeysOrder"), length)) > 1:
        raise CheckpointError(f"its label is a vector of several attributes; {VARIANT}")
    return length


FORMAT = Format("pytorch_GAN_zoo DCGAN", recognises, load)
