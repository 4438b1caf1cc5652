"""Triton repositories against Triton's own description of its configuration, and against what the graphs take.

`make check-triton` runs a real server on them: see test_triton_server.py.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sefa_runtime
from conftest import Result
from sefa_runtime import InputError
from sefa_runtime.deploy.text_format import to_text
from sefa_runtime.deploy.triton import TritonOptions, triton_config, write_repository
from sefa_runtime.model.reading import read_info
from support.paths import GOLDEN

text_format = pytest.importorskip("google.protobuf.text_format")
FILES = ("tiny", "tiny_float32", "style_z", "style_w", "style_w+", "style_static")
TYPES = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64", "tensor(uint8)": "TYPE_UINT8"}


@cache
def load_protocol() -> ModuleType:
    """tritonclient's `model_config_pb2`, without the package around it, which wants grpc."""
    package = importlib.util.find_spec("tritonclient")
    if package is None or package.submodule_search_locations is None:
        pytest.skip("needs tritonclient")
    path = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def protocol() -> ModuleType:
    return load_protocol()


@pytest.fixture
def parse(protocol: ModuleType) -> Callable[[str], Any]:
    """Read a configuration as Triton does: an unknown field is an error."""
    return lambda text: text_format.Parse(text, protocol.ModelConfig())


def config_of(parse: Callable[[str], Any], file: str, **options: Any) -> Any:
    info = read_info(GOLDEN / f"{file}.onnx")
    return parse(to_text(triton_config("model", info, TritonOptions(**options))))


@pytest.mark.parametrize("file", FILES)
def test_the_tensors_are_those_of_the_graph(parse: Callable[[str], Any], protocol: ModuleType, file: str) -> None:
    config = config_of(parse, file)
    session = onnxruntime.InferenceSession(GOLDEN / f"{file}.onnx", providers=["CPUExecutionProvider"])
    for ours, graphs in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [tensor.name for tensor in ours] == [tensor.name for tensor in graphs]
        for tensor, graph in zip(ours, graphs, strict=True):
            assert protocol.DataType.Name(tensor.data_type) == TYPES[graph.type]
            # As the onnxruntime backend compares them: the reshape is what the graph sees, behind a batch of any size.
            shape = list(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)
            expected = [size if isinstance(size, int) else -1 for size in graph.shape]
            assert ([-1] if config.max_batch_size else []) + shape == expected


def test_a_model_of_no_edits_is_refused() -> None:
    info = replace(read_info(GOLDEN / "tiny.onnx"), num_edits=0)
    with pytest.raises(InputError, match="no input of size 0: export it without --edits"):
        triton_config("model", info, TritonOptions())


def test_one_number_per_image_is_a_column_to_clients_and_a_row_to_the_graph(parse: Callable[[str], Any]) -> None:
    tensors = {tensor.name: tensor for tensor in config_of(parse, "style_z").input}
    for name in ("label", "truncation"):
        assert list(tensors[name].dims) == [1]
        assert tensors[name].HasField("reshape")
        assert list(tensors[name].reshape.shape) == []


def test_a_fixed_batch_is_in_the_shapes_and_not_batched(parse: Callable[[str], Any]) -> None:
    config = config_of(parse, "style_static")
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert [list(tensor.dims) for tensor in config.input] == [[2, 8, 24], [2, 3], [2, 3]]
    assert [(sample.name, sample.batch_size) for sample in config.model_warmup] == [("batch 2", 1)]


def test_requests_are_batched_within_limits(parse: Callable[[str], Any]) -> None:
    batching = config_of(
        parse, "tiny", max_batch=8, max_delay_ms=1.5, preferred_batch=(4, 2), max_queue=7, timeout_s=0.5
    ).dynamic_batching
    assert list(batching.preferred_batch_size) == [2, 4]
    assert batching.max_queue_delay_microseconds == 1500
    policy = batching.default_queue_policy
    assert (policy.default_timeout_microseconds, policy.max_queue_size) == (500_000, 7)
    assert policy.timeout_action == policy.REJECT
    default = config_of(parse, "tiny")
    assert (default.max_batch_size, list(default.dynamic_batching.preferred_batch_size)) == (16, [16])


