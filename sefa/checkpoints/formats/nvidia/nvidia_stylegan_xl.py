"""StyleGAN-XL as its authors' PyTorch code pickles it, a stem or a super-resolution stage.

It is a StyleGAN3 that embeds its labels differently.
"""

from collections.abc import Mapping
from functools import partial

from torch import Tensor
from torch.nn import functional as F

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, clean
from sefa.checkpoints.formats.nvidia.nvidia_stylegan3 import (
    CENTER,
    SQRT2,
    Reader,
    gains,
    has_sinusoids,
    is_stylegan_xl,
)
from sefa.checkpoints.parts.assembly import Parameters
from sefa.checkpoints.pickled_networks import PersistedModule
from sefa.generators.stylegan3 import StyleGAN3

EMBED = "mapping.embed.weight"
PROJECTION = "mapping.embed_proj"


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise a StyleGAN3 that embeds and then projects its labels, or that was built on a smaller one."""
    return has_sinusoids(checkpoint.persisted) and is_stylegan_xl(checkpoint.persisted)


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN3:
    """Build the generator."""
    assert checkpoint.persisted is not None
    return read(checkpoint.persisted)


def read(network: PersistedModule) -> StyleGAN3:
    """Build the generator of a network whose modules have their attributes."""
    classes = network.attribute("c_dim", int)
    # The embeddings come from elsewhere: one row per ImageNet class, however many classes the network has.
    reader = Reader(network, _of_classes(network.tensors(), classes))
    if not classes:
        return reader.build(0)
    (rows, inputs), outputs = reader.file.shape(EMBED, 2), reader.file.shape(f"{PROJECTION}.weight", 2)[0]
    if rows < classes:
        raise reader.file.misfit(f"{EMBED} has {rows} rows for {classes} classes")
    weight_gain, bias_gain = gains(network, PROJECTION, SQRT2, "lrelu")
    return reader.build(
        outputs,
        partial(_project, classes=classes, weight_gain=weight_gain, bias_gain=bias_gain),
        embed=(EMBED, (rows, inputs)),
        weight=(f"{PROJECTION}.weight", (outputs, inputs)),
        bias=(f"{PROJECTION}.bias", (outputs,)),
    )


def _of_classes(stored: Mapping[str, Tensor], classes: int) -> dict[str, Tensor]:
    """Return the tensors that the classes use: embeddings and one centre each; without classes, at most one centre."""
    unused = () if classes else (EMBED, f"{PROJECTION}.weight", f"{PROJECTION}.bias")
    center = stored.get(CENTER)
    if center is not None and center.ndim == 2:
        center = center[:classes] if classes else center[0] if len(center) == 1 else None
    used = {key: tensor for key, tensor in stored.items() if key not in (*unused, CENTER)}
    return clean(used if center is None or not center.numel() else {**used, CENTER: center})


def _project(
    embed: Tensor, weight: Tensor, bias: Tensor, classes: int, weight_gain: float, bias_gain: float
) -> Parameters:
    """Return all classes' embeddings at once, [num_classes, dim]."""
    projected = F.linear(embed[:classes], weight * weight_gain, bias * bias_gain)
    return {"embedding": F.leaky_relu(projected, 0.2)}


FORMAT = Format("StyleGAN-XL", recognises, load)
