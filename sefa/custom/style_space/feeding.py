"""Give a user's module the style codes that its layers read, and find out which ones they read of their own accord."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from sefa.custom.layer_watching import Reached, intercepting
from sefa.custom.style_space.places import Place


@dataclass(frozen=True)
class Source:
    """The module whose output holds the style code.

    Attributes:
        name: Its name in `named_modules`.
        leaf: Which of its outputs, counted through tuples and dicts.
        place: How that tensor holds the code.
        output: All outputs, with None for tensors.
    """

    name: str
    leaf: int
    place: Place
    output: Any


@dataclass(frozen=True)
class Reader:
    """A layer that is called with the style code.

    Attributes:
        name: Its name in `named_modules`.
        leaves: Which of its arguments hold the code, counted through tuples and dicts.
        place: How these tensors hold the code.
    """

    name: str
    leaves: tuple[int, ...]
    place: Place


@dataclass(frozen=True)
class Feed:
    """Where style codes go in.

    Attributes:
        source: The mapping; None if no module gives what the layers read.
        readers: The layers that are given a code of their own, in the order in which they run; empty if one code serves
            all, as the mapping's output.
    """

    source: Source | None
    readers: tuple[Reader, ...]


def reader_with(reader: Reader, arguments: Any, keywords: Any, code: Tensor) -> tuple[Any, Any]:
    """Return a layer's arguments, with a code [N, D] in place of the one that it was called with."""
    leaves, structure = tree_flatten((arguments, keywords))
    for leaf in reader.leaves:
        leaves[leaf] = reader.place.tensor(code)
    swapped: tuple[Any, Any] = tree_unflatten(leaves, structure)
    return swapped


@contextmanager
def feeding(module: nn.Module, feed: Feed, codes: Sequence[Tensor]) -> Iterator[None]:
    """Let the module's layers read these codes instead of what its mapping gives.

    Args:
        module: The module.
        feed: Where the codes go in.
        codes: One [N, D] for each reader, or only one if there are no readers; the mapping gives the first.
    """
    with ExitStack() as stack:
        if feed.source is not None:
            around = _giving(feed.source, codes[0])
            stack.enter_context(intercepting(module.get_submodule(feed.source.name), around))
        if feed.readers:
            for reader, code in zip(feed.readers, codes, strict=True):
                stack.enter_context(intercepting(module.get_submodule(reader.name), _reading(reader, code)))
        yield


def _giving(source: Source, code: Tensor) -> Callable[..., Any]:
    def around(forward: Callable[..., Any], arguments: Any, keywords: Any) -> Any:
        leaves, structure = tree_flatten(source.output)
        if leaves.count(None) > 1:  # There are other outputs that only the module itself can make.
            leaves, structure = tree_flatten(forward(*arguments, **keywords))
        leaves[source.leaf] = source.place.tensor(code)
        return tree_unflatten(leaves, structure)

    return around


def _reading(reader: Reader, code: Tensor) -> Callable[..., Any]:
    def around(forward: Callable[..., Any], arguments: Any, keywords: Any) -> Any:
        arguments, keywords = reader_with(reader, arguments, keywords, code)
        return forward(*arguments, **keywords)

    return around


def capture(module: nn.Module, feed: Feed, run: Callable[[], object]) -> Tensor:
    """Run a module until the style code is known, and return the code, [N, D]."""
    found: list[Tensor] = []
    # torch.export follows which module is running, and loses its place if one is left early; what the module computes
    # after the code is dead code there.
    stops = not torch.compiler.is_exporting()

    def given(forward: Callable[..., Any], arguments: Any, keywords: Any) -> Any:
        assert feed.source is not None
        output = forward(*arguments, **keywords)
        found.append(feed.source.place.vector(tree_flatten(output)[0][feed.source.leaf]))
        if stops:
            raise Reached
        return output

    def read_by(reader: Reader) -> Callable[..., Any]:
        def around(forward: Callable[..., Any], arguments: Any, keywords: Any) -> Any:
            found.append(reader.place.vector(tree_flatten((arguments, keywords))[0][reader.leaves[0]]))
            if stops:
                raise Reached
            return forward(*arguments, **keywords)

        return around

    with ExitStack() as stack:
        if feed.source is not None:
            stack.enter_context(intercepting(module.get_submodule(feed.source.name), given))
        else:
            for reader in feed.readers:
                stack.enter_context(intercepting(module.get_submodule(reader.name), read_by(reader)))
        with suppress(Reached):
            run()
    return found[0]
