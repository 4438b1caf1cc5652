"""Make the small models that the runtime's tests and `sefa doctor` use: python tests/golden/make_models.py"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

import sefa
from sefa.checkpoints.formats.dcgan import build
from sefa.directions.factorization import factorize
from sefa_export import bake, export_onnx
from sefa_runtime.session import provider_problems

GOLDEN = Path(__file__).parent
WEIGHTS = "style.safetensors"
NAMES = ("pose", "light", "direction-2", "direction-3")


def tiny_state_dict() -> dict[str, torch.Tensor]:
    """A DCGAN with latents of 6 and images of 8x4 RGB pixels."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random)

    return {
        "main.0.weight": normal(6, 5, 4, 2),
        "main.1.weight": normal(5),
        "main.1.bias": normal(5),
        "main.1.running_mean": normal(5),
        "main.1.running_var": normal(5).square() + 0.5,
        "main.3.weight": normal(5, 3, 4, 4) * 0.2,
    }


def make_tiny() -> None:
    """tiny.onnx, tiny_float32.onnx, and tiny.npz with what PyTorch computes."""
    generator = build(tiny_state_dict())
    bank = replace(factorize(generator, top=len(NAMES)), names=NAMES)
    for output, name in (("uint8", "tiny.onnx"), ("float32", "tiny_float32.onnx")):
        export_onnx(generator, bank, GOLDEN / name, output)
    random = np.random.default_rng(0)
    z = random.standard_normal((3, 6), np.float32)
    direction = np.array([[0, 1], [2, 3], [1, 0]])
    alpha = random.uniform(-3, 3, (3, 2)).astype(np.float32)
    inputs = [torch.from_numpy(array) for array in (z, direction, alpha)]
    images = {output: bake(generator, bank, output)(*inputs).numpy() for output in ("uint8", "float32")}
    np.savez(GOLDEN / "tiny.npz", z=z, direction=direction, alpha=alpha, **images)


def make_style_models() -> None:
    """style_*.onnx of a class-conditional StyleGAN2 of 32x32 pixels, and style.npz with what PyTorch computes.

    Those of w and w+ share style.safetensors.
    """
    generator = sefa.load(GOLDEN / "checkpoints" / "sefa_stylegan2_cond_32" / "checkpoint.pth")
    bank = factorize(generator, layers="2-3", top=3)
    random = np.random.default_rng(0)
    z = random.standard_normal((3, generator.z_dim), np.float32)
    direction, alpha = np.array([[0, 2], [1, 1], [2, 0]]), random.uniform(-3, 3, (3, 2)).astype(np.float32)
    label, truncation = np.array([0, 5, 2]), np.array([1.0, 0.7, 0.5], np.float32)
    codes = generator.encode(torch.from_numpy(z), torch.from_numpy(label)).numpy()
    codes += 0.3 * random.standard_normal(codes.shape, np.float32)  # As inverted photographs have them.
    inputs = {
        "z": {"z": z, "direction": direction, "alpha": alpha, "label": label, "truncation": truncation},
        "w": {"w": codes[:, 0], "direction": direction, "alpha": alpha},
        "w+": {"codes": codes, "direction": direction, "alpha": alpha},
    }
    images = {}
    (GOLDEN / WEIGHTS).unlink(missing_ok=True)
    for latent, feeds in inputs.items():
        psi = None if latent == "z" else 1.0
        graph = bake(generator, bank, latent=latent, truncation=psi)
        images[f"images_{latent}"] = graph(*map(torch.from_numpy, feeds.values())).numpy()
        shared = None if latent == "z" else WEIGHTS
        path = GOLDEN / f"style_{latent}.onnx"
        export_onnx(generator, bank, path, latent=latent, truncation=psi, external_data=shared)
    export_onnx(generator, bank, GOLDEN / "style_static.onnx", latent="w+", batch=2, num_edits=3)
    every = inputs["z"] | inputs["w"] | inputs["w+"] | images
    np.savez_compressed(GOLDEN / "style.npz", **every)


def make_late_model() -> None:
    """style_late.onnx: a graph of w that is edited from layer 5 of 8 on, and so has a prefix; made after the others."""
    generator = sefa.load(GOLDEN / "checkpoints" / "sefa_stylegan2_cond_32" / "checkpoint.pth")
    bank = factorize(generator, layers="5-7", top=3)
    export_onnx(generator, bank, GOLDEN / "style_late.onnx", latent="w", external_data=WEIGHTS)


def make_probe() -> None:
    """A 3x3 convolution of ones with padding: x [1, 1, 8, 8] -> y [1, 1, 8, 8]."""
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [1, 1, 3, 3], [1.0] * 9)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 8, 8])
    node = helper.make_node("Conv", ["x", "weight"], ["y"], pads=[1, 1, 1, 1])
    graph = helper.make_graph([node], "probe", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, Path(provider_problems.__file__).parent / provider_problems.PROBE)


if __name__ == "__main__":
    make_tiny()
    make_style_models()
    make_late_model()
    make_probe()
