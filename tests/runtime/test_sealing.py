"""Models as other people's tools leave them."""

import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sefa_runtime
from sefa_runtime import InputError, ModelFileError
from sefa_runtime.inputs.batches import split
from sefa_runtime.inputs.examples import reference_inputs
from sefa_runtime.model.description_entries import without_description
from sefa_runtime.sealing import seal
from sefa_runtime.verification import verify
from support.paths import GOLDEN, TINY
from support.serving import starting

onnx = pytest.importorskip("onnx")
Tool = Callable[[Path, Path], Any]


def save(tool: Callable[[Any], Any]) -> Tool:
    return lambda source, target: onnx.save(tool(onnx.load(source)), target)


def renumber(model: Any) -> Any:
    from onnx import version_converter

    return version_converter.convert_version(model, 21)


def fix_sizes(model: Any) -> Any:
    from onnxruntime.tools.onnx_model_utils import make_dim_param_fixed

    make_dim_param_fixed(model.graph, "batch", 2)
    make_dim_param_fixed(model.graph, "edits", 3)
    return model


def fix_first_input(model: Any) -> Any:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    return model


def quantize_dynamic(source: Path, target: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(source, target)


def quantize_static(source: Path, target: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self.images = split(reference_inputs(sefa_runtime.load(source, "cpu").info), 1)

        def get_next(self) -> Any:
            return next(self.images, None)

    quantize_static(source, target, Reader())


def to_float16(model: Any) -> Any:
    return pytest.importorskip("onnxruntime.transformers.float16").convert_float_to_float16(model, keep_io_types=True)


def round_weights(model: Any) -> Any:
    for weight in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype == np.float32:
            weight.CopyFrom(onnx.numpy_helper.from_array((values * 64).round() / 64, weight.name))
    return model


def without_metadata(model: Any) -> Any:
    del model.metadata_props[:]
    return renumber(model)


def simplify(model: Any) -> Any:
    return pytest.importorskip("onnxsim").simplify(model)[0]


def slim(model: Any) -> Any:
    return pytest.importorskip("onnxslim").slim(model)


def convert_half(model: Any) -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It rounds small weights to zero, and says so.
        return pytest.importorskip("onnxconverter_common.float16").convert_float_to_float16(model, keep_io_types=True)


@pytest.mark.parametrize("name", ["tiny", "style_z"])
@pytest.mark.parametrize(
    ("tool", "least_db"),
    [
        (save(renumber), 999),
        (save(fix_sizes), 999),
        (save(fix_first_input), 999),
        (save(without_metadata), 999),
        (save(to_float16), 50),
        (save(round_weights), 25),
        (quantize_static, 5),
        (save(simplify), 999),
        (save(slim), 999),
        (save(convert_half), 50),
    ],
    ids=["version", "fixed", "first", "metadata", "float16", "weights", "static", "sim", "slim", "common"],
)
def test_what_a_tool_made_is_refused_until_it_is_sealed(tmp_path: Path, name: str, tool: Tool, least_db: float) -> None:
    original, model = GOLDEN / f"{name}.onnx", tmp_path / "it's.onnx"
    tool(original, model)
    with pytest.raises(
        ModelFileError, match=r"changed by another tool|a tool dropped it|if a tool changed it"
    ) as refused:
        sefa_runtime.load(model, "cpu")
    assert f"""`sefa seal '{tmp_path}/it'"'"'s.onnx' --like ORIGINAL.onnx`""" in str(refused.value)

    info = seal(model, original, least_psnr_db=least_db)
    assert info.seal is not None
    assert sefa_runtime.load(original, "cpu").info.payload.content_sha256 == info.seal.like_sha256  # type: ignore[union-attr]
    editor, reference = sefa_runtime.load(model, "cpu"), sefa_runtime.load(original, "cpu")
    assert editor.info == info
    assert editor.info.names == reference.info.names
    label = {"label": 1} if editor.info.takes_label else {}
    several: list[dict[str | int, float]] = [{}, {0: 2.0}, {1: -1.0, 2: 1.5}]
    for edits in several:
        images, expected = (one.edit(seed=[3, 4, 5], edits=edits, **label) for one in (editor, reference))
        if info.seal.max_levels == 0:
            np.testing.assert_array_equal(images, expected)
        else:  # Other seeds than those measured may be a little further off.
            assert np.abs(images.astype(int) - expected).max() <= 3 * info.seal.max_levels
    assert verify(model, "cpu").ok


def test_sizes_that_a_tool_fixed_are_adopted(tmp_path: Path) -> None:
    save(fix_sizes)(TINY, tmp_path / "fixed.onnx")
    save(fix_first_input)(TINY, tmp_path / "first.onnx")
    fixed, first = (seal(tmp_path / f"{name}.onnx", TINY) for name in ("fixed", "first"))
    assert (fixed.batch, fixed.num_edits) == (2, 3)
    assert (first.batch, first.num_edits) == (1, None)
    with pytest.raises(InputError, match="takes 3 edits at once, got 4"):
        sefa_runtime.load(tmp_path / "fixed.onnx", "cpu").edit(seed=1, edits=dict.fromkeys(range(4), 1.0))


def test_a_quantised_model_may_depend_on_its_batch_as_far_as_was_measured(tmp_path: Path) -> None:
    quantize_dynamic(TINY, tmp_path / "dynamic.onnx")
    info = seal(tmp_path / "dynamic.onnx", TINY)
    assert info.seal is not None
    assert 30 < info.seal.psnr_db < 60
    assert verify(tmp_path / "dynamic.onnx", "cpu").ok


def test_a_description_alone_is_put_back_without_a_seal(tmp_path: Path) -> None:
    model = tmp_path / "bare.onnx"
    model.write_bytes(without_description(TINY.read_bytes()))
    assert seal(model, TINY).seal is None
    assert model.read_bytes() == TINY.read_bytes()


def test_weights_beside_the_model_are_sealed_with_it(tmp_path: Path) -> None:
    model = tmp_path / "apart.onnx"
    onnx.save(renumber(onnx.load(TINY)), model, save_as_external_data=True, location="apart.data", size_threshold=100)
    info = seal(model, TINY)
    assert info.payload is not None
    assert info.payload.weights is not None
    assert info.payload.weights.name == "apart.data"
    sefa_runtime.load(model, "cpu")
    with pytest.raises(InputError, match=r"has its weights in apart\.data: the output must be beside it"):
        seal(model, TINY, tmp_path.parent / "other.onnx")
    (tmp_path / "apart.data").write_bytes(bytes(info.payload.weights.bytes))
    with pytest.raises(ModelFileError, match=r"apart\.data: damaged, or not the weights"):
        sefa_runtime.load(model, "cpu")


def test_a_sealed_model_can_be_the_original_of_another(tmp_path: Path) -> None:
    save(renumber)(TINY, tmp_path / "first.onnx")
    first = seal(tmp_path / "first.onnx", TINY)
    save(round_weights)(tmp_path / "first.onnx", tmp_path / "second.onnx")
    second = seal(tmp_path / "second.onnx", tmp_path / "first.onnx")
    assert first.payload is not None
    assert second.seal is not None
    assert second.seal.like_sha256 == first.payload.content_sha256


def test_a_changed_graph_is_cut_nowhere(tmp_path: Path) -> None:
    original, model = GOLDEN / "style_late.onnx", tmp_path / "model.onnx"
    assert sefa_runtime.load(original, "cpu").info.prefix is not None
    save(renumber)(original, model)
    assert seal(model, original).prefix is None
    assert sefa_runtime.load(model, "cpu").session.prefix is None


def test_a_page_and_the_commands_show_it(sefa_command: Callable[..., Any], tmp_path: Path) -> None:
    model = tmp_path / "small.onnx"
    save(round_weights)(TINY, model)
    done = sefa_command("seal", model, "--like", TINY, "--min-psnr", "25")
    assert done.code == 0
    words = done.out.split("sealed ", 1)[1].strip()
    assert "images at most" in words
    assert words in sefa_command("inspect", model).out
    assert words in sefa_command("verify", model, "--provider", "cpu").out
    with contextmanager(starting)() as start:
        assert start(model).http.get("/models/small").json()["sealed"] == words
    done = sefa_command("seal", model, "--like", TINY, "--min-psnr", "90")
    assert done.code == 1
    assert "90 is the least (--min-psnr)" in done.err


def edit_weights(change: Callable[[Any], Any]) -> Tool:
    def tool(model: Any) -> Any:
        weight = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
        values = change(onnx.numpy_helper.to_array(weight).copy())
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weight.name))
        return model

    return save(tool)


