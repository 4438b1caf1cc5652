"""The names of the classes that a checkpoint file has for itself, if it has any."""

import json
from collections.abc import Sequence
from pathlib import Path

from sefa.checkpoints.file_kinds import HEAD, is_safetensors
from sefa.errors import CheckpointError
from sefa_runtime.json_text import parse_json
from sefa_runtime.model.class_names import class_name_problems

# In the metadata of a safetensors file: a JSON list of names, in the order of the classes' indices.
CLASS_NAMES_KEY = "sefa_class_names"


def class_names_metadata(names: Sequence[str]) -> dict[str, str]:
    """Return the metadata of a safetensors file from which `read_class_names` reads these names."""
    return {CLASS_NAMES_KEY: json.dumps(list(names), ensure_ascii=False)}


def read_class_names(path: Path, num_classes: int) -> tuple[str, ...]:
    """Return the names in a file that has been read, `num_classes` of them; none if it has none.

    Raises:
        CheckpointError: If they are not as many, or cannot be names.
    """
    with path.open("rb") as content:
        if not is_safetensors(content.read(HEAD)):
            return ()
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(CLASS_NAMES_KEY)
    if text is None:
        return ()
    try:
        names = parse_json(text)
    except ValueError as error:
        raise CheckpointError(f"its metadata {CLASS_NAMES_KEY} are not JSON ({error})") from error
    if not isinstance(names, list):
        raise CheckpointError(f"its metadata {CLASS_NAMES_KEY} are not a list of names")
    problems = class_name_problems(names, num_classes)
    if problems:
        raise CheckpointError(f"its metadata {CLASS_NAMES_KEY}: {problems[0]}")
    return tuple(names)
