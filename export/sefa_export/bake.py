"""Generator and direction bank as one module: the edit graph."""

import math

import torch
from torch import Tensor, nn

from sefa.bank import DirectionBank
from sefa.errors import ArgumentError
from sefa.generators import Generator

OUTPUTS = ("uint8", "float32")


class EditGraph(nn.Module):
    """decode(encode(z, label, psi) + Σ_e alpha_e · mask[direction_e] ⊗ vector[direction_e])."""

    vectors: Tensor  # [K, D]
    mask: Tensor  # [K, L], 1 where the edit touches the layer

    def __init__(self, generator: Generator, bank: DirectionBank, output: str, truncation: float) -> None:
        super().__init__()
        self.generator = generator
        self.output = output
        self.truncation = truncation
        device = next(generator.parameters()).device
        self.register_buffer("vectors", bank.vectors.to(device))
        self.register_buffer("mask", bank.edited_layers.float().to(device))

    def forward(self, z: Tensor, direction: Tensor, alpha: Tensor, label: Tensor | None = None) -> Tensor:
        """Edit and draw.

        Args:
            z: Latents, float32 [batch, z_dim].
            direction: Indices into the bank, int64 [batch, edits]; clamped to it, since some execution providers
                read zeros beyond the end.
            alpha: Distances, float32 [batch, edits].
            label: Class indices, int64 [batch], clamped likewise; None for an unconditional generator.

        Returns:
            image: uint8 [batch, H, W, C], or float32 [batch, C, H, W] in [-1, 1].
        """
        image = self.draw(z, direction, alpha, label)
        return image if self.output == "float32" else quantize(image)

    def draw(self, z: Tensor, direction: Tensor, alpha: Tensor, label: Tensor | None = None) -> Tensor:
        """The image before it is brought to 255 levels, float32 [batch, C, H, W] in [-1, 1]; arguments as `forward`."""
        if label is not None:
            label = label.clamp(0, self.generator.num_classes - 1)
        codes = self.generator.encode(z, label, self.truncation)
        image: Tensor = self.generator.decode(codes + self._shift(direction, alpha))
        return image

    def _shift(self, direction: Tensor, alpha: Tensor) -> Tensor:
        """What the edits add to the codes, [batch, L, D]."""
        # One more edit, of alpha 0, so that no operator meets an empty axis when there are none: onnxruntime up to
        # 1.31 leaves the result of a MatMul over an empty axis uninitialised.
        batch = direction.shape[0]
        direction = torch.cat([direction, direction.new_zeros(batch, 1)], dim=1)  # [batch, edits + 1]
        alpha = torch.cat([alpha, alpha.new_zeros(batch, 1)], dim=1)
        # index_select becomes ONNX's Gather; indexing with [] would become GatherND, undefined out of range on CUDA.
        index = direction.clamp(0, self.vectors.shape[0] - 1).reshape(-1)
        vectors = self.vectors.index_select(0, index).reshape(batch, -1, self.vectors.shape[1])
        mask = self.mask.index_select(0, index).reshape(batch, -1, self.mask.shape[1])
        weights = alpha[..., None] * mask  # [batch, edits + 1, L]
        return weights.transpose(1, 2) @ vectors

    @property
    def input_names(self) -> tuple[str, ...]:
        """The arguments of `forward` that this graph takes."""
        return ("z", "direction", "alpha", *(["label"] if self.generator.num_classes else []))

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Inputs for tracing; no axis has size 1, which would be taken for a constant."""
        z, direction, alpha = torch.zeros(3, self.generator.z_dim), torch.zeros(3, 2).long(), torch.zeros(3, 2)
        return (z, direction, alpha, torch.zeros(3).long()) if self.generator.num_classes else (z, direction, alpha)


def quantize(image: Tensor) -> Tensor:
    """Bring [batch, C, H, W] in [-1, 1] to uint8 [batch, H, W, C]."""
    return (image * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def bake(generator: Generator, bank: DirectionBank, output: str = "uint8", truncation: float = 1.0) -> EditGraph:
    """Join a generator and its directions into one module that takes (z, direction, alpha).

    A class-conditional generator's takes (z, direction, alpha, label).

    Args:
        generator: The generator; shared with the result, not copied.
        bank: Directions that were made for it.
        output: `uint8`: [batch, H, W, C], ready to show. `float32`: [batch, C, H, W] in [-1, 1].
        truncation: Truncation psi, fixed in the graph; 1 is off, 0.7 is customary for StyleGANs.

    Raises:
        BankError: If the bank was made for another generator.
        ArgumentError: If `output` is unknown, the generator is not in float32, or it cannot be truncated so.
    """
    if output not in OUTPUTS:
        raise ArgumentError(f"output must be uint8 or float32, got {output!r}")
    precisions = {parameter.dtype for parameter in generator.parameters()}
    if precisions != {torch.float32}:
        raise ArgumentError(f"the generator must be in float32, got {', '.join(map(str, precisions))}")
    if not math.isfinite(truncation):
        raise ArgumentError(f"truncation psi must be a finite number, got {truncation}")
    if truncation != 1 and not generator.truncation_center:
        raise ArgumentError(f"{generator.family} has no truncation: psi must be 1, got {truncation}")
    bank.check_fits(generator)
    return EditGraph(generator, bank, output, truncation).eval()
