"""The protocol's tensors, against json and numpy."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sefa_runtime.errors import InputError
from sefa_runtime.model.signature import BATCH, TensorSpec
from sefa_runtime.server.http.v2_body import decode_request, encode_response, numbers_as_json

FLOATS, BYTES = (TensorSpec("image", dtype, (BATCH, 2, 2, 3)) for dtype in ("float32", "uint8"))
HEAD = {"model_name": "m", "model_version": "1", "id": "7"}


@given(arrays.arrays(np.uint8, arrays.array_shapes(max_dims=4, max_side=5)))
def test_bytes_as_json(array: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> None:
    assert json.loads(numbers_as_json(array)) == array.reshape(-1).tolist()


@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=4, max_side=5), elements=st.floats(-1, 1, width=32)))
def test_floats_as_json_keep_their_bits(array: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> None:
    text, raw = encode_response(HEAD, FLOATS, array, binary=False)
    assert raw is None
    (output,) = json.loads(text)["outputs"]
    np.testing.assert_array_equal(np.array(output["data"], np.float32).reshape(output["shape"]), array)


def test_raw_bytes_are_a_view_of_the_image() -> None:
    run = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)
    text, raw = encode_response(HEAD, BYTES, run[1:3], binary=True)
    assert raw is not None
    assert np.shares_memory(np.asarray(raw), run)
    assert bytes(raw) == run[1:3].tobytes()
    assert json.loads(text) == {
        **HEAD,
        "outputs": [
            {"name": "image", "datatype": "UINT8", "shape": [2, 2, 2, 3], "parameters": {"binary_data_size": 24}}
        ],
    }


@pytest.mark.parametrize("padding", range(8))
def test_raw_tensors_may_begin_anywhere(padding: int) -> None:
    z, direction = np.arange(3, dtype=np.float32), np.array([5, -6])
    inputs = [
        {"name": name, "datatype": datatype, "shape": [len(array)], "parameters": {"binary_data_size": array.nbytes}}
        for name, datatype, array in (("z", "FP32", z), ("direction", "INT64", direction))
    ]
    text = json.dumps({"inputs": inputs}).encode() + b" " * padding
    request = decode_request(text + z.tobytes() + direction.tobytes(), len(text))
    assert [bytes(tensor.data) for tensor in request.inputs] == [z.tobytes(), direction.tobytes()]


@pytest.mark.parametrize(
    ("extra", "length", "message"),
    [
        (b"", 10_000, "Inference-Header-Content-Length must be in 0"),
        (b"\x00" * 3, None, "3 bytes after the last tensor"),
        (b"", None, "binary_data_size 8 does not fit"),
    ],
)
def test_lengths_that_do_not_fit(extra: bytes, length: int | None, message: str) -> None:
    size = 8 if "fit" in message else 0
    entry = {"name": "z", "datatype": "FP32", "shape": [size // 4], "parameters": {"binary_data_size": size}}
    text = json.dumps({"inputs": [entry]}).encode()
    with pytest.raises(InputError, match=message):
        decode_request(text + extra, len(text) if length is None else length)
