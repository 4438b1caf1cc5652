"""A checkpoint's weights into a module of the user's."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sefa.checkpoints.checkpoint import CONTAINER_KEYS, MAX_DEPTH, Checkpoint, clean, strip_prefix
from sefa.checkpoints.reading import read
from sefa.errors import CheckpointError

MAX_NAMED = 6  # keys in one message
AVERAGED = ("ema", "smooth", "avg", "average")


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a file's weights into a module, strictly: every key on both sides must find its match.

    Of several state dicts in the file, the one that fits is taken; of several that fit, the averaged copy.

    Raises:
        CheckpointError: If the file cannot be read, or nothing in it fits; the message names the keys that do not.
    """
    try:
        checkpoint = read(path)
        wanted = module.state_dict()
        candidates = list(_candidates(checkpoint, wanted))
        if not candidates:
            raise CheckpointError("it holds no weights")
        fitting = [weights for _, weights in sorted(candidates, key=_rank) if not _misfits(weights, wanted)]
        if not fitting:
            _, closest = max(candidates, key=lambda candidate: len(candidate[1].keys() & wanted.keys()))
            raise CheckpointError(f"its weights do not fit {type(module).__name__}: {_misfits(closest, wanted)}")
        weights = clean(fitting[0])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error.__cause__
    # BatchNorm's counter plays no part in inference, and older files lack it.
    module.load_state_dict({key: weights.get(key, tensor) for key, tensor in wanted.items()})


def _candidates(checkpoint: Checkpoint, wanted: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every state dict in the file, with where it stands; also what stands under a prefix, `generator.` for one."""
    for where, tensors in _state_dicts(checkpoint.content, "", MAX_DEPTH):
        tensors = {strip_prefix(key): tensor for key, tensor in tensors.items()}
        yield where, tensors
        first = next(iter(wanted), "")
        for key in tensors:
            if first and key.endswith(f".{first}"):
                prefix = key.removesuffix(first)
                inner = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
                yield f"{where}.{prefix}", inner


def _state_dicts(content: Any, where: str, depth: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    if not isinstance(content, Mapping):
        return
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if tensors:
        yield where, tensors
    if depth:
        for key, value in content.items():
            yield from _state_dicts(value, f"{where}.{key}", depth - 1)


def _rank(candidate: tuple[str, object]) -> tuple[bool, int]:
    """Averaged copies first, then in the order in which the usual places are searched."""
    parts = [part for part in candidate[0].split(".") if part]
    averaged = any(mark in part.lower() for part in parts for mark in AVERAGED)
    places = [CONTAINER_KEYS.index(part) for part in parts if part in CONTAINER_KEYS]
    return not averaged, min(places, default=len(CONTAINER_KEYS))


def _misfits(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """What keeps weights from being loaded; empty if nothing does."""
    missing = [key for key in wanted if key not in weights and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in weights if key not in wanted]
    misshapen = [
        f"{key} {list(weights[key].shape)} where {list(tensor.shape)} was expected"
        for key, tensor in wanted.items()
        if key in weights and weights[key].shape != tensor.shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of the wrong shape": misshapen}
    return "; ".join(f"{what} {_some(keys)}" for what, keys in problems.items() if keys)


def _some(items: list[str]) -> str:
    return ", ".join(items[:MAX_NAMED]) + (f" and {len(items) - MAX_NAMED} more" if len(items) > MAX_NAMED else "")
