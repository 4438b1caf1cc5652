"""The edit graph: a generator and its direction bank as one module."""

import inspect
import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sefa.bank.direction_bank import DirectionBank
from sefa.choices import choice_of
from sefa.directions.compatibility import check_fits
from sefa.errors import ArgumentError
from sefa.generators import Generator, check_generator
from sefa_runtime.model.choices import Latent, OutputType


class EditGraph(nn.Module, ABC):
    """decode(codes + Σ_e alpha_e · mask[direction_e] ⊗ vector[direction_e]), with codes made by the subclass.

    If a bank has a vector for each layer, those take the place of mask ⊗ vector.

    Attributes:
        latent: The space of the first input: "z", "w" or "w+".
        generator: Renders the images.
        output_type: "uint8" or "float32".
        truncation: Truncation psi fixed in the graph; None if it is an input.
        first_edited: The first layer that any edit touches; what comes before it depends on the latent alone.
    """

    latent: str
    truncation: float | None = 1.0
    vectors: Tensor  # [K, D], or [K, L·D] of a bank with a vector for each layer
    mask: Tensor | None  # [K, L - first_edited], 1 where an edit touches the layer; None if each touches all of these

    def __init__(self, generator: Generator, bank: DirectionBank, output_type: str) -> None:
        super().__init__()
        self.generator = generator
        self.output_type = output_type
        device = next(generator.parameters()).device
        self.has_own_vectors = bank.has_own_vectors
        vectors = bank.steps().flatten(1) if bank.has_own_vectors else bank.vectors
        self.register_buffer("vectors", vectors.to(device))
        self.first_edited = 0 if bank.has_own_vectors else int(bank.edited_layers.any(0).nonzero()[0, 0])
        mask = bank.edited_layers[:, self.first_edited :]
        everywhere = bank.has_own_vectors or bool(mask.all())
        self.register_buffer("mask", None if everywhere else mask.float().to(device))

    @property
    def input_names(self) -> tuple[str, ...]:
        """The arguments of `forward` that this graph takes, in order; the first is the latent."""
        taken = {"label": self.generator.num_classes > 0, "truncation": self.truncation is None}
        taken |= {entry.name: True for entry in self.generator.optional_inputs}
        parameters = inspect.signature(self.forward).parameters.values()
        return tuple(item.name for item in parameters if item.default is item.empty or taken.get(item.name, False))

    def render(
        self,
        latents: Tensor,
        direction: Tensor,
        alpha: Tensor,
        label: Tensor | None = None,
        truncation: Tensor | None = None,
        **further: Tensor | None,
    ) -> Tensor:
        """Return the edited images before quantization, float32 [batch, C, H, W] in [-1, 1].

        Args:
            latents: Latents in the space `latent`, [batch, ...].
            direction: See `LatentEditGraph.forward`.
            alpha: See `LatentEditGraph.forward`.
            label: See `LatentEditGraph.forward`.
            truncation: See `LatentEditGraph.forward`.
            further: The generator's `optional_inputs`, by name, float32 [batch]; None for any that it does not have.
        """
        codes = self._codes(latents, label, truncation)  # [batch, L, D]
        moved = codes[:, self.first_edited :] + self.shift(codes, direction, alpha)
        # The layers before read codes that no edit is an input of: `sefa_export.onnx_graph.prefix` relies on it.
        codes = torch.cat([codes[:, : self.first_edited], moved], 1) if self.first_edited else moved
        taken = {name: value for name, value in further.items() if value is not None}
        image: Tensor = self.generator.decode(codes, **taken)
        return image

    @abstractmethod
    def _codes(self, latents: Tensor, label: Tensor | None, truncation: Tensor | None) -> Tensor:
        """Return the codes to edit, [batch, L, D]."""

    def _finish(self, image: Tensor) -> Tensor:
        return image if self.output_type == "float32" else quantize(image)

    def shift(self, codes: Tensor, direction: Tensor, alpha: Tensor) -> Tensor:
        """Return what the edits add to the codes from `first_edited` on.

        Shape: [batch, L - first_edited, D], or [batch, 1, D] if all these layers move alike.
        """
        # Append an edit with alpha 0: with no edits at all, a sum over the empty axis is left uninitialised as a MatMul
        # (onnxruntime up to 1.31) and refused as a ReduceSum (up to 1.16, and by WebGPU in onnxruntime-web's build
        # `all`). Avoid new_zeros: its Shape would be the only node off the GPU.
        none = 0 * codes[:, :1, 0]  # [batch, 1]
        direction, alpha = torch.cat([direction, none.long()], 1), torch.cat([alpha, none], 1)
        # embedding becomes ONNX's Gather; indexing with [] would become GatherND, undefined out of range on CUDA.
        index = direction.clamp(0, self.vectors.shape[0] - 1)
        moves = F.embedding(index, self.vectors) * alpha[..., None]  # [batch, edits + 1, D] or [..., L·D]
        if self.has_own_vectors:
            return moves.sum(1).reshape(-1, self.generator.num_layers, self.generator.code_dim)
        if self.mask is None:
            return moves.sum(1, keepdim=True)
        return (F.embedding(index, self.mask)[..., None] * moves[:, :, None]).sum(1)


