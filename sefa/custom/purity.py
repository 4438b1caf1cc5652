"""Check that a module's images depend on latent and class alone, not on random numbers, past calls or batch-mates."""

import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sefa.custom.user_code import kind, users_line
from sefa.errors import ArgumentError

# How far a value may move when float32 numbers are summed in another order, as a share of the image's largest value;
# convolution algorithms differ between batch sizes.
SAME = 1e-3
# The limit if only the batch-mates or their order differ: then every image is computed in the same way.
SAME_WAY = 1e-5

Render = Callable[[Tensor], Tensor]  # codes [N, D] to images [N, C, H, W]


class RandomNumbersError(ArgumentError):
    """A module draws random numbers with torch."""


def check_pure(module: nn.Module, render: Render, codes: Tensor, others: Tensor) -> Tensor:
    """Refuse a module whose images are not a function of latent and class alone.

    Args:
        module: The module, in inference mode.
        render: Renders images with it.
        codes: Three codes, [3, D].
        others: Three other codes, [3, D].

    Returns:
        The images of `codes`.

    Raises:
        ArgumentError: If the module draws random numbers or changes itself, or its images are not finite, depend on the
            batch or are the same for all latents.
    """
    who = kind(module)
    before = State(module)
    image = _render_watched(module, render, codes)
    if not image.isfinite().all():
        raise ArgumentError(f"{who} gives images with NaN or infinite values")
    changed = before.changed(module)
    if changed:
        raise ArgumentError(
            f"{who} keeps a state: rendering images changes its {changed[0]}"
            + (f" and {len(changed) - 1} more" if len(changed) > 1 else "")
            + (
                "; script or trace it after module.eval()"
                if isinstance(module, torch.jit.ScriptModule)
                else "; let its forward leave parameters and buffers as they are in inference mode"
            )
        )
    for seed in (1, 2):
        with _seeded(seed):
            render(others)  # A module that remembers its last call now gives another image.
            again = render(codes)
        if not torch.equal(again, image):
            apart = float((again - image).abs().max())
            raise ArgumentError(
                f"{who} gives another image at every call, up to {apart:.1g} apart, without an "
                "operator of torch's that draws random numbers: by numpy, Python's random, the time or a state that "
                "it keeps; make it constant"
            )
    _check_batch(who, render, codes, others, image)
    if all(torch.equal(image[0], other) for other in image[1:]):
        raise ArgumentError(f"{who} gives the same image for every latent")
    return image


def _check_batch(who: str, render: Render, codes: Tensor, others: Tensor, image: Tensor) -> None:
    largest = image.abs().max()
    mates = render(torch.cat([codes[:1], others[1:]]))[:1]
    order = torch.tensor([2, 0, 1])
    turned = render(codes[order])
    alone = render(codes[:1])
    if (mates - image[:1]).abs().max() > SAME_WAY * largest or (turned - image[order]).abs().max() > SAME_WAY * largest:
        raise ArgumentError(
            f"{who}'s images depend on what else is in the batch, as after a BatchNorm without running statistics or "
            "in training mode"
        )
    if alone.shape != image[:1].shape:
        raise ArgumentError(f"{who} gives images {list(image.shape)} for three latents, {list(alone.shape)} for one")
    apart = float((alone - image[:1]).abs().max() / largest)
    if apart > SAME:
        raise ArgumentError(
            f"{who}'s images depend on the size of the batch: alone, an image differs by {apart:.1g} of the largest "
            f"value, {float(largest):.2g}; either its code uses the size, or rounding errors grow, as with running "
            "statistics that are not the weights' own"
        )


class State:
    """A copy of a module's parameters and buffers at one moment."""

    def __init__(self, module: nn.Module) -> None:
        """Copy all parameters and buffers."""
        self._kept = {name: tensor.detach().clone() for name, tensor in _tensors(module)}

    def changed(self, module: nn.Module) -> list[str]:
        """Return the names of those that have changed or are gone."""
        now = dict(_tensors(module))
        return [
            name
            for name, tensor in self._kept.items()
            if name not in now or tensor.shape != now[name].shape or not _same_bits(tensor, now[name])
        ]

    def restore(self, module: nn.Module) -> None:
        """Restore the values of those that still exist with the same shape."""
        for name, tensor in _tensors(module):
            if name in self._kept and tensor.shape == self._kept[name].shape:
                tensor.data.copy_(self._kept[name])


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def _render_watched(module: nn.Module, render: Render, codes: Tensor) -> Tensor:
    """Render, and refuse a module that asks torch for random numbers while it does."""
    watch = _RandomWatch()
    with watch:
        image = render(codes)
    operator, where = watch.found or _random_node(module) or ("", "")
    if operator:
        training = [name for name, layer in module.named_modules() if layer.training]
        compiled = any(isinstance(layer, torch.jit.ScriptModule) for layer in module.modules())
        raise RandomNumbersError(
            f"{kind(module)} draws random numbers: {operator}{f' at {where}' if where else ''}; "
            + (f"{training[0] or 'it'} stays in training mode; " if training else "")
            + ("make them constant " if compiled else "make them constant with --freeze-noise SEED, or ")
            + "as a buffer, or leave them out in inference mode"
        )
    return image


class _RandomWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the first operator that draws random numbers, and the line of the user's code that called it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: tuple[str, str] | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.found is None and _is_random(func):
            self.found = f"torch's {func.overloadpacket.__name__.strip('_')}", users_line(sys._getframe(1))
        return func(*args, **(kwargs or {}))


def _is_random(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in func.tags or any(
        argument.name == "generator" for argument in func._schema.arguments
    )


def _random_node(module: nn.Module) -> tuple[str, str] | None:
    """Find an operator in TorchScript's graph that draws random numbers, even in branches that the run did not take."""
    if not isinstance(module, torch.jit.ScriptModule):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch recommends torch.compile.
            graph = torch.jit.freeze(module).graph  # without the parts that only serve training
    except RuntimeError:  # The module changes its own attributes, which is checked elsewhere.
        return None
    for node in _nodes(graph):
        space, _, name = node.kind().partition("::")
        if space != "aten" or "dropout" in name:  # The run shows whether dropout is on.
            continue
        packet = getattr(torch.ops.aten, name, None)
        if packet is not None and any(_is_random(getattr(packet, overload)) for overload in packet.overloads()):
            return f"torch's {name.strip('_')}", ""
    return None


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global random generators of torch, numpy and Python, and restore their states afterwards."""
    kept, numpy_kept = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(kept)
            np.random.set_state(numpy_kept)
