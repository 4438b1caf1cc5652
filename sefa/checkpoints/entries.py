"""Choose the entry that is the generator, by one rule for checkpoints and for users' own modules.

Training scripts save several networks in one file, and several copies of the generator: the plain one, and the average
of its weights over the training ("EMA"), which is the one meant for generating images. Usually, only their names say
which is which.
"""

import re
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from sefa.checkpoints.checkpoint import Network, StateDict, strip_prefix, strip_prefixes
from sefa.checkpoints.pickled_networks import PersistedModule, TensorFlowNetwork
from sefa.checkpoints.sizes import check_names
from sefa.errors import CheckpointError, listed
from sefa_runtime.pickles.placeholders import Placeholder

MAX_DEPTH = 6  # of nested containers
# Limits of the search: a container may contain itself, or be stored under any number of keys.
MAX_ITEMS = 200_000
MAX_ENTRIES = 2_000
MAX_PARTS = 1_000  # of state dicts
MAX_GROUPS = 64  # of keys with the same first word, in a state dict of several networks
MAX_COPIES = 16  # of a generator, whose buffers may complete an average
MAX_PREFIXES = 4  # of a state dict's keys: "state_dict" has "generator.", which has "module."
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
# The meanings of words in an entry's name. Any other word, like the b of gen_b, distinguishes different generators.
AVERAGED = {"ema", "gema", "smooth", "smoothed", "avg", "average", "averaged", "averaging", "running", "shadow", "swa"}
AVERAGED |= {"polyak", "gs"}
PLAIN = {"current", "online", "raw", "live", "training"}
GENERATOR = {"g", "gs", "gema", "gen", "generator", "generators", "netg", "gnet", "gan"}
DISCRIMINATOR = {"d", "dis", "disc", "discriminator", "discriminators", "critic", "critics", "netd", "dnet"}
MEANINGLESS = {"state", "dict", "sd", "model", "models", "param", "params", "parameters", "weight", "weights", "net"}
MEANINGLESS |= {
    "moving",
    "exponential",
    "nets",
    "network",
    "networks",
    "module",
    "modules",
    "checkpoint",
    "ckpt",
    "callbacks",
    "callback",
}
COMMON = AVERAGED | PLAIN | GENERATOR | MEANINGLESS
# Words written as one: netgema, gavg, modelema.
GLUED = re.compile(r"(netg|net|gen|generator|g|model|params|)(ema|avg)(netg|net|gen|generator|g|model|params|)")
# Modules that may stand beside a generator in a state dict without being part of it.
HELPERS = re.compile(r".*(loss|lpips|vgg|perceptual|inception|fid|metric|criterion|optim|augment).*", re.IGNORECASE)
# Optimizers and the like keep thousands of tensors, but no network.
NO_NETWORK = re.compile(r".*(optim|sched|scaler).*", re.IGNORECASE)
# Buffers, which an average of parameters leaves out.
BUFFER = re.compile(
    r"(.*\.)?(running_mean|running_var|num_batches_tracked|stored_mean|stored_var|weight_u|weight_v|u0|sv0|w_avg|lod"
    r"|noise\w*|\w*kernel|\w*filter|freqs|phases|transform|magnitude_ema)"
)
RATES = ("decay", "num_updates")  # what such an average holds beside the parameters
# Centres of truncation that scripts keep beside the networks: in a flat file, such as .safetensors, they are no layers.
CENTRES = ("latent_avg", "mean_latent", "latent_mean", "w_avg", "dlatent_avg")
TENSORFLOW_NAMES = ("G", "D", "Gs")  # in the order in which NVlabs' code pickles the networks


def _words(name: str) -> list[str]:
    """Return a name's words in lower case: `net`, `g` and `ema` for netG_ema."""
    words = [word.lower() for word in WORD.findall(name)]
    return [part for word in words for part in _parts_of_word(word)]


def _parts_of_word(word: str) -> list[str]:
    glued = GLUED.fullmatch(word)
    return [part for part in glued.groups() if part] if glued else [word]


