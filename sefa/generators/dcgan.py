"""DCGAN: a stack of transposed convolutions.

Source: Radford, Metz & Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", ICLR 2016; state dicts as PyTorch's DCGAN example writes them.
"""

import re
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sefa.errors import ArgumentError, CheckpointError
from sefa.generators.labels import OneHotGenerator

# `main.3.weight`: an nn.Sequential under any name, and the entry's position in it.
KEY = re.compile(r"(?:(?P<sequence>[\w.]+)\.)?(?P<index>\d{1,4})\.(?P<entry>\w+)")
BATCH_NORM_ENTRIES = {"weight", "bias", "running_mean", "running_var"}


class DCGAN(OneHotGenerator):
    """The generator of a DCGAN of any latent size, width, depth, kernel and number of channels.

        x = z as a 1x1 image;  x = relu(norm(conv(x))) for all convolutions but the last;  image = tanh(conv(x))

    The first convolution turns 1x1 into its kernel's size, every other doubles the size. L = 1 and the code is z
    itself, with the one-hot label behind it if there are classes, so an edited image is exactly G(z + alpha·n).
    """

    family = "dcgan"

    def __init__(self, convs: list[nn.ConvTranspose2d], norms: list[nn.Module], num_classes: int = 0) -> None:
        """Build from layers.

        Args:
            convs: The transposed convolutions, first to last.
            norms: What follows each convolution: a BatchNorm2d, or an Identity where there is none.
            num_classes: How many of the first convolution's inputs, the last ones, are a one-hot label.
        """
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(norms)
        self.num_classes = num_classes
        self.code_dim = convs[0].in_channels
        self.z_dim = self.code_dim - num_classes
        height, width = convs[0].kernel_size
        doublings = 2 ** (len(convs) - 1)
        self.resolution = (height * doublings, width * doublings)
        self.channels = convs[-1].out_channels

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor], num_classes: int = 0) -> "DCGAN":
        """Read every size from the tensors' shapes.

        Args:
            tensors: The generator's state dict, without a `module.` prefix.
            num_classes: Classes, if z is followed by a one-hot label: no shape tells.

        Raises:
            CheckpointError: If the keys are not a DCGAN's, or the shapes do not fit together.
            ArgumentError: If the classes leave no input for z.
        """
        entries = _entries_by_index(tensors)
        conv_indices = [index for index, entry in entries.items() if entry["weight"].ndim == 4]
        _check_chain([entries[index]["weight"] for index in conv_indices])
        convs: list[nn.ConvTranspose2d] = []
        norms: list[nn.Module] = []
        for position, index in enumerate(conv_indices):
            following = conv_indices[position + 1] if position + 1 < len(conv_indices) else float("inf")
            between = [other for other in entries if index < other < following]
            if len(between) > 1:
                raise CheckpointError(f"not a DCGAN: layers {between} all follow convolution {index}")
            conv = _conv(entries[index], first=position == 0)
            convs.append(conv)
            norms.append(_batch_norm(entries[between[0]], conv, between[0]) if between else nn.Identity())
        inputs = convs[0].in_channels
        if not 0 <= num_classes < inputs:
            raise ArgumentError(f"num_classes must be in 0..{inputs - 1}, its input's size less 1, got {num_classes}")
        return cls(convs, norms, num_classes).eval().requires_grad_(False)

    def decode(self, codes: Tensor) -> Tensor:
        x = codes.squeeze(1)[:, :, None, None]  # [N, D, 1, 1]
        for conv, norm in zip(self.convs[:-1], self.norms[:-1], strict=True):
            x = F.relu(norm(conv(x)))
        return torch.tanh(self.norms[-1](self.convs[-1](x)))  # [N, C, H, W]

    def affines(self) -> list[Tensor]:
        # On a 1x1 image a transposed convolution is a matrix: y[o, u, v] = Σ_i weight[i, o, u, v] z[i].
        weight: Tensor = self.convs[0].weight  # type: ignore[assignment]
        return [weight.detach().permute(1, 2, 3, 0).reshape(-1, self.code_dim)]  # [out·kh·kw, D]


