"""Style codes from the files that projectors and encoders write: inverted photographs.

NVlabs' projector saves `projected_w.npz` with `w` [1, L, D]; e4e and pSp save `latents.pt` or `.npy`, [N, L, D];
rosinality's projector a `.pt` with a `latent` for each picture.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.archives import DAMAGED_ARCHIVE, open_archive
from sefa_runtime.errors import ContentError, InputError
from sefa_runtime.files import input_problem
from sefa_runtime.model_info import ModelInfo
from sefa_runtime.number_files import NPY_HEAD, SINGLE, ZIP_HEAD, read_number_file
from sefa_runtime.pickles.arrays import StoredArray
from sefa_runtime.pickles.torch_archive import PICKLE
from sefa_runtime.torch_arrays import load_torch_arrays

# What writers call the codes, among other entries.
NAMES = ("codes", "w", "ws", "w_plus", "latent", "latents", "latent_codes", "projected_w")
MAX_NAMED = 6
MAX_NUMBERS = 2**26  # of all codes in a file: 256 MB
# An inverted photograph's code may be so many times smaller or larger than any w that the mapping makes.
RMS_MARGIN = 1.2


def load_codes(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Read codes from a `.npz`, `.npy` or `.pt` file; the contents decide which it is.

    Args:
        path: The file.
        shape: Shape of one picture's code: [L, D], or [D] for a graph of single style codes.

    Returns:
        float32 [N, *shape]. A single style code becomes the code of every layer.

    Raises:
        InputError: If there are no codes in it, or they have another shape.
    """
    found = list(_codes_in(_read(path)))
    if not found:
        raise InputError(f"{path}: no codes in it: an array, or one named {', '.join(NAMES)}, was expected")
    size = math.prod(shape)
    # A style code becomes as many as there are layers.
    if sum(math.ceil(array.size / shape[-1]) * size for array in found) > MAX_NUMBERS:
        raise InputError(f"{path}: more codes than can be read at once: at most {MAX_NUMBERS // size} of {list(shape)}")
    fitting = [_fit(array, shape) for array in found]
    if any(array is None for array in fitting):
        shapes = ", ".join(str(list(array.shape)) for array in found[:MAX_NAMED])
        raise InputError(f"{path}: codes of shape {shapes}, [N, {', '.join(map(str, shape))}] was expected")
    return np.concatenate([array for array in fitting if array is not None])


def looks_like_latents(codes: NDArray[np.float32], info: ModelInfo) -> bool:
    """Whether codes were probably meant for another input: standard normal numbers, of a size that no w has.

    Args:
        codes: As `load_codes` gives them; at least one.
        info: The model, of w or w+. Where its own w are as large as standard normal numbers, nothing can be told.
    """
    if info.code_rms is None:
        return False
    numbers = codes.reshape(len(codes), -1).astype(np.float64)
    rms = np.sqrt(np.square(numbers).mean(axis=1))
    # How far the mean and the deviation of code_dim standard normal numbers are from 0 and 1, once in ten thousand.
    error = 4 / np.sqrt(info.code_dim)
    normal = (abs(numbers.mean(axis=1)) < error) & (abs(rms - 1) < error / np.sqrt(2))
    smallest, largest = info.code_rms
    return bool((normal & ((rms < smallest / RMS_MARGIN) | (rms > largest * RMS_MARGIN))).any())


def load_latents(path: Path) -> NDArray[Any]:
    """Read an array of latents from a `.npy` file.

    Raises:
        InputError: If it is missing or no array of numbers.
    """
    problem = input_problem(path)
    if problem:
        raise InputError(f"{path}: {problem}")
    with path.open("rb") as file:
        if file.read(len(NPY_HEAD)) != NPY_HEAD:
            raise InputError(f"{path}: not a .npy file of numbers")
    try:
        return read_number_file(path)[SINGLE]
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
    if head.startswith(ZIP_HEAD) and _is_torch(path):
        return load_torch_arrays(path)
    try:
        arrays = read_number_file(path)
    except ContentError as error:
        raise InputError(f"{path}: {error}") from error.__cause__
    return arrays.get(SINGLE, arrays)


def _is_torch(path: Path) -> bool:
    try:
        with open_archive(path) as archive:
            return any(PICKLE.fullmatch(name) for name in archive.namelist())
    except DAMAGED_ARCHIVE:
        return False


def _codes_in(content: Any) -> Iterator[NDArray[Any]]:
    """The arrays that are codes: the only one there is, or those under a usual name."""
    seen: set[int] = set()  # A container may hold itself.
    pending = [content]
    while pending:
        value = pending.pop()
        if isinstance(value, StoredArray):
            value = value.array
        if isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, list | tuple | Mapping) and id(value) not in seen:
            seen.add(id(value))
            pending += reversed(list(_inner(value)))


def _inner(container: list[Any] | tuple[Any, ...] | Mapping[Any, Any]) -> Iterable[Any]:
    """Where in a container codes are looked for."""
    if not isinstance(container, Mapping):
        return container
    named = [container[name] for name in NAMES if name in container]
    values = named or list(container.values())
    return values if named or len(values) == 1 or all(isinstance(value, Mapping) for value in values) else ()


def _fit(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """[N, *shape], from that, from one code without its first axis, or from style codes that all layers share."""
    if array.dtype.kind not in "fiu" or not array.ndim:
        return None
    array = array.astype(np.float32)
    if array.shape == shape:
        array = array[None]
    if array.ndim == len(shape) + 1 and array.shape[1:] == shape:
        return array
    if len(shape) == 1 and array.ndim == 3 and array.shape[2] == shape[0] and (array == array[:, :1]).all():
        return array[:, 0]  # The same code in every layer.
    if len(shape) == 2 and array.shape[-1] == shape[1]:
        flat = array.reshape(-1, shape[1]) if array.ndim == 1 or array.ndim == 2 else None
        if flat is None and array.ndim == 3 and array.shape[1] == 1:
            flat = array[:, 0]
        if flat is not None:
            return np.repeat(flat[:, None], shape[0], axis=1)
    return None
