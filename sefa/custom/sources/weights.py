"""Load a checkpoint's weights into a user's module."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, chain
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sefa.checkpoints.checkpoint import Network, clean, strip_prefixes
from sefa.checkpoints.contents import read_contents
from sefa.checkpoints.entries import Choice, Entry, choose, find_entries, parts_of
from sefa.checkpoints.pickled_networks import PersistedModule
from sefa.errors import CheckpointError, listed
from sefa_runtime.pickles.placeholders import Placeholder

MAX_NAMED = 6  # keys in one message
WRAPPERS = ("module", "_orig_mod")  # names under which DataParallel and torch.compile hold a module
COUNTER = "num_batches_tracked"  # BatchNorm's, which is not used in inference, and which older files lack


def load_weights(module: nn.Module, path: str | Path, entry: str | None = None) -> str:
    """Load a file's weights into a module, strictly: every key on either side must have its match.

    Of everything in the file that may be a state dict, under whatever prefix, the one that fits is taken; if several
    fit, the averaged copy. Keys that the module's own class converts when it loads a state dict, as torch's weight
    norm does, fit too. Buffers that are not part of the module's state dict are loaded if the file has them.

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
    try:
        entries = [_with_tensors(one) for one in find_entries(read_contents(path))]
        wanted = _Wanted(module, [one.network for one in entries])
        choice = choose(entries, lambda network: not wanted.misfits(network), entry, may_extract=True)
        if choice is None:
            wanted.add_prefixes()
            choice = choose(entries, lambda network: not wanted.misfits(network), may_extract=True)
        if choice is None or wanted.misfits(choice.entry.network):
            choice = _converted_by_module(wanted, entries, choice, entry)
        tensors = clean(wanted.renamed(choice.entry.network))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error.__cause__
    wanted.load(tensors)
    return choice.described


class _Wanted:
    """What a module wants, by its keys without the names of wrappers.

    Args:
        module: The module.
        wholes: The networks that may lack a prefix; parts of them may not, or unexpected keys would go unnoticed.
    """

    def __init__(self, module: nn.Module, wholes: Sequence[Network]) -> None:
        self.module = module
        self.wholes = {id(network) for network in wholes}
        self.names = {_without_wrappers(key): key for key in module.state_dict()}
        self.tensors = {key: module.state_dict()[name] for key, name in self.names.items()}
        self.optional = {_without_wrappers(key): buffer for key, buffer in module.named_buffers()}
        self.optional = {key: buffer for key, buffer in self.optional.items() if key not in self.names}
        self.prefixes = [""]

    def add_prefixes(self) -> None:
        """Let the file lack prefixes that all keys have: the module may only wrap the one that was saved."""
        first = next(iter(self.names), "").split(".")[:-1]
        steps = accumulate(f"{part}." for part in first)
        self.prefixes += [step for step in steps if all(key.startswith(step) for key in self.names)]

    def misfits(self, network: Network) -> str:
        """Say why weights cannot be loaded; return an empty text if they can."""
        weights = self.renamed(network)
        missing = [key for key in self.tensors if key not in weights and not key.endswith(COUNTER)]
        unexpected = [key for key in weights if key not in self.tensors and key not in self.optional]
        misshapen = [
            f"{key} {list(weights[key].shape)} where {list(tensor.shape)} was expected"
            for key, tensor in (self.tensors | self.optional).items()
            if key in weights and not is_lazy(tensor) and weights[key].shape != tensor.shape
        ]
        problems = {"missing": missing, "unexpected": unexpected, "of the wrong shape": misshapen}
        return "; ".join(f"{what} {listed(keys, MAX_NAMED)}" for what, keys in problems.items() if keys)

    def renamed(self, network: Network) -> dict[str, Tensor]:
        """Return a state dict's tensors under the prefix with which most of them have their match."""
        tensors = _tensors(network)
        prefixes = self.prefixes if id(network) in self.wholes else [""]
        best = max(prefixes, key=lambda prefix: len(self.tensors.keys() & {prefix + key for key in tensors}))
        return {best + key: tensor for key, tensor in tensors.items()}

    def accepts(self, network: Network) -> bool:
        """Return whether the module's own `load_state_dict` takes weights."""
        try:
            self.load(self.renamed(network))
        except Exception:  # RuntimeError if they do not fit, and whatever a user's class may raise.
            return False
        return True

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load tensors into the module."""
        counters = {key: tensor for key, tensor in self.tensors.items() if key.endswith(COUNTER)}
        stored = {key: tensor for key, tensor in (counters | dict(tensors)).items() if key not in self.optional}
        self.module.load_state_dict({self.names.get(key, key): tensor for key, tensor in stored.items()})
        for key in self.optional.keys() & tensors.keys():
            self.optional[key].copy_(tensors[key])


def _without_wrappers(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in WRAPPERS)


def _converted_by_module(wanted: _Wanted, entries: Sequence[Entry], choice: Choice | None, entry: str | None) -> Choice:
    """Choose among the entries that only the module's own class knows how to load.

    Raises:
        CheckpointError: If it takes none; the message says why the nearest one does not fit.
    """
    if choice is not None:  # as asked for
        nearest = choice.entry
    else:
        nearest = max(_all_parts(entries), key=lambda one: _alike(wanted, one), default=Entry((), {}))
    if not _tensors(nearest.network):
        raise CheckpointError("it holds no weights")
    if wanted.accepts(nearest.network):
        keys = _tensors(nearest.network).keys()
        found = choose(
            entries,
            lambda network: _tensors(network).keys() == keys and wanted.accepts(network),
            entry,
            may_extract=True,
        )
        return found or Choice(nearest, nearest.name)
    where = f"the nearest, {nearest.name}, has " if nearest.name else ""
    raise CheckpointError(
        f"its weights do not fit {type(wanted.module).__name__}: {where}{wanted.misfits(nearest.network)}"
    )


def _all_parts(entries: Sequence[Entry]) -> Iterator[Entry]:
    for one in entries:
        inner = parts_of(one)
        yield from chain([one], inner, *map(parts_of, inner))


def _alike(wanted: _Wanted, entry: Entry) -> int:
    """Return how many keys match."""
    return len(wanted.tensors.keys() & wanted.renamed(entry.network).keys())


def _with_tensors(entry: Entry) -> Entry:
    """Reduce an entry that is a whole module to its tensors: the code comes from the user's class."""
    network = entry.network
    if isinstance(network, Placeholder) and network.is_module:
        network = PersistedModule(network.class_name, network.state)
    return replace(entry, network=network.tensors()) if isinstance(network, PersistedModule) else entry


def _tensors(network: Network) -> dict[str, Tensor]:
    """Return a state dict's tensors, without the names of wrappers; none if the network is something else."""
    if not isinstance(network, Mapping):
        return {}
    return {
        _without_wrappers(key): tensor for key, tensor in strip_prefixes(network).items() if isinstance(tensor, Tensor)
    }
