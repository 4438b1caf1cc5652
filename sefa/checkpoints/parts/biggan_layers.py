"""What the formats of BigGANs and SNGANs share: batch norms with constant statistics, and the depth of a stage."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from torch import Tensor

from sefa.checkpoints.assumptions import Assumptions, one_of
from sefa.checkpoints.parts.assembly import Assembly, Parameters, Stored
from sefa.errors import CheckpointError
from sefa.generators.biggan import ConditionalNorm, Norm

# Channels before the first stage and after each, in multiples of the last: the originals' BigGAN-deep sizes.
ARCHITECTURES = {
    (1, 1, 1, 1),
    (8, 8, 4, 2, 1),
    (16, 8, 4, 2, 1),
    (16, 16, 8, 4, 2, 1),
    (16, 16, 8, 8, 4, 2, 1),
    (16, 16, 8, 8, 4, 2, 1, 1),
}
USUAL_DEPTH = 2  # blocks in a stage of BigGAN-deep


def check_variances(tensors: Mapping[str, Tensor], *names: str) -> None:
    """Refuse batch norms whose statistics cannot be.

    Args:
        tensors: The file's tensors.
        names: How the variances' keys end.

    Raises:
        CheckpointError: If a variance is negative.
    """
    for key, tensor in tensors.items():
        if key.endswith(names) and tensor.min() < 0:
            raise CheckpointError(f"{key} has negative variances, which no training gives")


def statistics(name: str, channels: int) -> dict[str, Stored]:
    """Return where the statistics of torch's batch norm are, for `norm` and `conditional_norm`."""
    return {"mean": (f"{name}.running_mean", (channels,)), "variance": (f"{name}.running_var", (channels,))}


def add_norm(file: Assembly, module: Norm, name: str, epsilon: float) -> None:
    """Note an unconditional batch norm of torch."""
    channels = len(module.weight)
    gain, bias = (f"{name}.weight", (channels,)), (f"{name}.bias", (channels,))
    file.layer(module, partial(norm, epsilon=epsilon), gain=gain, bias=bias, **statistics(name, channels))


def conditional_norm(gain: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, epsilon: float) -> Parameters:
    """Return the parameters of (x - mean) / √(variance + epsilon) · (1 + gain·y) + bias·y; gain and bias are [C, D]."""
    return {
        "affine.weight": ConditionalNorm.folded_weight(gain, bias, mean, variance + epsilon),
        "affine.bias": ConditionalNorm.folded_bias(mean, variance + epsilon),
    }


def norm(gain: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, epsilon: float) -> Parameters:
    """Return the parameters of (x - mean) / √(variance + epsilon) · gain + bias, all [C]."""
    weight, shift = Norm.fold(gain, bias, mean, variance + epsilon)
    return {"weight": weight, "bias": shift}


def bottom_width(file: Assembly, rows: int, channels: int) -> int:
    """Return the height and width of the image that the first linear layer makes.

    Args:
        file: The file's tensors, for messages.
        rows: How many numbers the layer gives.
        channels: The image's channels.

    Raises:
        CheckpointError: If they are no square image.
    """
    width = math.isqrt(rows // channels)
    if not width or channels * width**2 != rows:
        raise file.misfit(f"the first layer has {rows} rows, which are no square image of {channels} channels")
    return width


def stage_depth(
    widths: Sequence[int], attended: Iterable[int], assumptions: Assumptions, told: int | None = None
) -> int:
    """Return how many blocks make up a stage of a BigGAN-deep; its last block doubles the size and may drop channels.

    No tensor's shape gives this number, but a stage ends wherever channels drop or attention follows.

    Args:
        widths: Channels before the first block, then after each.
        attended: The indices of the blocks that attention follows.
        assumptions: Takes the fact `depth`, and notes it.
        told: What the file says of it.

    Raises:
        CheckpointError: If a block adds channels.
    """
    blocks = len(widths) - 1
    growing = [i for i in range(blocks) if widths[i + 1] > widths[i]]
    if growing:
        raise CheckpointError(f"block {growing[0]} gives {widths[growing[0] + 1]} channels of {widths[growing[0]]}")
    dropping = [i + 1 for i in range(blocks) if widths[i + 1] < widths[i]]
    common = math.gcd(blocks, *dropping, *(i + 1 for i in attended))
    depths = [depth for depth in range(1, common + 1) if common % depth == 0]
    known = [depth for depth in depths if tuple(width / widths[-1] for width in widths[::depth]) in ARCHITECTURES]
    usual = known[0] if known else USUAL_DEPTH if USUAL_DEPTH in depths else common
    usual = told if told in depths else usual
    depth = assumptions.take("depth", usual, lambda text: int(one_of(text, list(map(str, depths)))))
    assumptions.note(f"{depth} blocks in a stage", "depth")
    return depth