@dataclass(frozen=True, eq=False)
class Entry:
    """A network in a file.

    Attributes:
        path: The keys that lead to it.
        network: Its state dict, or the stand-in for its object.
        beside: The container that holds it, and those around that.
        averaged: Whether something other than its name says that it is an averaged copy.
        extract: Whether it is part of a state dict whose other parts may belong to the same network.
    """

    path: tuple[str, ...]
    network: Network
    beside: Mapping[Any, Any] = field(default_factory=dict, repr=False)
    averaged: bool = False
    extract: bool = False

    @property
    def name(self) -> str:
        """The path, joined with dots."""
        return ".".join(self.path)

    @property
    def words(self) -> list[str]:
        """The name's words in lower case."""
        return [word for part in self.path for word in _words(part)]

    @property
    def is_averaged(self) -> bool:
        """Whether it is an averaged copy; in `ema.online_model` and `ema.ema_model`, the innermost key decides."""
        telling = (set(_words(part)) for part in reversed(self.path))
        words: set[str] = next((words for words in telling if words & (AVERAGED | PLAIN)), set())
        return self.averaged or not AVERAGED.isdisjoint(words)

    @property
    def is_discriminator(self) -> bool:
        return not DISCRIMINATOR.isdisjoint(self.words)

    @property
    def is_named_generator(self) -> bool:
        return not GENERATOR.isdisjoint(self.words)

    @property
    def is_large(self) -> bool:
        """Whether it may be a network, rather than a few numbers beside one."""
        if isinstance(self.network, Mapping):
            return any(not isinstance(tensor, Tensor) or tensor.ndim > 1 for tensor in self.network.values())
        return not isinstance(self.network, Placeholder) or self.network.is_module

    @property
    def rank(self) -> int:
        """0 for an averaged copy, 1 for an unmarked one, 2 for one whose name says that it is the plain copy."""
        return 0 if self.is_averaged else 1 if PLAIN.isdisjoint(self.words) else 2

    @property
    def identity(self) -> tuple[str, ...]:
        """The remaining words of its name, which copies of one generator share."""
        telling: list[str] = []
        for part in self.path:
            words = _words(part)
            decays = not AVERAGED.isdisjoint(words)  # Numbers may be its decay, as in ema_0.999.
            telling += [word for word in words if word not in COMMON and not (decays and word.isdigit())]
        return tuple(telling)


@dataclass(frozen=True)
class Choice:
    """The entry that was chosen.

    Attributes:
        entry: The entry.
        described: Its name, and the names that it was chosen from; empty if it is the whole file.
    """

    entry: Entry
    described: str


def find_entries(content: Any) -> list[Entry]:
    """Return all networks in a file's contents, down to `MAX_DEPTH` levels of nested dicts, lists and tuples."""
    found: list[Entry] = []
    items = 0
    pending: list[tuple[tuple[str, ...], Any, Mapping[Any, Any]]] = [((), content, {})]
    while pending and len(found) < MAX_ENTRIES:
        path, value, beside = pending.pop()
        items += 1 + (len(value) if isinstance(value, Mapping | list | tuple) else 0)
        if len(path) > MAX_DEPTH or items > MAX_ITEMS:
            continue
        if isinstance(value, PersistedModule | TensorFlowNetwork | Placeholder):
            found.append(Entry(path, value, beside))
            if isinstance(value, Placeholder):  # It may be a wrapper, like DataParallel, or a bag of networks.
                inside = value.state["_modules"] if value.is_module else value.state
                pending += [((*path, str(key)[:80]), inner, inside) for key, inner in inside.items()]
        elif isinstance(value, Mapping):
            found += _state_dict(path, value, beside)
            around = ChainMap(cast("MutableMapping[Any, Any]", value), cast("MutableMapping[Any, Any]", beside))
            inner = [
                ((*path, str(key)[:80]), item, around)
                for key, item in value.items()
                if not NO_NETWORK.fullmatch(str(key)[:80]) and not _is_tensor(item)
            ]
            pending += reversed(inner)
        elif isinstance(value, list | tuple):
            if value and all(isinstance(item, Tensor) for item in value):  # An average that lost its names.
                found.append(Entry(path, {str(index): item for index, item in enumerate(value)}, beside))
            else:
                names = _names_of(value)
                pending += reversed([((*path, name), item, beside) for name, item in zip(names, value, strict=True)])
    return found


def _state_dict(path: tuple[str, ...], content: Mapping[Any, Any], beside: Mapping[Any, Any]) -> list[Entry]:
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and _is_tensor(value)}
    if not tensors:
        return []
    check_names(tensors)
    # torch's AveragedModel: a counter, and the module's keys, each with the prefix `module.`
    averaged = "n_averaged" in tensors and all(key.startswith("module.") for key in tensors if key != "n_averaged")
    if averaged:
        del tensors["n_averaged"]
    return [Entry(path, tensors, beside if path else content, averaged)] if tensors else []


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, Placeholder) and value.is_tensor)


