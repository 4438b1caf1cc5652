"""Pickles from the Theano version of progressive growing: recognised only to tell the user what to do instead."""

from typing import NoReturn

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.errors import CheckpointError
from sefa_runtime.pickles.placeholders import Placeholder

CLASS = "network.Network"


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise a network of the Theano version's class."""
    network = checkpoint.network
    return isinstance(network, Placeholder) and network.class_name == CLASS


def load(checkpoint: Checkpoint, options: LoadOptions) -> NoReturn:
    """Refuse the file."""
    raise CheckpointError(
        "it was written by Python 2, and its networks are lists of Theano's layers: "
        "take the TensorFlow version's pickle of the same network"
    )


FORMAT = Format("Theano PGGAN", recognises, load, is_supported=False)
