"""What was measured so far, kept beside the output, so that an interrupted exploration goes on where it was."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.files import replacing, write_whole

SETTINGS = "settings.json"
SUFFIX = ".measured"


class Kept:
    """A folder of arrays that belong to one model and one set of settings.

    Attributes:
        folder: Where it is, beside the output; made when the first thing is kept.
    """

    def __init__(self, output: Path) -> None:
        self.folder = output.with_name(output.name + SUFFIX)
        self._settings = ""

    def open(self, settings: dict[str, Any]) -> None:
        """Say what the arrays depend on; those that were kept for something else are removed."""
        self._settings = json.dumps(settings, sort_keys=True)
        if self.folder.is_dir() and self._found_settings() != self._settings:
            self.remove()

    def get(self, name: str) -> dict[str, NDArray[Any]] | None:
        """The arrays that were kept under a name; None if there are none, or they are damaged."""
        try:
            content = io.BytesIO((self.folder / f"{name}.npz").read_bytes())
            with np.load(content, allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, name: str, **arrays: NDArray[Any]) -> None:
        """Keep arrays under a name.

        Raises:
            OSError: If they cannot be written.
        """
        if not self.folder.is_dir():
            self.folder.mkdir()
            write_whole(self.folder / SETTINGS, self._settings.encode())
        with replacing(self.folder / f"{name}.npz") as partial:
            np.savez(partial, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its own options.

    def remove(self) -> None:
        """Forget everything; what others put into the folder stays, and the folder with it."""
        for path in (*self.folder.glob("*.npz"), self.folder / SETTINGS):
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _found_settings(self) -> str:
        try:
            return (self.folder / SETTINGS).read_text()
        except OSError:
            return ""
