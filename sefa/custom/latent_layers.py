"""What a layer of any module does to the latent, found by running it rather than by reading its weights.

So whatever makes up the effective weight is in it: spectral and weight normalisation, equalised gains, a label that is
concatenated before or behind, a latent that is split.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain, combinations
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
# What they leave of x = s·z, as a share of the largest entry of x.
SCALED_TOLERANCE = 1e-4
MAX_NAMED = 8  # layers in one message
MAX_BESIDE = 4096  # entries that may stand beside z in what a layer reads
MAX_TRIED = 32  # layers of a TorchScript module that are looked at for a message: each takes a run
# Where TorchScript applies a weight.
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "convolution", "_convolution", "conv_transpose2d"}


@dataclass(frozen=True)
class Probe:
    """Codes at which a layer is looked at.

    Attributes:
        codes: Shape [K, D]: random latents of several lengths, with the class behind them.
        same_class: How many of them, from the first, are of one class.
        latent_dim: Length of the latent.
    """

    codes: Tensor
    same_class: int
    latent_dim: int

    @property
    def z(self) -> Tensor:
        """The latents, [K, latent_dim]."""
        return self.codes[:, : self.latent_dim]


def name_usable_layers(module: nn.Module) -> str:
    """The layers that have a weight of two axes or more, and can be the first transform, for messages."""
    return _listed(list(_usable_layers(module)))


def affine_weight(module: nn.Module, name: str, run: Run, probe: Probe) -> Tensor:
    """Find A of y = A·z + b, where y is a layer's output and z the latent.

    Where the layer reads s·z, or a part of it, with a number s for each image, as behind a normalisation of z, A is the
    layer's own weight.

    Args:
        module: The generator, in inference mode.
        name: The layer's name, as `named_modules` has it.
        run: Draws images of codes with `module`.
        probe: Where the relation is checked.

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
    described = f"layer {name!r} ({_kind(layer)})"
    if not _has_matrix(layer):
        raise ArgumentError(f"{described} has no weight matrix; those with one are {name_usable_layers(module)}")
    with torch.no_grad():
        seen, chunk = _watch_batch(run, layer, probe.codes)
        if seen is None:
            raise ArgumentError(
                f"{described} reads nothing of the latent: {_readers_in_words(_readers(module, run, probe))}"
            )
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
            raise ArgumentError(f"{described} {_refusal(module, name, run, seen, probe)}")
        if not A.any():
            raise ArgumentError(
                f"{described} reads nothing of the latent: {_readers_in_words(_readers(module, run, probe))}"
            )
    return A


@dataclass(frozen=True)
class _Seen:
    """What one run showed of a layer.

    Attributes:
        x: The tensor that it read, [N, ...].
        y: What it made of it, [N, ...].
        replay: The layer on other tensors like x; None if it read more than one.
    """

    x: Tensor
    y: Tensor
    replay: Callable[[Tensor], Any] | None


class _ReachedError(Exception):
    """The layer has run; what follows need not."""


def _guarded(run: Run) -> Run:
    """A run in which what the user's code raises becomes an ArgumentError."""

    def guarded(codes: Tensor) -> object:
        try:
            return run(codes)
        except (_ReachedError, ArgumentError):
            raise
        except Exception as error:  # Whatever a class of the user's raises.
            lines = str(error).strip().splitlines()
            raise ArgumentError(
                f"drawing {len(codes)} images raised {type(error).__name__}: {lines[0][:200] if lines else ''}"
            ) from error

    return guarded


def _watch(run: Run, layer: nn.Module, codes: Tensor) -> _Seen | None:
    """Run until the layer has run for the first time; None if it does not."""
    if not isinstance(layer, torch.jit.ScriptModule):
        seen = _watch_forward(run, layer, codes)
        if seen is not None:
            return seen
    return _watch_operators(run, layer, codes)


