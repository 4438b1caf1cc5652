import errno
import itertools
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

import sefa
import sefa_runtime
from sefa.generators import DCGAN
from sefa_export import (
    ExportError,
    VerificationError,
    bake,
    export_onnx,
    export_pt2,
    export_torchscript,
)
from sefa_export.onnx_graph import onnx_export
from sefa_runtime import latents_from_seeds
from sefa_runtime.model.reading import read_info
from support.trained_generators import trained_faces

BATCHES, EDITS = (1, 2, 7, 16), (0, 1, 3)


@pytest.fixture(scope="module")
def faces() -> sefa.Generator:
    return sefa.load(trained_faces())


@pytest.fixture(scope="module")
def bank(faces: sefa.Generator) -> sefa.DirectionBank:
    return sefa.factorize(faces)


@pytest.fixture(scope="module")
def models(
    faces: sefa.Generator, bank: sefa.DirectionBank, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {output: export_onnx(faces, bank, folder / f"{output}.onnx", output) for output in ("uint8", "float32")}


def inputs(batch: int, edits: int) -> tuple[np.ndarray[Any, Any], ...]:
    random = np.random.default_rng(batch * 10 + edits)
    return (
        random.standard_normal((batch, 100), np.float32),
        random.integers(16, size=(batch, edits)),
        random.uniform(-3, 3, (batch, edits)).astype(np.float32),
    )


@pytest.mark.parametrize(("batch", "edits"), list(itertools.product(BATCHES, EDITS)))
def test_float_images_of_faces_are_pytorchs(
    faces: sefa.Generator, bank: sefa.DirectionBank, models: dict[str, Path], batch: int, edits: int
) -> None:
    arrays = inputs(batch, edits)
    image = sefa_runtime.load(models["float32"], "cpu").run(*arrays)
    expected = bake(faces, bank, "float32")(*map(torch.from_numpy, arrays)).numpy()
    np.testing.assert_allclose(image, expected, atol=1e-4)


def test_uint8_images_of_faces_are_pytorchs(
    faces: sefa.Generator, bank: sefa.DirectionBank, models: dict[str, Path]
) -> None:
    editor, graph = sefa_runtime.load(models["uint8"], "cpu"), bake(faces, bank)
    changed = total = 0
    for batch, edits in itertools.product(BATCHES, EDITS):
        arrays = inputs(batch, edits)
        difference = np.abs(editor.run(*arrays).astype(int) - graph(*map(torch.from_numpy, arrays)).numpy())
        assert difference.max() <= 1
        changed, total = changed + int((difference > 0).sum()), total + difference.size
    assert changed <= 0.001 * total


def test_faces_are_those_recorded_from_the_original(models: dict[str, Path], golden: Path) -> None:
    editor = sefa_runtime.load(models["float32"], "cpu")
    with np.load(golden / "checkpoints/dcgan_real_face_64/golden.npz") as recorded:
        image = editor.run(recorded["z"], 0, 0.0)
        np.testing.assert_allclose(image, recorded["img"], atol=1e-4)


def test_directions_of_faces_are_those_recorded_from_the_original(bank: sefa.DirectionBank, golden: Path) -> None:
    with np.load(golden / "checkpoints/dcgan_real_face_64/golden.npz") as recorded:
        np.testing.assert_allclose(bank.vectors.numpy(), recorded["dirs__layer0"][:16], atol=1e-4)


def test_alpha_zero_is_the_same_image_to_the_bit_for_every_direction(models: dict[str, Path]) -> None:
    z = latents_from_seeds(range(4), 100)
    for path in models.values():
        editor = sefa_runtime.load(path, "cpu")
        unedited = editor.run(z, np.zeros((4, 0), int), np.zeros((4, 0)))
        for index in range(16):
            np.testing.assert_array_equal(editor.run(z, index, 0.0), unedited)
            np.testing.assert_array_equal(editor.run(z, index, -0.0), unedited)


def test_an_image_is_the_same_in_any_batch(models: dict[str, Path]) -> None:
    editor = sefa_runtime.load(models["float32"], "cpu")
    z = latents_from_seeds(range(16), 100)
    alone = np.concatenate([editor.run(row, 1, 2.0) for row in z])
    for batch in BATCHES:
        np.testing.assert_allclose(editor.run(z[:batch], 1, 2.0), alone[:batch], atol=1e-5)


def test_the_graph_clamps_a_direction_out_of_range(models: dict[str, Path]) -> None:
    # Past the Editor, which refuses it: as a server of another maker would run the file.
    session = onnxruntime.InferenceSession(str(models["uint8"]), providers=["CPUExecutionProvider"])
    feeds = {"z": latents_from_seeds([1], 100), "alpha": np.full((1, 1), 2.0, np.float32)}
    (outside,) = session.run(None, feeds | {"direction": np.array([[999]])})
    (last,) = session.run(None, feeds | {"direction": np.array([[15]])})
    np.testing.assert_array_equal(outside, last)


def test_the_contract_is_in_the_file(models: dict[str, Path]) -> None:
    model = onnx.load(models["uint8"])
    onnx.checker.check_model(model, full_check=True)

    def axes(value: onnx.ValueInfoProto) -> list[str | int]:
        return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]

    assert {value.name: axes(value) for value in (*model.graph.input, *model.graph.output)} == {
        "z": ["batch", 100],
        "direction": ["batch", "edits"],
        "alpha": ["batch", "edits"],
        "image": ["batch", 64, 64, 3],
    }
    assert [opset.version for opset in model.opset_import] == [18]
    assert model.ir_version == 8  # The first that opset 18 goes with: onnxruntime 1.15 and WinML read it.


