"""What a generator may ask for: a small file can describe one of which an image alone fills the memory."""

import torch
from torch import Tensor

from sefa.errors import CheckpointError
from sefa.generators import Generator

MAX_IMAGE = 2**26  # numbers: 256 MB as float32; 4096x4096 in RGB has 50 million
MAX_NOISE = 2**24  # numbers of one layer's noise, where the file has none
MAX_LAYERS = 1000
MAX_CODES = 2**22  # numbers of one image's codes, of all layers
MAX_CLASSES = 2**20
MAX_ONE_HOT = 4096  # classes that are one-hot vectors, whose table has the square of their number: 67 MB


def check_sizes(generator: Generator) -> None:
    """Refuse a generator of which a run, or what is made of its codes, would fill the memory.

    Raises:
        CheckpointError: If its image, codes, layers or classes are beyond those of any real one.
    """
    height, width = generator.resolution
    image = height * width * generator.channels
    codes = max(generator.z_dim, generator.num_layers * generator.code_dim)
    for what, value, most in (
        (f"images of {width}x{height} pixels and {generator.channels} channels", image, MAX_IMAGE),
        (f"{generator.num_layers} layers that read codes", generator.num_layers, MAX_LAYERS),
        (f"codes of {codes} numbers", codes, MAX_CODES),
        (f"{generator.num_classes} classes", generator.num_classes, MAX_CLASSES),
    ):
        if value > most:
            raise CheckpointError(f"it would have {_short(what)}, which is beyond any real one: damaged?")


def one_hot_codes(num_classes: int) -> Tensor:
    """What stands behind z for each class, float32 [num_classes, num_classes].

    Raises:
        CheckpointError: If there are too many.
    """
    check_class_codes(num_classes, num_classes)
    return torch.eye(num_classes)


def check_class_codes(num_classes: int, length: int) -> None:
    """Refuse a table [num_classes, length] of what stands behind z that would fill the memory.

    Raises:
        CheckpointError: If there are too many.
    """
    if num_classes * length > MAX_ONE_HOT**2:
        raise CheckpointError(f"its {num_classes} classes with vectors of {length} are beyond any real ones: damaged?")


def _short(text: str) -> str:
    """Numbers of hundreds of digits say no more than that they are large."""
    return text if len(text) <= 200 else f"{text[:200]}..."
