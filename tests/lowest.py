"""The lowest versions that pyproject.toml allows, as constraints for pip: `make test-versions`.

    python lowest.py pyproject.toml > lowest.txt

Extras for development are left out: what tests need of test tools is no promise to users.
"""

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

LEFT_OUT = {"dev", "gpu", "ray"}  # gpu cannot be together with cpu; Ray is tried in its own tests, if it is there.


def lowest(project: dict[str, Any]) -> Iterator[str]:
    """Yield `name==version` of every requirement that has a lower bound."""
    extras = {name: entries for name, entries in project["optional-dependencies"].items() if name not in LEFT_OUT}
    for entry in [*project["dependencies"], *(entry for entries in extras.values() for entry in entries)]:
        requirement = Requirement(entry)
        for specifier in requirement.specifier:
            if specifier.operator == ">=":
                marker = f"; {requirement.marker}" if requirement.marker else ""
                yield f"{requirement.name}=={specifier.version}{marker}"


if __name__ == "__main__":
    print(*lowest(tomllib.loads(Path(sys.argv[1]).read_text())["project"]), sep="\n")