def test_only_plain_operators_are_used(models: dict[str, Path]) -> None:
    operators = {node.op_type for node in onnx.load(models["uint8"]).graph.node}
    assert "Gather" in operators
    assert not operators & {"GatherND", "BatchNormalization", "RandomNormalLike", "Loop", "If", "Scan"}


def test_without_edits_no_sum_is_over_an_empty_axis(models: dict[str, Path]) -> None:
    # onnxruntime up to 1.16 refuses it, and so does WebGPU in one of onnxruntime-web's builds.
    model = onnx.load(models["uint8"])
    sums = [node.input[0] for node in model.graph.node if node.op_type.startswith("Reduce")]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in sums)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    z, direction, alpha = inputs(2, 0)
    _, *values = session.run(None, {"z": z, "direction": direction, "alpha": alpha})
    assert sums
    assert all(value.size for value in values)


def test_the_file_describes_itself(models: dict[str, Path], faces: sefa.Generator) -> None:
    info = sefa_runtime.load(models["uint8"], "cpu").info
    assert (info.family, info.latent, info.z_dim, info.resolution) == ("dcgan", "z", 100, (64, 64))
    assert info.source_sha256 == faces.source_sha256
    assert len(info.directions) == 16
    assert info.parity.images == 30
    assert info.parity.max_abs_error <= 1
    assert info.versions["torch"]


def test_nothing_of_this_machine_is_in_the_file(models: dict[str, Path]) -> None:
    content = models["uint8"].read_bytes()
    for trace in (str(Path.home()), str(Path(torch.__file__).parent), "site-packages", "stack_trace", ".py"):
        assert trace.encode() not in content


def test_the_generator_is_left_as_it_was(golden: Path, tmp_path: Path) -> None:
    generator = sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    export_onnx(generator, sefa.factorize(generator), tmp_path / "a.onnx")
    for name, value in generator.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


class Failing(DCGAN):
    """What an exporter gives up on."""

    def decode(self, codes: Tensor) -> Tensor:
        if not torch._C._get_tracing_state() and not torch.compiler.is_exporting():
            return super().decode(codes)
        raise IndexError("index -2 is out of bounds\nfor dimension 1")


