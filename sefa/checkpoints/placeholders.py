"""Stand-ins for objects that checkpoints' pickles make."""

from sefa_runtime.pickles.placeholders import Placeholder, StandIn, is_module_state

__all__ = ["Placeholder", "StandIn", "is_module_state"]
