"""Describe a file that no format recognises: what it holds, which format is nearest, and how its own code reads it."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from sefa.checkpoints.checkpoint import Network, clean, strip_prefix
from sefa.checkpoints.contents import EXPECTED
from sefa.checkpoints.entries import Entry, parts_of
from sefa.checkpoints.pickled_networks import PersistedModule, TensorFlowNetwork
from sefa_runtime.pickles.names import Name
from sefa_runtime.pickles.placeholders import Placeholder
from sefa_runtime.printable import quoted

# The kinds of keys of each format of state dicts, with # for numbers: those of the golden checkpoints.
KNOWN_KEYS = Path(__file__).with_name("known_keys.json")
# Of the kinds of keys in the file and in a format together, the share that both must have for the format to be named.
LEAST_SHARE = 0.25
MAX_NAMED, MAX_NAME = 3, 80
MAX_PARTS = 64
# What messages say, and what takes its place when the file's name is known.
OWN_CODE = "MODULE:CLASS --weights FILE"
# Where a label comes in, the first layer's shape does not say how long z is.
OF_LABEL = re.compile(r"emb|label|class|cond|(^|\.)y\b", re.IGNORECASE)
NOT_THEIRS = {*sys.stdlib_module_names, "torch"}
SOURCE = re.compile(r"(?!__main__)[A-Za-z_][\w.]*:[A-Za-z_]\w*")
WEIGHT = re.compile(r"(?P<layer>.+)\.(weight|weight_orig|weight_v|parametrizations\.weight\.original1?)")


def describe_unknown(path: Path, content: Any, entries: Sequence[Entry]) -> str:
    """Describe a file that no format recognises, and say what to do with it."""
    own = "a generator of your own class is read with"
    for entry in entries:
        network, where = entry.network, f"its {entry.name}" if entry.name else "it"
        if isinstance(network, Placeholder) and network.is_module:
            return (
                f"{where} is a whole module of class {network.class_name}, whose code is not in the file: save the "
                f"generator's state_dict() instead, or read it as it is: {own} "
                f"{_inspection(path, entry, _source(network.class_name))}"
            )
        if isinstance(network, PersistedModule):
            return (
                f"no known generator; {EXPECTED}, {where} is a network of class {network.class_name}; {own} "
                f"{_inspection(path, entry, _source(network.class_name))}"
            )
        if isinstance(network, TensorFlowNetwork):
            return f"no known generator; {EXPECTED}, {where} is a TensorFlow network of another architecture"
    state_dicts = [entry for entry in entries if isinstance(entry.network, Mapping)]
    if any(entry.is_large for entry in entries) and state_dicts:
        largest = max(state_dicts, key=lambda entry: len(_tensors(entry.network)))
        tensors = clean(_tensors(largest.network))
        where = f"{largest.name}'s" if largest.name else "its"
        near = nearest_format(largest)
        return (
            f"no known generator; {EXPECTED}, {where} keys begin with {_some(tensors)}; "
            f"{f'{near}; ' if near else ''}{own} {own_command(path, largest, tensors)}"
        )
    if isinstance(content, Placeholder | Name):
        named = content.class_name if isinstance(content, Placeholder) else content
        return f"no generator inside: it holds a {named}; {EXPECTED}"
    keys = f" of {_some(content)}" if isinstance(content, Mapping) else ""
    return f"no generator inside: it holds a {type(content).__name__}{keys}; {EXPECTED}"


def nearest_format(entry: Entry) -> str:
    """Return which format's keys are most like those of a state dict or of one of its parts, and how they differ.

    Empty if none is like them.
    """
    best, share, kinds, where = "", LEAST_SHARE, set[str](), ""
    for part in [entry, *parts_of(entry)[:MAX_PARTS]]:
        own = {kind_of_key(key) for key in _tensors(part.network)}
        for name, known in known_keys().items():
            common = len(own & known) / len(own | known)
            if common > share:
                best, share, kinds, where = name, common, own, part.name
    if not best:
        return ""
    known = known_keys()[best]
    of_what = f" to its {where}" if where != entry.name else ""
    return (
        f"the nearest known format{of_what} is {best}, of whose {len(known)} kinds of keys it has "
        f"{len(known & kinds)}: missing {_first(known - kinds)}, unexpected {_first(kinds - known)}"
    )


def own_command(path: Path, entry: Entry, tensors: Mapping[str, Tensor]) -> str:
    """Return the command that reads a state dict with its own code, as complete as the tensors allow."""
    layer = first_layer(tensors)
    if layer is None:
        return _inspection(path, entry)
    name, latent_dim = layer
    options = ["--latent-dim", str(latent_dim), "--layers", name, "-o", f"{path.stem}.onnx"]
    return f"`sefa export MODULE:CLASS {' '.join(map(quoted, [*_weights(path, entry), *options]))}`"


def _inspection(path: Path, entry: Entry, source: str = "MODULE:CLASS") -> str:
    command = f"sefa inspect {source} {' '.join(map(quoted, _weights(path, entry)))}"
    return f"`{command}`, which prints the command that exports it"


def _weights(path: Path, entry: Entry) -> list[str]:
    return ["--weights", str(path), *(["--entry", entry.name] if entry.name else [])]


def _source(class_name: str) -> str:
    """Return a class's name as commands take and call it, unless it is Python's or torch's own."""
    module, _, name = class_name.rpartition(".")
    is_theirs = SOURCE.fullmatch(f"{module}:{name}") and module.partition(".")[0] not in NOT_THEIRS
    return f"{module}:{name}" if is_theirs else "MODULE:CLASS"