class LatentEditGraph(EditGraph):
    """The edit graph for latents z: codes = encode(z, label, psi)."""

    latent = "z"

    def __init__(self, generator: Generator, bank: DirectionBank, output_type: str, truncation: float | None) -> None:
        super().__init__(generator, bank, output_type)
        self.truncation = truncation

    def forward(
        self,
        z: Tensor,
        direction: Tensor,
        alpha: Tensor,
        label: Tensor | None = None,
        truncation: Tensor | None = None,
    ) -> Tensor:
        """Edit and render.

        Args:
            z: Latents, float32 [batch, z_dim].
            direction: Indices into the bank, int64 [batch, edits]; clamped to its range, since some execution
                providers read zeros beyond the end.
            alpha: Distances, float32 [batch, edits].
            label: Class indices, int64 [batch], clamped likewise; None for an unconditional generator.
            truncation: Truncation psi, float32 [batch]; None if it is fixed.

        Returns:
            image: uint8 [batch, H, W, C], or float32 [batch, C, H, W] in [-1, 1].
        """
        return self._finish(self.render(z, direction, alpha, label, truncation))

    def _codes(self, z: Tensor, label: Tensor | None, truncation: Tensor | None) -> Tensor:
        if label is not None:
            label = label.clamp(0, self.generator.num_classes - 1)
        psi = truncation if self.truncation is None else self.truncation
        return self.generator.encode(z, label, 1.0 if psi is None else psi)


class StyleEditGraph(EditGraph):
    """The edit graph for style codes w, shared by all layers."""

    latent = "w"

    def forward(self, w: Tensor, direction: Tensor, alpha: Tensor) -> Tensor:
        """Edit and render; `w` is float32 [batch, D], the rest as in `LatentEditGraph.forward`."""
        return self._finish(self.render(w, direction, alpha))

    def _codes(self, w: Tensor, label: Tensor | None, truncation: Tensor | None) -> Tensor:
        return w[:, None].repeat(1, self.generator.num_layers, 1)


class CodesEditGraph(EditGraph):
    """The edit graph for W+: one code per layer, as for inverted photographs."""

    latent = "w+"

    def forward(self, codes: Tensor, direction: Tensor, alpha: Tensor) -> Tensor:
        """Edit and render; `codes` is float32 [batch, L, D], the rest as in `LatentEditGraph.forward`."""
        return self._finish(self.render(codes, direction, alpha))

    def _codes(self, codes: Tensor, label: Tensor | None, truncation: Tensor | None) -> Tensor:
        return codes


def quantize(image: Tensor) -> Tensor:
    """Convert images [batch, C, H, W] in [-1, 1] to uint8 [batch, H, W, C].

    An image that contains NaN or infinity becomes alternating columns of 0 and 255: uint8 has no NaN, and black pixels
    would pass for an image. The runtime recognises these columns (`sefa_runtime.editor.check_finite`).
    """
    levels = (image * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    columns = (torch.arange(image.shape[3], device=image.device) % 2 * 255).to(torch.uint8)
    # A single node on every provider; NaN is not less than anything.
    is_finite = image.abs().sum((1, 2, 3), keepdim=True) < math.inf  # [batch, 1, 1, 1]
    return torch.where(is_finite, levels, columns[:, None])


def bake(
    generator: Generator,
    bank: DirectionBank,
    output_type: str = "uint8",
    *,
    latent: str = "z",
    truncation: float | None = 1.0,
    allow_other_checkpoint: bool = False,
) -> EditGraph:
    """Join a generator and its directions into one module that takes (z, direction, alpha).

    Args:
        generator: The generator; shared with the result, not copied.
        bank: Directions found for it.
        output_type: `uint8`: [batch, H, W, C], ready to show. `float32`: [batch, C, H, W] in [-1, 1].
        latent: What the graph takes. `z`: latents, and labels if the generator is class-conditional. StyleGANs also
            take `w`, a style code, and `w+`, a code for every layer, such as an inverted photograph; both are used as
            given.
        truncation: Truncation psi, fixed in the graph; 1 turns it off, 0.7 is customary for StyleGANs. None makes it
            an input `truncation`, [batch].
        allow_other_checkpoint: Accept directions from another checkpoint of the same architecture, such as the one that
            this generator was fine-tuned from.

    Raises:
        BankError: If the bank was made for another generator, or for another checkpoint and that is not allowed.
        ArgumentError: If an option is unknown or not for this generator, or the generator is not in float32.

    Examples:
        >>> generator = sefa.load("netG.pth")
        >>> graph = sefa_export.bake(generator, sefa.factorize(generator))
        >>> graph.input_names
        ('z', 'direction', 'alpha')
        >>> direction, alpha = torch.tensor([[1], [1]]), torch.tensor([[2.5], [-2.5]])
        >>> graph(torch.randn(2, 20), direction, alpha).shape
        torch.Size([2, 64, 64, 3])
    """
    choice_of(OutputType, output_type, "output")
    check_generator(generator)
    precisions = {parameter.dtype for parameter in generator.parameters()}
    if precisions != {torch.float32}:
        raise ArgumentError(f"the generator must be in float32, got {', '.join(map(str, precisions))}")
    if truncation is not None and not math.isfinite(truncation):
        raise ArgumentError(f"truncation psi must be a finite number, got {truncation}")
    if truncation != 1 and not generator.supports_truncation:
        raise ArgumentError(f"{generator.family} has no truncation: psi must be 1, got {truncation}")
    check_fits(bank, generator, allow_other_checkpoint=allow_other_checkpoint)
    if choice_of(Latent, latent, "latent") == Latent.Z:
        return LatentEditGraph(generator, bank, output_type, truncation).eval()
    if not generator.has_style_codes:
        raise ArgumentError(f"{generator.family} has no style codes: latent must be z, got {latent}")
    if generator.class_dim:
        raise ArgumentError(f"the class is read beside the style code, so latent must be z, got {latent}")
    if truncation != 1:
        raise ArgumentError(f"a graph of {latent} takes codes as they are: truncation psi must be 1, got {truncation}")
    return (StyleEditGraph if latent == "w" else CodesEditGraph)(generator, bank, output_type).eval()
