"""Find which layers of a user's module read the latent, for messages about layers that do not."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sefa.custom.layer_watching import Run, Seen, listening_to, watch_operators
from sefa.custom.probing import Probe, rows_of, scaled_entries
from sefa.custom.user_code import kind
from sefa.errors import listed

# Largest deviation from y = A·z + b that float32 sums may cause, as a share of the largest change of y.
AFFINE_TOLERANCE = 1e-3
MAX_BESIDE = 4096  # most entries beside z in a layer's input
MAX_TRIED = 32  # most layers of a TorchScript module to examine for a message: each takes a run


def name_usable_layers(module: nn.Module) -> str:
    """Name the layers that have a weight with two axes or more, so that they may be the first transform."""
    return listed(list(_usable_layers(module))) or "none"


def say_readers(module: nn.Module, run: Run, probe: Probe) -> str:
    """Name the layers that read the latent."""
    return _readers_in_words(find_readers(module, run, probe))


def say_why_not(module: nn.Module, name: str, run: Run, seen: Seen, probe: Probe) -> str:
    """Say why a layer whose output is not affine in the latent cannot be analysed, and which layers can."""
    readers = find_readers(module, run, probe)
    if name in readers:
        return "is no affine map of what it reads"
    sources = _sources(module, run, seen.x, probe)
    reads = (
        f"what {sources[0]!r} ({kind(dict(module.named_modules())[sources[0]])}) gives"
        if sources
        else "something computed from z"
    )
    return (
        f"is not the first transform of the latent: it reads {reads}, which is no multiple of z; "
        + _readers_in_words(readers)
    )


def _sources(module: nn.Module, run: Run, x: Tensor, probe: Probe) -> list[str]:
    """Find the layers whose output is x."""
    found = []

    def heard(name: str, inputs: list[Tensor], output: Any) -> None:
        if isinstance(output, Tensor) and output.numel() == x.numel() and torch.equal(output.flatten(), x.flatten()):
            found.append(name)

    leaves = [name for name, layer in module.named_modules() if name and not any(layer.children())]
    with listening_to(module, leaves, heard):
        run(probe.codes)
    return found


def find_readers(module: nn.Module, run: Run, probe: Probe) -> list[str]:
    """Find the layers with a weight that read s·z or an affine function of z."""
    a, b = probe.codes[:2].clone(), probe.codes[:1].clone()
    size = probe.latent_dim
    sums = a[:1].repeat(3, 1)
    sums[:, :size] = torch.stack([0 * a[0, :size], a[0, :size] + a[1, :size], -2 * b[0, :size]])
    same = probe.codes[: probe.same_class]
    codes = torch.cat([same, sums])
    inputs: dict[str, Tensor] = {}

    def heard(name: str, tensors: list[Tensor], output: Any) -> None:
        if tensors and name not in inputs and tensors[0].numel() <= len(codes) * (size + MAX_BESIDE):
            inputs[name] = tensors[0].clone()

    layers = dict(module.named_modules())
    names = list(_usable_layers(module))
    with listening_to(module, names, heard):
        run(codes)
    for name in names[:MAX_TRIED]:
        if isinstance(layer := layers[name], torch.jit.ScriptModule):
            seen = watch_operators(run, layer, codes)
            if seen is not None:
                heard(name, [seen.x], seen.y)
    found = []
    for name in names:
        x = rows_of(inputs[name], len(codes)) if name in inputs else None
        if x is None or not (x[: len(same)] - x[:1]).any():
            continue
        at_origin, at_sum, at_double = x[len(same) :]
        additive = torch.stack([at_sum - x[0] - x[1] + at_origin, at_double - 3 * at_origin + 2 * x[0]])
        affine = additive.abs().max() <= AFFINE_TOLERANCE * x[: len(same)].abs().max()
        if affine or scaled_entries(x[: len(same)], same[:, :size]) is not None:
            found.append(name)
    return found


def _readers_in_words(readers: list[str]) -> str:
    return f"those that read z are {listed(readers)}" if readers else "no layer with a weight reads z itself"


def _usable_layers(module: nn.Module) -> Iterator[str]:
    for name, layer in module.named_modules():
        if name and has_matrix(layer) and "parametriz" not in name:
            yield name


def has_matrix(layer: nn.Module) -> bool:
    """Return whether a layer has a weight of its own with two axes or more."""
    return any(
        parameter.ndim >= 2
        for name, parameter in layer.named_parameters()
        if "." not in name or name.startswith("parametrizations.")
    )
