"""Read style codes of inverted photographs from the files that projectors and encoders write.

NVlabs' projector saves `projected_w.npz` with `w` [1, L, D]; e4e and pSp save `latents.pt` or `.npy`, [N, L, D];
rosinality's projector saves a `.pt` with a `latent` for each image.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.archives import DAMAGED_ARCHIVE, open_archive
from sefa_runtime.errors import ContentError, InputError
from sefa_runtime.files import input_problem
from sefa_runtime.inputs.numpy_files import NPY_HEAD, SINGLE, ZIP_HEAD, read_numpy_file
from sefa_runtime.model.info import ModelInfo
from sefa_runtime.pickles.limits import Limits
from sefa_runtime.pickles.numpy_arrays import StoredArray
from sefa_runtime.pickles.placeholders import Placeholder
from sefa_runtime.pickles.tables import PLAIN_TABLE
from sefa_runtime.pickles.torch_files import ARCHIVED_PICKLE, PickleReader
from sefa_runtime.pickles.torch_tensors import StoredTensor, tensor_table

# Names under which various tools store codes among other entries.
NAMES = ("codes", "w", "ws", "w_plus", "latent", "latents", "latent_codes", "projected_w")
MAX_NAMED = 6
MAX_NUMBERS = 2**26  # in all codes of a file: 256 MB
# By what factor an inverted photograph's code may be smaller or larger than any w of the mapping network.
RMS_MARGIN = 1.2
# The functions called in place of the names in torch.save files; files with other names are refused.
TORCH_TABLE = {**PLAIN_TABLE, **tensor_table(StoredTensor)}


def load_codes(
    path: Path, shape: tuple[int, ...], layers: int = 1, report: Callable[[str], None] = lambda text: None
) -> NDArray[np.float32]:
    """Read codes from a `.npz`, `.npy` or `.pt` file, told apart by content.

    Args:
        path: The file.
        shape: Shape of one image's code: [L, D], or [D] for a graph of single style codes.
        layers: L, for a graph of single style codes. An array [L, D] could be L of them or one image's code for each
            layer, so it is refused unless all its rows are equal.
        report: Called with a sentence about anything left out, or read as something other than it seems.

    Returns:
        float32 [N, *shape]. A single style code becomes the code of every layer.

    Raises:
        InputError: If the file has no codes, they have another shape, or it is unclear which arrays are codes.
    """
    content = _read(path)
    try:
        return _read_codes(content, shape, shape[0] if len(shape) == 2 else layers, report)
    except (InputError, ContentError) as error:
        raise InputError(f"{path}: {error}") from error


def _read_codes(
    content: Any, shape: tuple[int, ...], layers: int, report: Callable[[str], None]
) -> NDArray[np.float32]:
    found = list(_codes_in(content, report))
    if not found:
        raise InputError(f"no codes in it: an array, or one named {', '.join(NAMES)}, was expected")
    size = math.prod(shape)
    # A single style code is repeated for every layer.
    if sum(math.ceil(array.size / shape[-1]) * size for array in found) > MAX_NUMBERS:
        raise InputError(f"more codes than can be read at once: at most {MAX_NUMBERS // size} of {list(shape)}")
    fitting: list[NDArray[np.float32]] = []
    remarks: dict[str, None] = {}
    for array in found:
        codes, remark = _fit(array, shape, layers)
        if codes is None:
            shapes = ", ".join(str(list(array.shape)) for array in found[:MAX_NAMED])
            raise InputError(f"codes of shape {shapes}, [N, {', '.join(map(str, shape))}] was expected{remark}")
        if remark:
            remarks[f"{list(array.shape)} is {remark}"] = None  # One remark for many images.
        fitting.append(codes)
    for remark in remarks:
        report(remark)
    return np.concatenate(fitting)


def looks_like_latents(codes: NDArray[np.float32], info: ModelInfo) -> bool:
    """Return whether codes are probably z, meant for another input: standard normal, of a magnitude that no w has.

    Args:
        codes: As `load_codes` returns them; at least one.
        info: A model of w or w+. If its own w are as large as standard normal numbers, the answer is no.
    """
    if info.code_rms is None:
        return False
    numbers = codes.reshape(len(codes), -1).astype(np.float64)
    rms = np.sqrt(np.square(numbers).mean(axis=1))
    # Mean and deviation of code_dim standard normal numbers are this far from 0 and 1 only once in ten thousand.
    error = 4 / np.sqrt(info.code_dim)
    normal = (abs(numbers.mean(axis=1)) < error) & (abs(rms - 1) < error / np.sqrt(2))
    smallest, largest = info.code_rms
    return bool((normal & ((rms < smallest / RMS_MARGIN) | (rms > largest * RMS_MARGIN))).any())


def load_latents(path: Path) -> NDArray[Any]:
    """Read an array of latents from a `.npy` file.

    Raises:
        InputError: If the file is missing or not an array of numbers.
    """
    problem = input_problem(path)
    if problem:
        raise InputError(f"{path}: {problem}")
    with path.open("rb") as file:
        if file.read(len(NPY_HEAD)) != NPY_HEAD:
            raise InputError(f"{path}: not a .npy file of numbers")
    try:
        return read_numpy_file(path)[SINGLE]
    except ContentError as error:
        raise InputError(f"{path}: {error}") from error.__cause__


def _read(path: Path) -> Any:
    problem = input_problem(path)
    if problem:
        raise InputError(f"{path}: {problem}")
    with path.open("rb") as file:
        head = file.read(len(NPY_HEAD))
    if head != NPY_HEAD and not head.startswith(ZIP_HEAD):
        raise InputError(f"{path}: not a .npz, .npy or .pt file of codes")
    try:
        if head.startswith(ZIP_HEAD) and _is_torch(path):
            return PickleReader(Limits(path.stat().st_size), TORCH_TABLE, refuse_unknown=True).read_archive(path)
        arrays = read_numpy_file(path)
    except ContentError as error:
        raise InputError(f"{path}: {error}; a file of codes alone was expected") from error.__cause__
    return arrays.get(SINGLE, arrays)


def _is_torch(path: Path) -> bool:
    try:
        with open_archive(path) as archive:
            return any(ARCHIVED_PICKLE.fullmatch(name) for name in archive.namelist())
    except DAMAGED_ARCHIVE:
        return False


def _codes_in(content: Any, report: Callable[[str], None]) -> Iterator[NDArray[Any]]:
    """Yield the arrays that are codes: the only one in the file, or those under a usual name."""
    seen: set[int] = set()  # A container may contain itself.
    pending = [content]
    noise = False
    while pending:
        value = pending.pop()
        if isinstance(value, Placeholder) and value.is_tensor:
            raise InputError(f"a tensor of a kind that is not read, {value.class_name}: save a copy of it as float32")
        if isinstance(value, StoredArray | StoredTensor):
            value = value.array
        if isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, list | tuple | Mapping) and id(value) not in seen:
            seen.add(id(value))
            inner = list(_inner(value))
            noise |= bool(inner) and isinstance(value, Mapping) and any("noise" in str(key).lower() for key in value)
            pending += reversed(inner)
    if noise:
        report("the noise in it is not used: the model has its own, so that fine detail differs from the projector's")


def _inner(container: list[Any] | tuple[Any, ...] | Mapping[Any, Any]) -> Iterable[Any]:
    """Return the items of a container that may be or contain codes."""
    if not isinstance(container, Mapping):
        return container
    named = [name for name in NAMES if name in container]
    if len(named) > 1:
        raise InputError(f"codes under several names: {', '.join(named)}; save the ones that are meant alone")
    values = [container[name] for name in named] or list(container.values())
    return values if named or len(values) == 1 or all(isinstance(value, Mapping) for value in values) else ()


def _fit(array: NDArray[Any], shape: tuple[int, ...], layers: int) -> tuple[NDArray[np.float32] | None, str]:
    """Return one code or several as [N, *shape], or None; and a remark on how they were read, or why not, if needed.

    A code shared by all layers may be given once per layer, or only once.
    """
    *_, width = shape
    if array.dtype.kind not in "fiu" or not array.size or not 1 <= array.ndim <= 3 or array.shape[-1] != width:
        return None, ""
    array = array.astype(np.float32)
    if array.ndim == 1:
        array = array[None]
    if array.ndim == 2 and array.shape[0] == layers > 1:  # One code per layer.
        if len(shape) == 1 and not _same_in_all(array[None]):
            return None, (
                f": is it one image's code of each layer, which needs a model of w+ (sefa export --latent w+), or "
                f"{layers} images' w? Save the latter as {[layers, 1, width]}"
            )
        array = array[None]
    if array.ndim == 3 and array.shape[1:] == shape:
        return array, ""
    if array.ndim == 3 and not _same_in_all(array):
        return None, (
            "; codes that differ from layer to layer need a model of w+ (sefa export --latent w+)"
            if len(shape) == 1
            else f"; codes of {array.shape[1]} layers, the model has {layers}"
        )
    said = f"{array.shape[1]} times the same" if array.ndim == 3 and array.shape[1] > 1 else ""
    single = array[:, 0] if array.ndim == 3 else array  # [N, D]
    many = f"{len(single)} images' w" if len(single) > 1 else "one image's w"
    if len(shape) == 1:
        return single, f"{many}, {said}" if said else ""
    return np.repeat(single[:, None], layers, axis=1), f"read as {many}, for all {layers} layers"


def _same_in_all(codes: NDArray[np.float32]) -> bool:
    """Return whether each image's code [N, L, D] is the same in all layers."""
    return bool((codes == codes[:, :1]).all())