def _names_of(items: Sequence[Any]) -> list[str]:
    """Return names for the items of a list: TensorFlow networks' own, otherwise indices."""
    if any(isinstance(item, TensorFlowNetwork) for item in items):
        names = [str(item.state.get("name")) if isinstance(item, TensorFlowNetwork) else "" for item in items]
        if all(name.isidentifier() for name in names) and len(set(names)) == len(names):
            return [name[:80] for name in names]
        if len(items) == len(TENSORFLOW_NAMES):
            return list(TENSORFLOW_NAMES)
    return [str(index) for index in range(len(items))]


def choose(
    entries: Sequence[Entry],
    fits: Callable[[Network], bool],
    wanted: str | None = None,
    *,
    may_extract: bool = False,
) -> Choice | None:
    """Choose the generator: the averaged copy among the entries that fit.

    Args:
        entries: All networks in the file.
        fits: Returns whether a network is of the kind looked for.
        wanted: The entry that the user asks for: its name, or the end of its name.
        may_extract: Whether a part of a state dict may be chosen although its other parts may belong to it.

    Returns:
        The chosen entry; None if none fits.

    Raises:
        CheckpointError: If several different generators or copies fit, if only a part fits that may not be taken out
            of its state dict, or if there is no one entry `wanted`.
    """
    turns = iter(range(MAX_PARTS))
    parts = [part for entry in entries for part in _fitting(entry, fits, turns)]
    divided = [part for entry in entries for part in parts_of(entry)]
    completed = list(_completed([*entries, *divided], parts, fits))
    parts = [part for part in parts if part.path not in {one.path for one in completed}] + completed
    if wanted is not None:
        return Choice(_named(entries, parts, divided, wanted), f"{wanted}, as asked for")
    if not parts:
        return None
    candidates = [part for part in parts if not part.is_discriminator] or parts
    generators = {candidate.identity for candidate in candidates}
    best = min(candidate.rank for candidate in candidates)
    copies = [candidate for candidate in candidates if candidate.rank == best]
    copies = [copy for copy in copies if copy.is_named_generator] or copies
    if all(copy.extract for copy in copies) and not may_extract:
        raise CheckpointError(
            f"its state dict has {_list(_parts_beside(entries, copies[0]))} side by side, which may be parts of one "
            f"generator: read {copies[0].name} alone with {_option(copies)}, or the whole with your own class, "
            "MODULE:CLASS --weights FILE"
        )
    if len(generators) > 1 and not _all_equal(candidates):
        raise CheckpointError(f"several generators, {_list(candidates)}: choose one with --entry, as {_option(copies)}")
    if not _all_equal(copies):
        raise CheckpointError(
            f"several copies of the generator, {_list(copies)}: choose one with --entry, as {_option(copies)}"
        )
    return Choice(copies[0], _describe(copies[0], candidates, entries))


def _fitting(
    entry: Entry, fits: Callable[[Network], bool], turns: Iterator[int], depth: int = MAX_PREFIXES
) -> Iterator[Entry]:
    """Yield the entry if it fits, otherwise those of its parts that do, until `turns` runs out."""
    if fits(entry.network):
        yield entry
    elif depth:
        for part in parts_of(entry):
            if next(turns, None) is None:
                return
            yield from _fitting(part, fits, turns, depth - 1)


def parts_of(entry: Entry) -> list[Entry]:
    """Return the parts of a state dict, split by the first words of its keys: `generator.`, `discriminator.`, ..."""
    if not isinstance(entry.network, Mapping):
        return []
    groups: dict[str, dict[str, Tensor | Placeholder]] = {}
    loose = False
    for key, tensor in entry.network.items():
        prefix, dot, rest = strip_prefix(key).partition(".")
        if dot:
            groups.setdefault(prefix, {})[rest] = tensor
        else:
            is_number = isinstance(tensor, Tensor) and tensor.numel() == 1  # Counters and rates.
            loose |= not is_number and prefix not in CENTRES
    if len(groups) > MAX_GROUPS:
        return []
    if len(groups) == 1 and not loose:
        ((prefix, group),) = groups.items()
        return [replace(entry, path=(*entry.path, prefix), network=group)]
    parts = [Entry((*entry.path, prefix), group, entry.beside, entry.averaged) for prefix, group in groups.items()]
    foreign = loose or not all(_is_network_name(prefix) for prefix in groups)
    return [replace(part, extract=entry.extract or foreign) for part in parts]


def _is_network_name(prefix: str) -> bool:
    """Return whether this first word of keys names a network rather than a layer."""
    words = set(_words(prefix))
    named = AVERAGED | GENERATOR | DISCRIMINATOR
    return not words.isdisjoint(named) or words <= PLAIN | MEANINGLESS or HELPERS.fullmatch(prefix) is not None


