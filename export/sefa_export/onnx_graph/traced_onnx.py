"""ONNX export through TorchScript, for user modules that torch.export cannot handle."""

import io
import warnings

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from sefa_export.bake import EditGraph
from sefa_export.draft import Draft
from sefa_export.tracing import exporting, trace
from sefa_runtime.model.graph_check import BANK
from sefa_runtime.model.signature import Signature


def trace_to_onnx(draft: Draft, opset: int) -> ModelProto:
    """Trace a graph and return it as ONNX.

    Raises:
        ExportError: If it cannot be traced, or uses an operator that ONNX lacks.
    """
    traced = trace(draft)
    buffer = io.BytesIO()
    with exporting(draft.graph, "ONNX"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # About what the exporter folds, and that it is no longer developed.
        # Freezing precomputes whatever depends only on weights, such as a spectral norm.
        torch.onnx.export(
            torch.jit.freeze(traced.eval()),
            tuple(draft.example_inputs().values()),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=opset,
            input_names=list(draft.signature.names),
            output_names=[draft.signature.output.name],
            dynamic_axes=draft.dynamic_axes(),
        )
    model = onnx.load_from_string(buffer.getvalue())
    _lift_constants(model)
    _name_bank(model, draft.graph)
    _declare_image(model, draft.signature)
    return model


def _lift_constants(model: ModelProto) -> None:
    """Turn the nodes that hold a weight into initializers, where other tools look for weights."""
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
        if node.op_type != "Constant" or not values:
            nodes.append(node)
            continue
        tensor = TensorProto()
        tensor.CopyFrom(values[0])
        tensor.name = node.output[0]
        model.graph.initializer.append(tensor)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    model.graph.ClearField("node")
    model.graph.node.extend(copies)


def _name_bank(model: ModelProto, graph: EditGraph) -> None:
    """Name the initializer of the directions as torch.export does: after the module's buffer."""
    vectors = graph.vectors.numpy()
    for tensor in model.graph.initializer:
        if list(tensor.dims) == list(vectors.shape) and np.array_equal(numpy_helper.to_array(tensor), vectors):
            old, tensor.name = tensor.name, BANK
            for node in model.graph.node:
                node.input[:] = [BANK if name == old else name for name in node.input]
            return


def _declare_image(model: ModelProto, signature: Signature) -> None:
    """Declare the image's axes: shape inference loses them after some operators. Runs verify them later."""
    image = signature.output
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(image.dtype))
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info(image.name, kind, signature.axes(image)))
