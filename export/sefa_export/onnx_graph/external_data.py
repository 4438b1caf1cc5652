"""Weights in a file beside the graph, which several graphs of one generator may share.

The file is a `.safetensors` of the generator's tensors; graphs refer to byte ranges in it as ONNX external data.
Weights are looked up in an existing file by content, since their names differ between graphs.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.external_data_helper import set_external_data
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sefa.errors import ArgumentError
from sefa_export.bake import EditGraph
from sefa_runtime.files import check_output, replacing, sha256_of
from sefa_runtime.json_text import MAX_JSON, parse_json
from sefa_runtime.model.info import WeightsFile

# Smaller tensors stay in the graph: a reference would take as much space.
MIN_BYTES = 1024
BANK = ("vectors", "mask")


@contextmanager
def weights_beside(model: ModelProto, graph: EditGraph, file: Path) -> Iterator[WeightsFile]:
    """Move the weights out of `model` and refer to them in `file`.

    The direction bank stays in the model, so that graphs with other directions can share the file. An existing file is
    used as it is; otherwise it is written with all of the generator's tensors, and removed if the block fails.

    Args:
        model: The exported graph; modified in place.
        graph: What it was exported from.
        file: The weights file, beside the model's own file.

    Raises:
        ArgumentError: If the file exists and does not hold the weights.
        OSError: If it cannot be written.
    """
    tensors = _large_tensors(model, graph)
    written = None
    if not file.exists():
        _write(file, tensors, graph)
        written = file.stat()
    try:
        places = _places(file)
        missing = [digest for digest in tensors if digest not in places]
        if missing:
            raise ArgumentError(
                f"{file}: lacks {len(missing)} of the {len(tensors)} weights of this graph: it is of another generator "
                "or of other options; name another file"
            )
        for digest, own in tensors.items():
            for tensor in own:
                offset, length = places[digest]
                set_external_data(tensor, file.name, offset, length)
                tensor.data_location = TensorProto.EXTERNAL
                tensor.ClearField("raw_data")
        yield WeightsFile(name=file.name, bytes=file.stat().st_size, sha256=sha256_of(file))
    except BaseException:
        with suppress(FileNotFoundError):
            if written is not None and os.path.samestat(written, file.stat()):  # Not another export's newer one.
                file.unlink()
        raise


def check_file_name(name: str, model: Path) -> Path:
    """Return the path of the weights file of `model`: beside it, as onnxruntime requires.

    Raises:
        ArgumentError: If `name` contains a folder or is the model's own name.
        OSError: If no file can be written there.
    """
    if not name or Path(name).name != name or name == model.name:
        raise ArgumentError(
            f"external data is named by a file name alone, beside the model and unlike it, got {name!r}"
        )
    file = model.parent / name
    if file.is_symlink():
        raise ArgumentError(f"{file}: a symbolic link, which onnxruntime does not follow for external data")
    check_output(file)
    return file


def _large_tensors(model: ModelProto, graph: EditGraph) -> dict[str, list[TensorProto]]:
    """Return the initializers that belong in the file, by the sha256 of their bytes."""
    bank = {_digest(value.numpy()) for name, value in graph.named_buffers() if name in BANK}
    tensors: dict[str, list[TensorProto]] = {}
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        digest = _digest(values)
        if values.nbytes >= MIN_BYTES and digest not in bank:
            tensor.raw_data = values.tobytes()  # Some tensors use typed fields instead.
            tensors.setdefault(digest, []).append(tensor)
    return tensors


def _write(file: Path, tensors: dict[str, list[TensorProto]], graph: EditGraph) -> None:
    """Write the generator's tensors, then those that the export derived from them."""
    contents: dict[str, NDArray[np.generic]] = {}
    digests: set[str] = set()
    state = {name: value.numpy() for name, value in graph.generator.state_dict().items()}
    if any(_digest(value) in tensors for value in state.values()):  # None matches in a float16 graph.
        digests = {_digest(value) for value in state.values()}
        # Convolutions that the graph holds in another form are in that of every graph.
        contents = {
            name: value
            for name, value in state.items()
            if value.nbytes >= MIN_BYTES and (value.ndim < 4 or _digest(value) in tensors)
        }
    for digest, (first, *_) in tensors.items():
        if digest not in digests:
            contents[f"graph.{first.name}"] = numpy_helper.to_array(first)
    with replacing(file) as partial:
        # Not save_file: no other user may read the files it writes.
        partial.write_bytes(save({name: np.ascontiguousarray(value) for name, value in contents.items()}))


def _places(file: Path) -> dict[str, tuple[int, int]]:
    """Return the offset and length of each tensor in a `.safetensors` file, by the sha256 of its bytes.

    Source: the safetensors format: the header's length in 8 bytes, the header as JSON, then the tensors.
    """
    try:
        with safe_open(file, "np"):
            pass  # Opening it checks the header.
    except SafetensorError as error:
        raise ArgumentError(f"{file}: is there, and is not a file of weights: {error}") from error
    places = {}
    with file.open("rb") as opened:
        header_bytes = int.from_bytes(opened.read(8), "little")
        try:
            header = parse_json(opened.read(min(header_bytes, MAX_JSON + 1)))
        except ValueError as error:
            raise ArgumentError(f"{file}: is there, and is not a file of weights: {error}") from error
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                opened.seek(8 + header_bytes + start)
                digest = hashlib.sha256(opened.read(end - start)).hexdigest()
                places[digest] = (8 + header_bytes + start, end - start)
    return places


def _digest(values: NDArray[np.generic]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
