"""Models whose description and graph do not belong together, and graphs that are meant ill: refused in one line."""

import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import sefa_runtime
from conftest import Result
from sefa_runtime import ModelFileError, RunError
from sefa_runtime.model.reading import read_info
from support.descriptions import change_description, replace_graph
from support.paths import GOLDEN, TINY

HUGE = 5 * 10**9


def set_to(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda document: document.update(values)


def set_direction(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["directions"][1].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_to(batch=-5), "batch is -5, expected 1 to 4096"),
        (set_to(batch=0), "batch is 0"),
        (set_to(edits=10**9), "edits is 1000000000, expected 0 to 4096"),
        (set_to(z_dim=0), "z_dim is 0"),
        (set_to(z_dim=10**12), "z_dim is 1000000000000"),
        (set_to(z_dim=True), "True where"),
        (set_to(num_layers=10**9), "num_layers is"),
        (set_to(num_classes=-1), "num_classes is -1"),
        (set_to(class_names=["S"]), "1 names of classes for 0 classes"),
        (set_to(resolution=[10**6, 10**6]), "height is 1000000, expected 1 to 16384"),
        (set_to(resolution=[8, -4]), "width is -4"),
        (set_to(channels=10**9), "channels is"),
        (set_to(latent="x"), "latent is 'x', expected z or w or w\\+"),
        (set_to(output="int8"), "output is 'int8'"),
        (set_to(precision="int8"), "precision is 'int8'"),
        (set_to(truncation=float("nan")), "truncation is nan"),
        (set_to(truncation=10**400), "too large"),
        (set_to(code_rms=[2.0, 1.0]), "code_rms is 2.0 to 1.0"),
        (set_to(directions=[]), "number of directions is 0"),
        (set_to(family="\ud800"), "surrogates not allowed"),
        (set_to(versions={"\ud800": "1"}), "surrogates not allowed"),
        (set_direction(name="\ud800"), "is not a name|surrogates"),
        (set_direction(name="a\x1b[2J"), "is not a name"),
        (set_direction(name=""), "is not a name"),
        (set_direction(name="7"), "is not a name"),
        (set_direction(name="pose"), "two directions have the same name 'pose'"),
        (set_direction(alpha_range=[float("nan"), 1.0]), "alpha_range of light is nan to 1.0"),
        (set_direction(alpha_range=[3.0, -3.0]), "alpha_range of light is 3.0 to -3.0"),
        (set_direction(alpha_range=[-float("inf"), 1.0]), "alpha_range of light is -inf"),
        (set_direction(eigenvalue=float("nan")), "eigenvalue of light is nan"),
        (set_direction(edited_layers=[1]), "layers of light are beyond the 1 that there are"),
        (set_direction(analysed_layers=[-1]), "layers of light"),
        (lambda document: document["payload"].update(bytes=-1), "payload is of a size that no file has"),
        (lambda document: document["payload"].update(bytes=10**400), "payload is of a size that no file has"),
        (set_to(reference=[]), "reference is not of 4 images"),
        (lambda document: document["reference"][0].pop(), "reference is not of 4 images"),
        (lambda document: document["reference"].__setitem__(0, [float("nan")] * 48), "reference levels"),
        (lambda document: document["parity"].update(max_abs_error=float("nan")), "parity is out of range"),
    ],
)  # fmt: skip
def test_a_description_of_what_cannot_be_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    model = change_description(TINY, tmp_path / "lying.onnx", change)
    with pytest.raises(ModelFileError, match=rf"lying\.onnx: its sefa metadata is damaged \(.*({message})") as raised:
        read_info(model)
    assert "\n" not in str(raised.value)


def test_a_description_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "deep.onnx"
    change_description(TINY, model, set_to(versions={}))
    document = read_info(model).to_json().replace('"versions":{}', '"versions":' + "[" * 100_000 + "]" * 100_000)
    with pytest.raises(ModelFileError, match="nested too deep"):
        sefa_runtime.ModelInfo.from_json(document, "deep.onnx")


