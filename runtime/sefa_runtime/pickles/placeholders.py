"""Stand-ins for objects that a pickle makes: what it tells of them, and nothing that runs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any


class StandIn(ABC):
    """An object whose state a pickle gives after it was made."""

    @abstractmethod
    def set_state(self, state: object) -> None:
        """Take the state, as far as it fits.

        Raises:
            ContentError: If the object is of no use without it.
        """


class Placeholder(StandIn):
    """An object of any class this toolkit does not know: it takes what the pickle gives it and does nothing.

    Attributes:
        class_name: Module and name, as the pickle has them.
        state: What the pickle would have set: attributes by name, as far as it is a dict.
    """

    def __init__(self, class_name: str) -> None:
        self.class_name = class_name
        self.state: dict[Any, Any] = {}

    def __repr__(self) -> str:
        return f"<{self.class_name}>"

    def set_state(self, state: object) -> None:
        # Of classes with slots it is a pair: attributes, and slots.
        attributes = state[0] if isinstance(state, tuple) and len(state) == 2 else state
        self.state = attributes if isinstance(attributes, dict) else {}

    @property
    def is_tensor(self) -> bool:
        """Whether it stands for a tensor: a sparse one, a quantised one, one of another package's class."""
        return self.class_name.startswith(("torch._utils._rebuild_", "torch._tensor._rebuild_"))

    @property
    def is_module(self) -> bool:
        """Whether it stands for an nn.Module."""
        return is_module_state(self.state)


def is_module_state(state: Mapping[Any, Any]) -> bool:
    """Whether these are the attributes of an nn.Module."""
    return all(isinstance(state.get(name), dict) for name in ("_parameters", "_buffers", "_modules"))
