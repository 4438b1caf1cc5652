"""What is published: a source distribution that runs its own tests, and the description that package indexes show."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
from pathlib import Path

import pytest

from support.paths import ROOT

BUILD = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]
# Hatchling puts them in unasked.
ALWAYS = {"pyproject.toml", "PKG-INFO", ".gitignore"}
# What tests do not open: how this repository is checked.
ONLY_HERE = {".ci", ".github", ".pre-commit-config.yaml"}


def tracked() -> set[str]:
    """The names at the top of the repository; those of an unpacked source distribution where that is what this is."""
    if not (ROOT / ".git").exists():
        if not (ROOT / "PKG-INFO").exists():
            pytest.skip("neither a repository nor a source distribution")
        return {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name.partition("/")[0] for name in listed.split("\0") if name}


def test_the_source_distribution_has_everything_that_the_tests_may_open() -> None:
    included = {name.strip("/") for name in BUILD["build"]["targets"]["sdist"]["include"]}
    assert tracked() - ALWAYS - ONLY_HERE <= included
    assert all((ROOT / name).exists() for name in included)


def test_the_description_on_package_indexes_needs_no_file_of_the_repository() -> None:
    hook = BUILD["metadata"]["hooks"]["fancy-pypi-readme"]
    text = "".join((ROOT / fragment["path"]).read_text() for fragment in hook["fragments"])
    for substitution in hook["substitutions"]:
        text, count = re.subn(substitution["pattern"], substitution["replacement"], text)
        assert count, substitution
    assert text.startswith("# SeFa")
    assert len(text) > 5000
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    assert "<img" not in text
    assert "![" not in text


@pytest.mark.slow
def test_an_unpacked_source_distribution_collects_its_tests(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "build"], check=True)
    subprocess.run([python, "-m", "build", "--sdist", "--outdir", tmp_path, ROOT], check=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    paths = os.pathsep.join(str(unpacked / part) for part in ("", "export", "runtime"))
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "tests/documents/test_readme.py::test_files_that_are_linked_exist" in done.stdout