def add_direction(document: dict[str, Any]) -> None:
    document["directions"].append({**document["directions"][0], "name": "one more"})


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("tiny", set_to(z_dim=7), r"z tensor\(float\) \['batch', 6\] for float32 \[any, 7\]"),
        ("tiny", set_to(batch=2), r"z tensor\(float\) \['batch', 6\] for float32 \[2, 6\]"),
        ("tiny", set_to(edits=2), r"direction tensor\(int64\) \['batch', 'edits'\] for int64 \[any, 2\]"),
        ("tiny", set_to(latent="w"), "inputs z, direction, alpha for w, direction, alpha"),
        ("tiny", set_to(num_classes=5), "inputs z, direction, alpha for z, direction, alpha, label"),
        ("tiny", set_to(truncation=None), "inputs z, direction, alpha for z, direction, alpha, truncation"),
        ("tiny", set_to(resolution=[4, 8]), r"image tensor\(uint8\) \['batch', 8, 4, 3\] for uint8 \[any, 4, 8, 3\]"),
        ("tiny", set_to(output="float32"), r"image tensor\(uint8\) .* for float32 \[any, 3, 8, 4\]"),
        ("style_static", set_to(batch=None), r"codes tensor\(float\) \[2, 8, 24\] for float32 \[any, 8, 24\]"),
        ("style_static", set_to(edits=None), r"direction tensor\(int64\) \[2, 3\] for int64 \[2, any\]"),
        ("tiny", add_direction, "its description names 5 directions, its graph has 4"),
        ("tiny", lambda document: document["directions"].pop(), "its description names 3 directions, its graph has 4"),
    ],
)
def test_a_description_of_another_graph_is_refused(
    tmp_path: Path, file: str, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    model = change_description(GOLDEN / f"{file}.onnx", tmp_path / "lying.onnx", change)
    with pytest.raises(ModelFileError, match=rf"lying\.onnx: .*{message}"):
        sefa_runtime.load(model, "cpu")


def test_a_second_graph_behind_the_description_is_refused(tmp_path: Path) -> None:
    source = TINY
    payload = source.read_bytes()[: read_info(source).payload.bytes]  # type: ignore[union-attr]
    model = tmp_path / "merged.onnx"
    model.write_bytes(source.read_bytes() + payload)
    with pytest.raises(ModelFileError, match=r"merged\.onnx: changed after the export: it has 2 graphs"):
        sefa_runtime.load(model, "cpu")


def test_a_server_says_what_is_wrong_with_the_model(sefa_command: Callable[..., Result], tmp_path: Path) -> None:
    model = change_description(TINY, tmp_path / "lying.onnx", set_to(resolution=[4, 8]))
    done = sefa_command("serve", model, "--port", "0")
    assert done.code == 1
    assert "its graph is not as its description says: image" in done.err


def hostile_graph(nodes: Sequence[tuple[str, Sequence[str], dict[str, Any]]], constants: dict[str, Any]) -> bytes:
    """The tiny model with the scalar `extra`, which the last of the nodes makes, added to z."""
    onnx = pytest.importorskip("onnx")
    numpy = pytest.importorskip("numpy")
    model = onnx.load(TINY)
    del model.metadata_props[:]
    graph = model.graph
    reader = next(node for node in graph.node if "z" in node.input)
    reader.input[list(reader.input).index("z")] = "moved"
    outputs = [f"made {index}" for index in range(len(nodes) - 1)] + ["extra"]
    made = [
        onnx.helper.make_node(kind, list(inputs), [output], **attributes)
        for (kind, inputs, attributes), output in zip(nodes, outputs, strict=True)
    ]
    for index, node in enumerate([*made, onnx.helper.make_node("Add", ["z", "extra"], ["moved"])]):
        graph.node.insert(index, node)
    graph.initializer.extend(
        onnx.numpy_helper.from_array(numpy.array(value), name) for name, value in constants.items()
    )
    return bytes(model.SerializeToString())


MEAN = ("ReduceMean", ("made 0",), {"keepdims": 0})
FOLDED: dict[str, tuple[tuple[str, Sequence[str], dict[str, Any]], dict[str, Any]]] = {
    "ConstantOfShape": (("ConstantOfShape", ("size",), {}), {"size": [HUGE]}),
    "Expand": (("Expand", ("one", "size"), {}), {"size": [HUGE], "one": [1.0]}),
    "Pad": (("Pad", ("one", "size"), {}), {"size": [0, HUGE], "one": [1.0]}),
    "Range": (("Range", ("low", "high", "step"), {}), {"low": 0, "high": HUGE, "step": 1}),
    "Add": (("Add", ("a", "b"), {}), {"a": [[1.0]] * 70_000, "b": [[1.0] * 70_000]}),
}


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))


@pytest.mark.parametrize("kind", FOLDED)
def test_constants_are_not_computed_while_a_graph_loads(tmp_path: Path, kind: str) -> None:
    node, constants = FOLDED[kind]
    np = pytest.importorskip("numpy")
    types = np.float32 if kind in ("Expand", "Pad", "Add") else np.int64
    typed = {name: np.array(value, np.int64 if name == "size" else types) for name, value in constants.items()}
    nodes = [node, *([("Cast", ("made 0",), {"to": 1})] if kind == "Range" else [])]
    mean = ("ReduceMean", (f"made {len(nodes) - 1}",), {"keepdims": 0})
    model = replace_graph(TINY, tmp_path / "hostile.onnx", hostile_graph([*nodes, mean], typed))
    program = """
import sys, sefa_runtime
editor = sefa_runtime.load(sys.argv[1], "cpu")
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
try:
    editor.run(z=[0.0] * 6)
except sefa_runtime.RunError as error:
    print(error)
"""
    command = [sys.executable, "-c", program, str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=limit_memory)
    peak_kb, refusal = done.stdout.splitlines()
    assert int(peak_kb) < 1 << 20
    assert "out of memory with 1 images at once" in refusal


