"""Exported archives as a host that embeds torch loads them."""

import warnings
from pathlib import Path
from typing import Any

import torch


def load_torchscript(path: Path) -> Any:
    """Return the module in a TorchScript archive."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises torch.export; some hosts load TorchScript.
        return torch.jit.load(path)  # type: ignore[no-untyped-call]


def load_pt2(path: Path) -> Any:
    """Return the module in a .pt2 archive."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # What torch deprecates of its own.
        return torch.export.load(path).module()