@pytest.mark.parametrize("write", [export_onnx, export_torchscript, export_pt2])
def test_what_fails_inside_an_exporter_is_one_line(
    write: Callable[..., Path], golden: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    generator = sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")
    generator.__class__ = Failing
    with pytest.raises(ExportError, match=r"dcgan: torch\.\S+ does not take it: .*index -2 is out") as error_info:
        write(generator, sefa.factorize(generator), tmp_path / "model")
    assert "\n" not in str(error_info.value)
    assert error_info.value.__cause__ is not None
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("write", "options"),
    [
        (export_onnx, {}),
        (export_onnx, {"external_data": "weights.safetensors"}),
        (export_torchscript, {}),
        (export_pt2, {}),
    ],
)
def test_a_disk_that_is_full_is_one_line(
    write: Callable[..., Path],
    options: dict[str, Any],
    golden: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    generator = sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")
    bank = sefa.factorize(generator)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Writing beyond it fails as on a full disk, only with another number.
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as error_info:
            write(generator, bank, tmp_path / "model", **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error_info.value.errno == errno.EFBIG
    assert Path(error_info.value.filename).parent == tmp_path
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_functions_of_an_exporters_are_put_in_place(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")
    bank = sefa.factorize(generator)
    export_onnx(generator, bank, tmp_path / "plain.onnx")
    to_onnx = onnx_export._to_onnx

    def with_a_function(*arguments: Any) -> onnx.ModelProto:
        model = to_onnx(*arguments)
        (node,) = (node for node in model.graph.node if node.op_type == "Tanh")
        inner = onnx.helper.make_node("Tanh", ["x"], ["y"])
        opset = [onnx.helper.make_opsetid("", 18)]
        model.functions.append(onnx.helper.make_function("own", "Last", ["x"], ["y"], [inner], opset))
        model.opset_import.append(onnx.helper.make_opsetid("own", 1))
        node.op_type, node.domain = "Last", "own"
        return model

    monkeypatch.setattr(onnx_export, "_to_onnx", with_a_function)
    export_onnx(generator, bank, tmp_path / "functions.onnx")
    plain, other = (sefa_runtime.load(tmp_path / name, provider="cpu") for name in ("plain.onnx", "functions.onnx"))
    np.testing.assert_array_equal(other.edit(7, edits={1: 2.0}), plain.edit(7, edits={1: 2.0}))


def test_an_export_that_differs_from_pytorch_leaves_no_file(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")
    to_onnx = onnx_export._to_onnx

    def damage(*arguments: Any) -> onnx.ModelProto:
        """An exporter that loses a weight and renames an input."""
        model = to_onnx(*arguments)
        weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        weight.raw_data = bytes(len(weight.raw_data))
        for node in model.graph.node:
            node.input[:] = ["latent" if name == "z" else name for name in node.input]
        model.graph.input[0].name = "latent"
        return model

    monkeypatch.setattr(onnx_export, "_to_onnx", damage)
    (tmp_path / "a.onnx").write_bytes(b"the one before")
    with pytest.raises(VerificationError) as error_info:
        export_onnx(generator, sefa.factorize(generator), tmp_path / "a.onnx")
    assert "inputs latent, direction, alpha for z, direction, alpha" in str(error_info.value)
    assert "batch 7, edits 3" in str(error_info.value)
    assert (tmp_path / "a.onnx").read_bytes() == b"the one before"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("export", "suffix"), [(export_onnx, "onnx"), (export_torchscript, "ts"), (export_pt2, "pt2")])
def test_truncation_may_be_an_input_where_there_is_no_label(
    golden: Path, tmp_path: Path, export: Callable[..., Path], suffix: str
) -> None:
    generator = sefa.load(golden / "checkpoints/tf_stylegan2_32/network.pkl")
    path = export(generator, sefa.factorize(generator, top=3), tmp_path / f"model.{suffix}", truncation=None)
    assert read_info(path).signature.names == ("z", "direction", "alpha", "truncation")


@pytest.mark.parametrize(
    "checkpoint", ["tf_pggan_16/network.pkl", "tf_stylegan_32/network.pkl", "rosi_convert_32/checkpoint.pt"]
)
def test_the_latent_zero_has_pytorchs_image(checkpoint: str, golden: Path, tmp_path: Path) -> None:
    generator = sefa.load(golden / "checkpoints" / checkpoint)
    model = export_onnx(generator, sefa.factorize(generator, top=1), tmp_path / "model.onnx", "float32")
    z, label = torch.zeros(1, generator.z_dim), torch.zeros(1, dtype=torch.int64) if generator.num_classes else None
    labels = {} if label is None else {"label": label.numpy()}
    image = sefa_runtime.load(model, "cpu").run(z.numpy(), np.array([[0]]), np.zeros((1, 1), np.float32), **labels)
    with torch.no_grad():
        expected = generator.decode(generator.encode(z, label))
    # Without what a normalisation adds to the energy of nothing, it would divide by zero.
    np.testing.assert_allclose(image, expected.numpy(), atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of torch.onnx itself
def test_numbers_near_0_and_1_are_kept() -> None:
    class Numbers(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x + 1e-9, 2e-9 + x, x - 1e-9, x * 1.000005, x / 1.000005, x + 0, x * 1], 1)

    program = torch.onnx.export(Numbers().eval(), (torch.zeros(2, 3),), dynamo=True, optimize=False, verbose=False)
    assert program is not None
    onnx_export.protect_numbers(program.model)
    program.optimize()
    operators = [node.op_type for node in program.model_proto.graph.node]
    assert [operators.count(name) for name in ("Add", "Sub", "Mul", "Div")] == [2, 1, 1, 1]
    x = np.zeros((2, 3), np.float32)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x})[0][0, :3, 0], [1e-9, 2e-9, -1e-9])
