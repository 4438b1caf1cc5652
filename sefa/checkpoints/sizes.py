"""Limits on what a checkpoint and its generator may ask for: a small file can describe images that fill the memory."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from sefa.errors import CheckpointError
from sefa.generators import Generator
from sefa_runtime.pickles.limits import EXPANDED_ELEMENTS, SHARING

# Modules and tensors; repeating one under another name takes hardly any room in a file. Networks have a few hundred.
MAX_ENTRIES = 10_000
# Characters of a weight's name, including the path to it. Formats match every name against patterns.
MAX_NAME = 500

MAX_IMAGE = 2**26  # numbers: 256 MB as float32; 4096x4096 in RGB has 50 million
MAX_NOISE = 2**24  # numbers of one layer's noise, if the file stores none
MAX_LAYERS = 1000
MAX_CODES = 2**22  # numbers of one image's codes, over all layers
MAX_CLASSES = 2**20
MAX_ONE_HOT = 4096  # classes as one-hot vectors: the table has the square of as many numbers, 67 MB


def check_names(names: Iterable[object], path: str = "") -> None:
    """Refuse weights' names that, with the path to them, would fill the memory or take forever to search.

    Raises:
        CheckpointError: If one is longer than any real network's.
    """
    if any(isinstance(name, str) and len(path) + len(name) > MAX_NAME for name in names):
        raise CheckpointError(f"damaged: a weight's name of more than {MAX_NAME} characters")


def check_uses(tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights with so many names that a generator made from them would fill the memory.

    Raises:
        CheckpointError: If there are too many names, or the tensors have far more elements than their storages hold.
    """
    if len(tensors) > MAX_ENTRIES:
        raise CheckpointError(f"damaged: more than {MAX_ENTRIES} weights")
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() // tensor.itemsize
        for tensor in tensors.values()
    }
    if sum(tensor.numel() for tensor in tensors.values()) > SHARING * sum(storages.values()) + EXPANDED_ELEMENTS:
        raise CheckpointError("damaged: the same weights have too many names")


def check_pixels(height: int, width: int) -> None:
    """Refuse images that would fill the memory, before their generator is made.

    Raises:
        CheckpointError: If they are larger than any real generator's.
    """
    if height * width > MAX_IMAGE:
        raise CheckpointError(_short(f"it would have images of {width}x{height} pixels, which is beyond any real one"))


def check_sizes(generator: Generator) -> None:
    """Refuse a generator whose images or codes would fill the memory.

    Raises:
        CheckpointError: If its image, codes, layers or classes are beyond any real generator's.
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
    """Return the one-hot vector that follows z for each class, float32 [num_classes, num_classes].

    Raises:
        CheckpointError: If there are too many classes.
    """
    check_class_codes(num_classes, num_classes)
    return torch.eye(num_classes)


def check_class_codes(num_classes: int, length: int) -> None:
    """Refuse a table [num_classes, length] of the vectors that follow z if it would fill the memory.

    Raises:
        CheckpointError: If the table is too large.
    """
    if num_classes * length > MAX_ONE_HOT**2:
        raise CheckpointError(f"its {num_classes} classes with vectors of {length} are beyond any real ones: damaged?")


def _short(text: str) -> str:
    """Return text cut to 200 characters, as a damaged file's numbers may have hundreds of digits."""
    return text if len(text) <= 200 else f"{text[:200]}..."
