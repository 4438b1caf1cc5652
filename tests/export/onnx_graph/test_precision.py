from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator

import sefa
from sefa import ArgumentError
from sefa_export import VerificationError, bake, export_onnx
from sefa_runtime.model.reading import read_info
from sefa_runtime.verification import psnr_db
from support.paths import CHECKPOINTS


@pytest.fixture(scope="module")
def generator() -> sefa.Generator:
    return sefa.load(CHECKPOINTS / "sefa_stylegan2_cond_32" / "checkpoint.pth")


@pytest.fixture(scope="module")
def half(generator: sefa.Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("half")
    return export_onnx(generator, sefa.factorize(generator), folder / "half.onnx", "float32", precision="fp16")


def test_the_images_are_near_and_the_file_says_how_near(generator: sefa.Generator, half: Path) -> None:
    info = read_info(half)
    assert info.precision == "fp16"
    assert info.parity.images >= 64
    assert info.parity.psnr_db is not None
    assert info.parity.psnr_db >= 40
    feeds = {
        "z": torch.randn(3, 24, generator=torch.Generator().manual_seed(0)),
        "direction": torch.tensor([[0], [1], [2]]),
        "alpha": torch.tensor([[1.0], [-2.0], [3.0]]),
        "label": torch.tensor([0, 3, 5]),
    }
    session = onnxruntime.InferenceSession(str(half), providers=["CPUExecutionProvider"])
    (image,) = session.run(None, {name: value.numpy() for name, value in feeds.items()})
    expected = bake(generator, sefa.factorize(generator), "float32")(**feeds).numpy()
    assert np.abs(image - expected).max() > 0  # It is another arithmetic.
    assert psnr_db(image, expected, 2.0).min() >= 40


def test_convolutions_are_half_and_what_decides_the_scale_is_not(half: Path) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load(half))
    kinds = {
        value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)
    } | {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    seen = set()
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            assert kinds[node.output[0]] == onnx.TensorProto.FLOAT16, node.name
        if node.op_type in ("Gemm", "MatMul", "ReduceMean", "Reciprocal", "Sqrt"):
            assert kinds[node.output[0]] == onnx.TensorProto.FLOAT, node.name
        seen.add(node.op_type)
    assert {"Conv", "Sqrt"} <= seen
    assert {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} == {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.INT64,
    }


def test_a_layer_that_overflows_is_named_and_leaves_no_file(tmp_path: Path) -> None:
    path = CHECKPOINTS / "dcgan_small_64" / "netG.pth"
    generator = sefa.load(path)
    state = generator.state_dict()
    state["layers.4.weight"] *= 1e6  # Features beyond float16,
    state["layers.6.weight"] *= 1e-6  # which the next layer takes back.
    with pytest.raises(VerificationError, match=r"half precision .*; .* overflows float16: it reaches"):
        export_onnx(generator, sefa.factorize(generator), tmp_path / "a.onnx", precision="fp16")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "checkpoint",
    [
        "biggan_tfhub_style_32/G_ema.pth",
        "nv_sg3_t_32/network.pkl",  # Its channels are padded with zeros.
        "nv_xl_stem_cond_16/network.pkl",
        "rosi_convert_32/checkpoint.pt",
        "tf_stylegan_32/network.pkl",
    ],
)
def test_every_operator_may_round_to_float16(checkpoint: str, tmp_path: Path) -> None:
    check_in_half_precision(sefa.load(CHECKPOINTS / checkpoint), tmp_path / "a.onnx")


@pytest.mark.parametrize(("scale", "spread"), [(1.0, 0.0), (1e3, 1.0)], ids=["nothing to divide by", "large squares"])
@pytest.mark.parametrize("checkpoint", ["tf_pggan_16/network.pkl", "fb_pgan_32/checkpoint.pt"])
def test_a_normalisation_takes_what_float16_does_not_hold(
    checkpoint: str, scale: float, spread: float, tmp_path: Path
) -> None:
    generator = sefa.load(CHECKPOINTS / checkpoint)
    for name, value in generator.state_dict().items():
        if name.startswith(("dense", "convs")):
            value *= 0 if name.endswith("bias") else scale  # Pixels are normalised after each.
    check_in_half_precision(generator, tmp_path / "a.onnx", spread)


def check_in_half_precision(generator: sefa.Generator, path: Path, spread: float = 1.0) -> None:
    """Compare a file in half precision, where every operator rounds, with PyTorch in float32.

    onnxruntime has hardly any kernels for float16 on a CPU, and computes in float32 what is between two of them.
    """
    bank = sefa.factorize(generator, top=1)
    export_onnx(generator, bank, path, "float32", precision="fp16")
    feeds = {
        "z": spread * torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(0)),
        "direction": torch.zeros(2, 1, dtype=torch.int64),
        "alpha": torch.zeros(2, 1),
        "label": torch.zeros(2, dtype=torch.int64),
    }
    graph = bake(generator, bank, "float32")
    feeds = {name: feeds[name] for name in graph.input_names}
    arrays = {name: value.numpy() for name, value in feeds.items()}
    images = ReferenceEvaluator(onnx.load(path)).run(None, arrays)
    assert isinstance(images, list)
    expected = graph(**feeds).detach().numpy()
    np.testing.assert_allclose(images[0], expected, rtol=0, atol=0.02 * max(1, np.abs(expected).max()))


def test_an_unknown_precision_is_refused(generator: sefa.Generator, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="precision must be fp32 or fp16, got 'int8'"):
        export_onnx(generator, sefa.factorize(generator), tmp_path / "a.onnx", precision="int8")
