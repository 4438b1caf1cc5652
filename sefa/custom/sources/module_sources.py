"""Make a user's module from what is named, `my_pkg.models:Generator` or `models.py:make_generator`, or TorchScript.

This is the only place where code chosen by the user is loaded.
"""

import importlib
import importlib.util
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sefa.custom.user_code import blamed, first_line
from sefa.errors import ArgumentError, CheckpointError, listed
from sefa_runtime.files import input_problem

FILE_SUFFIX = ".py"
MISSING = re.compile(r"missing \d+ required .*?arguments?: '(\w+)'")


def build_module(reference: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Import what is named and make a module of it.

    Modules are found in the current directory first, as with `python -m`; a file is found where it lies, and what it
    imports in its folder first, as with `python FILE`.

    Args:
        reference: MODULE:NAME or FILE.py:NAME, where the name is of a class, of a function that returns a module, or of
            a module.
        arguments: Keyword arguments of the class or the function.

    Raises:
        ArgumentError: If the file or module cannot be imported, or the name is missing, is something else or rejects
            the arguments.
    """
    source, _, name = reference.rpartition(":")
    folder = Path(source).absolute().parent if source.endswith(FILE_SUFFIX) else Path.cwd()
    with _on_path(folder):
        found = _import_file(Path(source)) if source.endswith(FILE_SUFFIX) else _import(source)
        for part in name.split("."):
            if not hasattr(found, part):
                raise ArgumentError(f"{reference}: {source} has no {name}{_classes_in(found)}")
            found = getattr(found, part)
        if isinstance(found, nn.Module):
            if arguments:
                raise ArgumentError(f"{reference}: it is a {type(found).__name__} already: leave out --kwargs")
            return _unwrapped(found)
        if isinstance(found, type) and not issubclass(found, nn.Module):
            raise ArgumentError(
                f"{reference}: a subclass of torch.nn.Module, or a function that makes one, was expected, it is the "
                f"class {found.__name__}"
            )
        if not callable(found):
            raise ArgumentError(
                f"{reference}: a subclass of torch.nn.Module, or a function that makes one, was expected, it is a "
                f"{type(found).__name__}"
            )
        called = f"{name}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"
        try:
            with blamed(f"{reference}: {called} raised "):
                made = found(**arguments)
        except ArgumentError as error:
            missing = MISSING.search(str(error.__cause__)) if isinstance(error.__cause__, TypeError) else None
            if missing is None:
                raise
            raise ArgumentError(f"{error}; give it with --kwargs '{{\"{missing[1]}\": VALUE}}'") from error.__cause__
    if not isinstance(made, nn.Module):
        raise ArgumentError(f"{reference}: {called} returns a {type(made).__name__}, no torch.nn.Module")
    return _unwrapped(made)


def _unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside DataParallel and torch.compile."""
    if isinstance(module, nn.DataParallel):
        return _unwrapped(module.module)
    inner = getattr(module, "_orig_mod", None)
    return _unwrapped(inner) if isinstance(inner, nn.Module) else module


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


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """Let a folder come first on Python's path; the current one stays there, for what is imported later."""
    added = str(folder)
    if added in sys.path:
        yield
        return
    sys.path.insert(0, added)
    try:
        yield
    finally:
        if folder != Path.cwd() and added in sys.path:
            sys.path.remove(added)


def _import(name: str) -> object:
    with blamed(f"importing {name} raised "):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and f"{name}.".startswith(f"{error.name}."):
                raise ArgumentError(f"no module {name!r} in {Path.cwd()} or on Python's path") from error
            raise


def _import_file(path: Path) -> object:
    """Import a file as a module of its own name, or of a longer one if that is taken."""
    problem = input_problem(path)
    if problem:
        raise ArgumentError(f"{path}: {problem}")
    name = path.stem if path.stem.isidentifier() and path.stem not in sys.modules else f"_file_{abs(hash(path))}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with blamed(f"importing {path} raised "):
            spec.loader.exec_module(module)
    except ArgumentError as error:
        del sys.modules[name]
        if isinstance(error.__cause__, ImportError) and "relative import" in str(error.__cause__):
            package = path.absolute().parent
            raise ArgumentError(
                f"{path} imports from its package ({first_line(error.__cause__)}): name it as part of the package, "
                f"{package.name}.{path.stem}:NAME, in the folder that holds {package.name} ({package.parent})"
            ) from error.__cause__
        raise
    return module


def _classes_in(module: object) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, nn.Module)
        and value.__module__ == getattr(module, "__name__", "")
    ]
    return f"; it has {listed(names)}" if names else ""
