"""The names that checkpoints' pickles mention."""

from sefa_runtime.pickles.names import RUNNING, Name, refuse_to_run

__all__ = ["RUNNING", "Name", "refuse_to_run"]
