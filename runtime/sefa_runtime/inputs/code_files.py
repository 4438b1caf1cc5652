"""Read style codes of inverted photographs from the files that projectors and encoders write.

NVlabs' projector saves `projected_w.npz` with `w` [1, L, D]; e4e saves `latents.pt`, [N, L, D]; ReStyle and HyperStyle
save `latents.npy`, a pickled dict with a list of codes, or one, for each image; rosinality's projector and JoJoGAN save
a `.pt` with a `latent` for each image. Nothing in any of them is run.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.archives import DAMAGED_ARCHIVE, open_archive
from sefa_runtime.errors import ContentError, InputError
from sefa_runtime.files import input_problem
from sefa_runtime.inputs.numpy_files import NPY_HEAD, SINGLE, ZIP_HEAD, read_numpy_file, start_of_objects
from sefa_runtime.inputs.safetensors_files import is_safetensors, read_safetensors
from sefa_runtime.model.info import ModelInfo
from sefa_runtime.pickles.limits import Limits
from sefa_runtime.pickles.numpy_arrays import StoredArray
from sefa_runtime.pickles.placeholders import Placeholder
from sefa_runtime.pickles.tables import PLAIN_TABLE
from sefa_runtime.pickles.torch_files import ARCHIVED_PICKLE, PickleReader
from sefa_runtime.pickles.torch_tensors import StoredTensor, tensor_table

# Names under which various tools store codes among other entries.
NAMES = ("codes", "w", "ws", "w_plus", "latent", "latents", "latent_codes", "projected_w")
# Entries that are called like this are one image's each.
OF_IMAGE = re.compile(r".*(\.(png|jpe?g|webp|bmp|tiff?|gif)|\d)", re.IGNORECASE | re.DOTALL)
HEAD = 16  # bytes that tell the kind of a file
PICKLE_HEAD = b"\x80"  # of all protocols since Python 2.3; of older torch files, too
MAX_NAMED = 6
MAX_NUMBERS = 2**26  # in all codes of a file: 256 MB
# By what factor an inverted photograph's code may be smaller or larger than any w of the mapping network.
RMS_MARGIN = 1.2
# The functions called in place of the names in torch.save files; files with other names are refused.
TORCH_TABLE = {**PLAIN_TABLE, **tensor_table(StoredTensor)}


def load_codes(
    path: str | Path, shape: tuple[int, ...], layers: int = 1, report: Callable[[str], None] = lambda text: None
) -> NDArray[np.float32]:
    """Read codes from a `.npz`, `.npy`, `.pt`, `.pkl` or `.safetensors` file, told apart by content.

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
    path = Path(path)
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
        head = file.read(HEAD)
    try:
        if is_safetensors(head):
            return read_safetensors(path)
        reader = PickleReader(Limits(path.stat().st_size), TORCH_TABLE, refuse_unknown=True)
        if head.startswith(PICKLE_HEAD) or (head.startswith(ZIP_HEAD) and _is_torch(path)):
            return reader.read_file(path)
        if not head.startswith((NPY_HEAD, ZIP_HEAD)):
            raise InputError(f"{path}: not a .npz, .npy, .pt, .pkl or .safetensors file of codes")
        start = start_of_objects(path) if head.startswith(NPY_HEAD) else None
        if start is not None:
            return reader.read_file(path, start)
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
    """Yield the arrays that are codes: the only one in the file, those under a usual name or under those of images."""
    seen: set[int] = set()  # A container may contain itself.
    pending = [content]
    limits = Limits(0)
    noise = False
    while pending:
        value = pending.pop()
        if isinstance(value, Placeholder) and value.is_tensor:
            raise InputError(f"a tensor of a kind that is not read, {value.class_name}: save a copy of it as float32")
        array = _as_array(value, limits)
        if array is not None:
            yield array
            continue
        if isinstance(value, StoredArray):
            value = value.objects
        if isinstance(value, list | tuple | Mapping) and id(value) not in seen:
            seen.add(id(value))
            inner = list(_inner(value, report, limits))
            noise |= bool(inner) and isinstance(value, Mapping) and any("noise" in str(key).lower() for key in value)
            pending += reversed(inner)
    if noise:
        report("the noise in it is not used: the model has its own, so that fine detail differs from the projector's")


def _as_array(value: Any, limits: Limits) -> NDArray[Any] | None:
    """Return an array for an array, a tensor, or a list of numbers or of rows; None for anything else.

    Raises:
        ContentError: If there are more numbers in lists, of which one may be listed again and again, than are read.
    """
    shape = None
    if isinstance(value, StoredArray) and value.array is None:
        value, shape = value.objects, value.shape
    if isinstance(value, StoredArray | StoredTensor):
        value = value.array
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, list | tuple) or not value:
        return None
    limits.spend_work(len(value))
    if all(isinstance(item, float | int | np.number) for item in value):
        try:
            return np.array(value, np.float64).reshape(shape or len(value))
        except OverflowError as error:
            raise ContentError("numbers of more digits than are read") from error
    rows: list[NDArray[Any]] = []
    for item in value:
        is_list = isinstance(item, list | tuple)
        limits.spend_work(len(item) if is_list else 1)
        is_nested = is_list and any(isinstance(inner, list | tuple) for inner in item)
        row = None if is_nested else _as_array(item, limits)
        if row is None or row.ndim != 1 or row.shape != (rows or [row])[0].shape:
            return None
        rows.append(row)
    if len(rows) * rows[0].size > MAX_NUMBERS:
        raise ContentError("more codes than can be read at once")
    return np.stack(rows)


def _inner(
    container: list[Any] | tuple[Any, ...] | Mapping[Any, Any], report: Callable[[str], None], limits: Limits
) -> Iterable[Any]:
    """Return the items of a container that may be or contain codes."""
    if not isinstance(container, Mapping):
        return container
    named = [name for name in NAMES if name in container]
    if len(named) > 1:
        raise InputError(f"codes under several names: {', '.join(named)}; save the ones that are meant alone")
    if named:
        return [container[name] for name in named]
    values = list(container.values())
    if all(isinstance(key, int) or OF_IMAGE.fullmatch(str(key)) for key in container):
        counts = {len(value) for value in values if isinstance(value, list) and len(value) > 1}
        if counts and all(_as_array(value, limits) is None for value in values):
            report(
                f"up to {max(counts)} codes for one image, all of which are read: ReStyle writes one for each step, of "
                "which the last is its result"
            )
        return values
    return values if len(values) == 1 or all(isinstance(value, Mapping) for value in values) else ()


def _fit(array: NDArray[Any], shape: tuple[int, ...], layers: int) -> tuple[NDArray[np.float32] | None, str]:
    """Return one code or several as [N, *shape], or None; and a remark on how they were read, or why not, if needed.

    A code shared by all layers may be given once per layer, or only once.
    """
    *_, width = shape
    if array.dtype.kind not in "fiu" or not array.size or not array.ndim:
        return None, ""
    if layers > 1 and array.shape[-1] == layers * width:  # The codes of all layers in one row.
        array = array.reshape(-1, layers, width)
    if array.shape[-1] != width:
        return None, ""
    if array.ndim > 3:
        array = array.reshape(-1, *array.shape[-2:])
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
