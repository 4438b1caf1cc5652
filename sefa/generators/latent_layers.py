"""What a layer of any module does to the latent, found by running it rather than by reading its weights.

So whatever makes up the effective weight is in it: spectral and weight normalisation, equalised gains, a label that is
concatenated before or behind, a latent that is split.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sefa.errors import ArgumentError

Run = Callable[[Tensor], object]  # codes [N, D] to anything

CHUNK = 64  # latents in one run
# What float32 sums leave of y = A·z + b, as a share of the largest change of y.
AFFINE_TOLERANCE = 1e-3
MAX_NAMED = 8  # layers in one message
# Where TorchScript applies a weight.
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "convolution", "_convolution", "conv_transpose2d"}


def name_usable_layers(module: nn.Module) -> str:
    """The layers that have a weight of two axes or more, and can be the first transform, for messages."""
    names = [name for name, layer in module.named_modules() if name and _has_matrix(layer) and "parametriz" not in name]
    if not names:
        return "none"
    return ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")


def affine_weight(module: nn.Module, name: str, run: Run, codes: Tensor, latent_dim: int) -> Tensor:
    """Find A of y = A·z + b, where y is a layer's output and z the latent.

    Where y is no affine function of z, as behind a normalisation of z, but the layer reads as many values as the latent
    has, A is the layer's own weight.

    Args:
        module: The generator, in inference mode.
        name: The layer's name, as `named_modules` has it.
        run: Draws images of codes with `module`.
        codes: Two random codes [2, D] at which the relation is checked. The first entries are the latent; behind them
            is the class, which stays as it is.
        latent_dim: Length of the latent.

    Returns:
        A, shape [out, latent_dim]; `out` counts all channels and positions of the layer's output.

    Raises:
        ArgumentError: If there is no such layer, or it reads something other than an affine function of the latent.
    """
    layers = {key: layer for key, layer in module.named_modules() if key}
    if name not in layers:
        raise ArgumentError(f"no layer {name!r}; those with a weight are {name_usable_layers(module)}")
    layer = layers[name]
    kind = getattr(layer, "original_name", type(layer).__name__)
    if not _has_matrix(layer):
        raise ArgumentError(
            f"layer {name!r} ({kind}) has no weight matrix; those with one are {name_usable_layers(module)}"
        )
    watch = _watch_script if isinstance(layer, torch.jit.ScriptModule) else _watch
    origins = codes.clone()
    origins[:, :latent_dim] = 0
    steps = torch.cat([torch.eye(latent_dim, device=codes.device), codes.new_zeros(latent_dim, codes.shape[1])], dim=1)
    steps = steps[:, : codes.shape[1]] + origins[:1]  # [latent_dim, D]: a unit step along each component
    with torch.no_grad():
        seen = [watch(run, layer, chunk) for chunk in torch.split(torch.cat([origins, codes, steps]), CHUNK)]
        runs = [one for one in seen if one is not None]
        if len(runs) < len(seen):
            raise ArgumentError(f"layer {name!r} ({kind}) does not run when an image is drawn, or reads no latent")
        y = _rows([one.y for one in runs], 4 + latent_dim)
        A = None if y is None else _affine(y[:2], y[2:4], y[4:], codes[:, :latent_dim])
        x = runs[0].x[0]
        if A is None and x.numel() == latent_dim:
            A = _own_weight(layer, tuple(x.shape), codes[:, :latent_dim])
    if A is None:
        raise ArgumentError(
            f"layer {name!r} ({kind}) is not the first transform of the latent: its output is no affine function of z, "
            f"and it takes {x.numel()} values where the latent has {latent_dim}"
            if x.numel() != latent_dim
            else f"layer {name!r} ({kind}) is no affine map of what it reads"
        )
    if not A.any():
        raise ArgumentError(f"layer {name!r} ({kind}) reads nothing of the latent")
    return A


@dataclass(frozen=True)
class _Seen:
    """What one run showed of a layer."""

    x: Tensor  # its input [N, ...]
    y: Tensor  # its output [N, ...]


class _ReachedError(Exception):
    """The layer has run; what follows need not."""


def _watch(run: Run, layer: nn.Module, codes: Tensor) -> _Seen | None:
    """Run until the layer has run for the first time."""
    seen: list[_Seen] = []

    def hook(layer: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        inputs = [value for value in (*arguments, *keywords.values()) if isinstance(value, Tensor)]
        if inputs and isinstance(output, Tensor):
            seen.append(_Seen(inputs[0].clone(), output.clone()))  # An activation behind it may work in place.
            raise _ReachedError

    handle = layer.register_forward_hook(hook, with_kwargs=True)
    try:
        run(codes)
    except _ReachedError:
        pass
    finally:
        handle.remove()
    return seen[0] if seen else None


def _watch_script(run: Run, layer: nn.Module, codes: Tensor) -> _Seen | None:
    """The same for a layer inside TorchScript, which calls no hooks: look for the operator that applies its weight."""
    tracker = _Tracker(codes, layer)
    try:
        with tracker:
            run(codes)
    except Exception:  # The interpreter gives _ReachedError another class.
        if tracker.seen is None:
            raise
    return tracker.seen


class _Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the latent and a layer's parameters through all operators, to the first product of the two."""

    def __init__(self, latent: Tensor, layer: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: _Seen | None = None
        # By identity; the tensors are kept, so that no identity is used twice.
        self._from_latent = {id(latent): latent}
        self._from_layer = {id(tensor): tensor for tensor in (*layer.parameters(), *layer.buffers())}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        latents = [value for value in inputs if id(value) in self._from_latent]
        weights = [value for value in inputs if id(value) in self._from_layer]
        name = func.overloadpacket.__name__
        if latents and weights and name in PRODUCTS and isinstance(output, Tensor):
            self.seen = _Seen(latents[0].clone(), output.clone())
            raise _ReachedError
        for value in tree_leaves(output):
            if isinstance(value, Tensor):
                if latents:
                    self._from_latent[id(value)] = value
                elif weights:
                    self._from_layer[id(value)] = value
        return output


def _rows(outputs: list[Tensor], count: int) -> Tensor | None:
    """All outputs as [count, out]; None if they are not one for each latent."""
    if any(output.ndim < 1 for output in outputs):
        return None
    y = torch.cat(outputs)
    # A layer that reads several vectors of each latent has them one after another along the batch.
    return y.reshape(count, -1) if y.numel() % count == 0 else None


def _affine(at_origin: Tensor, at_points: Tensor, at_steps: Tensor, z: Tensor) -> Tensor | None:
    """A [out, latent_dim] if y - y(0) = A·z at both points z, else None."""
    A = (at_steps - at_origin[:1]).T
    change = at_points - at_origin  # [2, out]
    if not A.isfinite().all() or not change.isfinite().all():
        return None
    error = (change - z @ A.T).abs().max()
    return A if error <= AFFINE_TOLERANCE * change.abs().max() else None


def _own_weight(layer: nn.Module, shape: tuple[int, ...], z: Tensor) -> Tensor | None:
    """The same for what the layer itself reads, inputs of shape [N, *shape]; None if it is not affine."""
    size = z.shape[1]
    inputs = torch.cat([z.new_zeros(2, size), z, torch.eye(size, device=z.device)]).reshape(-1, *shape)
    outputs = layer(inputs)
    y = _rows([outputs], len(inputs)) if isinstance(outputs, Tensor) else None
    return None if y is None else _affine(y[:2], y[2:4], y[4:], z)


def _has_matrix(layer: nn.Module) -> bool:
    return any(
        parameter.ndim >= 2
        for name, parameter in layer.named_parameters()
        if "." not in name or name.startswith("parametrizations.")
    )
