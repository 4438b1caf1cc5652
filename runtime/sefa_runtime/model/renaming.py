"""Change the names and alpha ranges of the directions inside an exported ONNX model.

Only the description, which follows graph and weights, is rewritten; these stay the same byte for byte, as does their
checksum.
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sefa_runtime.errors import InputError, ModelFileError
from sefa_runtime.files import check_output, replacing
from sefa_runtime.model.description_entries import description_entries, without_description
from sefa_runtime.model.direction_names import name_problems
from sefa_runtime.model.info import ModelInfo
from sefa_runtime.model.reading import (
    check_payload,
    is_onnx,
    is_pt2,
    is_torchscript,
    read_info,
    sha256_of_first,
    weights_path,
)


def rename_directions(
    path: str | Path,
    names: Mapping[int, str],
    alpha_ranges: Mapping[int, tuple[float, float]] | None = None,
    output: str | Path | None = None,
) -> ModelInfo:
    """Change names or suggested ranges of the directions in an exported ONNX model.

    Needs neither onnx nor torch. The file appears whole or stays as it was.

    Args:
        path: The model.
        names: New names by index; all are applied at once, so that two can be swapped.
        alpha_ranges: New suggested minimum and maximum alpha by index.
        output: Where to write; None: in place.

    Returns:
        The new description.

    Raises:
        ModelFileError: If the model is missing, damaged, or not an ONNX file made by `sefa export`.
        InputError: If an index is out of range, a name or range is invalid, or the model's weights are in a file
            beside it and `output` is in another folder.
        OSError: If the file cannot be written.

    Examples:
        >>> rename_directions("faces.onnx", {0: "nod"}, output="named.onnx").names[:2]
        ('nod', 'turn')
    """
    path = Path(path)
    info = read_info(path)
    if not is_onnx(path) or info.payload is None:
        kind = "TorchScript" if is_torchscript(path) else ".pt2" if is_pt2(path) else "other"
        raise ModelFileError(
            f"{path}: only ONNX models can be renamed, this is a {kind} file: name the directions in the bank, and "
            "export it again with --bank"
        )
    target = path if output is None else Path(output)
    weights = info.payload.weights
    if weights is not None and target.resolve().parent != path.resolve().parent:
        raise InputError(f"{target}: {path.name} has its weights in {weights.name}: the output must be beside it, too")
    check_output(target, weights_path(path, info))
    check_payload(path, info)
    renamed = _relabelled(info, names, alpha_ranges or {}, path)
    with replacing(target) as partial:
        shutil.copyfile(path, partial)
        if sha256_of_first(partial, info.payload.bytes) != info.payload.sha256:
            raise ModelFileError(f"{path}: was changed while it was read")
        with partial.open("r+b") as file:
            file.seek(info.payload.bytes)
            others = without_description(file.read())
            file.truncate(info.payload.bytes)
            file.seek(0, 2)
            file.write(others + description_entries(renamed.to_json()))
    return renamed


def _relabelled(
    info: ModelInfo, names: Mapping[int, str], alpha_ranges: Mapping[int, tuple[float, float]], path: Path
) -> ModelInfo:
    count = len(info.directions)
    for index in (*names, *alpha_ranges):
        if not 0 <= index < count:
            raise InputError(f"{path}: direction must be in 0..{count - 1}, got {index}")
    for low, high in alpha_ranges.values():
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"an alpha range runs from low to high, got {low:g} to {high:g}")
    directions = tuple(
        replace(
            direction,
            name=names.get(index, direction.name),
            alpha_range=alpha_ranges.get(index, direction.alpha_range),
        )
        for index, direction in enumerate(info.directions)
    )
    problems = name_problems([direction.name for direction in directions])
    if problems:
        raise InputError(f"{path}: {'; '.join(problems)}")
    return replace(info, directions=directions)
