"""Let a package import its public names on first use, so that it starts without their dependencies."""

from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, homes: Mapping[str, tuple[str, ...]]) -> tuple[list[str], Callable[[str], Any]]:
    """Return `__all__` and `__getattr__` for a package that exports its version and these names.

    Type checkers see neither: for them, the package imports the same names under `TYPE_CHECKING`.

    Args:
        package: The package's name.
        homes: The names that each module defines.
    """
    home_of = {name: module for module, names in homes.items() for name in names}

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        from importlib import import_module  # Only when needed, not at every start.

        return getattr(import_module(home_of[name]), name)

    return [*home_of, "__version__"], __getattr__
