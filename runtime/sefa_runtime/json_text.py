"""Read JSON from files that may be crafted to fill the memory."""

import json
from pathlib import Path
from typing import Any

# Far more than any description needs: a bank of thousands of directions takes less. Nested lists take twenty times the
# memory of their text.
MAX_JSON = 8 * 2**20


def parse_json(text: str | bytes, most: int = MAX_JSON) -> Any:
    """Parse a JSON text.

    Raises:
        ValueError: If it is not JSON, is nested too deeply for Python, or is longer than `most`.
    """
    if len(text) > most:
        raise ValueError(f"a text of more than {most >> 20} MB")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def read_json(path: Path, most: int = MAX_JSON) -> Any:
    """Read and parse a JSON file.

    Raises:
        ValueError: See `parse_json`.
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        return parse_json(file.read(most + 1), most)
