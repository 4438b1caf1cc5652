"""Stand-ins for the objects in a pickle: they hold what the pickle says about them, and run nothing."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any


class StandIn(ABC):
    """An object whose state the pickle gives after making it."""

    @abstractmethod
    def set_state(self, state: object) -> None:
        """Take the state, as far as it makes sense.

        Raises:
            ContentError: If the state is unusable and the object useless without it.
        """


class Placeholder(StandIn):
    """Stand-in for an object of a class unknown to this toolkit: it accepts whatever state the pickle gives it.

    Attributes:
        class_name: Module and name, as spelled in the pickle.
        state: The attributes that the pickle sets, by name; empty if its state is not a dict.
    """

    def __init__(self, class_name: str) -> None:
        self.class_name = class_name
        self.state: dict[Any, Any] = {}

    def __repr__(self) -> str:
        return f"<{self.class_name}>"

    def set_state(self, state: object) -> None:
        # For classes with slots, the state is a pair: attributes and slots.
        attributes = state[0] if isinstance(state, tuple) and len(state) == 2 else state
        self.state = attributes if isinstance(attributes, dict) else {}

    @property
    def is_tensor(self) -> bool:
        """Whether it stands in for an unsupported tensor: sparse, quantised, or of another package's class."""
        return self.class_name.startswith(("torch._utils._rebuild_", "torch._tensor._rebuild_"))

    @property
    def is_module(self) -> bool:
        """Whether it stands in for an nn.Module."""
        return is_module_state(self.state)


def is_module_state(state: Mapping[Any, Any]) -> bool:
    """Return whether these are the attributes of an nn.Module."""
    return all(isinstance(state.get(name), dict) for name in ("_parameters", "_buffers", "_modules"))
