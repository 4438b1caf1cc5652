"""Generators that come with the package, each under a name of its own. Importing this does not need torch."""

from pathlib import Path

LETTERS = "letters"
BUNDLED = {LETTERS: Path(__file__).with_name("letters.safetensors")}


def find_bundled(source: Path) -> Path:
    """Return the file that a name stands for, or `source` itself if it is something else, or is there."""
    return BUNDLED[str(source)] if is_bundled(source) else source


def is_bundled(source: Path) -> bool:
    """Return whether this is the name of a bundled generator; a file or folder that is called so comes first."""
    return str(source) in BUNDLED and not source.exists()


def hint(source: Path) -> str:
    """Return what helps those who may mean a bundled generator by what is not a file; empty if that is unlikely."""
    if str(source) in BUNDLED:
        return f"; it hides the generator {source}, which comes with sefa"
    is_word = len(source.parts) == 1 and not source.suffix and not source.exists()
    return f"; the generator that comes with sefa is called {LETTERS}" if is_word else ""
