"""The formats that checkpoints come in, one file each."""

from sefa.checkpoints.checkpoint import Format
from sefa.checkpoints.formats import dcgan

# Asked in this order; the first that recognises a file loads it.
FORMATS: tuple[Format, ...] = (dcgan.FORMAT,)

__all__ = ["FORMATS"]