def _watch_forward(run: Run, layer: nn.Module, codes: Tensor) -> _Seen | None:
    seen: list[_Seen] = []

    def reached(forward: Callable[..., Any], arguments: Any, keywords: Any, output: Any) -> None:
        inputs = [value for value in (*arguments, *keywords.values()) if isinstance(value, Tensor)]
        if not inputs or not isinstance(output, Tensor):
            return

        def replay(x: Tensor) -> Any:
            def swap(value: Any) -> Any:
                return x if isinstance(value, Tensor) else value

            return forward(*map(swap, arguments), **{key: swap(value) for key, value in keywords.items()})

        # An activation behind it may work in place.
        seen.append(_Seen(inputs[0].clone(), output.clone(), replay if len(inputs) == 1 else None))
        raise _ReachedError

    with _listening(layer, reached), suppress(_ReachedError):
        run(codes)
    return seen[0] if seen else None


@contextmanager
def _listening(layer: nn.Module, heard: Callable[[Callable[..., Any], Any, Any, Any], None]) -> Iterator[None]:
    """Call `heard` with a layer's forward, its arguments and its output, whenever it runs.

    Hooks would miss a layer whose wrapper calls `module.forward()`, as spectral norms of one's own do.
    """
    own = layer.__dict__.get("forward")
    forward = layer.forward

    def listened(*arguments: Any, **keywords: Any) -> Any:
        output = forward(*arguments, **keywords)
        heard(forward, arguments, keywords, output)
        return output

    layer.__dict__["forward"] = listened
    try:
        yield
    finally:
        if own is None:
            del layer.__dict__["forward"]
        else:
            layer.__dict__["forward"] = own


def _watch_operators(run: Run, layer: nn.Module, codes: Tensor) -> _Seen | None:
    """The same for a layer whose forward is not called from Python: look for the operator that applies its weight."""
    tracker = _Tracker(codes, layer)
    try:
        with tracker:
            run(codes)
    except Exception:  # TorchScript's interpreter gives _ReachedError another class.
        if tracker.seen is None:
            raise
    return tracker.seen


