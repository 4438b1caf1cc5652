"""The multiply-adds in a file's description, counted again on the exported graph and by hand."""

import math
from pathlib import Path

import onnx
import pytest
from onnx import NodeProto
from torch import nn

import sefa
from sefa.generators.dcgan import DCGAN
from sefa_export import export_onnx
from sefa_runtime.model.reading import read_info
from support.paths import GOLDEN

CHECKPOINTS = GOLDEN / "checkpoints"


def count(path: Path) -> int:
    """Count the multiply-adds of one image on the graph itself."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    graph = model.graph
    shapes: dict[str, list[int]] = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = [axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim]  # A batch of one.

    def of_node(node: NodeProto) -> int:
        if node.op_type == "Conv":
            return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        if node.op_type == "ConvTranspose":
            return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
        if node.op_type in ("MatMul", "Gemm"):
            return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        return 0

    return sum(map(of_node, graph.node))


@pytest.mark.parametrize(
    "checkpoint",
    ["nv_ada_skip_64/network.pkl", "sefa_pggan_cond_16/checkpoint.pth", "biggan_tfhub_style_32/G_ema.pth"],
    ids=["stylegan2", "pggan", "biggan"],
)
def test_the_graph_has_as_many(tmp_path: Path, checkpoint: str) -> None:
    generator = sefa.load(CHECKPOINTS / checkpoint)
    path = export_onnx(generator, sefa.factorize(generator, top=2), tmp_path / "model.onnx", keep_layers=True)
    assert read_info(path).macs == count(path)


def test_a_convolution_by_hand(tmp_path: Path) -> None:
    layers = [nn.ConvTranspose2d(10, 16, 4), nn.ReLU(), nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh()]
    generator = DCGAN(layers, (8, 8), 3).eval()
    path = export_onnx(generator, sefa.factorize(generator, top=2), tmp_path / "model.onnx")
    # Each of the inputs' values meets each of its weights: 10 on one pixel, then 16 on 4x4 pixels.
    assert read_info(path).macs == 10 * (16 * 4 * 4) + 16 * (4 * 4) * (3 * 4 * 4)


def test_a_files_description_from_before_has_none(golden: Path) -> None:
    assert read_info(golden / "tiny.onnx").macs is None