def first_layer(tensors: Mapping[str, Tensor]) -> tuple[str, int] | None:
    """Return the name of the layer that reads z, and the length of z, if the first weight shows them.

    Networks keep their weights in the order in which they were made: the first is the first layer's. It is a linear
    layer, [out, z], or a transposed convolution, [z, out, k, k]. Nothing is returned if there are labels, which may be
    part of what it reads, or if there is a mapping network, whose output the layers of interest read.
    """
    weights = [(match["layer"], tensor) for key, tensor in tensors.items() if (match := WEIGHT.fullmatch(key))]
    weights = [(name, tensor) for name, tensor in weights if tensor.ndim > 1]
    if not weights or any(OF_LABEL.search(key) for key in tensors):
        return None
    (name, first), others = weights[0], weights[1:]
    is_mapping = first.ndim == 2 and bool(others) and others[0][1].shape == first.shape
    if is_mapping or first.ndim not in (2, 4) or (first.ndim == 4 and first.shape[2:].numel() == 1):
        return None
    return name, first.shape[1] if first.ndim == 2 else first.shape[0]


@cache
def known_keys() -> dict[str, set[str]]:
    """Return the kinds of keys of each format."""
    return {name: set(kinds) for name, kinds in json.loads(KNOWN_KEYS.read_text()).items()}


def kind_of_key(key: str) -> str:
    """Return a key without prefixes and with # for its numbers."""
    return re.sub(r"\d+", "#", strip_prefix(key))


def with_file(text: str, path: Path) -> str:
    """Return a message in which the way to the file's own code names the file."""
    return text.replace(OWN_CODE, f"MODULE:CLASS --weights {quoted(str(path))}")


def _tensors(network: Network) -> Mapping[str, Any]:
    return network if isinstance(network, Mapping) else {}


def _first(kinds: set[str]) -> str:
    shown = sorted(kinds)[:MAX_NAMED]
    more = f" and {len(kinds) - len(shown)} more" if len(kinds) > len(shown) else ""
    return f"{', '.join(kind[:MAX_NAME] for kind in shown)}{more}" if shown else "none"


def _some(keys: Mapping[Any, Any]) -> str:
    names = [str(key)[:MAX_NAME] for key in islice(keys, 4)] or ["nothing"]
    return ", ".join(names) + (", ..." if len(keys) > 4 else "")