def test_sessions_go_where_they_are_told(parse: Callable[[str], Any]) -> None:
    def group(**options: Any) -> Any:
        (only,) = config_of(parse, "tiny", **options).instance_group
        return only

    gpus, cpu, auto = group(gpus=2, instances=3), group(cpu=True), group()
    assert (gpus.kind, gpus.count, list(gpus.gpus)) == (gpus.KIND_GPU, 3, [0, 1])
    assert (cpu.kind, cpu.count, list(cpu.gpus)) == (cpu.KIND_CPU, 1, [])
    assert (auto.kind, auto.count, list(auto.gpus)) == (auto.KIND_AUTO, 1, [])


def test_warm_up_has_every_input_in_the_clients_shape(parse: Callable[[str], Any]) -> None:
    config = config_of(parse, "style_z", max_batch=4)
    assert [sample.batch_size for sample in config.model_warmup] == [1, 4]
    for sample in config.model_warmup:
        dims = {name: list(value.dims) for name, value in sample.inputs.items()}
        assert dims == {"z": [24], "direction": [1], "alpha": [1], "label": [1], "truncation": [1]}
        assert all(value.zero_data for value in sample.inputs.values())


def test_providers_options(parse: Callable[[str], Any]) -> None:
    config = config_of(parse, "tiny", gpus=1)
    assert config.backend == "onnxruntime"
    assert config.parameters["cudnn_conv_algo_search"].string_value == "1"
    assert not config.HasField("optimization")
    config = config_of(parse, "tiny", tensorrt=True, precision="fp16", engine_cache="/engines")
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert dict(accelerator.parameters) == {
        "precision_mode": "FP16",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "/engines",
    }
    config = config_of(parse, "tiny", cpu=True, threads=3)
    assert set(config.parameters) == {"directions", "intra_op_thread_count"}


def test_the_directions_are_in_the_configuration(parse: Callable[[str], Any]) -> None:
    bank = json.loads(config_of(parse, "tiny").parameters["directions"].string_value)
    assert [direction["name"] for direction in bank] == ["pose", "light", "direction-2", "direction-3"]
    info = read_info(GOLDEN / "tiny.onnx")
    assert [tuple(direction["alpha_range"]) for direction in bank] == [item.alpha_range for item in info.directions]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_text_format(text: str) -> None:
    config = text_format.Parse(to_text({"name": text}), load_protocol().ModelConfig())
    assert config.name == text


@pytest.mark.parametrize("file", FILES)
def test_the_inputs_for_perf_analyzer_are_edits_of_the_model(
    parse: Callable[[str], Any], tmp_path: Path, file: str
) -> None:
    (folder,) = write_repository({"model": GOLDEN / f"{file}.onnx"}, tmp_path / "repo", TritonOptions(cpu=True))
    config = parse((folder / "config.pbtxt").read_text())
    editor = sefa_runtime.load(GOLDEN / f"{file}.onnx", "cpu")
    low, high = zip(*[direction.alpha_range for direction in editor.info.directions], strict=True)
    for entry in json.loads((folder / "perf_input.json").read_text())["data"]:
        assert list(entry) == [tensor.name for tensor in config.input]
        for tensor in config.input:
            shape = entry[tensor.name]["shape"]
            assert len(shape) == len(tensor.dims)
            assert all(wanted in (-1, size) for wanted, size in zip(tensor.dims, shape, strict=True))
        arrays = {name: np.reshape(value["content"], value["shape"]) for name, value in entry.items()}
        alpha, direction = arrays["alpha"], arrays["direction"]
        assert (alpha >= np.array(low)[direction]).all()
        assert (alpha <= np.array(high)[direction]).all()
        editor.run(
            **{name: value[None] if config.max_batch_size else value for name, value in arrays.items()}
            | {name: arrays[name] for name in ("label", "truncation") if name in arrays}
        )


