"""A generator of the user's own that is edited in its style codes."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from sefa.custom.custom_generator import CustomGenerator
from sefa.custom.style_space.feeding import Feed, capture, feeding
from sefa.custom.style_space.search import AUTO, StyleSpace, find_layers, find_style_space
from sefa.errors import ArgumentError, listed
from sefa.generators.common.labels import one_hot
from sefa.generators.common.mapping import MappingNetwork, StyleBasedGenerator
from sefa.generators.generator import Truncation
from sefa.generators.layers import parse_layers


class CapturedMapping(MappingNetwork):
    """The style code that a user's module makes of z: the module is run until the code is known."""

    def __init__(self, generator: CustomGenerator, feed: Feed) -> None:
        super().__init__()
        self.generator = generator
        self.feed = feed
        self.z_dim, self.num_classes = generator.z_dim, generator.num_classes

    def forward(self, z: Tensor, label: Tensor | None) -> Tensor:
        codes = self.generator.encode(z, label).squeeze(1)
        return capture(self.generator.module, self.feed, lambda: self.generator.call(codes))


class CustomStyleGenerator(StyleBasedGenerator):
    """A user's module whose layers are given style codes in place of what they would read.

    L is the number of layers that read the code if each can be given one of its own, else 1. An image is exactly the
    module's own, of the latent from which the codes come. The code is w, followed by the one-hot label if the image
    depends on the class beyond w.
    """

    mapping: CapturedMapping
    family = "custom"
    runs_user_code: ClassVar[bool] = True

    def __init__(self, generator: CustomGenerator, space: StyleSpace, analysed: Sequence[str] = ()) -> None:
        """Wrap a generator.

        Args:
            generator: The module, edited in z.
            space: Its style space.
            analysed: Names of the layers to analyse; none: all that are affine maps of the code.
        """
        super().__init__(CapturedMapping(generator, space.feed), space.code_dim)
        self.class_dim = generator.num_classes if space.needs_class else 0
        self.code_dim = space.code_dim + self.class_dim
        self.resolution, self.channels = generator.resolution, generator.channels
        self.noise = generator.noise
        kept = [
            (name, A)
            for name, A in zip(space.names, space.affines, strict=True)
            if not space.reason or (A is not None and (not analysed or name in analysed))
        ]
        weights = [
            torch.empty(0, self.code_dim) if A is None else torch.cat([A, A.new_zeros(len(A), self.class_dim)], dim=1)
            for _, A in kept
        ]
        names = [name for name, _ in kept]
        self.layer_names = () if space.reason else tuple(names)
        self.num_layers = 1 if space.reason else len(names)
        self._affines = [torch.cat(weights)] if space.reason else weights
        self._default_layers = tuple(
            index
            for index in range(self.num_layers)
            if len(self._affines[index]) and (space.reason or not analysed or names[index] in analysed)
        )
        self.space = space
        self.eval().requires_grad_(False)
        self.estimate_center()

    @property
    def module(self) -> nn.Module:
        """The user's module."""
        return self.mapping.generator.module

    @property
    def default_layers(self) -> tuple[int, ...]:
        return self._default_layers

    def _encode(self, z: Tensor, label: Tensor | None, truncation: Truncation, truncation_layers: int | None) -> Tensor:
        codes = super()._encode(z, label, truncation, truncation_layers)  # [N, L, w_dim]
        if not self.class_dim or label is None:
            return codes
        return torch.cat([codes, one_hot(label, self.class_dim)[:, None].repeat(1, self.num_layers, 1)], dim=2)

    def decode(self, codes: Tensor) -> Tensor:
        generator = self.mapping.generator
        # The module's own latent is replaced where it becomes a style code, so any will do.
        z = codes.new_zeros(1, generator.z_dim + generator.num_classes - self.class_dim).repeat(codes.shape[0], 1)
        if self.class_dim:
            z = torch.cat([z, codes[:, 0, self.latent_dim :]], dim=1)
        each = [codes[:, layer, : self.latent_dim] for layer in range(self.num_layers)]
        with feeding(generator.module, self.space.feed, each):
            return generator.decode(z[:, None])

    def affines(self) -> list[Tensor]:
        device = next(self.parameters()).device
        return [A.to(device) for A in self._affines]


def edit_styles(generator: CustomGenerator, mapping: str = AUTO, layers: Sequence[str] = ()) -> CustomStyleGenerator:
    """Make a generator that is edited in the style codes of a module.

    Args:
        generator: The module, from `sefa.wrap`.
        mapping: Name of the module that gives the style code, from `module.named_modules()`; or `auto`.
        layers: The layers to analyse, by their names, patterns such as `blocks.*.style`, or indices among those that
            read the code; none: all that are affine maps of it.

    Returns:
        The generator; the centre of truncation is the mean of seeded latents' codes.

    Raises:
        ArgumentError: If the module has no style code, or a layer does not read it as an affine map.
    """
    modules = dict(generator.module.named_modules())
    space = find_style_space(generator, mapping, [name for name in layers if name in modules])
    chosen = parse_layers(",".join(layers), len(space.names), names=space.names) if layers else ()
    analysed = [space.names[index] for index in chosen if space.affines[index] is not None]
    if chosen and not analysed:
        raise ArgumentError(f"{space.names[chosen[0]]} is no affine map of the style code")
    edited = CustomStyleGenerator(generator, space, analysed)
    source = space.feed.source
    found = f"the style code is {f'what {source.name!r} gives' if source else f'what {space.names[0]!r} reads'}"
    if space.reason:
        found += f", one for all layers: {space.reason}"
    edited.assumptions = (*generator.assumptions, found) if mapping == AUTO or space.reason else generator.assumptions
    return edited


def edit_what_is_read(
    generator: CustomGenerator, layers: Sequence[str] | None, mapping: str | None = None
) -> CustomGenerator | CustomStyleGenerator:
    """Make a generator that is edited in what its layers read: a style code, or z.

    Args:
        generator: The module, from `sefa.wrap`, without layers.
        layers: The layers to analyse; None: those that read the style code, or z if there is none.
        mapping: Name of the mapping, or `auto`; None: also z, if the layers read it.

    Raises:
        ArgumentError: If the layers read neither, or the mapping is none.
    """
    if mapping is not None:
        return edit_styles(generator, mapping, layers or ())
    if layers is not None:
        generator.layers = tuple(layers)
        try:
            generator.affines()
            return generator
        except ArgumentError as error:
            try:
                return edit_styles(generator, AUTO, layers)
            except ArgumentError:
                raise error from None
    try:
        return edit_styles(generator)
    except ArgumentError as error:
        names = [layer.name for layer in find_layers(generator).layers if layer.shape is not None]
        if not names:
            raise ArgumentError(f"no layer was found that reads z; {error}") from None
    generator.layers = tuple(names)
    generator.assumptions = (*generator.assumptions, f"the layers that read z first: {listed(names)}")
    return generator
