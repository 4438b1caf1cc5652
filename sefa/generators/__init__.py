"""The generator families, one file each."""

from sefa.generators.dcgan import DCGAN
from sefa.generators.generator import Generator

__all__ = ["DCGAN", "Generator"]
