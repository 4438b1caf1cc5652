"""Load a user's module from a class given by name, `my_pkg.models:Generator`, or from a TorchScript archive.

This is the only place where code chosen by the user is loaded.
"""

import importlib
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sefa.custom.user_code import blamed
from sefa.errors import ArgumentError, CheckpointError, listed


def build_module(reference: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Import MODULE:CLASS and construct it.

    Modules are found in the current directory first, as with `python -m`.

    Args:
        reference: MODULE:CLASS.
        arguments: Keyword arguments of the constructor.

    Raises:
        ArgumentError: If the module cannot be imported, or the class is missing, is not an nn.Module or rejects the
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
    called = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    with blamed(f"{reference}: {class_name}({called}) raised "):
        return found(**arguments)


def check_may_run(path: str | Path, run_code: bool) -> None:
    """Refuse to load a TorchScript archive, which would run it, unless the caller has said that it may.

    Raises:
        ArgumentError: If `run_code` is false.
    """
    if not run_code:
        raise ArgumentError(
            f"{path}: TorchScript is code: loading it runs it, and it can do anything you can; if you trust its "
            "origin, --run-code (in Python run_code=True) runs it"
        )


def load_torchscript(path: str | Path, *, run_code: bool = False) -> nn.Module:
    """Load a TorchScript archive, which means running it.

    An archive contains no Python, but it is still a program: parts of it run when it is loaded, its operators can read
    and write any file that this user can, and it may never end.

    Args:
        path: The archive.
        run_code: Whether the archive may run; allow this only for an archive from a trusted source.

    Raises:
        ArgumentError: If the archive may not run.
        CheckpointError: If it is damaged.
    """
    check_may_run(path, run_code)
    # Open the file here, because torch only accepts file names in UTF-8.
    with warnings.catch_warnings(), Path(path).open("rb") as file:
        warnings.simplefilter("ignore")  # torch recommends torch.export instead.
        try:
            module = torch.jit.load(file, map_location="cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError, OSError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{path}: a TorchScript archive, but truncated or damaged") from error
    assert isinstance(module, nn.Module)
    return module


def _import(name: str) -> object:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    with blamed(f"importing {name} raised "):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and f"{name}.".startswith(f"{error.name}."):
                raise ArgumentError(f"no module {name!r} in {here} or on Python's path") from error
            raise


def _classes_in(module: object) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, nn.Module)
        and value.__module__ == getattr(module, "__name__", "")
    ]
    return f"; it has {listed(names)}" if names else ""
