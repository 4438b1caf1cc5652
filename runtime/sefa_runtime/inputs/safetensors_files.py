"""Read arrays of numbers from `.safetensors` files without the package: a length, a header in JSON, then the numbers.

Source: the format's description, github.com/huggingface/safetensors.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.errors import ContentError
from sefa_runtime.inputs.numpy_files import MAX_BYTES
from sefa_runtime.json_text import MAX_JSON, parse_json

LENGTH = 8  # bytes of the header's length
METADATA = "__metadata__"
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
    "BF16": "<u2",
}  # fmt: skip


def is_safetensors(head: bytes) -> bool:
    """Return whether a file's first bytes are a safetensors file's: the length of a header that begins with a brace."""
    return head[LENGTH : LENGTH + 1] == b"{" and int.from_bytes(head[:LENGTH], "little") <= MAX_JSON


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read a file's arrays by name; bfloat16 becomes float32.

    Raises:
        ContentError: If it is damaged, larger than any codes, or of numbers that are not read.
        OSError: If it cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ContentError(f"larger than any codes: more than {MAX_BYTES >> 20} MB")
    content = path.read_bytes()
    start = LENGTH + int.from_bytes(content[:LENGTH], "little")
    try:
        header = parse_json(content[LENGTH:start].decode())
        entries = {name: entry for name, entry in header.items() if name != METADATA}
        return {name: _array(content[start:], entry) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContentError("a safetensors file, truncated or damaged") from error


def _array(numbers: bytes, entry: dict[str, Any]) -> NDArray[Any]:
    kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if kind not in DTYPES:
        raise ContentError(f"numbers of type {str(kind)[:20]} are not read: save them as float32")
    dtype = np.dtype(DTYPES[kind])
    if not 0 <= begin <= end <= len(numbers) or math.prod(shape) * dtype.itemsize != end - begin:
        raise ValueError("an array beyond the end")
    array = np.frombuffer(numbers, dtype, math.prod(shape), begin).reshape(shape)
    return (array.astype(np.uint32) << 16).view(np.float32) if kind == "BF16" else array