def _parts_beside(entries: Sequence[Entry], part: Entry) -> list[Entry]:
    whole = next(entry for entry in entries if part.path[: len(entry.path)] == entry.path and parts_of(entry))
    return [replace(one, path=one.path[len(whole.path) :]) for one in parts_of(whole)]


def _completed(entries: Sequence[Entry], fitting: Sequence[Entry], fits: Callable[[Network], bool]) -> Iterator[Entry]:
    """Yield the averages that lack buffers, each completed with those of the copy that was averaged."""
    plain = [one.network for one in fitting if isinstance(one.network, Mapping) and not one.is_averaged]
    named = [strip_prefixes(network) for network in plain[:MAX_COPIES]]
    copies = [(network, [key for key in network if not BUFFER.fullmatch(key)]) for network in named]
    for entry in entries:
        if not entry.is_averaged or not isinstance(entry.network, Mapping):
            continue
        for network, parameters in copies:
            if len(parameters) <= len(entry.network) < len(network) + len(RATES):
                merged = _merge(entry.network, network, parameters)
                if merged and len(merged) > len(entry.network) and fits(merged):
                    yield replace(entry, network=merged, averaged=True, extract=False)
                    break


def _merge(average: StateDict, plain: StateDict, parameters: Sequence[str]) -> StateDict | None:
    """Return the plain copy with the average's tensors in place of its own.

    Return None unless these are all of its parameters, perhaps with some of its buffers, in the same shapes.
    """
    if list(average) == [str(index) for index in range(len(parameters))]:
        named = dict(zip(parameters, average.values(), strict=True))
    else:
        # An average that keeps its tensors as buffers of a module removes the dots from their names.
        undotted = {key.replace(".", ""): key for key in plain}
        named = {undotted.get(key, strip_prefix(key)): tensor for key, tensor in average.items()}
        named = {key: tensor for key, tensor in named.items() if key in plain or key not in RATES}
    if not set(parameters) <= set(named) <= set(plain):
        return None
    if any(not isinstance(value, Tensor) or _shape(value) != _shape(plain[key]) for key, value in named.items()):
        return None
    return {**plain, **named}


def _shape(value: object) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _named(entries: Sequence[Entry], parts: Sequence[Entry], divided: Sequence[Entry], wanted: str) -> Entry:
    """Return the entry with this name, or whose name ends in it."""
    for exact in (True, False):
        for candidates in (parts, [*entries, *divided]):
            matching = [one for one in candidates if one.name == wanted or (not exact and _ends_with(one, wanted))]
            if len(matching) > 1 and not exact:
                raise CheckpointError(f"several entries are called {wanted!r}: {_list(matching)}")
            if matching:
                return matching[0]
    raise CheckpointError(f"no entry {wanted!r}; it has {_list(parts or entries)}")


def _ends_with(entry: Entry, wanted: str) -> bool:
    return entry.name.endswith(f".{wanted}")


def _all_equal(entries: Sequence[Entry]) -> bool:
    """Return whether all hold the same weights, like a wrapper and the module in it."""
    return all(_equal(_unwrapped(one.network), _unwrapped(other.network)) for one, other in pairwise(entries))


def _unwrapped(network: Network) -> Network:
    return strip_prefixes(network) if isinstance(network, Mapping) else network


def _equal(one: Network, other: Network) -> bool:
    if one is other:
        return True
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return False
    if one.keys() != other.keys():
        return False
    pairs = [(value, other[key]) for key, value in one.items()]
    return all(
        isinstance(left, Tensor)
        and isinstance(right, Tensor)
        and left.dtype == right.dtype
        and torch.equal(left, right)
        for left, right in pairs
    )


def _describe(chosen: Entry, candidates: Sequence[Entry], entries: Sequence[Entry]) -> str:
    if not chosen.path:
        return ""
    names = {candidate.name for candidate in candidates}
    described = chosen.name if names == {chosen.name} else f"{chosen.name}, of {_list(candidates)}"
    # Mentioned so that nobody takes the plain copy for the averaged one.
    left = [one for one in entries if one.is_averaged and not one.is_discriminator and one.is_large]
    left = [one for one in left if not any(name.startswith(one.name) for name in names)]
    return described if chosen.is_averaged or not left else f"{described}; {_list(left)} does not fit"


def _list(entries: Sequence[Entry]) -> str:
    names = list(dict.fromkeys(entry.name or "the whole file" for entry in entries))
    return listed(names)


def _option(entries: Sequence[Entry]) -> str:
    return f"--entry {next(entry.name for entry in entries if entry.path)}"  # The whole file has no name to give.
