"""Trained generators from PyPI, whose weights `make test` installs; tests that need them are skipped without."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from sefa.demo import INSTALL, PACKAGE, find_faces

EYES_PACKAGE = "omniart-eye-generator"
EYES_INSTALL = f"pip install --no-deps --ignore-requires-python {EYES_PACKAGE}==0.1"
EYES_WEIGHTS = "omniart_eye_generator/generator_model_state.pth"


def trained_faces() -> Path:
    """Return the faces of the demo, or skip the test."""
    _skip_without(PACKAGE, INSTALL)
    return find_faces()


def trained_eyes() -> Path:
    """Return a class-conditional generator, latents of 100, 8 classes, 128x128, or skip the test."""
    _skip_without(EYES_PACKAGE, EYES_INSTALL)
    return Path(str(distribution(EYES_PACKAGE).locate_file(EYES_WEIGHTS)))


def _skip_without(package: str, install: str) -> None:
    try:
        distribution(package)
    except PackageNotFoundError:
        pytest.skip(f"{package}, whose weights are read, is not installed: {install}")
