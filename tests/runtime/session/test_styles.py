"""What precedes the convolutions, run by itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sefa_runtime
from sefa_runtime import InputError, ModelFileError
from sefa_runtime.inputs.examples import as_arguments, reference_inputs
from sefa_runtime.session.cutting import StylesCut
from sefa_runtime.session.styles import StylesFirst, outputs_of

onnx = pytest.importorskip("onnx")

# Of all latents: z of a DCGAN, z with label and truncation, w, codes; with sizes fixed; edited from a late layer on.
MODELS = ("tiny", "style_z", "style_w", "style_w+", "style_static", "style_late")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("batch", "convolutions"), [(None, 0), (2, 0), (None, 1), (2, 1)])
def test_images_are_those_of_the_whole_graph(golden: Path, name: str, batch: int | None, convolutions: int) -> None:
    whole = sefa_runtime.load(golden / f"{name}.onnx", "cpu", threads=1)
    how = {"styles_on_cpu": True, "convolutions_on_cpu": convolutions}
    parts = sefa_runtime.load(golden / f"{name}.onnx", "cpu", threads=1, batch=batch, **how)  # type: ignore[arg-type]
    assert isinstance(parts.session.prefix, StylesFirst)
    inputs = as_arguments(reference_inputs(whole.info))
    np.testing.assert_allclose(parts.run(**inputs).astype(int), whole.run(**inputs).astype(int), atol=1)
    assert [value.name for value in parts.session.get_inputs()] == [spec.name for spec in whole.info.signature.inputs]
    assert parts.session.placement.convolutions == whole.session.placement.convolutions


@pytest.mark.parametrize("name", MODELS)
def test_no_convolution_is_among_what_precedes_them(golden: Path, name: str) -> None:
    model = onnx.load(golden / f"{name}.onnx")
    cut = StylesCut((golden / f"{name}.onnx").read_bytes())
    styles = onnx.load_model_from_string(cut.styles)
    assert not any("Conv" in node.op_type for node in styles.graph.node)
    # Whatever follows from the inputs alone is in the first part: by another route, the ancestors of each node.
    makers = {output: node for node in model.graph.node for output in node.output}

    def ancestors(node: Any) -> set[str]:
        above = [makers[name] for name in node.input if name in makers]
        return {node.op_type}.union(*map(ancestors, above))

    before = [node for node in model.graph.node if not any("Conv" in kind for kind in ancestors(node))]
    assert [node.output for node in styles.graph.node] == [node.output for node in before]


@pytest.mark.parametrize("convolutions", [1, 2])
def test_the_first_convolutions_may_precede_the_others(golden: Path, convolutions: int) -> None:
    content = (golden / "style_w.onnx").read_bytes()
    total = sum("Conv" in node.op_type for node in onnx.load_model_from_string(content).graph.node)
    cut = StylesCut(content, convolutions)
    first = onnx.load_model_from_string(cut.styles).graph

    def longest(graph: Any) -> int:
        """By another route, the most convolutions on a path, by following each output back."""
        makers = {output: node for node in graph.node for output in node.output}
        known: dict[str, int] = {}

        def depth(name: str) -> int:
            if name not in known:
                node = makers.get(name)
                known[name] = 0 if node is None else max(map(depth, node.input), default=0) + ("Conv" in node.op_type)
            return known[name]

        return max(map(depth, makers))

    assert longest(first) == convolutions
    assert 0 < sum("Conv" in node.op_type for node in first.node) < total
    with pytest.raises(ValueError, match="nothing after them"):
        StylesCut(content, total)


def test_the_second_part_takes_shapes_that_onnxruntime_found(golden: Path) -> None:
    parts = sefa_runtime.load(golden / "style_z.onnx", "cpu", styles_on_cpu=True, batch=3)
    assert parts.session.prefix is not None
    values = outputs_of(parts.session.prefix.inference)
    assert all(value.shape[0] == 3 and all(isinstance(size, int) for size in value.shape) for value in values)


def test_a_graph_without_convolutions_cannot_be_cut() -> None:
    node = onnx.helper.make_node("Identity", ["z"], ["image"])
    values = [onnx.helper.make_tensor_value_info(name, 1, ["batch", 4]) for name in ("z", "image")]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
    with pytest.raises(ValueError, match="nothing to compute before"):
        StylesCut(onnx.helper.make_model(graph).SerializeToString())


def test_not_with_buffers_on_the_device(golden: Path) -> None:
    with pytest.raises(InputError, match="not for IO binding"):
        sefa_runtime.load(golden / "tiny.onnx", "cpu", binding=True, styles_on_cpu=True)
    with pytest.raises(ModelFileError, match="it cannot be cut after its styles or first convolutions"):
        sefa_runtime.load(golden / "tiny.onnx", "cpu", styles_on_cpu=True, convolutions_on_cpu=1000)
    for arguments in ({"convolutions_on_cpu": 1}, {"convolutions_on_cpu": -1, "styles_on_cpu": True}):
        with pytest.raises(InputError, match="convolutions_on_cpu must be in"):
            sefa_runtime.load(golden / "tiny.onnx", "cpu", **arguments)  # type: ignore[arg-type]