def is_dcgan(tensors: Mapping[str, object]) -> bool:
    """Whether the keys are those of one nn.Sequential that begins with a convolution."""
    matches = [KEY.fullmatch(key) for key in tensors]
    if not tensors or not all(matches) or len({match["sequence"] for match in matches if match}) != 1:
        return False
    first = min((match for match in matches if match), key=lambda match: int(match["index"]))
    weight = tensors.get(first[0].removesuffix(first["entry"]) + "weight")
    return isinstance(weight, Tensor) and weight.ndim == 4


def _entries_by_index(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Group `main.3.weight` to {3: {"weight": ...}}, in ascending order of index."""
    entries: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = KEY.fullmatch(key)
        if match is None:
            raise CheckpointError(f"not a DCGAN: unexpected key {key}")
        if match["entry"] != "num_batches_tracked":
            entries.setdefault(int(match["index"]), {})[match["entry"]] = tensor
    entries = {index: entries[index] for index in sorted(entries) if entries[index]}
    for index, entry in entries.items():
        weight = entry.get("weight")
        allowed = {"weight", "bias"} if weight is not None and weight.ndim == 4 else BATCH_NORM_ENTRIES
        if weight is None or weight.ndim not in (1, 4) or not set(entry) <= allowed:
            raise CheckpointError(
                f"not a DCGAN: layer {index} has {_shapes(entry)}; a ConvTranspose2d or BatchNorm2d was expected"
            )
    return entries


def _check_chain(weights: list[Tensor]) -> None:
    """Check that each convolution takes what the one before gives, and that they are transposed."""
    shapes = [list(weight.shape) for weight in weights]
    # A ConvTranspose2d's weight is [in, out, kh, kw], a Conv2d's [out, in, kh, kw].
    if all(one[1] == next_[0] for one, next_ in pairwise(shapes)):
        return
    if all(one[0] == next_[1] for one, next_ in pairwise(shapes)):
        raise CheckpointError(
            f"this is a discriminator (convolutions from {shapes[0][1]} to {shapes[-1][0]} channels), "
            "the generator's checkpoint is needed"
        )
    raise CheckpointError(f"its convolutions do not fit together: weights of shapes {shapes}")


def _conv(entry: Mapping[str, Tensor], first: bool) -> nn.ConvTranspose2d:
    """The first convolution opens 1x1 to its kernel's size; the others double: out = 2·in for even and odd kernels."""
    weight, bias = entry["weight"], entry.get("bias")
    inputs, outputs, *kernel = weight.shape
    if bias is not None and bias.shape != (outputs,):
        raise CheckpointError(f"a convolution of {outputs} channels has a bias of shape {list(bias.shape)}")
    if not first and min(kernel) < 2:
        raise CheckpointError(f"a convolution with kernel {kernel} cannot double its input's size")
    # [kh, kw] -> (2·in - 2) + k - 2·padding + output_padding = 2·in
    padding = (0, 0) if first else ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2)
    output_padding = (0, 0) if first else (kernel[0] % 2, kernel[1] % 2)
    conv = nn.ConvTranspose2d(
        inputs,
        outputs,
        (kernel[0], kernel[1]),
        stride=1 if first else 2,
        padding=padding,
        output_padding=output_padding,
        bias=bias is not None,
    )
    conv.load_state_dict(dict(entry))
    return conv


def _batch_norm(entry: Mapping[str, Tensor], conv: nn.ConvTranspose2d, index: int) -> nn.BatchNorm2d:
    shape = (conv.out_channels,)
    if set(entry) != BATCH_NORM_ENTRIES or any(tensor.shape != shape for tensor in entry.values()):
        raise CheckpointError(
            f"layer {index} has {_shapes(entry)}; a BatchNorm2d of {conv.out_channels} channels was expected"
        )
    if entry["running_var"].min() < 0:
        raise CheckpointError(f"layer {index} has a negative running_var, which no training gives")
    norm = nn.BatchNorm2d(conv.out_channels)
    norm.load_state_dict(dict(entry), strict=False)  # num_batches_tracked plays no part in inference.
    return norm


def _shapes(entry: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in entry.items())
