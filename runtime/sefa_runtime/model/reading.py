"""Read the description inside an exported file and check that the file is whole, without onnx or torch.

An ONNX file is one protobuf message, `ModelProto`. Only its top level is walked here: the graph is skipped and the
metadata is read. The exporter writes the metadata last, after the bytes that `ModelInfo.payload` covers, so that
damaged weights are found on loading and renaming a direction rewrites only the tail. Source: onnx.proto.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sefa_runtime.archives import DAMAGED_ARCHIVE, open_archive, read_member
from sefa_runtime.errors import ModelFileError, RunError
from sefa_runtime.files import input_problem
from sefa_runtime.json_text import MAX_JSON
from sefa_runtime.model.graph_check import (
    GRAPH,
    MAX_MODEL_FIELDS,
    METADATA_PROPS,
    bounded,
    graph_problem,
    metadata_entry,
)
from sefa_runtime.model.info import CHECKSUM_KEY, EXTRA_FILE, METADATA_KEY, ModelInfo, Payload
from sefa_runtime.model.protobuf import BYTES, fields
from sefa_runtime.printable import printable, quoted

EXPECTED = "a model made by `sefa export` was expected"
MAX_NAME = 255  # characters of a file's name
HEAD = 16  # bytes that tell an ONNX model
GIVEN_BYTES = Path("the given bytes")  # what messages call a model that is in no file


def is_onnx(path: Path) -> bool:
    """Return whether the file begins like an ONNX model: with the field `ir_version`, which all writers put first."""
    return begins_like_onnx(_head(path))


def begins_like_onnx(head: bytes) -> bool:
    """Return whether a file's first bytes are an ONNX model's."""
    # A safetensors file begins with the length of its JSON in eight bytes, of which the lowest may be anything.
    return head[:1] == b"\x08" and head[5:9] != b"\0\0\0{"


def is_torchscript(path: Path) -> bool:
    """Return whether the file is a TorchScript archive."""
    return any(name.endswith("/constants.pkl") for name in _archive_names(path))


def is_pt2(path: Path) -> bool:
    """Return whether the file is a torch.export archive."""
    return any(name.endswith("/archive_format") for name in _archive_names(path))


def read_info(path: Path) -> ModelInfo:
    """Read the description inside an exported ONNX, TorchScript or .pt2 file.

    Raises:
        ModelFileError: If the file is missing, damaged, or not exported by `sefa export`.
    """
    problem = input_problem(path)
    if problem:
        raise ModelFileError(f"{path}: {problem}; {EXPECTED}")
    is_archive = is_torchscript(path) or is_pt2(path)
    with _readable(path):
        if is_archive:
            document = _archive_document(path)
        else:
            with path.open("rb") as file:
                document = _onnx_document(path, file, path.stat().st_size)
    if document is None:
        lost = "" if is_archive else f"; if a tool dropped it, {how_to_seal(path)} puts it back"
        raise ModelFileError(
            f"{path}: a model, but not one exported by `sefa export`: it carries no sefa metadata{lost}"
        )
    return ModelInfo.from_json(document, str(path))


def how_to_seal(path: Path) -> str:
    """Return the command that accepts a model which another tool changed."""
    return f"`sefa seal {quoted(str(path))} --like ORIGINAL.onnx`"


@dataclass(frozen=True)
class Contents:
    """What onnxruntime needs of a model, in memory, so that later changes to its files do not reach a session."""

    graph: bytes
    weights: dict[str, bytes]  # contents of the file beside the model, by its name


def read_model(path: Path) -> tuple[ModelInfo, Contents]:
    """Read a whole exported ONNX model and check it.

    The returned bytes are exactly those checked, even if the files are replaced, emptied or overwritten meanwhile.

    Raises:
        ModelFileError: If the file is missing, damaged, or not an ONNX model exported by `sefa export`, if graph or
            weights are not the ones that were exported, or if the bank in the graph is not the one described.
        RunError: If there is not enough memory for it.
    """
    info = read_info(path)
    if not is_onnx(path):
        raise ModelFileError(f"{path}: an archive that runs in torch; the .onnx export is needed here")
    contents: dict[Path, bytes] = {}

    def read(part: Path, size: int) -> str | None:
        with _readable(part), part.open("rb") as file:
            contents[part] = file.read(size)
        return hashlib.sha256(contents[part]).hexdigest() if len(contents[part]) == size else None

    try:
        check_payload(path, info, read)
    except MemoryError as error:
        raise RunError(f"{path}: out of memory while loading") from error
    graph = contents.pop(path)
    weights = {part.name: content for part, content in contents.items()}
    check_graph(path, graph, len(info.directions), set(weights))
    return info, Contents(graph, weights)


def read_model_bytes(content: bytes) -> tuple[ModelInfo, Contents]:
    """Check an exported ONNX model that is in memory.

    Raises:
        ModelFileError: As `read_model`; also if its weights are in a file of their own.
    """
    where, file = GIVEN_BYTES, io.BytesIO(content)
    document = _onnx_document(where, file, len(content))
    if document is None:
        raise ModelFileError(f"{where}: a model, but not one exported by `sefa export`: it carries no sefa metadata")
    info = ModelInfo.from_json(document, str(where))
    payload = info.payload
    if payload is not None and payload.weights is not None:
        raise ModelFileError(
            f"{where}: the weights are in {payload.weights.name}, beside the model: load it by its path"
        )
    graph = content[: payload.bytes if payload else 0]
    if payload is None or len(graph) != payload.bytes or hashlib.sha256(graph).hexdigest() != payload.sha256:
        raise ModelFileError(_what_changed(where, Path("FILE"), file, payload, len(content)))
    check_graph(where, graph, len(info.directions), set())
    return info, Contents(graph, {})


def check_graph(path: Path, graph: bytes, directions: int, beside: set[str]) -> None:
    """Check a graph as `graph_problem` does.

    Raises:
        ModelFileError: If something is wrong with it.
    """
    problem = graph_problem(graph, directions, beside)
    if problem:
        raise ModelFileError(f"{path}: {problem}")


def weights_path(path: Path, info: ModelInfo) -> Path | None:
    """Return the file beside the model that holds its weights; None if they are in the model itself."""
    weights = info.payload and info.payload.weights
    return path.parent / weights.name if weights else None


def files_of(path: Path) -> tuple[Path, ...]:
    """Return a model's files, including the one that holds its weights; only `path` if it is anything else."""
    try:
        beside = weights_path(path, read_info(path)) if is_onnx(path) else None
    except ModelFileError:
        beside = None
    return (path, beside) if beside else (path,)


