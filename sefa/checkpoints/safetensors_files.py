"""State dicts in `.safetensors` files, which are numbers and names and nothing that runs."""

from pathlib import Path

from torch import Tensor

from sefa.checkpoints.unpickling.limits import MAX_ENTRIES
from sefa.errors import CheckpointError
from sefa_runtime.files import utf8_problem
from sefa_runtime.json_text import MAX_JSON
from sefa_runtime.pickles.arrays import MAX_AXES


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins as they do: an eight-byte length, then a JSON object."""
    return len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors.

    Raises:
        CheckpointError: If the file is damaged or a direction bank, or the package safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as error:
        raise CheckpointError("a safetensors file, which needs the package: pip install safetensors") from error
    from sefa.bank.direction_bank import METADATA_KEY  # It needs the package, too.

    problem = utf8_problem(path)
    if problem:
        raise CheckpointError(f"a safetensors file, and {problem}")
    with path.open("rb") as content:
        if int.from_bytes(content.read(8), "little") > 2 * MAX_JSON:
            raise CheckpointError("a safetensors file whose header is longer than any generator's")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            if METADATA_KEY in (file.metadata() or {}):
                raise CheckpointError("a direction bank, not a generator's weights")
            if len(file.keys()) > MAX_ENTRIES:
                raise CheckpointError(f"a safetensors file of more than {MAX_ENTRIES} weights")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"a safetensors file, truncated or damaged ({error})") from error
    if any(tensor.ndim > MAX_AXES for tensor in tensors.values()):  # torch's time grows with their square.
        raise CheckpointError(f"a safetensors file of weights with more than {MAX_AXES} axes: damaged")
    return tensors
