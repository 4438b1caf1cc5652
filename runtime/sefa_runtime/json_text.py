"""Reading JSON from files that may be made to fill the memory."""

import json
from pathlib import Path
from typing import Any

# Far beyond any description: a bank of thousands of directions takes less. Nested lists take twenty times their text.
MAX_JSON = 8 * 2**20


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: If it is not JSON, is nested deeper than Python goes, or is longer than `MAX_JSON`.
    """
    if len(text) > MAX_JSON:
        raise ValueError(f"a text of more than {MAX_JSON >> 20} MB")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def read_json(path: Path) -> Any:
    """Return what a JSON file says.

    Raises:
        ValueError: As `parse_json`.
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        return parse_json(file.read(MAX_JSON + 1))