def check_payload(path: Path, info: ModelInfo, sha256: Callable[[Path, int], str | None] | None = None) -> None:
    """Check that graph and weights are exactly the bytes that were exported.

    Args:
        path: The model.
        info: Its description.
        sha256: Returns the sha256 of a file's first bytes, or None if it has fewer; None reads them.

    Raises:
        ModelFileError: If they are not.
    """
    sha256 = sha256 or sha256_of_first
    payload = info.payload
    # Check the size first: `sha256` may allocate as many bytes as the description claims.
    is_whole = payload is not None and payload.bytes <= path.stat().st_size
    if payload is None or not is_whole or sha256(path, payload.bytes) != payload.sha256:
        with _readable(path), path.open("rb") as file:
            raise ModelFileError(_what_changed(path, path, file, payload, path.stat().st_size))
    beside = weights_path(path, info)
    if payload.weights is None or beside is None:
        return
    name = payload.weights.name
    if Path(name).name != name or printable(name) != name or len(name) > MAX_NAME:
        raise ModelFileError(f"{path}: its weights are said to be in {name[:200]!r}, not in a file beside it")
    problem = input_problem(beside)
    if problem:
        raise ModelFileError(f"{beside}: {problem}; {path.name} has its weights in it")
    if (
        beside.stat().st_size != payload.weights.bytes
        or sha256(beside, payload.weights.bytes) != payload.weights.sha256
    ):
        raise ModelFileError(f"{beside}: damaged, or not the weights that {path.name} was exported with")


