"""How much a checkpoint may ask for."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from sefa.errors import CheckpointError
from sefa_runtime.pickles import limits
from sefa_runtime.pickles.limits import EXPANDED_ELEMENTS, SHARING

MAX_WORK = limits.MAX_WORK
# A pickle can name a module or a tensor any number of times without taking room; networks have some hundred.
MAX_ENTRIES = 10_000
# Characters of a weight's name, with those of all networks that it is in. Formats look for patterns in each.
MAX_NAME = 500


class Limits(limits.Limits):
    """What is left of what reading one checkpoint may take.

    Args:
        size: Of the file in bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size, MAX_WORK)


def check_names(names: Iterable[object], path: str = "") -> None:
    """Refuse names of weights, or of networks on their path, that would fill the memory or take for ever to look at.

    Raises:
        CheckpointError: If one is longer than any network's.
    """
    if any(isinstance(name, str) and len(path) + len(name) > MAX_NAME for name in names):
        raise CheckpointError(f"damaged: a weight's name of more than {MAX_NAME} characters")


def check_uses(tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that stand under so many names that all that is made of them would fill the memory.

    Raises:
        CheckpointError: If there are too many names, or their tensors have far more elements than their storages.
    """
    if len(tensors) > MAX_ENTRIES:
        raise CheckpointError(f"damaged: more than {MAX_ENTRIES} weights")
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() // tensor.itemsize
        for tensor in tensors.values()
    }
    if sum(tensor.numel() for tensor in tensors.values()) > SHARING * sum(storages.values()) + EXPANDED_ELEMENTS:
        raise CheckpointError("damaged: the same weights stand under too many names")