def half_inputs(model: Any) -> Any:
    return pytest.importorskip("onnxruntime.transformers.float16").convert_float_to_float16(model)


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        (edit_weights(lambda values: values * np.nan), r"NaN or infinity in .* has none: float16 is not enough"),
        (
            edit_weights(lambda values: -values),
            r"its images are not those of .*: PSNR .* dB in the worst of 26, 20 is the least",
        ),
        (save(half_inputs), r"z tensor\(float16\) .* for float32 .*keep_io_types=True"),
        (lambda source, target: target.write_bytes(source.read_bytes()[:4000]), "truncated or damaged"),
        (lambda source, target: target.write_bytes(b"PK\x03\x04"), "not an ONNX model"),
        (lambda source, target: None, "no such file"),
        (
            lambda source, target: shutil.copy(GOLDEN / "style_z.onnx", target),
            "another model: its graph has 3 directions, not 4",
        ),
    ],
    ids=["nan", "other weights", "half inputs", "truncated", "zip", "missing", "another model"],
)
def test_what_is_no_such_model_is_not_sealed(tmp_path: Path, tool: Tool, message: str) -> None:
    model = tmp_path / "model.onnx"
    tool(TINY, model)
    before = model.read_bytes() if model.exists() else None
    with pytest.raises(ModelFileError, match=message):
        seal(model, TINY)
    assert (model.read_bytes() if model.exists() else None) == before


def test_images_may_become_float(tmp_path: Path) -> None:
    info = seal(GOLDEN / "tiny_float32.onnx", TINY, tmp_path / "float.onnx")
    assert info.output_type == "float32"
    assert sefa_runtime.load(tmp_path / "float.onnx", "cpu").run(np.zeros(6)).dtype == np.float32
