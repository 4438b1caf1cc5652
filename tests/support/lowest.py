"""The lowest versions that pyproject.toml allows, as constraints for pip: `make test-versions`.

    python lowest.py pyproject.toml > lowest.txt

Extras for development are left out: what tests need of test tools is no promise to users.
"""

import itertools
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LEFT_OUT = {"dev", "gpu", "openvino", "ray"}  # gpu and openvino cannot be together with cpu; Ray's tests are slow ones.
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[.*\])?>=(?P<version>[\w.]+)\s*(?P<marker>;.*)?")


def lowest(project: dict[str, Any]) -> Iterator[str]:
    """Yield `name==version` of every requirement that has a lower bound."""
    extras = [entries for name, entries in project["optional-dependencies"].items() if name not in LEFT_OUT]
    for entry in itertools.chain(project["dependencies"], *extras):
        if match := REQUIREMENT.fullmatch(entry):
            yield f"{match['name']}=={match['version']}{match['marker'] or ''}"


if __name__ == "__main__":
    print(*lowest(tomllib.loads(Path(sys.argv[1]).read_text())["project"]), sep="\n")
