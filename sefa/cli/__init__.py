"""The `sefa` command. Modules here import torch, onnx and onnxruntime inside the commands that need them."""

from sefa.cli.app import main

__all__ = ["main"]