def test_functions_are_refused_before_they_are_expanded(tmp_path: Path) -> None:
    """Each calls the next one twice: 2**24 nodes, of a file of a few KB."""
    helper = pytest.importorskip("onnx.helper")
    model = pytest.importorskip("onnx").load_from_string(hostile_graph([MEAN], {}))
    opsets = [helper.make_opsetid("f", 1), helper.make_opsetid("", 18)]
    model.opset_import.append(opsets[0])
    for index in range(24):
        kind, domain = (f"F{index + 1}", "f") if index < 23 else ("Neg", "")
        nodes = [
            helper.make_node(kind, ["a"], ["b"], domain=domain),
            helper.make_node(kind, ["b"], ["c"], domain=domain),
        ]
        model.functions.append(helper.make_function("f", f"F{index}", ["a"], ["c"], nodes, opsets))
    model.graph.node.append(helper.make_node("F0", ["z"], ["more"], domain="f"))
    hostile = replace_graph(TINY, tmp_path / "hostile.onnx", model.SerializeToString())
    with pytest.raises(ModelFileError, match="its graph has functions"):
        sefa_runtime.load(hostile, "cpu")


def test_sparse_tensors_are_refused_before_they_are_expanded(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("values", types.FLOAT, [1], [1.0]), helper.make_tensor("at", types.INT64, [1], [0]), [HUGE]
    )
    model = replace_graph(
        TINY, tmp_path / "hostile.onnx", hostile_graph([("Constant", (), {"sparse_value": sparse}), MEAN], {})
    )
    with pytest.raises(ModelFileError, match="its graph has sparse tensors"):
        sefa_runtime.load(model, "cpu")
    inside = helper.make_graph(
        [helper.make_node("Constant", [], ["e"], sparse_value=sparse)], "branch", [],
        [helper.make_tensor_value_info("e", types.FLOAT, [HUGE])],
    )  # fmt: skip
    branches = {"then_branch": inside, "else_branch": inside}
    model = replace_graph(
        TINY, tmp_path / "hostile.onnx", hostile_graph([("If", ("yes",), branches), MEAN], {"yes": True})
    )
    with pytest.raises(ModelFileError, match="its graph has sparse tensors"):
        sefa_runtime.load(model, "cpu")


def test_weights_in_files_that_the_description_does_not_tell_of_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(b"\0\0\0\0")
    tensor = onnx.TensorProto(data_type=1, data_location=1)
    for key, value in (("location", "secret.bin"), ("offset", "0"), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    model = replace_graph(TINY, tmp_path / "hostile.onnx", hostile_graph([("Constant", (), {"value": tensor})], {}))
    with pytest.raises(ModelFileError, match=r"its graph has weights in 'secret\.bin', which its description does not"):
        sefa_runtime.load(model, "cpu")


def test_a_graph_that_gives_another_shape_than_it_declares_is_an_error(
    sefa_command: Callable[..., Result], tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    np = pytest.importorskip("numpy")
    model = onnx.load(TINY)
    del model.metadata_props[:]
    last = model.graph.node[-1]
    last.output[0] = "right"
    # What shape it is to have comes of the latent, so that nothing but a run can tell.
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array(value, np.int64), name)
        for name, value in (("zero", [0]), ("sizes", [-1, 4, 8, 3]))
    )
    make = onnx.helper.make_node
    model.graph.node.extend(
        [
            make("Cast", ["z"], ["whole"], to=7),
            make("ReduceMax", ["whole"], ["most"], keepdims=0),
            make("Mul", ["most", "zero"], ["nothing"]),
            make("Add", ["nothing", "sizes"], ["shape"]),
            make("Reshape", ["right", "shape"], ["image"]),
        ]
    )
    payload = model.SerializeToString()
    path = replace_graph(TINY, tmp_path / "lying.onnx", payload)
    editor = sefa_runtime.load(path, "cpu")
    with pytest.raises(RunError, match=r"gave an array of shape \[1, 4, 8, 3\], expected \[1, 8, 4, 3\]"):
        editor.edit(seed=1)
    done = sefa_command("serve", path, "--port", "0")  # Never ready.
    assert (done.code, "is ready" in done.out) == (1, False)
    assert "gave an array of shape [1, 4, 8, 3]" in done.err


def test_the_file_of_a_models_weights_is_not_replaced_by_a_result(
    sefa_command: Callable[..., Result], tmp_path: Path
) -> None:
    for name in ("style_w.onnx", "style.safetensors"):
        shutil.copy(GOLDEN / name, tmp_path / name)
    model, weights = tmp_path / "style_w.onnx", tmp_path / "style.safetensors"
    before = weights.read_bytes()
    for arguments in (
        ("bench", model, "-o", weights),
        ("tune", model, "-o", weights),
        ("name", model, "0=smile", "-o", weights),
    ):
        done = sefa_command(*arguments)
        assert (done.code, done.err) == (1, f"sefa: {weights}: is an input, the output would replace it\n")
    assert weights.read_bytes() == before
