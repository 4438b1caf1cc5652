"""Find what a layer of any module does to the latent, by running it rather than by reading its weights.

The result therefore includes everything that makes up the effective weight: spectral and weight normalisation,
equalised gains, a label concatenated before or after the latent, a latent that is split.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn

from sefa.custom.layer_readers import AFFINE_TOLERANCE, has_matrix, name_usable_layers, say_readers, say_why_not
from sefa.custom.layer_watching import CHUNK, Run, Seen, watch, watch_batch
from sefa.custom.probing import Probe, rows_of, scaled_entries
from sefa.custom.user_code import blamed, kind
from sefa.errors import ArgumentError


def affine_weight(module: nn.Module, name: str, run: Run, probe: Probe) -> Tensor:
    """Find A in y = A·z + b, where y is a layer's output and z the latent.

    If the layer reads s·z, or part of it, with a number s for each image, as after a normalisation of z, A is the
    layer's own weight.

    Args:
        module: The generator, in inference mode.
        name: The layer's name in `named_modules`.
        run: Renders images from codes with `module`.
        probe: The codes at which the relation is checked.

    Returns:
        A, shape [out, latent_dim]; `out` counts all channels and positions of the layer's output.

    Raises:
        ArgumentError: If there is no such layer, or it reads something other than the latent.
    """
    run = _guarded(run)
    layers = {key: layer for key, layer in module.named_modules() if key}
    if name not in layers:
        raise ArgumentError(f"no layer {name!r}; those with a weight are {name_usable_layers(module)}")
    layer = layers[name]
    described = f"layer {name!r} ({kind(layer)})"
    if not has_matrix(layer):
        raise ArgumentError(f"{described} has no weight matrix; those with one are {name_usable_layers(module)}")
    with torch.no_grad():
        seen, chunk = watch_batch(run, layer, probe.codes)
        if seen is None:
            raise ArgumentError(f"{described} reads nothing of the latent: {say_readers(module, run, probe)}")
        if seen.y.dtype != torch.float32:
            dtype = str(seen.y.dtype).removeprefix("torch.")
            raise ArgumentError(
                f"{described} computes in {dtype}: take the autocast, or the cast, out of the forward that calls it"
            )
        A = _affine_of_run(run, layer, seen, probe, chunk)
        if A is None:
            A = _own_weight(seen, probe)
        if A is None:
            if _differs_between_classes(run, layer, probe, chunk):
                raise ArgumentError(
                    f"{described} reads z in another way for each class, so that directions would differ: "
                    "wrap a module in which the class is fixed"
                )
            raise ArgumentError(f"{described} {say_why_not(module, name, run, seen, probe)}")
        if not A.any():
            raise ArgumentError(f"{described} reads nothing of the latent: {say_readers(module, run, probe)}")
    return A


def _guarded(run: Run) -> Run:
    """Wrap a run so that any exception of the user's code becomes an ArgumentError."""

    def guarded(codes: Tensor) -> object:
        with blamed(f"rendering {len(codes)} images raised "):
            return run(codes)

    return guarded


def _affine_of_run(run: Run, layer: nn.Module, seen: Seen, probe: Probe, chunk: int) -> Tensor | None:
    """Return A [out, latent_dim] if the layer's output is A·z + b, with one A for all classes; else None."""
    size, codes = probe.latent_dim, probe.codes
    origins = codes.clone()
    origins[:, :size] = 0
    at_codes = rows_of(seen.y, len(codes))
    if at_codes is None:
        return None
    # Fill one tensor rather than join outputs: small outputs kept between large inputs would hold on to their memory.
    y = at_codes.new_empty(len(origins) + size, at_codes.shape[1])
    filled = 0
    for some in chain(torch.split(origins, chunk), unit_steps(origins[0], torch.arange(size), chunk)):
        one = watch(run, layer, some)
        rows = None if one is None else rows_of(one.y, len(some))
        if rows is None or rows.shape[1] != y.shape[1]:
            return None
        y[filled : filled + len(some)] = rows
        filled += len(some)
    at_origins, at_steps = y[: len(origins)], y[len(origins) :]
    return affine_part(at_steps - at_origins[:1], at_codes - at_origins, probe.z)


def _differs_between_classes(run: Run, layer: nn.Module, probe: Probe, chunk: int) -> bool:
    """Return whether the output is A·z + b within one class (it is not across classes)."""
    codes = probe.codes[: probe.same_class]
    seen, _ = watch_batch(run, layer, codes)
    return seen is not None and _affine_of_run(run, layer, seen, replace(probe, codes=codes), chunk) is not None


def _own_weight(seen: Seen, probe: Probe) -> Tensor | None:
    """Return the layer's own A [out, latent_dim] if the layer reads s·z, or part of it; else None."""
    count, size = len(probe.codes), probe.latent_dim
    x = rows_of(seen.x, count)
    y = rows_of(seen.y, count)
    if x is None or y is None or seen.replay is None or len(seen.x) != count:
        return None
    x, y, z = x[: probe.same_class], y[: probe.same_class], probe.z[: probe.same_class]
    entries = scaled_entries(x, z)
    if entries is None:
        return None
    own, of_z = entries
    base = x.clone()
    base[:, own] = 0  # Keep what is read beside z: the label.
    outputs = [
        seen.replay(chunk.reshape(-1, *seen.x.shape[1:])) for chunk in chain([base], unit_steps(base[0], own, CHUNK))
    ]
    if not all(isinstance(output, Tensor) and output.ndim for output in outputs):
        return None
    replayed = rows_of(torch.cat(outputs), len(base) + len(own))
    if replayed is None or replayed.shape[1] != y.shape[1]:
        return None
    at_base, at_steps = replayed[: len(base)], replayed[len(base) :]
    weight = affine_part(at_steps - at_base[:1], y - at_base, x[:, own])
    if weight is None:
        return None
    return weight.new_zeros(len(weight), size).index_add_(1, of_z, weight)


def unit_steps(origin: Tensor, entries: Tensor, chunk: int) -> Iterator[Tensor]:
    """Yield copies of `origin` [D], each with a 1 at one of the entries, [N, D] at a time: all would take [D, D]."""
    for some in torch.split(entries, chunk):
        steps = origin.repeat(len(some), 1)
        steps[torch.arange(len(some)), some] = 1
        yield steps


def affine_part(at_steps: Tensor, change: Tensor, z: Tensor) -> Tensor | None:
    """Return A [out, D] = at_steps.T if change = A·z at all points, else None.

    Args:
        at_steps: Change of the output for a unit step along each of D entries, [D, out].
        change: Change of the output at each point, [K, out].
        z: The points, [K, D].
    """
    A = at_steps.T
    if not A.isfinite().all() or not change.isfinite().all():
        return None
    error = (change - z @ A.T).abs().amax(dim=1)
    return A if (error <= AFFINE_TOLERANCE * change.abs().amax(dim=1)).all() else None
