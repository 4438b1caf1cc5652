"""The part of a graph that no edit reaches: found where it is, described, and the same images with and without it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import sefa
import sefa_runtime
from sefa.bank.editing import merge
from sefa_export import export_onnx
from sefa_runtime.inputs.examples import random_inputs
from sefa_runtime.verification import psnr_db
from support.paths import GOLDEN

CHECKPOINTS = GOLDEN / "checkpoints"
STYLEGAN2 = "sefa_stylegan2_cond_32/checkpoint.pth"


def export(path: Path, checkpoint: str, first: int, **options: Any) -> Path:
    generator = sefa.load(CHECKPOINTS / checkpoint)
    layers = [*range(first, generator.num_layers)]
    return export_onnx(generator, sefa.factorize(generator, layers=layers, top=3), path, **options)


@pytest.mark.parametrize(
    ("checkpoint", "first", "options"),
    [
        (STYLEGAN2, 5, {"truncation": None}),
        (STYLEGAN2, 6, {"precision": "fp16"}),
        ("tf_stylegan_32/network.pkl", 5, {"latent": "w+"}),
        ("nv_xl_stem_cond_16/network.pkl", 5, {}),
        ("biggan_tfhub_style_32/G_ema.pth", 3, {}),
        ("lucidrains_32/model_5.pt", 2, {}),
    ],
)
def test_images_in_two_parts(tmp_path: Path, checkpoint: str, first: int, options: dict[str, Any]) -> None:
    model = export(tmp_path / "model.onnx", checkpoint, first, **options)
    parts, whole = sefa_runtime.load(model, "cpu"), sefa_runtime.load(model, "cpu", prefix_mb=0)
    assert parts.info.prefix is not None
    assert 0.1 <= parts.info.prefix.share < 1
    edited = _reached(onnx.load(model))
    assert edited == [False] * parts.info.prefix.nodes + [True] * (len(edited) - parts.info.prefix.nodes)
    for seed, (batch, edits) in enumerate([(2, 1), (3, 2), (1, 0)]):
        feeds = random_inputs(whole.info.signature, np.random.default_rng(seed), batch, edits)
        for _ in range(2):
            image, expected = parts.infer(feeds), whole.infer(feeds)
            if "precision" in options:  # On the CPU, float16 is rounded at other places.
                assert psnr_db(image, expected, 255).min() > 50
            else:
                np.testing.assert_array_equal(image, expected)


def _reached(model: onnx.ModelProto) -> list[bool]:
    """Whether each node depends on an edit, found backwards: a path from it leads to direction or alpha."""
    makers = {name: node for node in model.graph.node for name in node.output}
    known: dict[str, bool] = {"direction": True, "alpha": True}

    def depends(name: str) -> bool:
        if name not in known:
            known[name] = name in makers and any(map(depends, makers[name].input))
        return known[name]

    return [depends(node.output[0]) for node in model.graph.node]


@pytest.mark.parametrize(
    ("first", "options"), [(0, {}), (1, {}), (5, {"batch": 2})], ids=["every layer", "next to nothing", "static"]
)
def test_graphs_without(tmp_path: Path, first: int, options: dict[str, Any]) -> None:
    model = export(tmp_path / "model.onnx", STYLEGAN2, first, latent="w", **options)
    assert sefa_runtime.load(model, "cpu").info.prefix is None


def test_directions_of_several_groups_start_at_the_first(tmp_path: Path) -> None:
    generator = sefa.load(CHECKPOINTS / STYLEGAN2)
    bank = merge([sefa.factorize(generator, layers=layers, top=2) for layers in ([7], [5, 6])])
    model = export_onnx(generator, bank, tmp_path / "model.onnx", latent="w")
    parts, whole = sefa_runtime.load(model, "cpu"), sefa_runtime.load(model, "cpu", prefix_mb=0)
    assert parts.info.prefix is not None
    code = np.random.default_rng(0).standard_normal((1, 1, generator.code_dim), np.float32)
    for direction in range(4):
        for alpha in (-3.0, 2.0):
            image = parts.edit(w=code, edits={direction: alpha})
            np.testing.assert_array_equal(image, whole.edit(w=code, edits={direction: alpha}))
            assert (image != whole.edit(w=code)).any()
