"""From `my_pkg.models:Generator` to a module. This is the one place that runs code of the user's, named by the user."""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sefa.errors import ArgumentError


def build_module(reference: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Import MODULE:CLASS and construct it.

    Modules are found in the current directory first, as with `python -m`.

    Args:
        reference: MODULE:CLASS.
        arguments: Keyword arguments of the constructor.

    Raises:
        ArgumentError: If the module cannot be imported, or the class is missing, is no nn.Module or refuses the
            arguments.
    """
    module_name, _, class_name = reference.partition(":")
    found = _import(module_name)
    for part in class_name.split("."):
        if not hasattr(found, part):
            raise ArgumentError(f"{reference}: {module_name} has no {class_name}{_classes_in(found)}")
        found = getattr(found, part)
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        what = f"the class {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"
        raise ArgumentError(f"{reference}: a subclass of torch.nn.Module was expected, it is {what}")
    try:
        return found(**arguments)
    except Exception as error:  # Whatever a class of the user's raises.
        called = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise ArgumentError(f"{reference}: {class_name}({called}) raised {_one_line(error)}") from error


def _import(name: str) -> object:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise ArgumentError(f"no module {name!r} in {here} or on Python's path") from error
        raise ArgumentError(f"importing {name} raised {_one_line(error)}") from error
    except (Exception, SystemExit) as error:  # Whatever a module of the user's raises.
        raise ArgumentError(f"importing {name} raised {_one_line(error)}") from error


def _classes_in(module: object) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, nn.Module)
        and value.__module__ == getattr(module, "__name__", "")
    ]
    return f"; it has {', '.join(names[:8])}" if names else ""


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
