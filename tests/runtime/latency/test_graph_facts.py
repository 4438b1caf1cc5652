from pathlib import Path

import numpy as np
import pytest

import sefa_runtime
from sefa_runtime.latency.graph_facts import GraphFacts, read_graph_facts

PROBE = Path(sefa_runtime.__file__).parent / "session" / "probe.onnx"


def test_a_convolution() -> None:
    assert read_graph_facts(PROBE) == GraphFacts(
        opset=18, nodes=1, operators={"Conv": 1}, parameters=9, parameter_bytes=36
    )


@pytest.mark.parametrize("name", ["tiny.onnx", "tiny_float32.onnx"])
def test_the_onnx_package_finds_the_same(golden: Path, name: str) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(golden / name)
    facts = read_graph_facts(golden / name)
    operators = [node.op_type for node in model.graph.node]
    assert facts.operators == {operator: operators.count(operator) for operator in operators}
    assert list(facts.operators.values()) == sorted(facts.operators.values(), reverse=True)
    assert facts.nodes == len(operators)
    assert facts.opset == model.opset_import[0].version
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    assert facts.parameters == sum(array.size for array in arrays)
    assert facts.parameter_bytes == sum(array.nbytes for array in arrays)


def message(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def test_dimensions_in_either_encoding_half_precision_and_other_domains(tmp_path: Path) -> None:
    half = b"\x10\x0a"  # data_type 10, float16
    packed = message(1, b"\x80\x01\x03") + half  # dims 128, 3
    apart = b"\x08\x05\x08\x07" + half  # dims 5, 7
    scalar = b"\x10\x07"  # no dims, int64
    graph = b"".join(message(5, tensor) for tensor in (packed, apart, scalar))
    opsets = message(8, message(1, b"com.microsoft") + b"\x10\x01") + message(8, b"\x10\x12")
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x08" + message(7, graph) + opsets)
    facts = read_graph_facts(path)
    assert facts.opset == 18
    assert facts.parameters == 128 * 3 + 5 * 7 + 1
    assert facts.parameter_bytes == 2 * (128 * 3 + 5 * 7) + np.dtype(np.int64).itemsize
    assert facts.nodes == 0
