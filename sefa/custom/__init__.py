"""Generators of the user's own: any torch.nn.Module or TorchScript module."""

from sefa.custom.sources.module_sources import build_module, load_torchscript
from sefa.custom.sources.weights import load_weights
from sefa.custom.wrapping import wrap

__all__ = ["build_module", "load_torchscript", "load_weights", "wrap"]
