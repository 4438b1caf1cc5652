"""Generators of the user's own: any torch.nn.Module or TorchScript module."""

from sefa.custom.sources.module_sources import build_module, load_torchscript
from sefa.custom.sources.weights import load_weights
from sefa.custom.style_space.search import FoundLayer, FoundLayers, find_layers
from sefa.custom.style_space.style_generator import edit_styles
from sefa.custom.wrapping import wrap

__all__ = [
    "FoundLayer",
    "FoundLayers",
    "build_module",
    "edit_styles",
    "find_layers",
    "load_torchscript",
    "load_weights",
    "wrap",
]
