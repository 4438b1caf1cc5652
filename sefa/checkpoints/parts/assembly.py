"""From a file's tensors to a generator's parameters, with every key accounted for."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from torch import Tensor

from sefa.errors import CheckpointError
from sefa.generators import Generator

G = TypeVar("G", bound=Generator)
MAX_NAMED = 6  # keys in one message
VARIANT = "a variant of the original is read with its own code: MODULE:CLASS --weights FILE"


@dataclass(frozen=True)
class Source:
    """Where a parameter comes from: one or several of the file's keys, and what is made of their tensors."""

    keys: tuple[str, ...]
    convert: Callable[..., Tensor] = lambda tensor: tensor


def source(*keys: str, convert: Callable[..., Tensor] = lambda tensor: tensor) -> Source:
    """A `Source` of these keys; `convert` takes their tensors as arguments."""
    return Source(keys, convert)


def combine(*sources: Source, convert: Callable[..., Tensor]) -> Source:
    """A `Source` of what several others give; `convert` takes their tensors as arguments."""

    def convert_all(*tensors: Tensor) -> Tensor:
        remaining = iter(tensors)
        return convert(*(one.convert(*islice(remaining, len(one.keys))) for one in sources))

    return Source(tuple(key for one in sources for key in one.keys), convert_all)


@dataclass(frozen=True)
class Weights:
    """Where a layer's effective weight and bias come from."""

    weight: Source
    bias: Source


Plan = Mapping[str, Source]


def assemble(generator: G, plan: Plan, tensors: Mapping[str, Tensor], ignored: Iterable[str] = ()) -> G:
    """Fill a generator that was built on the meta device.

    Args:
        generator: Built under `torch.device("meta")`, so that nothing was allocated or initialised.
        plan: For each of its parameters and buffers, where it comes from.
        tensors: The file's tensors; every key must be used by the plan or ignored.
        ignored: Regular expressions, matched whole, of keys that the generator has no use for.

    Returns:
        `generator`, in inference mode, its parameters without gradients.

    Raises:
        CheckpointError: If keys are missing, not understood, or of the wrong shape; all of them are in the message.
    """
    wanted = generator.state_dict()
    if set(plan) != set(wanted):
        raise AssertionError(f"the plan misses or invents {sorted(set(plan) ^ set(wanted))}")
    problems = _key_problems(tensors, (key for entry in plan.values() for key in entry.keys), ignored)
    filled: dict[str, Tensor] = {}
    misshapen = []
    for name, entry in plan.items():
        if not all(key in tensors for key in entry.keys):
            continue
        shapes = " and ".join(f"{key} {list(tensors[key].shape)}" for key in entry.keys)
        integers = [f"{key} {tensors[key].dtype}" for key in entry.keys if not tensors[key].is_floating_point()]
        if integers:
            misshapen.append(f"{' and '.join(integers)} where floating point weights were expected")
            continue
        try:
            tensor = entry.convert(*(tensors[key] for key in entry.keys))
        except (RuntimeError, IndexError, ValueError):
            misshapen.append(shapes)
            continue
        if tensor.shape != wanted[name].shape:
            misshapen.append(f"{shapes} where {list(wanted[name].shape)} was expected")
        filled[name] = tensor.contiguous()
    if misshapen:
        problems.append(f"of the wrong shape {_some(misshapen)}")
    if problems:
        raise CheckpointError("; ".join([*problems, VARIANT]))
    generator.load_state_dict(filled, assign=True)
    return generator.eval().requires_grad_(False)


def check_keys(tensors: Mapping[str, Tensor], needed: Iterable[str], ignored: Iterable[str] = ()) -> None:
    """Check the file's keys before sizes are derived from its tensors; `assemble` checks them for the plan.

    Raises:
        CheckpointError: If keys are missing or not understood; all of them are in the message.
    """
    problems = _key_problems(tensors, needed, ignored)
    if problems:
        raise CheckpointError("; ".join([*problems, VARIANT]))


def shape_of(tensors: Mapping[str, Tensor], key: str, ndim: int) -> tuple[int, ...]:
    """The shape of a tensor from which sizes are derived.

    Raises:
        CheckpointError: If it is missing or has another number of axes.
    """
    if key not in tensors:
        raise CheckpointError(f"missing {key}")
    shape = tuple(tensors[key].shape)
    if len(shape) != ndim:
        raise CheckpointError(f"{key} has shape {list(shape)}, {ndim} axes were expected")
    return shape


def count(tensors: Mapping[str, Tensor], template: str, start: int = 0) -> int:
    """How many of `template.format(start)`, `template.format(start + 1)`, ... there are without a gap."""
    index = start
    while template.format(index) in tensors:
        index += 1
    return index - start


def _key_problems(tensors: Mapping[str, Tensor], needed: Iterable[str], ignored: Iterable[str]) -> list[str]:
    needed = dict.fromkeys(needed)
    patterns = [re.compile(pattern) for pattern in ignored]
    missing = [key for key in needed if key not in tensors]
    unknown = [key for key in tensors if key not in needed and not any(pattern.fullmatch(key) for pattern in patterns)]
    problems = []
    if missing:
        problems.append(f"missing {_some(missing)}")
    if unknown:
        problems.append(f"not understood {_some(unknown)}")
    return problems


def _some(items: list[str]) -> str:
    return ", ".join(items[:MAX_NAMED]) + (f" and {len(items) - MAX_NAMED} more" if len(items) > MAX_NAMED else "")
