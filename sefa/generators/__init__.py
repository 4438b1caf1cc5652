"""The generator families, one file each."""

from sefa.generators.dcgan import DCGAN
from sefa.generators.generator import Generator, check_generator
from sefa.generators.pggan import PGGAN
from sefa.generators.stylegan import StyleGAN
from sefa.generators.stylegan2 import StyleGAN2
from sefa.generators.stylegan3 import StyleGAN3

__all__ = ["DCGAN", "PGGAN", "Generator", "StyleGAN", "StyleGAN2", "StyleGAN3", "check_generator"]
