"""Loading a generator from a checkpoint file, whose format is detected from its contents.

Nothing in a checkpoint is ever executed: pickles are read with `torch.load(weights_only=True)`, and a file that this
refuses is refused here.
"""

import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sefa.errors import CheckpointError
from sefa.generators import DCGAN, Generator
from sefa.generators.dcgan import is_dcgan
from sefa_runtime.files import input_problem, sha256_of

# Where training scripts keep the generator's state dict, the averaged copy first.
CONTAINER_KEYS = (
    "generator_smooth",
    "netG_ema",
    "G_ema",
    "g_ema",
    "netG_state_dict",
    "netG",
    "generator_state_dict",
    "generator",
    "G_state_dict",
    "G",
    "g",
    "model_state_dict",
    "state_dict",
    "model",
    "params",
)
MAX_DEPTH = 3  # of dicts in dicts: {"models": ...} is not searched for ever
MAX_SCANNED = 2**20  # bytes of a refused pickle that are searched for what to name in the message
EXPECTED = "a PyTorch checkpoint of a DCGAN generator was expected"


def load(path: str | Path) -> Generator:
    """Load the generator in a checkpoint file.

    Args:
        path: A file of `torch.save`: a state dict, bare or in a dict under any usual key (`netG`, `generator`,
            `state_dict`, ...), with or without `module.` prefixes. Architecture and sizes are read from the tensors.

    Returns:
        The generator, in float32, in inference mode, on the CPU.

    Raises:
        CheckpointError: If the file is missing, damaged, wants to run code, or holds no generator of a known family.
    """
    path = Path(path)
    try:
        content = _read(path)
        tensors = _generator_tensors(content)
        if not is_dcgan(tensors):
            raise CheckpointError(f"no known generator; {EXPECTED}, its keys begin with {_some(tensors)}")
        generator = DCGAN.from_state_dict(tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error.__cause__
    generator.source_sha256 = sha256_of(path)
    return generator


def _read(path: Path) -> Any:
    """Unpickle a torch file, without running anything in it."""
    problem = input_problem(path)
    if problem:
        raise CheckpointError(problem)
    with path.open("rb") as file:
        head = file.read(512)
    _refuse_other_kinds(path, head)
    try:
        with warnings.catch_warnings():
            # Of pickle protocols and deprecated kinds of tensors; what cannot be used is refused below.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_why_not_unpickled(path, head, error)) from error
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        # What torch raises for damaged files has no class of its own.
        raise CheckpointError(f"truncated or damaged; {EXPECTED}") from error


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    """Name what the file is if it is something that people mistake for a checkpoint."""
    text = head.lstrip().lower()
    if not head:
        raise CheckpointError(f"empty file; {EXPECTED}")
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        raise CheckpointError(f"a web page saved under a checkpoint's name: download the file itself; {EXPECTED}")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError("a Git LFS pointer, not the file it stands for: run `git lfs pull`")
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000:
        raise CheckpointError(f"a safetensors file (a direction bank?); {EXPECTED}")
    if head.startswith(b"\x08"):
        raise CheckpointError(f"an ONNX model, already exported; {EXPECTED}")
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            raise CheckpointError(f"a TorchScript archive, already exported; {EXPECTED}")
        if not any(name.endswith("data.pkl") for name in names):
            raise CheckpointError(f"a zip archive that torch did not write; {EXPECTED}")
    elif not head.startswith((b"PK", b"\x80")):
        raise CheckpointError(f"not a checkpoint file; {EXPECTED}")


def _why_not_unpickled(path: Path, head: bytes, error: pickle.UnpicklingError) -> str:
    refused = re.search(r"GLOBAL ([\w.]+)", str(error))
    if refused:
        wanted = [refused[1]]
    elif head.startswith(b"PK"):
        return f"truncated or damaged; {EXPECTED}"
    else:
        wanted = _functions_named_in(path)
    if not wanted:
        return f"a pickle that torch.save did not write, or damaged; {EXPECTED}"
    return (
        f"a pickle that wants to run {', '.join(wanted[:3])}: refused, nothing in it was run; "
        "save the generator's state_dict() instead"
    )


def _functions_named_in(path: Path) -> list[str]:
    """What a plain pickle would import, read from its opcodes without running them."""
    names: list[str] = []
    strings: list[str] = []
    with path.open("rb") as file:
        beginning = file.read(MAX_SCANNED)
    try:
        for opcode, argument, _ in pickletools.genops(beginning):
            if opcode.name == "GLOBAL":
                names.append(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.append(".".join(strings[-2:]))
            elif isinstance(argument, str):
                strings.append(argument)
    except ValueError:  # Damaged, or longer than what was read.
        pass
    return list(dict.fromkeys(names))


def _generator_tensors(content: Any) -> dict[str, Tensor]:
    """Find the generator's state dict, strip prefixes, and bring it to finite float32."""
    state_dict = _find_state_dict(content, MAX_DEPTH)
    if state_dict is None:
        what = f"a {type(content).__name__}" + (f" of {_some(content)}" if isinstance(content, dict) else "")
        raise CheckpointError(f"no generator inside: it holds {what}; {EXPECTED}")
    tensors = {_strip(key): tensor for key, tensor in state_dict.items()}
    if len(tensors) < len(state_dict):
        raise CheckpointError("the same weight stands there twice, with and without a module. prefix")
    for key, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_nested or tensor.is_meta or not tensor.numel():
            raise CheckpointError(f"{key} is not an ordinary tensor of weights: {tensor.layout}, {list(tensor.shape)}")
        if tensor.is_floating_point():
            tensors[key] = tensor.float()
        elif not key.endswith("num_batches_tracked"):
            raise CheckpointError(f"{key} is {tensor.dtype}, floating point weights were expected")
        if not tensors[key].isfinite().all():
            raise CheckpointError(f"{key} has NaN or infinite values: the training that wrote it diverged")
    return tensors


def _find_state_dict(content: Any, depth: int) -> Mapping[str, Tensor] | None:
    if not isinstance(content, Mapping) or not content:
        return None
    if all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        return content
    if depth:
        for key in CONTAINER_KEYS:
            found = _find_state_dict(content.get(key), depth - 1)
            if found is not None:
                return found
    # Weights among other entries, as {"main.0.weight": ..., "epoch": 3}.
    return {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)} or None


def _strip(key: str) -> str:
    """Without the prefixes of DataParallel and torch.compile."""
    return re.sub(r"^(module\.|_orig_mod\.)+", "", key)


def _some(keys: Mapping[Any, Any]) -> str:
    names = [str(key)[:80] for key in keys] or ["nothing"]
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