def sha256_of_first(path: Path, size: int) -> str | None:
    """Return the sha256 of a file's first `size` bytes, in hex; None if it has fewer."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size and (chunk := file.read(min(size, 1 << 20))):
            digest.update(chunk)
            size -= len(chunk)
    return None if size else digest.hexdigest()


def _what_changed(where: Path, path: Path, file: BinaryIO, payload: Payload | None, size: int) -> str:
    """Say what became of graph and weights that are not the ones described.

    Tools write the whole file anew, so that the description moves; damage leaves it in its place.
    """
    keys = set()
    if payload is not None and payload.bytes <= size:
        file.seek(payload.bytes)
        try:
            for field in bounded(fields(file, size), MAX_MODEL_FIELDS):
                if (field.number, field.wire_type) == (METADATA_PROPS, BYTES):
                    file.seek(field.start)
                    keys.add(metadata_entry(file.read(field.length))[0])
        except (EOFError, ValueError):
            keys = set()
    if METADATA_KEY in keys:
        return (
            f"{where}: damaged, or changed after the export: its weights are not the ones that were verified; copy or "
            f"export it again, or if a tool changed it on purpose, {how_to_seal(path)}"
        )
    return (
        f"{where}: changed by another tool after the export: {how_to_seal(path)} measures it against the exported file "
        "and accepts it"
    )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from error


def _head(path: Path) -> bytes:
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError:  # Reading more of the file will report the error.
        return b""


def _archive_names(path: Path) -> list[str]:
    if not _head(path).startswith(b"PK"):
        return []
    try:
        with open_archive(path) as archive:
            return archive.namelist()
    except (*DAMAGED_ARCHIVE, OSError):
        return []


def _archive_document(path: Path) -> str | None:
    for name in _archive_names(path):
        if name.endswith(f"/extra/{EXTRA_FILE}"):
            try:
                with open_archive(path) as archive:
                    return read_member(archive, name, MAX_JSON).decode()
            except DAMAGED_ARCHIVE as error:
                raise ModelFileError(f"{path}: truncated or damaged; {EXPECTED}") from error
    return None


def _onnx_document(path: Path, file: BinaryIO, size: int) -> str | None:
    if size == 0:
        raise ModelFileError(f"{path}: empty{' file' if path != GIVEN_BYTES else ''}; {EXPECTED}")
    head = file.read(HEAD)
    file.seek(0)
    metadata: dict[str, str] = {}
    graphs = 0
    try:
        for field in bounded(fields(file, size), MAX_MODEL_FIELDS):
            if field.wire_type != BYTES:
                continue
            graphs += field.number == GRAPH
            if field.number == METADATA_PROPS:
                file.seek(field.start)
                key, value = metadata_entry(file.read(min(field.length, MAX_JSON + 1)))
                metadata[key] = value
    except (EOFError, ValueError) as error:
        what = "truncated or damaged" if begins_like_onnx(head) else "not an ONNX model, or damaged"
        raise ModelFileError(f"{path}: {what}; {EXPECTED}") from error
    if not graphs:
        raise ModelFileError(f"{path}: not an ONNX model; {EXPECTED}")
    document = metadata.get(METADATA_KEY)
    if document is not None and metadata.get(CHECKSUM_KEY) != hashlib.sha256(document.encode()).hexdigest():
        raise ModelFileError(f"{path}: its sefa metadata is damaged (checksum); copy or export it again")
    if document is not None and graphs > 1:  # Protobuf would merge them into one.
        raise ModelFileError(f"{path}: changed after the export: it has {graphs} graphs; copy or export it again")
    return document
