"""TorchScript archives of the user's own."""

import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

from sefa.errors import ArgumentError, CheckpointError


def load_torchscript(path: str | Path, *, run_code: bool = False) -> nn.Module:
    """Load a TorchScript archive, which is to run it.

    It holds no Python, but a program all the same: some of it runs when it is loaded, its operators can read and write
    any file that this user can, and nothing says that it ends.

    Args:
        path: The archive.
        run_code: Whether it may run; only an archive from a source that is trusted should.

    Raises:
        ArgumentError: If it may not.
        CheckpointError: If it is damaged.
    """
    if not run_code:
        raise ArgumentError(
            f"{path}: TorchScript is code: to load it is to run it, and it may do whatever you may; if you trust where "
            "it comes from, run_code=True runs it"
        )
    try:
        # Opened here: torch takes names that are UTF-8 alone.
        with warnings.catch_warnings(), Path(path).open("rb") as file:
            warnings.simplefilter("ignore")  # torch advises torch.export instead.
            module = torch.jit.load(file, map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: a TorchScript archive, but truncated or damaged") from error
    assert isinstance(module, nn.Module)
    return module
