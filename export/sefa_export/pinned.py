"""Axes whose size is fixed at export, for engines that want static shapes."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.export import Dim

from sefa.errors import ArgumentError
from sefa_export.bake import EditGraph

MAX_PINNED = 4096


@dataclass(frozen=True)
class Pinned:
    """Sizes of the graph's two free axes; None leaves one dynamic.

    Raises:
        ArgumentError: If a size is out of range.
    """

    batch: int | None = None
    edits: int | None = None

    def __post_init__(self) -> None:
        for name, size, least in (("batch", self.batch, 1), ("edits", self.edits, 0)):
            if size is not None and not least <= size <= MAX_PINNED:
                raise ArgumentError(f"{name} must be in {least}..{MAX_PINNED}, got {size}")

    def example_inputs(self, graph: EditGraph) -> tuple[Tensor, ...]:
        """Inputs for tracing. No dynamic axis has size 1, which would be taken for a constant."""
        batch = 3 if self.batch is None else self.batch
        edits = 2 if self.edits is None else self.edits
        return tuple(_example(graph, name, batch, edits) for name in graph.input_names)

    def dynamic_shapes(self, graph: EditGraph) -> dict[str, dict[int, Dim]]:
        """For each input, which of its axes are dynamic, as torch.export takes it."""
        batch = {} if self.batch is not None else {0: Dim("batch")}
        edits = {} if self.edits is not None else {1: Dim("edits")}
        return {name: batch | (edits if name in ("direction", "alpha") else {}) for name in graph.input_names}

    def axes(self) -> tuple[int | str, int | str]:
        """The two axes as an exported graph shows them: a size or a name."""
        return ("batch" if self.batch is None else self.batch, "edits" if self.edits is None else self.edits)


DYNAMIC = Pinned()


def _example(graph: EditGraph, name: str, batch: int, edits: int) -> Tensor:
    if name == "direction":
        return torch.zeros(batch, edits, dtype=torch.int64)
    if name == "alpha":
        return torch.zeros(batch, edits)
    if name == "label":
        return torch.zeros(batch, dtype=torch.int64)
    if name == "truncation":
        return torch.ones(batch)
    return torch.randn(batch, *graph.latent_shape, generator=torch.Generator().manual_seed(0))
