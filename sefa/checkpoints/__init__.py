"""Read checkpoint files safely, recognise which code wrote them, and build the generator in them."""

from sefa.checkpoints.loading import load

__all__ = ["load"]