def test_a_repository_has_the_model_and_its_directions(tmp_path: Path, parse: Callable[[str], Any]) -> None:
    models = {"a": GOLDEN / "tiny.onnx", "b-2": GOLDEN / "style_z.onnx"}
    folders = write_repository(models, tmp_path / "repo", TritonOptions())
    assert [folder.relative_to(tmp_path) for folder in folders] == [Path("repo/a"), Path("repo/b-2")]
    for (name, path), folder in zip(models.items(), folders, strict=True):
        assert parse((folder / "config.pbtxt").read_text()).name == name
        assert (folder / "1" / "model.onnx").read_bytes() == path.read_bytes()
    assert (folders[0] / "labels.txt").read_text() == "pose\nlight\ndirection-2\ndirection-3\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["repo"]


def test_weights_beside_the_model_go_along(tmp_path: Path) -> None:
    (folder,) = write_repository({"w": GOLDEN / "style_w.onnx"}, tmp_path / "repo", TritonOptions())
    assert sorted(path.name for path in (folder / "1").iterdir()) == ["model.onnx", "style.safetensors"]
    w = np.ones((1, sefa_runtime.load(GOLDEN / "style_w.onnx", "cpu").info.code_dim), np.float32)
    copied, original = (
        sefa_runtime.load(path, "cpu") for path in (folder / "1" / "model.onnx", GOLDEN / "style_w.onnx")
    )
    np.testing.assert_array_equal(copied.run(w=w), original.run(w=w))


