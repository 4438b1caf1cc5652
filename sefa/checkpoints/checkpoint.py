"""What formats are given: a network in a file, and what its owner says of it."""

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

# Numbers that torch can sum and turn into float32; what is new or packed has names of its own.
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
    """A network in a file, as formats look at it.

    Args:
        path: The file.
        network: The network: a state dict, or a stand-in for an object.
        beside: What the file has beside it.
        location: The keys that lead to it.

    Attributes:
        stored: The state dict without `module.` prefixes; empty if the network is something else.
        persisted: The network, if it is one of NVlabs' PyTorch code.
        tensorflow: The network, if it is one of NVlabs' TensorFlow code.
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
        """The state dict, finite, float32; integers stay integers.

        Raises:
            CheckpointError: If it holds something other than ordinary tensors of finite numbers.
        """
        return clean(self.network) if isinstance(self.network, Mapping) else {}


@dataclass(frozen=True)
class LoadOptions:
    """What a file cannot tell and its owner can.

    Attributes:
        num_classes: Classes of a generator whose label is one-hot behind z, where no tensor's shape tells.
        noise: `const` is the checkpoint's constant noise; `none` leaves noise out.
        entry: Which of the file's entries to read; None: the averaged generator.
        assumptions: What else the owner says, and what is assumed.
    """

    num_classes: int | None = None
    noise: str = "const"
    entry: str | None = None
    assumptions: Assumptions = field(default_factory=Assumptions)


@dataclass(frozen=True)
class Format:
    """One kind of checkpoint.

    Attributes:
        name: Whose format and which architecture: "genforce StyleGAN2".
        recognises: Whether a file is of this format, from its contents; it must not raise for any contents.
        load: Build the generator. It raises CheckpointError for what is missing or does not fit; the caller adds the
            file's and the format's name.
        is_supported: Whether there is anything in it to be loaded; if not, `load` says what it is.
    """

    name: str
    recognises: Callable[[Checkpoint], bool]
    load: Callable[[Checkpoint, LoadOptions], Generator] = field(repr=False)
    is_supported: bool = True


def clean(state_dict: StateDict) -> dict[str, Tensor]:
    """Strip prefixes, and bring every floating point tensor to finite float32.

    Raises:
        CheckpointError: If a tensor is not an ordinary one, or not finite.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        key = strip_prefix(name)
        if key in tensors:
            raise CheckpointError("the same weight stands there twice, with and without a module. prefix")
        if isinstance(tensor, Placeholder):
            raise CheckpointError(f"{key} is not an ordinary tensor of weights: {tensor.class_name}")
        if tensor.dtype not in ORDINARY or not tensor.numel():
            raise CheckpointError(f"{key} is not an ordinary tensor of weights: {tensor.dtype}, {list(tensor.shape)}")
        tensors[key] = tensor
    check_uses(tensors)
    converted: dict[int, Tensor] = {}  # One tensor may stand under several names.
    for key, tensor in tensors.items():
        if id(tensor) not in converted:
            converted[id(tensor)] = tensor.float() if tensor.is_floating_point() else tensor
            if not is_finite(converted[id(tensor)]):
                raise CheckpointError(f"{key} has NaN or infinite values: the training that wrote it diverged")
    return {key: converted[id(tensor)] for key, tensor in tensors.items()}


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite, in most cases in one pass: what is not finite never sums to something finite."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def strip_prefix(key: str) -> str:
    """Return a key without the prefixes of DataParallel and torch.compile."""
    return re.sub(r"^(module\.|_orig_mod\.)+", "", key)


def strip_prefixes(state_dict: StateDict) -> dict[str, Tensor | Placeholder]:
    """Return a state dict whose keys are without these prefixes."""
    return {strip_prefix(key): value for key, value in state_dict.items()}
