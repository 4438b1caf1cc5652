"""Read the contents of a checkpoint file without running anything in it."""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from sefa.checkpoints.file_kinds import HEAD, describe_other_file, is_safetensors
from sefa.checkpoints.pickled_networks import TABLE
from sefa.checkpoints.sizes import MAX_ENTRIES
from sefa.errors import CheckpointError
from sefa_runtime.errors import ContentError
from sefa_runtime.files import input_problem, utf8_problem
from sefa_runtime.json_text import MAX_JSON
from sefa_runtime.pickles.limits import Limits
from sefa_runtime.pickles.numpy_arrays import MAX_AXES
from sefa_runtime.pickles.torch_files import PickleReader

# How Hugging Face's tools name the parts of a large checkpoint.
PART = re.compile(r".*-\d{5}-of-(?P<count>\d{5})\.\w+")
BANK_KEY = "sefa_bank"  # in the metadata of a direction bank, which is also a safetensors file
EXPECTED = "a checkpoint of a GAN's generator was expected"


def read_contents(path: Path) -> Any:
    """Return everything in a file: containers of tensors, and stand-ins for instances of classes.

    Raises:
        CheckpointError: If it is missing or damaged, wants to run code, or is not a checkpoint or only a part of one:
            the first layers of a network may look like a whole network.
    """
    problem = input_problem(path)
    if problem:
        raise CheckpointError(problem)
    part = PART.fullmatch(path.name)
    if part and int(part["count"]) > 1:
        raise CheckpointError(
            f"one of {int(part['count'])} parts of a checkpoint: put the tensors of all into one dict, torch.save it, "
            "and give that file"
        )
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
        other = describe_other_file(path, head)
        if other is not None:
            raise CheckpointError(f"{other}; {EXPECTED}")
        if is_safetensors(head):
            return _read_safetensors(path)
        return PickleReader(Limits(path.stat().st_size), TABLE).read_file(path)
    except ContentError as error:
        raise CheckpointError(str(error)) from error.__cause__
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror or error}") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return a file's tensors.

    Raises:
        CheckpointError: If the file is damaged or is a direction bank, or the safetensors package is not installed.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as error:
        raise CheckpointError("a safetensors file, which needs the package: pip install safetensors") from error
    problem = utf8_problem(path)
    if problem:
        raise CheckpointError(f"a safetensors file, and {problem}")
    with path.open("rb") as content:
        if int.from_bytes(content.read(8), "little") > 2 * MAX_JSON:
            raise CheckpointError("a safetensors file whose header is longer than any generator's")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            if BANK_KEY in (file.metadata() or {}):
                raise CheckpointError("a direction bank, not a generator's weights")
            if len(file.keys()) > MAX_ENTRIES:
                raise CheckpointError(f"a safetensors file of more than {MAX_ENTRIES} weights")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"a safetensors file, truncated or damaged ({error})") from error
    if any(tensor.ndim > MAX_AXES for tensor in tensors.values()):  # torch's time grows with their square.
        raise CheckpointError(f"a safetensors file of weights with more than {MAX_AXES} axes: damaged")
    return tensors
