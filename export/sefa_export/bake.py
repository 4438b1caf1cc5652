"""Generator and direction bank as one module: the edit graph."""

import torch
from torch import Tensor, nn

from sefa.bank import DirectionBank
from sefa.errors import ArgumentError
from sefa.generators import Generator

OUTPUTS = ("uint8", "float32")


class EditGraph(nn.Module):
    """G(z + Σ_e alpha_e · mask[direction_e] ⊗ vector[direction_e])."""

    vectors: Tensor  # [K, D]
    mask: Tensor  # [K, L], 1 where the edit touches the layer

    def __init__(self, generator: Generator, bank: DirectionBank, output: str = "uint8") -> None:
        super().__init__()
        self.generator = generator
        self.output = output
        device = next(generator.parameters()).device
        self.register_buffer("vectors", bank.vectors.to(device))
        self.register_buffer("mask", bank.edited_layers.float().to(device))

    def forward(self, z: Tensor, direction: Tensor, alpha: Tensor) -> Tensor:
        """Edit and draw.

        Args:
            z: Latents, float32 [batch, z_dim].
            direction: Indices into the bank, int64 [batch, edits]; clamped to it, since some execution providers
                read zeros beyond the end.
            alpha: Distances, float32 [batch, edits].

        Returns:
            image: uint8 [batch, H, W, C], or float32 [batch, C, H, W] in [-1, 1].
        """
        image = self.draw(z, direction, alpha)
        return image if self.output == "float32" else quantize(image)

    def draw(self, z: Tensor, direction: Tensor, alpha: Tensor) -> Tensor:
        """The image before it is brought to 255 levels, float32 [batch, C, H, W] in [-1, 1]; arguments as `forward`."""
        # One more edit, of alpha 0, so that no operator meets an empty axis when there are none: onnxruntime up to
        # 1.31 leaves the result of a MatMul over an empty axis uninitialised.
        batch = z.shape[0]
        direction = torch.cat([direction, direction.new_zeros(batch, 1)], dim=1)  # [batch, edits + 1]
        alpha = torch.cat([alpha, alpha.new_zeros(batch, 1)], dim=1)
        # index_select becomes ONNX's Gather; indexing with [] would become GatherND, undefined out of range on CUDA.
        index = direction.clamp(0, self.vectors.shape[0] - 1).reshape(-1)
        vectors = self.vectors.index_select(0, index).reshape(batch, -1, self.vectors.shape[1])
        mask = self.mask.index_select(0, index).reshape(batch, -1, self.mask.shape[1])
        weights = alpha[..., None] * mask  # [batch, edits + 1, L]
        codes = self.generator.encode(z) + weights.transpose(1, 2) @ vectors  # [batch, L, D]
        image: Tensor = self.generator.decode(codes)
        return image

    def example_inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs for tracing; no axis has size 1, which would be taken for a constant."""
        return torch.zeros(3, self.generator.z_dim), torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 2)


def quantize(image: Tensor) -> Tensor:
    """Bring [batch, C, H, W] in [-1, 1] to uint8 [batch, H, W, C]."""
    return (image * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def bake(generator: Generator, bank: DirectionBank, output: str = "uint8") -> EditGraph:
    """Join a generator and its directions into one module that takes (z, direction, alpha).

    Args:
        generator: The generator; shared with the result, not copied.
        bank: Directions that were made for it.
        output: `uint8`: [batch, H, W, C], ready to show. `float32`: [batch, C, H, W] in [-1, 1].

    Raises:
        BankError: If the bank was made for another generator.
        ArgumentError: If `output` is unknown or the generator is not in float32.
    """
    if output not in OUTPUTS:
        raise ArgumentError(f"output must be uint8 or float32, got {output!r}")
    precisions = {parameter.dtype for parameter in generator.parameters()}
    if precisions != {torch.float32}:
        raise ArgumentError(f"the generator must be in float32, got {', '.join(map(str, precisions))}")
    bank.check_fits(generator)
    return EditGraph(generator, bank, output).eval()
