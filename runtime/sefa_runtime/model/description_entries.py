"""The entries of an ONNX file's metadata that hold its description, as bytes to find and to write."""

import hashlib
import io

from sefa_runtime.model.graph_check import KEY, METADATA_PROPS, VALUE, metadata_entry
from sefa_runtime.model.info import CHECKSUM_KEY, METADATA_KEY
from sefa_runtime.model.protobuf import BYTES, bytes_field, fields


def without_description(message: bytes) -> bytes:
    """Return the fields of a serialized `ModelProto`, or of its end, without the entries of a description.

    Raises:
        EOFError: If it ends within a field.
        ValueError: If it is not a protobuf message.
    """
    kept = []
    start = 0
    for field in fields(io.BytesIO(message), len(message)):
        end = field.start + field.length
        is_entry = (field.number, field.wire_type) == (METADATA_PROPS, BYTES)
        if not is_entry or metadata_entry(message[field.start : end])[0] not in (METADATA_KEY, CHECKSUM_KEY):
            kept.append(memoryview(message)[start:end])
        start = end
    return b"".join(kept)


def description_entries(document: str) -> bytes:
    """Return the fields that hold a description and its checksum, to append to a serialized `ModelProto`."""
    checksum = hashlib.sha256(document.encode()).hexdigest()
    return b"".join(
        bytes_field(METADATA_PROPS, bytes_field(KEY, key.encode()) + bytes_field(VALUE, value.encode()))
        for key, value in ((METADATA_KEY, document), (CHECKSUM_KEY, checksum))
    )
