"""Reading what an exported file says about itself and checking that it is whole, without onnx or torch.

An ONNX file is one protobuf message, `ModelProto`. Only its top level is walked here: the graph is skipped over, the
metadata read. The exporter writes the metadata last, after the bytes that `ModelInfo.payload` covers, so that a
damaged weight is found at load and a renamed direction needs only the tail rewritten. Source: onnx.proto.
"""

import hashlib
import io
import zipfile
import zlib
from pathlib import Path

from sefa_runtime.errors import ModelFileError
from sefa_runtime.files import input_problem
from sefa_runtime.model_info import CHECKSUM_KEY, EXTRA_FILE, METADATA_KEY, ModelInfo
from sefa_runtime.protobuf import BYTES, fields

EXPECTED = "a model made by `sefa export` was expected"
# onnx.proto, message ModelProto and message StringStringEntryProto.
GRAPH = 7
METADATA_PROPS = 14
KEY, VALUE = 1, 2


def is_onnx(path: Path) -> bool:
    """Whether the file begins like an ONNX model: with the field `ir_version`, as all writers put it."""
    head = _head(path)
    # A safetensors file begins with the length of its JSON, eight bytes of which the lowest may be anything.
    return head[:1] == b"\x08" and head[5:9] != b"\0\0\0{"


def is_torchscript(path: Path) -> bool:
    """Whether the file is a TorchScript archive."""
    return any(name.endswith("/constants.pkl") for name in _archive_names(path))


def is_pt2(path: Path) -> bool:
    """Whether the file is an archive of torch.export."""
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
    document = _archive_document(path) if is_archive else _onnx_document(path)
    if document is None:
        raise ModelFileError(f"{path}: a model, but not one exported by `sefa export`: it carries no sefa metadata")
    return ModelInfo.from_json(document, str(path))


def weights_path(path: Path, info: ModelInfo) -> Path | None:
    """The file beside the model at `path` that its weights are in; None if they are in the model itself."""
    weights = info.payload and info.payload.weights
    return path.parent / weights.name if weights else None


def check_payload(path: Path, info: ModelInfo) -> None:
    """Check that graph and weights are the very bytes that were exported.

    Raises:
        ModelFileError: If they are not.
    """
    payload = info.payload
    if payload is None or _sha256(path, payload.bytes) != payload.sha256:
        raise ModelFileError(
            f"{path}: damaged, or changed after the export: its weights are not the ones that were verified; "
            "copy or export it again"
        )
    beside = weights_path(path, info)
    if payload.weights is None or beside is None:
        return
    if Path(payload.weights.name).name != payload.weights.name:
        raise ModelFileError(f"{path}: its weights are said to be in {payload.weights.name!r}, not in a file beside it")
    problem = input_problem(beside)
    if problem:
        raise ModelFileError(f"{beside}: {problem}; {path.name} has its weights in it")
    if (
        beside.stat().st_size != payload.weights.bytes
        or _sha256(beside, payload.weights.bytes) != payload.weights.sha256
    ):
        raise ModelFileError(f"{beside}: damaged, or not the weights that {path.name} was exported with")


def _sha256(path: Path, size: int) -> str | None:
    """Of the first `size` bytes; None if there are fewer."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size and (chunk := file.read(min(size, 1 << 20))):
            digest.update(chunk)
            size -= len(chunk)
    return None if size else digest.hexdigest()


def _head(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(16)


def _archive_names(path: Path) -> list[str]:
    if not _head(path).startswith(b"PK"):
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except zipfile.BadZipFile:
        return []


def _archive_document(path: Path) -> str | None:
    for name in _archive_names(path):
        if name.endswith(f"/extra/{EXTRA_FILE}"):
            try:
                with zipfile.ZipFile(path) as archive:
                    return archive.read(name).decode()
            except (zipfile.BadZipFile, zlib.error, UnicodeDecodeError, RuntimeError) as error:
                # The last: zipfile's answer to damaged flags of compression and encryption.
                raise ModelFileError(f"{path}: truncated or damaged; {EXPECTED}") from error
    return None


def _onnx_document(path: Path) -> str | None:
    size = path.stat().st_size
    if size == 0:
        raise ModelFileError(f"{path}: empty file; {EXPECTED}")
    metadata: dict[str, str] = {}
    has_graph = False
    try:
        with path.open("rb") as file:
            for field in fields(file, size):
                if field.wire_type != BYTES:
                    continue
                has_graph |= field.number == GRAPH
                if field.number == METADATA_PROPS:
                    file.seek(field.start)
                    key, value = metadata_entry(file.read(field.length))
                    metadata[key] = value
    except (EOFError, ValueError) as error:
        what = "truncated or damaged" if is_onnx(path) else "not an ONNX model, or damaged"
        raise ModelFileError(f"{path}: {what}; {EXPECTED}") from error
    if not has_graph:
        raise ModelFileError(f"{path}: not an ONNX model; {EXPECTED}")
    document = metadata.get(METADATA_KEY)
    if document is not None and metadata.get(CHECKSUM_KEY) != hashlib.sha256(document.encode()).hexdigest():
        raise ModelFileError(f"{path}: its sefa metadata is damaged (checksum); copy or export it again")
    return document


def metadata_entry(entry: bytes) -> tuple[str, str]:
    """Key and value of one entry of `metadata_props`."""
    found = {KEY: "", VALUE: ""}
    for field in fields(io.BytesIO(entry), len(entry)):
        found[field.number] = entry[field.start : field.start + field.length].decode()
    return found[KEY], found[VALUE]
