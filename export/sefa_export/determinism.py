"""Find random operators in a graph: a seed must always give the same image.

The graph is searched for these operators rather than run twice, since two runs may differ too little to notice.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import GraphProto, ModelProto, NodeProto
from torch.export import ExportedProgram
from torch.fx import GraphModule

from sefa_export.errors import ExportError

ONNX_RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
# Operators that torch does not tag as random, although they are when one of their arguments switches that on.
SWITCHED = {
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_functional",
    "batch_norm",
    "feature_alpha_dropout",
    "feature_dropout",
    "native_batch_norm",
    "rrelu",
    "scaled_dot_product_attention",
}
SWITCHES = {"train", "training", "dropout_p"}
# A Python stack frame as torch.export writes it, and as torch.jit does.
FRAMES = re.compile(r'File "(?P<exported>[^"]+)", line (?P<line>\d+)|^\s*(?P<traced>\S.*)\((?P<number>\d+)\): ', re.M)


def check_program(program: ExportedProgram) -> None:
    """Reject a torch.export program that draws random numbers.

    Raises:
        ExportError: If it does; the message names the operator and its place in the source.
    """
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            if not isinstance(node.target, torch._ops.OpOverload) or not node.users:
                continue
            arguments = node.target._schema.arguments
            given = dict(zip((argument.name for argument in arguments), node.args, strict=False)) | node.kwargs
            values = {argument.name: given.get(argument.name, argument.default_value) for argument in arguments}
            if _is_random(node.target.overloadpacket, values):
                frames = _frames(node.meta.get("stack_trace") or "")
                raise _refusal(node.target.overloadpacket.__name__, frames[-1:])


def check_trace(traced: torch.jit.ScriptModule) -> None:
    """Reject a trace that draws random numbers; raises what `check_program` raises."""
    for node in _trace_nodes(traced.inlined_graph):
        namespace, _, name = node.kind().partition("::")
        packet = getattr(getattr(torch.ops, namespace, None), name, None)
        if not isinstance(packet, torch._ops.OpOverloadPacket):
            continue
        names = [argument.name for argument in torch._C.parse_schema(node.schema()).arguments]
        values = {name: value.toIValue() for name, value in zip(names, node.inputs(), strict=False)}
        if _is_random(packet, values):
            raise _refusal(packet.__name__, _frames(node.sourceRange())[:1])


def check_model(model: ModelProto) -> None:
    """Reject an ONNX model that draws random numbers; raises what `check_program` raises."""
    for graph in graphs(model):
        constants = {tensor.name: tensor for tensor in graph.initializer} if isinstance(graph, GraphProto) else {}
        for node in graph.node:
            if _is_random_node(node, constants):
                traces = [prop.value for prop in node.metadata_props if prop.key == "pkg.torch.onnx.stack_trace"]
                raise _refusal(node.op_type, _frames("".join(traces))[-1:])


def graphs(model: ModelProto) -> Iterator[Any]:
    """Yield everything that has nodes: the graph, the functions, and all nested graphs."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _is_random(packet: torch._ops.OpOverloadPacket, values: dict[str, Any]) -> bool:
    names = packet.overloads()  # type: ignore[no-untyped-call]
    tags = {tag for name in names for tag in getattr(packet, name).tags}
    if torch.Tag.nondeterministic_seeded not in tags and packet.__name__ not in SWITCHED:
        return False
    # A switch that is unknown, or left at None, counts as on.
    return all(value is None or bool(value) for name, value in values.items() if name in SWITCHES)


def _is_random_node(node: NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    if node.op_type == "BatchNormalization":
        return any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
    if node.op_type == "Dropout":  # ratio and training_mode are inputs; without the latter it does nothing.
        switch = node.input[2] if len(node.input) > 2 else ""
        return bool(switch) and (switch not in constants or bool(onnx.numpy_helper.to_array(constants[switch])))
    return node.op_type in ONNX_RANDOM


def _trace_nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _trace_nodes(inner)


def _frames(text: str) -> list[str]:
    """Return FILE:LINE for each frame outside torch, in the order of the text."""
    inside = str(Path(torch.__file__).parent)
    found = (match.groupdict() for match in FRAMES.finditer(text))
    places = (f"{frame['exported'] or frame['traced']}:{frame['line'] or frame['number']}" for frame in found)
    return [place for place in places if not place.startswith(inside)]


def _refusal(operator: str, place: Iterable[str]) -> ExportError:
    where = "".join(f" ({frame})" for frame in place)
    if "batch" in operator.lower():
        return ExportError(
            f"the generator's graph has {operator} in training mode{where}: it takes its statistics from the batch, so "
            "that an image would depend on those beside it; keep running statistics and call eval()"
        )
    return ExportError(
        f"the generator's graph has {operator}{where}: it draws random numbers in every run, so that one seed would "
        "not be one image; make it a constant, as a buffer, or leave it out (eval() does so for dropout)"
    )
