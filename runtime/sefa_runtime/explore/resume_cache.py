"""Measurements kept beside the output, so that an interrupted exploration resumes where it stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.errors import ContentError
from sefa_runtime.files import remove_abandoned, replacing, write_whole
from sefa_runtime.inputs.numpy_files import read_numpy_file

SETTINGS = "settings.json"
SUFFIX = ".measured"
Arrays = dict[str, NDArray[Any]]


class ResumeCache:
    """A folder of arrays that belong to one model and one set of settings.

    Attributes:
        folder: Its path, beside the output; created by the first `put`.
    """

    def __init__(self, output: Path) -> None:
        self.folder = output.with_name(output.name + SUFFIX)
        self._settings = ""

    def open(self, settings: dict[str, Any]) -> None:
        """Set the settings, and remove everything that was measured with others."""
        self._settings = json.dumps(settings, sort_keys=True)
        if self.folder.is_dir() and self._found_settings() != self._settings:
            self.remove()

    def has(self, name: str) -> bool:
        """Return whether anything is stored under a name, damaged or not."""
        return (self.folder / f"{name}.npz").is_file()

    def get(self, name: str) -> Arrays | None:
        """Return the arrays stored under a name; None if there are none, or they are damaged."""
        try:
            return read_numpy_file(self.folder / f"{name}.npz")
        except (OSError, ContentError):
            return None

    def put(self, name: str, **arrays: NDArray[Any]) -> None:
        """Store arrays under a name.

        Raises:
            OSError: If they cannot be written.
        """
        if not self.folder.is_dir():
            self.folder.mkdir(exist_ok=True)  # Another exploration may have created it meanwhile.
            write_whole(self.folder / SETTINGS, self._settings.encode())
        with replacing(self.folder / f"{name}.npz") as partial:
            np.savez(partial, **arrays)  # type: ignore[arg-type]  # numpy's stub takes names for its own options.

    def remove(self) -> None:
        """Remove everything; foreign files stay, and the folder with them."""
        remove_abandoned(self.folder / SETTINGS)
        for path in (*self.folder.glob("*.npz"), self.folder / SETTINGS):
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _found_settings(self) -> str:
        try:
            with (self.folder / SETTINGS).open(encoding="utf-8") as file:
                return file.read(len(self._settings) + 1)
        except (OSError, UnicodeDecodeError):
            return ""


def cached(
    cache: ResumeCache | None, name: str, measure: Callable[[], Arrays], fits: Callable[[Arrays], bool]
) -> Arrays:
    """Return the arrays stored under a name; measure and store them if there are none, or they do not fit.

    Raises:
        OSError: If they cannot be written.
    """
    arrays = None if cache is None else cache.get(name)
    if arrays is None or not fits(arrays):
        arrays = measure()
        if cache is not None:
            cache.put(name, **arrays)
    return arrays
