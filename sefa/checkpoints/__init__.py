"""Checkpoint files: reading them safely, recognising whose they are, and building the generator in them."""

from sefa.checkpoints.loading import load

__all__ = ["load"]
