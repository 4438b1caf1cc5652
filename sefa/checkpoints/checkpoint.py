"""What was read from a checkpoint file, before any of it is understood as a generator."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from sefa.checkpoints.limits import check_uses
from sefa.checkpoints.objects import PersistedModule, Placeholder, TensorFlowNetwork
from sefa.errors import CheckpointError
from sefa.generators import Generator

# Where training scripts keep the generator's state dict, the averaged copy first.
CONTAINER_KEYS = (
    "generator_smooth",
    "netG_ema",
    "avgG",
    "G_ema",
    "g_ema",
    "netG_state_dict",
    "netG",
    "generator_state_dict",
    "generator",
    "G_state_dict",
    "G",
    "g",
    "GAN",
    "models",
    "model_state_dict",
    "state_dict",
    "model",
    "params",
)
MAX_DEPTH = 3  # of dicts in dicts: {"models": ...} is not searched for ever


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a file, as formats look at them.

    Attributes:
        path: The file.
        content: All that it held: dicts of tensors, and stand-ins for objects of classes.
    """

    path: Path
    content: Any

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The generator's state dict, wherever the file keeps it: no `module.` prefixes, finite, float32.

        Integers stay integers. Empty if there is none.

        Raises:
            CheckpointError: If it holds something other than ordinary tensors of finite numbers.
        """
        return clean(find_state_dict(self.content, MAX_DEPTH) or {})

    @property
    def persisted(self) -> PersistedModule | None:
        """The averaged generator of an NVlabs PyTorch pickle, if it is one."""
        found = self.content.get("G_ema") if isinstance(self.content, dict) else None
        return found if isinstance(found, PersistedModule) else None

    @property
    def tensorflow(self) -> TensorFlowNetwork | None:
        """The averaged generator, the third network, of an NVlabs TensorFlow pickle, if it is one."""
        networks = self.content if isinstance(self.content, tuple | list) else ()
        if len(networks) == 3 and isinstance(networks[2], TensorFlowNetwork):
            return networks[2]
        return None


@dataclass(frozen=True)
class LoadOptions:
    """What a file cannot tell and its owner can.

    Attributes:
        num_classes: Classes of a generator whose label is one-hot behind z, where no tensor's shape tells.
        noise: `const` is the checkpoint's constant noise; `none` leaves noise out.
    """

    num_classes: int | None = None
    noise: str = "const"


@dataclass(frozen=True)
class Format:
    """One kind of checkpoint.

    Attributes:
        name: Whose format and which architecture: "genforce StyleGAN2".
        recognises: Whether a file is of this format, from its contents; it must not raise for any contents.
        load: Build the generator. It raises CheckpointError for what is missing or does not fit; the caller adds the
            file's and the format's name.
    """

    name: str
    recognises: Callable[[Checkpoint], bool]
    load: Callable[[Checkpoint, LoadOptions], Generator] = field(repr=False)


def find_state_dict(content: Any, depth: int) -> Mapping[str, Tensor | Placeholder] | None:
    """The tensors in the innermost usual place, or those at the top; placeholders of those that cannot be read."""
    if not isinstance(content, Mapping) or not content:
        return None
    found: dict[str, Tensor | Placeholder] = {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and (isinstance(value, Tensor) or (isinstance(value, Placeholder) and value.is_tensor))
    }
    if len(found) == len(content):
        return found
    if depth:
        for key in CONTAINER_KEYS:
            inner = find_state_dict(content.get(key), depth - 1)
            if inner is not None:
                return inner
    # Weights among other entries, as {"main.0.weight": ..., "epoch": 3}.
    return found or None


def clean(state_dict: Mapping[str, Tensor | Placeholder]) -> dict[str, Tensor]:
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
        if tensor.is_complex() or not tensor.numel():
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
    """Without the prefixes of DataParallel and torch.compile."""
    return re.sub(r"^(module\.|_orig_mod\.)+", "", key)
