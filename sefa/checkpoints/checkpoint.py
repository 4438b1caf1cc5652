"""What a format works with: a network from a file, and the facts that only the file's owner knows."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sefa.checkpoints.assumptions import Assumptions
from sefa.checkpoints.pickled_networks import PersistedModule, TensorFlowNetwork
from sefa.checkpoints.sizes import check_uses
from sefa.errors import CheckpointError
from sefa.generators import Generator
from sefa_runtime.pickles.placeholders import Placeholder

StateDict = Mapping[str, Tensor | Placeholder]
Network = StateDict | PersistedModule | TensorFlowNetwork | Placeholder

# The dtypes that torch can sum and convert to float32. An explicit list, so that new or packed dtypes are refused.
ORDINARY = {
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
}
ORDINARY |= {torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64}
ORDINARY |= {torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz}


class Checkpoint:
    """A network from a file, as formats see it.

    Args:
        path: The file.
        network: A state dict, or a stand-in for an object.
        beside: What is stored beside the network in the file.
        location: The keys that lead to the network.

    Attributes:
        stored: The state dict without `module.` prefixes; empty if the network is something else.
        persisted: The network, if NVlabs' PyTorch code pickled it.
        tensorflow: The network, if NVlabs' TensorFlow code pickled it.
    """

    def __init__(
        self, path: Path, network: Network, beside: Mapping[Any, Any] | None = None, location: tuple[str, ...] = ()
    ) -> None:
        self.path = path
        self.network = network
        self.beside = {} if beside is None else beside
        self.location = location
        self.stored = strip_prefixes(network) if isinstance(network, Mapping) else {}
        self.persisted = network if isinstance(network, PersistedModule) else None
        self.tensorflow = network if isinstance(network, TensorFlowNetwork) else None

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The state dict without prefixes, with floating-point tensors as finite float32.

        Raises:
            CheckpointError: If it holds anything but ordinary tensors of finite numbers.
        """
        return clean(self.network) if isinstance(self.network, Mapping) else {}


@dataclass(frozen=True)
class LoadOptions:
    """What only the file's owner can say.

    Attributes:
        num_classes: The number of classes, if a one-hot label follows z: no tensor's shape says how long the label is.
        noise: `const` uses the checkpoint's constant noise; `none` leaves noise out.
        entry: The entry of the file to read; None for the averaged generator.
        assumptions: Other facts from the owner, and a record of what was assumed.
    """

    num_classes: int | None = None
    noise: str = "const"
    entry: str | None = None
    assumptions: Assumptions = field(default_factory=Assumptions)


@dataclass(frozen=True)
class Format:
    """A checkpoint format.

    Attributes:
        name: Its origin and architecture: "genforce StyleGAN2".
        recognises: Returns whether a network is in this format; it must not raise, whatever the network is.
        load: Builds the generator. It raises CheckpointError for whatever is missing or does not fit; the caller adds
            the names of the file and the format.
        is_supported: Whether it can be loaded; if not, `load` raises an error that says what the file is.
    """

    name: str
    recognises: Callable[[Checkpoint], bool]
    load: Callable[[Checkpoint, LoadOptions], Generator] = field(repr=False)
    is_supported: bool = True


def clean(state_dict: StateDict) -> dict[str, Tensor]:
    """Return a state dict without prefixes, with floating-point tensors as finite float32.

    Raises:
        CheckpointError: If a weight is there twice, with and without a prefix, or is not an ordinary tensor of finite
            numbers.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        key = strip_prefix(name)
        if key in tensors:
            raise CheckpointError("the same weight is there twice, with and without a module. prefix")
        if isinstance(tensor, Placeholder):
            raise CheckpointError(f"{key} is not an ordinary tensor of weights: {tensor.class_name}")
        if tensor.dtype not in ORDINARY or not tensor.numel():
            raise CheckpointError(f"{key} is not an ordinary tensor of weights: {tensor.dtype}, {list(tensor.shape)}")
        tensors[key] = tensor
    check_uses(tensors)
    converted: dict[int, Tensor] = {}  # One tensor may have several names.
    for key, tensor in tensors.items():
        if id(tensor) not in converted:
            converted[id(tensor)] = tensor.float() if tensor.is_floating_point() else tensor
            if not is_finite(converted[id(tensor)]):
                raise CheckpointError(f"{key} has NaN or infinite values: the training that wrote it diverged")
    return {key: converted[id(tensor)] for key, tensor in tensors.items()}


def is_finite(tensor: Tensor) -> bool:
    """Return whether all values are finite, usually in one pass: a sum with NaN or infinity in it is not finite."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def strip_prefix(key: str) -> str:
    """Return a key without the prefixes that DataParallel and torch.compile add."""
    return re.sub(r"^(module\.|_orig_mod\.)+", "", key)


def strip_prefixes(state_dict: StateDict) -> dict[str, Tensor | Placeholder]:
    """Return a state dict with these prefixes removed from its keys."""
    return {strip_prefix(key): value for key, value in state_dict.items()}
