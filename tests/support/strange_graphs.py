"""Models with valid descriptions whose graphs do what no exported one does: do not end, give NaN."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from support.descriptions import replace_graph

# An alpha beyond this makes the graphs strange.
LIMIT = 50.0


def rewrite(source: Path, target: Path, change: Callable[[ModelProto], None]) -> Path:
    """Write a copy of a model with another graph, whose description and checksums fit it."""
    model = onnx.load(source)
    del model.metadata_props[:]
    change(model)
    onnx.checker.check_model(model)
    return replace_graph(source, target, model.SerializeToString())


def endless(source: Path, target: Path, always: bool = False) -> Path:
    """Write a model whose runs do not end if an alpha is larger than `LIMIT`, or never do."""

    def change(model: ModelProto) -> None:
        name, least = ("z", -1e30) if always else ("alpha", LIMIT)
        _put_before(model, name, least, lambda went_on, looped: [_loop(name, went_on, looped)])

    return rewrite(source, target, change)


def with_nan(source: Path, target: Path) -> Path:
    """Write a model of float32 output whose images are NaN, each, if one of its alphas is larger than `LIMIT`."""

    def change(model: ModelProto) -> None:
        graph = model.graph
        graph.initializer.append(numpy_helper.from_array(np.array(LIMIT, np.float32), "limit"))
        graph.initializer.append(numpy_helper.from_array(np.array(np.nan, np.float32), "nan"))
        nodes = [
            helper.make_node("Greater", ["alpha", "limit"], ["beyond"]),
            helper.make_node("Where", ["beyond", "nan", "alpha"], ["strange"]),
        ]
        _insert(graph, "alpha", "strange", nodes)

    return rewrite(source, target, change)


def _put_before(model: ModelProto, name: str, least: float, make: Callable[[str, str], list[onnx.NodeProto]]) -> None:
    """Put nodes after an input, which are told whether one of its numbers is larger than `least`."""
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array(least, np.float32), "least"))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "nothing"))
    nodes = [
        helper.make_node("Greater", [name, "least"], ["larger"]),
        helper.make_node("Cast", ["larger"], ["counted"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["counted"], ["count"], keepdims=0),
        helper.make_node("Greater", ["count", "nothing"], ["strange_is_wanted"]),
        *make("strange_is_wanted", "strange"),
    ]
    _insert(graph, name, "strange", nodes)


def _insert(graph: onnx.GraphProto, name: str, new: str, nodes: list[onnx.NodeProto]) -> None:
    for node in graph.node:
        node.input[:] = [new if given == name else given for given in node.input]
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def _loop(name: str, condition: str, output: str) -> onnx.NodeProto:
    """While `condition`, which stays as it is: do nothing."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_on"], ["goes_on"]), helper.make_node("Identity", ["same"], ["stays"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("same", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("stays", TensorProto.FLOAT, None),
        ],
    )
    return helper.make_node("Loop", ["", condition, name], [output], body=body)
