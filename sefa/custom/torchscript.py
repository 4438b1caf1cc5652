"""TorchScript archives of the user's own."""

import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

from sefa.errors import CheckpointError


def load_torchscript(path: Path) -> nn.Module:
    """Load a TorchScript archive, whose operators then run as TorchScript's do: no Python in it, but a program.

    Raises:
        CheckpointError: If it is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch advises torch.export instead.
            module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: a TorchScript archive, but truncated or damaged") from error
    assert isinstance(module, nn.Module)
    return module
