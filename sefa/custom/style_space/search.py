"""Find the style space of a user's module: the mapping, the layers that read its output, and how they transform it."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from sefa.custom.custom_generator import CustomGenerator, probe_codes
from sefa.custom.latent_layers import affine_part, affine_weight, unit_steps
from sefa.custom.layer_readers import AFFINE_TOLERANCE, find_readers, has_matrix
from sefa.custom.layer_watching import CHUNK, intercepting
from sefa.custom.probing import Probe, rows_of, scaled_entries, trial_codes
from sefa.custom.purity import SAME_WAY
from sefa.custom.style_space.feeding import Feed, Reader, Source, capture, feeding, reader_with
from sefa.custom.style_space.recording import Group, Recording, direct_readers, record
from sefa.custom.user_code import blamed, kind
from sefa.errors import ArgumentError, listed

# Lengths of the style codes at which a layer is probed, relative to usual ones.
LENGTHS = (1.0, 1.0, 0.25, 2.0, 4.0)
MAX_TRIED = 12  # most modules to try as the mapping: each takes a run
AUTO = "auto"


@dataclass(frozen=True)
class FoundLayer:
    """A layer that reads the latent or the style code.

    Attributes:
        name: Its name in `named_modules`.
        kind: Its class.
        shape: Rows and columns of A, the columns being the code's length; None if the layer is no affine map of the
            code, so that it cannot be analysed.
    """

    name: str
    kind: str
    shape: tuple[int, int] | None


@dataclass(frozen=True)
class FoundLayers:
    """The layers of a user's module that may be analysed.

    Attributes:
        reads: What they read: "z", or "w" for a style code.
        layers: The layers, in the order in which they run.
        mapping: The module that gives w; empty if the layers read z, or no module gives exactly what they read.
        mapping_kind: Its class.
        code_dim: Length of z or w.
        is_separate: Whether each layer can be given a code of its own (W+).
        reason: Why there is no style space, or why its layers cannot have codes of their own; empty if neither.
    """

    reads: str
    layers: tuple[FoundLayer, ...]
    code_dim: int
    mapping: str = ""
    mapping_kind: str = ""
    is_separate: bool = False
    reason: str = ""


@dataclass(frozen=True)
class StyleSpace:
    """How a module is given style codes.

    Attributes:
        feed: Where the codes go in.
        names: The layers that read them, in the order in which they run.
        affines: The A of each of these layers, [out, code_dim]; None if it is no affine map of the code.
        code_dim: Length of the style code.
        needs_class: Whether the image depends on the class beyond the style code.
        reason: Why the layers cannot have codes of their own; empty if they can.
    """

    feed: Feed
    names: tuple[str, ...]
    affines: tuple[Tensor | None, ...]
    code_dim: int
    needs_class: bool
    reason: str = ""


def find_layers(generator: CustomGenerator, mapping: str = AUTO) -> FoundLayers:
    """List the layers that read the style code; or, if there is no style space, the latent.

    Args:
        generator: The module, from `sefa.wrap` with `layers=[]`.
        mapping: Name of the mapping, or `auto`.

    Raises:
        ArgumentError: If `mapping` names no module that gives a style code.
    """
    layers = dict(generator.module.named_modules())
    try:
        space = find_style_space(generator, mapping)
    except ArgumentError as error:
        if mapping != AUTO:
            raise
        with torch.no_grad(), blamed(f"rendering with {kind(generator.module)} raised "):
            names = find_readers(generator.module, generator.call, _probe_of(generator))
        shapes = [_shape_of(generator, name) for name in names]
        found = tuple(
            FoundLayer(*one) for one in zip(names, (kind(layers[name]) for name in names), shapes, strict=True)
        )
        return FoundLayers("z", found, generator.z_dim, reason=str(error))
    source = space.feed.source.name if space.feed.source else ""
    return FoundLayers(
        "w",
        tuple(
            FoundLayer(name, kind(layers[name]), None if A is None else (len(A), A.shape[1]))
            for name, A in zip(space.names, space.affines, strict=True)
        ),
        space.code_dim,
        source,
        kind(layers[source]) if source else "",
        not space.reason,
        space.reason,
    )


def _shape_of(generator: CustomGenerator, name: str) -> tuple[int, int] | None:
    try:
        A = affine_weight(generator.module, name, generator.call, _probe_of(generator))
    except ArgumentError:
        return None
    return len(A), A.shape[1]


def _probe_of(generator: CustomGenerator) -> Probe:
    return probe_codes(generator.z_dim, generator.num_classes, next(generator.parameters()).device)


def find_style_space(generator: CustomGenerator, mapping: str = AUTO, named: Sequence[str] = ()) -> StyleSpace:
    """Find where a module's style codes go in.

    The style code is a vector that several layers read, or that a mapping of several layers gives, and which leaves
    nothing of the latent for the rest: if it is given to these layers, the image is the same for every other latent.

    Args:
        generator: The module.
        mapping: Name of the mapping, or `auto`.
        named: Layers that must read the code.

    Raises:
        ArgumentError: If there is no such code, or the mapping or a layer is not what it should be.
    """
    search = _Search(generator)
    with torch.no_grad(), blamed(f"rendering with {kind(generator.module)} raised "):
        space = search.with_mapping(mapping, named) if mapping != AUTO else search.of_its_own(named)
    missing = [name for name in named if name not in space.names]
    if missing:
        raise ArgumentError(
            f"layer {missing[0]!r} does not read the style code; those that do are {listed(list(space.names))}"
        )
    return space


class _Search:
    def __init__(self, generator: CustomGenerator) -> None:
        self.generator = generator
        self.module = generator.module
        if isinstance(self.module, torch.jit.ScriptModule):
            raise ArgumentError("TorchScript gives no access to its layers' inputs: only z can be edited")
        size = generator.z_dim
        self.device = next(generator.parameters()).device
        self.z = _probe_of(generator)
        same = self.z.codes[: self.z.same_class]
        sums = same[:2].clone()
        a, b, c = same[:3, :size]
        sums[:, :size] = torch.stack([a + b - c, 2 * a - b])
        self.codes = torch.cat([same, sums])
        with torch.no_grad(), blamed(f"rendering with {kind(self.module)} raised "):
            self.recording: Recording = record(self.module, generator.call, self.codes)
            first, other = trial_codes(2, size, generator.num_classes).to(self.device)
            if generator.num_classes:
                other[size:] = first[size:]
            self.first, self.other = first[None], other[None]
            self.image = generator.decode(self.first[:, None])

    def of_its_own(self, named: Sequence[str]) -> StyleSpace:
        """Find the style code without being told the mapping."""
        groups = [group for group in self.recording.groups if self._may_be_style(group, 2)]
        for group in reversed(groups):
            group = Group(group.vector, direct_readers(self.module, self.generator.call, self.codes, group))
            feed = Feed(self.recording.source_of(group.vector), tuple(group.readers))
            if len(group.readers) > 1 and self._suffices(feed, group.readers):
                return self._space(feed, group.readers, named)
        found = [source for source, vector in self._mappings(groups) if self._suffices(Feed(source, ()), ())]
        outermost = [one for one in found if not any(one.name.startswith(f"{other.name}.") for other in found)]
        if len(outermost) > 1:
            names = listed([source.name for source in outermost])
            raise ArgumentError(
                f"several modules may be the mapping: {names}; name it with --mapping {outermost[0].name}"
            )
        if not outermost:
            raise ArgumentError(self._why_none(groups))
        return self._of_source(outermost[0], named)

    def with_mapping(self, name: str, named: Sequence[str]) -> StyleSpace:
        """Find the layers that read what this module gives."""
        layers = dict(self.module.named_modules())
        if not name or name not in layers:
            givers = listed(list(dict.fromkeys(source.name for source, _ in self.recording.sources)))
            raise ArgumentError(f"no module {name!r}; those that give one vector for each image are {givers or 'none'}")
        sources = [source for source, _ in self.recording.sources if source.name == name]
        described = f"{name!r} ({kind(layers[name])})"
        if not sources:
            raise ArgumentError(
                f"{described} is no mapping: it must run once for each batch and give one vector for each image, which "
                "depends on the latent; those that do are "
                + (listed(list(dict.fromkeys(source.name for source, _ in self.recording.sources))) or "none")
            )
        for source in sources:
            if self._suffices(Feed(source, ()), ()):
                return self._of_source(source, named)
        raise ArgumentError(
            f"{described} does not give all that the image is made of: with the same output and another latent the "
            "image changes, so something else reads the latent too"
        )

    def _may_be_style(self, group: Group, least: int) -> bool:
        return (
            len(group.readers) >= least
            and all(reader.place.is_single for reader in group.readers)
            and not self._is_of_z(group.vector)
        )

    def _is_of_z(self, vector: Tensor) -> bool:
        """Return whether a vector is an affine function of z, or a multiple of it, as what the first layers read is."""
        size, same = self.generator.z_dim, self.z.same_class
        a, b, c = vector[:3]
        additive = torch.stack([vector[same] - a - b + c, vector[same + 1] - 2 * a + b])
        if additive.abs().max() <= AFFINE_TOLERANCE * vector.abs().max():
            return True
        return scaled_entries(vector[:same], self.codes[:same, :size]) is not None

    def _mappings(self, groups: Sequence[Group]) -> list[tuple[Source, Tensor]]:
        """Return the modules that may be the mapping, the likeliest first."""
        recording = self.recording
        if groups:  # Layers read one vector, but something else reads it, or the latent, too.
            begun = recording.begun[recording.groups.index(groups[-1])]
            candidates = [pair for pair in recording.sources[:begun] if not self._is_of_z(pair[1])]
            for pair in reversed(candidates[-MAX_TRIED:]):
                if self._suffices(Feed(pair[0], ()), ()):
                    outer = recording.source_of(pair[1])
                    return [(outer or pair[0], pair[1])]
            return []
        found = []
        for source, vector in recording.sources:
            parts = [one for one in self.module.get_submodule(source.name).modules() if has_matrix(one)]
            group = recording.group_of(vector)
            if len(parts) > 1 and source.place.is_single and group is not None and self._may_be_style(group, 1):
                found.append((source, vector))
        return found[:MAX_TRIED]

    def _of_source(self, source: Source, named: Sequence[str]) -> StyleSpace:
        vector = next(vector for one, vector in self.recording.sources if one == source)
        group = self.recording.group_of(vector)
        readers = direct_readers(self.module, self.generator.call, self.codes, group) if group else []
        feed = Feed(source, tuple(readers))
        if readers and self._suffices(feed, readers):
            return self._space(feed, readers, named)
        return self._shared_space(source, readers, named)

    def _suffices(self, feed: Feed, readers: Sequence[Reader]) -> bool:
        """Return whether the image depends on the latent through the style code alone, as these readers read it."""
        return self._same_image(Feed(None, tuple(readers)) if readers else feed, feed, self.other)

    def _same_image(self, feed: Feed, origin: Feed, other: Tensor) -> bool:
        code = capture(self.module, origin, lambda: self.generator.call(self.first))
        with feeding(self.module, feed, [code] * max(1, len(feed.readers))):
            image = self.generator.decode(other[:, None])
        return bool((image - self.image).abs().max() <= SAME_WAY * self.image.abs().max())

    def _needs_class(self, feed: Feed) -> bool:
        generator = self.generator
        if not generator.num_classes:
            return False
        other = self.other.clone()
        other[:, generator.z_dim :] = other[:, generator.z_dim :].roll(1, 1)
        return not self._same_image(feed, feed, other)

    def _space(self, feed: Feed, readers: Sequence[Reader], named: Sequence[str]) -> StyleSpace:
        codes = self._probe(feed)
        affines = _affines(self.module, self.generator, readers, self.codes, codes)
        # A learned constant may be given the code only to know how many images there are.
        ignoring = {name for name, A in affines.items() if A is not None and not A.any()}
        if ignoring:
            readers = [reader for reader in readers if reader.name not in ignoring]
            return self._space(replace(feed, readers=tuple(readers)), readers, named)
        for name in named:
            if name in affines and affines[name] is None:
                raise ArgumentError(f"layer {name!r} reads the style code, but is no affine map of it")
        if all(A is None for A in affines.values()):
            raise ArgumentError(
                f"none of the layers that read the style code is an affine map of it: {listed(list(affines))}"
            )
        return StyleSpace(feed, tuple(affines), tuple(affines.values()), codes.shape[1], self._needs_class(feed))

    def _shared_space(self, source: Source, readers: Sequence[Reader], named: Sequence[str]) -> StyleSpace:
        """Make the space of one code for all layers: something other than whole layers reads it, or parts of it."""
        feed = Feed(source, ())
        generator = self.generator
        codes = self._probe(feed)

        def run(codes: Tensor) -> object:
            with feeding(self.module, feed, [codes]):
                return generator.call(self.first.repeat(len(codes), 1))

        probe = Probe(codes, len(codes), codes.shape[1])
        exact = {reader.name: reader for reader in readers}
        names = list(exact) + [name for name in find_readers(self.module, run, probe) if name not in exact]
        names += [name for name in named if name not in names]
        replayed = _affines(self.module, generator, readers, self.codes, codes)
        affines = []
        for name in names:
            A = replayed.get(name)
            if A is None:
                try:
                    A = affine_weight(self.module, name, run, probe)
                except ArgumentError:
                    if name in named:
                        raise
            affines.append(A)
        if all(A is None for A in affines):
            raise ArgumentError(
                f"no layer with a weight reads what {source.name!r} gives, or reads it as an affine map"
            )
        reason = (
            "not only these layers read it"
            if len(exact) == len(names)
            else "layers read different parts or functions of it"
        )
        return StyleSpace(feed, tuple(names), tuple(affines), codes.shape[1], self._needs_class(feed), reason)

    def _probe(self, feed: Feed) -> Tensor:
        """Return style codes of several lengths, [K, code_dim]."""
        codes = capture(self.module, feed, lambda: self.generator.call(self.codes[: len(LENGTHS)]))
        return codes * torch.tensor(LENGTHS, device=codes.device)[:, None]

    def _why_none(self, groups: Sequence[Group]) -> str:
        if not groups:
            return (
                "no style space was found: no two layers read one vector that a mapping makes of z; if there is a "
                "mapping, name it with --mapping"
            )
        names = listed([reader.name for reader in groups[-1].readers])
        return (
            f"no style space was found: {names} read one vector, but with that vector and another latent the image "
            "changes, so something else reads the latent too"
        )


def _affines(
    module: nn.Module, generator: CustomGenerator, readers: Sequence[Reader], latents: Tensor, codes: Tensor
) -> dict[str, Tensor | None]:
    """Return each layer's A [out, D], by name, if its output is A·w + b; else None."""
    found: dict[str, Tensor | None] = {}

    def measuring(reader: Reader) -> Callable[..., Any]:
        def around(forward: Callable[..., Any], arguments: Any, keywords: Any) -> Any:
            if reader.name not in found:
                found[reader.name] = _affine_of_call(forward, reader, arguments, keywords, codes)
            return forward(*arguments, **keywords)

        return around

    with ExitStack() as stack:
        for reader in readers:
            stack.enter_context(intercepting(module.get_submodule(reader.name), measuring(reader)))
        generator.call(latents[:1])
    return found


def _affine_of_call(
    forward: Callable[..., Any], reader: Reader, arguments: Any, keywords: Any, codes: Tensor
) -> Tensor | None:
    leaves, _ = tree_flatten((arguments, keywords))
    if any(isinstance(leaf, Tensor) for index, leaf in enumerate(leaves) if index not in reader.leaves):
        return None  # What it does to the code depends on something else.
    steps = unit_steps(codes.new_zeros(codes.shape[1]), torch.arange(codes.shape[1]), CHUNK)
    rows: list[Tensor] = []
    for some in chain([torch.zeros_like(codes[:1])], [codes], steps):
        replaced, named = reader_with(reader, arguments, keywords, some)
        output = forward(*replaced, **named)
        row = rows_of(output, len(some)) if isinstance(output, Tensor) else None
        if row is None or row.dtype != torch.float32 or (rows and row.shape[1] != rows[0].shape[1]):
            return None
        rows.append(row.clone())
    origin, at_codes, *at_steps = rows
    return affine_part(torch.cat(at_steps) - origin, at_codes - origin, codes)
