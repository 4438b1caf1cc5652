"""Record which vectors a user's module passes between its layers while it renders a few images."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from sefa.custom.layer_readers import has_matrix
from sefa.custom.layer_watching import Run, intercepting
from sefa.custom.style_space.feeding import Reader, Source, reader_with
from sefa.custom.style_space.places import find_place


@dataclass(eq=False)
class Group:
    """Layers that are called with the same vector.

    Attributes:
        vector: What they read, [K, D].
        readers: The layers, in the order in which they first run.
    """

    vector: Tensor
    readers: list[Reader]


@dataclass
class Recording:
    """The vectors in one run.

    Attributes:
        groups: Layers with a weight, by the vector that they are called with, in the order of the first call.
        sources: Modules that give one vector for each image, and the vector [K, D], in the order in which they end.
        begun: For each group, how many sources had ended when its first layer was called.
    """

    groups: list[Group] = field(default_factory=list)
    sources: list[tuple[Source, Tensor]] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)

    def group_of(self, vector: Tensor) -> Group | None:
        """Return the layers that are called with exactly this vector."""
        return next((group for group in self.groups if torch.equal(group.vector, vector)), None)

    def source_of(self, vector: Tensor) -> Source | None:
        """Return the outermost module that gives exactly this vector."""
        givers = [source for source, given in self.sources if torch.equal(given, vector)]
        return min(givers, key=lambda source: source.name.count("."), default=None)


def record(module: nn.Module, run: Run, codes: Tensor) -> Recording:
    """Render images and record all vectors that layers read and modules give.

    A layer that is called with several vectors, or a module that is called several times, is left out.
    """
    recording, count = Recording(), len(codes)
    calls: dict[str, int] = {}
    reading: dict[str, list[tuple[Reader, Tensor, int]]] = {}
    mixed: set[str] = set()

    def around(name: str, layer: nn.Module) -> Callable[..., Any]:
        is_layer = has_matrix(layer)

        def heard(forward: Callable[..., Any], arguments: Any, keywords: Any) -> Any:
            if is_layer:
                found = _vectors_read(name, arguments, keywords, count)
                before = reading.setdefault(name, [(*one, len(recording.sources)) for one in found])
                if [one[0] for one in before] != [one[0] for one in found] or not all(
                    torch.equal(old[1], new[1]) for old, new in zip(before, found, strict=True)
                ):
                    mixed.add(name)
            output = forward(*arguments, **keywords)
            calls[name] = calls.get(name, 0) + 1
            recording.sources += _vectors_given(name, output, count)
            return output

        return heard

    with ExitStack() as stack:
        for name, layer in module.named_modules():
            if name and not isinstance(layer, torch.jit.ScriptModule):
                stack.enter_context(intercepting(layer, around(name, layer)))
        run(codes)
    for name, found in reading.items():
        for reader, vector, begun in found if name not in mixed else []:
            group = recording.group_of(vector)
            if group is None:
                recording.groups.append(Group(vector, [reader]))
                recording.begun.append(begun)
            else:
                group.readers.append(reader)
    recording.sources = [pair for pair in recording.sources if calls[pair[0].name] == 1]
    return recording


def _vectors_read(name: str, arguments: Any, keywords: Any, count: int) -> list[tuple[Reader, Tensor]]:
    """Return the different vectors among a layer's arguments, each with the arguments that hold it."""
    found: list[tuple[Reader, Tensor]] = []
    for index, leaf in enumerate(tree_flatten((arguments, keywords))[0]):
        place = find_place(leaf, count) if isinstance(leaf, Tensor) else None
        if place is None:
            continue
        vector = place.vector(leaf).clone()
        for position, (reader, known) in enumerate(found):
            if reader.place == place and torch.equal(known, vector):
                found[position] = Reader(name, (*reader.leaves, index), place), known
                break
        else:
            found.append((Reader(name, (index,), place), vector))
    return found


def _vectors_given(name: str, output: Any, count: int) -> list[tuple[Source, Tensor]]:
    leaves, structure = tree_flatten(output)
    places = [find_place(leaf, count) if isinstance(leaf, Tensor) else None for leaf in leaves]
    template = tree_unflatten([None if isinstance(leaf, Tensor) else leaf for leaf in leaves], structure)
    return [
        (Source(name, index, place, template), place.vector(leaf).clone())
        for index, (leaf, place) in enumerate(zip(leaves, places, strict=True))
        if place is not None
    ]


def direct_readers(module: nn.Module, run: Run, codes: Tensor, group: Group) -> list[Reader]:
    """Return the group's layers that transform the vector themselves, not only by layers inside them.

    Each layer that has others inside is run twice, with the vectors of two images exchanged in the second run and the
    layers inside giving what they gave in the first: if its output is the same, only they read the vector.
    """
    layers = {name: layer for name, layer in module.named_modules() if name and has_matrix(layer)}
    inside = {reader.name: [name for name in layers if name.startswith(f"{reader.name}.")] for reader in group.readers}
    indirect: set[str] = set()
    given: list[dict[str, list[Any]]] = []  # what the layers inside gave, for each layer that is now run twice
    repeating: list[bool] = []

    def outer(reader: Reader) -> Callable[..., Any]:
        def around(forward: Callable[..., Any], arguments: Any, keywords: Any) -> Any:
            code = reader.place.vector(tree_flatten((arguments, keywords))[0][reader.leaves[0]])
            swapped = reader_with(reader, *_copied(arguments, keywords), code.roll(1, 0))
            given.append({})
            repeating.append(False)
            try:
                output = forward(*arguments, **keywords)
                kept = [leaf.clone() for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor)]
                repeating[-1] = True
                again = tree_flatten(forward(*swapped[0], **swapped[1]))[0]
            finally:
                given.pop()
                repeating.pop()
            if all(torch.equal(*pair) for pair in zip(kept, (x for x in again if isinstance(x, Tensor)), strict=True)):
                indirect.add(reader.name)
            return output

        return around

    def inner(name: str, around: Callable[..., Any] | None) -> Callable[..., Any]:
        def within(forward: Callable[..., Any], arguments: Any, keywords: Any) -> Any:
            if repeating and repeating[-1]:
                return given[-1][name].pop(0)
            output = forward(*arguments, **keywords) if around is None else around(forward, arguments, keywords)
            for one in given:
                one.setdefault(name, []).append(output.clone() if isinstance(output, Tensor) else output)
            return output

        return within

    outers = {reader.name: outer(reader) for reader in group.readers if inside[reader.name]}
    if outers:
        with ExitStack() as stack:
            for name, layer in layers.items():
                stack.enter_context(intercepting(layer, inner(name, outers.get(name))))
            run(codes[:2])
    return [reader for reader in group.readers if reader.name not in indirect]


def _copied(arguments: Any, keywords: Any) -> tuple[Any, Any]:
    leaves, structure = tree_flatten((arguments, keywords))
    copies = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    copied: tuple[Any, Any] = tree_unflatten(copies, structure)
    return copied