def test_a_repository_keeps_its_other_models(tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    repository.mkdir()
    write_repository({"a": GOLDEN / "tiny.onnx", "b": GOLDEN / "tiny.onnx"}, repository, TritonOptions())
    before = (repository / "a" / "config.pbtxt").read_text()
    write_repository({"b": GOLDEN / "style_w.onnx", "c": GOLDEN / "tiny.onnx"}, repository, TritonOptions(gpus=1))
    assert sorted(folder.name for folder in repository.iterdir()) == ["a", "b", "c"]
    assert (repository / "a" / "config.pbtxt").read_text() == before
    assert (repository / "b" / "1" / "model.onnx").read_bytes() == (GOLDEN / "style_w.onnx").read_bytes()


def test_a_folder_of_something_else_is_not_touched_unless_forced(tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    (repository / "tiny").mkdir(parents=True)
    (repository / "tiny" / "config.pbtxt").write_text('name: "tiny"\n')
    (repository / "notes.txt").write_text("keep")
    with pytest.raises(FileExistsError, match=r"is a folder with other things in it \(notes\.txt\)"):
        write_repository({"tiny": GOLDEN / "tiny.onnx"}, repository, TritonOptions())
    assert (repository / "tiny" / "config.pbtxt").read_text() == 'name: "tiny"\n'
    write_repository({"tiny": GOLDEN / "tiny.onnx"}, repository, TritonOptions(), force=True)
    assert (repository / "notes.txt").read_text() == "keep"
    assert (repository / "tiny" / "1" / "model.onnx").exists()


@pytest.mark.parametrize("existing", [False, True])
def test_a_repository_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    repository = tmp_path / "repo"
    if existing:
        write_repository({"a": GOLDEN / "tiny.onnx", "b": GOLDEN / "tiny.onnx"}, repository, TritonOptions())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    copied: list[Path] = []

    def full_disk(source: Path, target: Path) -> None:
        copied.append(target)
        if len(copied) == 2:
            raise OSError(28, "No space left on device", str(target))
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(shutil, "copyfile", full_disk)
    models = {"a": GOLDEN / "style_w.onnx", "b": GOLDEN / "style_w.onnx"}
    with pytest.raises(OSError, match="No space left") as raised:
        write_repository(models, repository, TritonOptions())
    assert raised.value.filename == str(repository)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == (["repo"] if existing else [])


def test_a_failing_move_puts_everything_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "repo"
    write_repository({"a": GOLDEN / "tiny.onnx", "b": GOLDEN / "tiny.onnx"}, repository, TritonOptions())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    rename, moves = Path.rename, 0

    def failing(self: Path, target: Path) -> Path:
        nonlocal moves
        moves += 1
        if moves == 4:  # a out, a in, b out, b in.
            raise OSError(5, "Input/output error", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Input/output error"):
        write_repository({"a": GOLDEN / "style_w.onnx", "b": GOLDEN / "style_w.onnx"}, repository, TritonOptions())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_models_that_a_killed_process_had_moved_away_come_back(tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    write_repository({"a": GOLDEN / "tiny.onnx", "b": GOLDEN / "tiny.onnx"}, repository, TritonOptions())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    program = """
import os, sys
from pathlib import Path
from sefa_runtime.deploy.triton import TritonOptions, write_repository
rename = Path.rename
def move_and_die(self, target):
    rename(self, target)
    os.kill(os.getpid(), 9)
Path.rename = move_and_die
write_repository({"a": Path(sys.argv[1])}, Path(sys.argv[2]), TritonOptions())
"""
    subprocess.run([sys.executable, "-c", program, GOLDEN / "style_w.onnx", repository], check=False)
    assert not (repository / "a").exists()
    write_repository({"b": GOLDEN / "tiny.onnx"}, repository, TritonOptions())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gpus": 0}, "gpus must be in 1..64, got 0"),
        ({"cpu": True, "gpus": 1}, "cpu and gpus exclude each other"),
        ({"cpu": True, "tensorrt": True}, "cpu and tensorrt exclude each other"),
        ({"max_delay_ms": -1.0}, "max-delay-ms must be in 0..10000, got -1"),
        ({"max_batch": 4, "preferred_batch": (8,)}, "a preferred batch must be in 1..4, got 8"),
        ({"threads": 2}, "threads are of sessions on the CPU: give cpu too"),
        ({"engine_cache": "/x"}, "an engine cache is TensorRT's: give tensorrt too"),
        ({"tensorrt": True, "precision": "int8"}, "precision must be fp32 or fp16, got 'int8'"),
        (
            {"precision": "fp16"},
            "precision is TensorRT's: give tensorrt too; onnxruntime computes in the one the model was exported in",
        ),
    ],
)
def test_impossible_options_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        TritonOptions(**arguments)
    assert str(raised.value) == message


def test_options_that_do_not_fit_the_model_are_named() -> None:
    static = read_info(GOLDEN / "style_static.onnx")
    with pytest.raises(InputError, match="m was exported for a batch of just 2: Triton cannot batch its requests"):
        triton_config("m", static, TritonOptions(max_batch=4))
    for name in ("", ".hidden", "a b", "a/b", "style_w+", "é"):
        with pytest.raises(InputError, match="give it as NAME=PATH"):
            triton_config(name, static, TritonOptions())


def test_the_command_writes_a_repository_without_torch(without_torch: Callable[..., Result], tmp_path: Path) -> None:
    models = [GOLDEN / "tiny.onnx", f"codes={GOLDEN / 'style_w+.onnx'}"]
    done = without_torch("triton", *models, "-o", tmp_path / "repo", "--gpus", "1", "--preferred-batch", "4,8")
    assert (done.code, done.err) == (0, "")
    assert f"{tmp_path / 'repo' / 'codes'}: 1, config.pbtxt, labels.txt, perf_input.json" in done.out
    assert "preferred_batch_size: [4, 8]" in (tmp_path / "repo" / "tiny" / "config.pbtxt").read_text()


def test_bad_input_is_one_line_and_no_repository(sefa_command: Callable[..., Result], tmp_path: Path) -> None:
    model = GOLDEN / "tiny.onnx"
    damaged = tmp_path / "damaged.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 4] ^= 1
    damaged.write_bytes(content)
    for arguments in (
        [tmp_path / "none.onnx"],
        [GOLDEN / "README.md"],
        [damaged],
        [model, model],
        [GOLDEN / "style_w+.onnx"],
        [model, "--cpu", "--gpus", "1"],
        [model, "--preferred-batch", "x"],
    ):
        done = sefa_command("triton", *arguments, "-o", tmp_path / "repo")
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 1), done
    done = sefa_command("triton", model, "-o", tmp_path / "no" / "repo")
    assert (done.code, done.err) == (1, f"sefa: {tmp_path / 'no'}: no such folder\n")
    done = sefa_command("triton", model, "-o", damaged)
    assert (done.code, done.err) == (1, f"sefa: {damaged}: is a file, a folder was expected\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["damaged.onnx"]