class _Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the latent and a layer's parameters through all operators, to the first product of the two."""

    def __init__(self, latent: Tensor, layer: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: _Seen | None = None
        self._layer = layer
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
            self.seen = _Seen(latents[0].clone(), output.clone(), self._layer)
            raise _ReachedError
        for value in tree_leaves(output):
            if isinstance(value, Tensor):
                if latents:
                    self._from_latent[id(value)] = value
                elif weights:
                    self._from_layer[id(value)] = value
        return output


def _watch_batch(run: Run, layer: nn.Module, codes: Tensor) -> tuple[_Seen | None, int]:
    """What a layer does to all these codes, and how many latents a run may have."""
    seen, alone = _watch(run, layer, codes), _watch(run, layer, codes[:1])
    if seen is None or alone is None or seen.x.shape != alone.x.shape:
        return seen, CHUNK
    # The module draws one image after another.
    runs = [one for code in torch.split(codes, 1) if (one := _watch(run, layer, code)) is not None]
    x, y = torch.cat([one.x for one in runs]), torch.cat([one.y for one in runs])
    return _Seen(x, y, seen.replay), 1


def _affine_of_run(run: Run, layer: nn.Module, seen: _Seen, probe: Probe, chunk: int) -> Tensor | None:
    """A [out, latent_dim] if the layer's output is A·z + b at all codes, whatever their class; else None."""
    size, codes = probe.latent_dim, probe.codes
    origins = codes.clone()
    origins[:, :size] = 0
    at_codes = _rows(seen.y, len(codes))
    if at_codes is None:
        return None
    # Filled rather than joined: small outputs kept between large inputs would hold the memory of these.
    y = at_codes.new_empty(len(origins) + size, at_codes.shape[1])
    filled = 0
    for some in chain(torch.split(origins, chunk), _unit_steps(origins[0], torch.arange(size), chunk)):
        one = _watch(run, layer, some)
        rows = None if one is None else _rows(one.y, len(some))
        if rows is None or rows.shape[1] != y.shape[1]:
            return None
        y[filled : filled + len(some)] = rows
        filled += len(some)
    at_origins, at_steps = y[: len(origins)], y[len(origins) :]
    return _affine(at_steps - at_origins[:1], at_codes - at_origins, probe.z)


def _differs_between_classes(run: Run, layer: nn.Module, probe: Probe, chunk: int) -> bool:
    """Whether the output is A·z + b for one class alone."""
    codes = probe.codes[: probe.same_class]
    seen, _ = _watch_batch(run, layer, codes)
    return seen is not None and _affine_of_run(run, layer, seen, replace(probe, codes=codes), chunk) is not None


def _own_weight(seen: _Seen, probe: Probe) -> Tensor | None:
    """A [out, latent_dim] of the layer alone if it reads s·z, or a part of it; None if it reads something else."""
    count, size = len(probe.codes), probe.latent_dim
    x = _rows(seen.x, count)
    y = _rows(seen.y, count)
    if x is None or y is None or seen.replay is None or len(seen.x) != count:
        return None
    x, y, z = x[: probe.same_class], y[: probe.same_class], probe.z[: probe.same_class]
    entries = _scaled_entries(x, z)
    if entries is None:
        return None
    own, of_z = entries
    base = x.clone()
    base[:, own] = 0  # What stands beside z, the label, stays.
    outputs = [
        seen.replay(chunk.reshape(-1, *seen.x.shape[1:])) for chunk in chain([base], _unit_steps(base[0], own, CHUNK))
    ]
    if not all(isinstance(output, Tensor) and output.ndim for output in outputs):
        return None
    replayed = _rows(torch.cat(outputs), len(base) + len(own))
    if replayed is None or replayed.shape[1] != y.shape[1]:
        return None
    at_base, at_steps = replayed[: len(base)], replayed[len(base) :]
    weight = _affine(at_steps - at_base[:1], y - at_base, x[:, own])
    if weight is None:
        return None
    return weight.new_zeros(len(weight), size).index_add_(1, of_z, weight)


def _unit_steps(origin: Tensor, entries: Tensor, chunk: int) -> Iterator[Tensor]:
    """`origin` [D] with a 1 in the place of each of the entries, [N, D] at a time: never all, which takes D times D."""
    for some in torch.split(entries, chunk):
        steps = origin.repeat(len(some), 1)
        steps[torch.arange(len(some)), some] = 1
        yield steps


def _scaled_entries(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor] | None:
    """Where x holds s·z with a number s for each row: entries of x, and those of z that they are.

    Other entries must be the same in all rows, or multiples of s: those of a label.

    Args:
        x: What a layer reads, [K, M]; all of one class.
        z: The latents, [K, D].

    Returns:
        None if x holds anything else.
    """
    x, z = x.double(), z.double()
    limit = SCALED_TOLERANCE * x.abs().amax(dim=1, keepdim=True)  # [K, 1]
    varying = ((x - x[:1]).abs() > limit).any(dim=0).nonzero()[:, 0]
    if not x.isfinite().all() or len(varying) < 2:  # One entry alone is some number times any other.
        return None
    x = x[:, varying] / limit  # A distance of 1 is the limit.
    # Which entry of z the first one is, the second tells. One of the pairs is of z if any is: a label's entries are
    # proportional to each other.
    for first, second in combinations(_unalike(x, 3), 2):
        for candidate in range(z.shape[1]):
            scale = x[:, first] / z[:, candidate]
            target = scale[:, None] * z  # [K, D]
            if not scale.all() or not target.isfinite().all() or (target - x[:, second, None]).abs().amax(0).min() > 1:
                continue
            distances, nearest = torch.cdist(x.T, target.T, p=float("inf")).min(dim=1)
            of_z = distances <= 1
            label = x[:, ~of_z] / scale[:, None]
            if ((label - label[:1]) * scale[:, None]).abs().le(1).all():
                return varying[of_z], nearest[of_z]
    return None


def _unalike(x: Tensor, count: int) -> list[int]:
    """Columns of x [K, M] that are not proportional to each other, those furthest from 0 first; at most `count`."""
    found: list[int] = []
    left = torch.ones(x.shape[1], dtype=torch.bool, device=x.device)
    while left.any() and len(found) < count:
        index = int((x.abs().amin(dim=0) + 1).where(left, 0).argmax())
        found.append(index)
        column = x[:, index, None]
        apart = (x * column[:1] - column * x[:1]).abs() > 10 * SCALED_TOLERANCE * (column * column[:1]).abs()
        left &= apart.any(dim=0)
        left[index] = False
    return found


def _rows(output: Tensor, count: int) -> Tensor | None:
    """An output as [count, out]; None if it is not one for each latent."""
    # A layer that reads several vectors of each latent has them one after another along the batch.
    return output.reshape(count, -1) if output.ndim and output.numel() % count == 0 else None


def _affine(at_steps: Tensor, change: Tensor, z: Tensor) -> Tensor | None:
    """A [out, D] = at_steps.T if change = A·z at all points, else None.

    Args:
        at_steps: What a unit step along each of D components changes, [D, out].
        change: What the points change, [K, out].
        z: The points, [K, D].
    """
    A = at_steps.T
    if not A.isfinite().all() or not change.isfinite().all():
        return None
    error = (change - z @ A.T).abs().amax(dim=1)
    return A if (error <= AFFINE_TOLERANCE * change.abs().amax(dim=1)).all() else None


def _refusal(module: nn.Module, name: str, run: Run, seen: _Seen, probe: Probe) -> str:
    """Why a layer whose output is no affine function of the latent cannot be analysed, and which layers can."""
    readers = _readers(module, run, probe)
    if name in readers:
        return "is no affine map of what it reads"
    sources = _sources(module, run, seen.x, probe)
    reads = (
        f"what {sources[0]!r} ({_kind(dict(module.named_modules())[sources[0]])}) gives"
        if sources
        else "something computed from z"
    )
    return (
        f"is not the first transform of the latent: it reads {reads}, which is no multiple of z; "
        + _readers_in_words(readers)
    )


def _sources(module: nn.Module, run: Run, x: Tensor, probe: Probe) -> list[str]:
    """The layers whose output is x."""
    found = []

    def heard(name: str, inputs: list[Tensor], output: Any) -> None:
        if isinstance(output, Tensor) and output.numel() == x.numel() and torch.equal(output.flatten(), x.flatten()):
            found.append(name)

    leaves = [name for name, layer in module.named_modules() if name and not any(layer.children())]
    with _listening_to(module, leaves, heard):
        run(probe.codes)
    return found


def _readers(module: nn.Module, run: Run, probe: Probe) -> list[str]:
    """The layers with a weight that read s·z, or an affine function of z."""
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
    with _listening_to(module, names, heard):
        run(codes)
    for name in names[:MAX_TRIED]:
        if isinstance(layer := layers[name], torch.jit.ScriptModule):
            seen = _watch_operators(run, layer, codes)
            if seen is not None:
                heard(name, [seen.x], seen.y)
    found = []
    for name in names:
        x = _rows(inputs[name], len(codes)) if name in inputs else None
        if x is None or not (x[: len(same)] - x[:1]).any():
            continue
        at_origin, at_sum, at_double = x[len(same) :]
        additive = torch.stack([at_sum - x[0] - x[1] + at_origin, at_double - 3 * at_origin + 2 * x[0]])
        affine = additive.abs().max() <= AFFINE_TOLERANCE * x[: len(same)].abs().max()
        if affine or _scaled_entries(x[: len(same)], same[:, :size]) is not None:
            found.append(name)
    return found


@contextmanager
def _listening_to(
    module: nn.Module, names: list[str], heard: Callable[[str, list[Tensor], Any], None]
) -> Iterator[None]:
    """Call `heard` with name, tensors that go in and output whenever one of these layers runs from Python."""
    layers = dict(module.named_modules())
    with ExitStack() as stack:
        for name in names:
            layer = layers[name]
            if not isinstance(layer, torch.jit.ScriptModule):

                def told(forward: Any, arguments: Any, keywords: Any, output: Any, name: str = name) -> None:
                    values = (*arguments, *keywords.values())
                    heard(name, [value for value in values if isinstance(value, Tensor)], output)

                stack.enter_context(_listening(layer, told))
        yield


def _readers_in_words(readers: list[str]) -> str:
    return f"those that read z are {_listed(readers)}" if readers else "no layer with a weight reads z itself"


def _usable_layers(module: nn.Module) -> Iterator[str]:
    for name, layer in module.named_modules():
        if name and _has_matrix(layer) and "parametriz" not in name:
            yield name


def _listed(names: list[str]) -> str:
    if not names:
        return "none"
    return ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")


def _kind(layer: nn.Module) -> str:
    return str(getattr(layer, "original_name", type(layer).__name__))


def _has_matrix(layer: nn.Module) -> bool:
    return any(
        parameter.ndim >= 2
        for name, parameter in layer.named_parameters()
        if "." not in name or name.startswith("parametrizations.")
    )
