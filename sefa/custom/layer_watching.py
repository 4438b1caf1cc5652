"""Run a module until one of its layers has run, and record that layer's input and output."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Run = Callable[[Tensor], object]  # codes [N, D] to anything

CHUNK = 64  # latents in one run
# Operators with which TorchScript applies a weight.
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "convolution", "_convolution", "conv_transpose2d"}


@dataclass(frozen=True)
class Seen:
    """What one run showed of a layer.

    Attributes:
        x: The tensor that it read, [N, ...].
        y: Its output, [N, ...].
        replay: Applies the layer to other tensors like x; None if it read more than one tensor.
    """

    x: Tensor
    y: Tensor
    replay: Callable[[Tensor], Any] | None


class Reached(BaseException):
    """Raised when the layer has run, to skip the rest. Not an Exception: those are taken for the user's errors."""


def watch_batch(run: Run, layer: nn.Module, codes: Tensor) -> tuple[Seen | None, int]:
    """Return a layer's input and output for all these codes, and how many latents a run may have."""
    seen, alone = watch(run, layer, codes), watch(run, layer, codes[:1])
    if seen is None or alone is None or seen.x.shape != alone.x.shape:
        return seen, CHUNK
    # The layer saw a single image in both runs: the module renders one image after another.
    runs = [one for code in torch.split(codes, 1) if (one := watch(run, layer, code)) is not None]
    x, y = torch.cat([one.x for one in runs]), torch.cat([one.y for one in runs])
    return Seen(x, y, seen.replay), 1


def watch(run: Run, layer: nn.Module, codes: Tensor) -> Seen | None:
    """Run the module until the layer has run, and return what it did; None if the layer does not run."""
    if not isinstance(layer, torch.jit.ScriptModule):
        seen = _watch_forward(run, layer, codes)
        if seen is not None:
            return seen
    return watch_operators(run, layer, codes)


def _watch_forward(run: Run, layer: nn.Module, codes: Tensor) -> Seen | None:
    seen: list[Seen] = []

    def reached(forward: Callable[..., Any], arguments: Any, keywords: Any, output: Any) -> None:
        inputs = [value for value in (*arguments, *keywords.values()) if isinstance(value, Tensor)]
        if not inputs or not isinstance(output, Tensor):
            return

        def replay(x: Tensor) -> Any:
            def swap(value: Any) -> Any:
                return x if isinstance(value, Tensor) else value

            return forward(*map(swap, arguments), **{key: swap(value) for key, value in keywords.items()})

        # Keep copies: an activation after the layer may work in place.
        seen.append(Seen(inputs[0].clone(), output.clone(), replay if len(inputs) == 1 else None))
        raise Reached

    with _listening(layer, reached), suppress(Reached):
        run(codes)
    return seen[0] if seen else None


def watch_operators(run: Run, layer: nn.Module, codes: Tensor) -> Seen | None:
    """Watch a layer whose forward is not called from Python, by finding the operator that applies its weight."""
    tracker = _Tracker(codes, layer)
    try:
        with tracker:
            run(codes)
    except (Exception, Reached):  # TorchScript's interpreter turns Reached into another class.
        if tracker.seen is None:
            raise
    return tracker.seen


class _Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the latent and a layer's parameters through all operators to the first product of the two."""

    def __init__(self, latent: Tensor, layer: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: Seen | None = None
        self._layer = layer
        # Keyed by id; keeping the tensors alive ensures that no id is reused.
        self._from_latent = {id(latent): latent}
        self._from_layer = {id(tensor): tensor for tensor in (*layer.parameters(), *layer.buffers())}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        latents = [value for value in inputs if id(value) in self._from_latent]
        weights = [value for value in inputs if id(value) in self._from_layer]
        name = func.overloadpacket.__name__
        if latents and weights and name in PRODUCTS and isinstance(output, Tensor):
            self.seen = Seen(latents[0].clone(), output.clone(), self._layer)
            raise Reached
        for value in tree_leaves(output):
            if isinstance(value, Tensor):
                if latents:
                    self._from_latent[id(value)] = value
                elif weights:
                    self._from_layer[id(value)] = value
        return output


@contextmanager
def listening_to(
    module: nn.Module, names: list[str], heard: Callable[[str, list[Tensor], Any], None]
) -> Iterator[None]:
    """Call `heard` with name, input tensors and output whenever one of these layers is run from Python."""
    layers = dict(module.named_modules())
    with ExitStack() as stack:
        for name in names:
            layer = layers[name]
            if not isinstance(layer, torch.jit.ScriptModule):

                def report(forward: Any, arguments: Any, keywords: Any, output: Any, name: str = name) -> None:
                    values = (*arguments, *keywords.values())
                    heard(name, [value for value in values if isinstance(value, Tensor)], output)

                stack.enter_context(_listening(layer, report))
        yield


@contextmanager
def _listening(layer: nn.Module, heard: Callable[[Callable[..., Any], Any, Any, Any], None]) -> Iterator[None]:
    """Call `heard` with a layer's forward, its arguments and its output, whenever it runs."""

    def around(forward: Callable[..., Any], arguments: Any, keywords: Any) -> Any:
        output = forward(*arguments, **keywords)
        heard(forward, arguments, keywords, output)
        return output

    with intercepting(layer, around):
        yield


@contextmanager
def intercepting(layer: nn.Module, around: Callable[[Callable[..., Any], Any, Any], Any]) -> Iterator[None]:
    """Call `around` with a layer's forward and its arguments in place of the forward, whenever it runs.

    Hooks would miss a layer whose wrapper calls `module.forward()`, as home-made spectral norms do.
    """
    own = layer.__dict__.get("forward")
    forward = layer.forward

    def intercepted(*arguments: Any, **keywords: Any) -> Any:
        return around(forward, arguments, keywords)

    layer.__dict__["forward"] = intercepted
    try:
        yield
    finally:
        if own is None:
            del layer.__dict__["forward"]
        else:
            layer.__dict__["forward"] = own
