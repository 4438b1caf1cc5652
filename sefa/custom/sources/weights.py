"""Load a checkpoint's weights into a user's module."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from torch import Tensor, nn

from sefa.checkpoints.checkpoint import Network, clean, strip_prefix
from sefa.checkpoints.contents import read_contents
from sefa.checkpoints.entries import Entry, choose, find_entries, parts_of
from sefa.checkpoints.pickled_networks import PersistedModule
from sefa.errors import CheckpointError, listed
from sefa_runtime.pickles.placeholders import Placeholder

MAX_NAMED = 6  # keys in one message


def load_weights(module: nn.Module, path: str | Path, entry: str | None = None) -> str:
    """Load a file's weights into a module, strictly: every key on either side must have its match.

    If the file holds several state dicts, the one that fits is taken; if several fit, the averaged copy.

    Args:
        module: The module whose weights are replaced.
        path: The file.
        entry: Which of the file's entries to take, if several fit.

    Returns:
        Which entry was read, and among which others; empty if the file has only one.

    Raises:
        CheckpointError: If the file cannot be read, or nothing in it fits; the message names the keys that do not fit.
    """
    path = Path(path)
    wanted = module.state_dict()
    try:
        entries = [_with_tensors(one) for one in find_entries(read_contents(path))]
        choice = choose(entries, lambda network: not _misfits(network, wanted), entry, may_extract=True)
        problem = _misfits(choice.entry.network, wanted) if choice else _closest_misfits(entries, wanted)
        if choice is None or problem:
            raise CheckpointError(f"its weights do not fit {type(module).__name__}: {problem}")
        tensors = clean(_state_dict(choice.entry.network))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error.__cause__
    # BatchNorm's counter is not used in inference, and older files lack it.
    module.load_state_dict({key: tensors.get(key, tensor) for key, tensor in wanted.items()})
    return choice.described


def _with_tensors(entry: Entry) -> Entry:
    """Reduce an entry that is a whole module to its tensors: the code comes from the user's class."""
    network = entry.network
    if isinstance(network, Placeholder) and network.is_module:
        network = PersistedModule(network.class_name, network.state)
    return replace(entry, network=network.tensors()) if isinstance(network, PersistedModule) else entry


def _state_dict(network: Network) -> dict[str, Tensor]:
    """Return a state dict's tensors; none if the network is something else."""
    if not isinstance(network, Mapping):
        return {}
    return {strip_prefix(key): tensor for key, tensor in network.items() if isinstance(tensor, Tensor)}


def _closest_misfits(entries: Sequence[Entry], wanted: Mapping[str, Tensor]) -> str:
    """Say why the entry that has the most matching keys cannot be loaded."""
    networks = [_state_dict(one.network) for one in chain(entries, *map(parts_of, entries))]
    closest = max(networks, key=lambda weights: len(weights.keys() & wanted.keys()), default={})
    if not closest:
        raise CheckpointError("it holds no weights")
    return _misfits(closest, wanted)


def _misfits(network: Network, wanted: Mapping[str, Tensor]) -> str:
    """Say why weights cannot be loaded; return an empty text if they can."""
    weights = _state_dict(network)
    missing = [key for key in wanted if key not in weights and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in weights if key not in wanted]
    misshapen = [
        f"{key} {list(weights[key].shape)} where {list(tensor.shape)} was expected"
        for key, tensor in wanted.items()
        if key in weights and weights[key].shape != tensor.shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of the wrong shape": misshapen}
    return "; ".join(f"{what} {listed(keys, MAX_NAMED)}" for what, keys in problems.items() if keys)
