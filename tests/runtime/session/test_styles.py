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
@pytest.mark.parametrize("batch", [None, 2])
def test_images_are_those_of_the_whole_graph(golden: Path, name: str, batch: int | None) -> None:
    whole = sefa_runtime.load(golden / f"{name}.onnx", "cpu", threads=1)
    parts = sefa_runtime.load(golden / f"{name}.onnx", "cpu", threads=1, styles_on_cpu=True, batch=batch)
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
    with pytest.raises(ModelFileError):
        sefa_runtime.load(golden / "missing.onnx", "cpu", styles_on_cpu=True)
