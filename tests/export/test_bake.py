import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sefa
from sefa import ArgumentError, BankError
from sefa_export import EditGraph, bake, export_onnx
from sefa_export.bake import quantize
from sefa_runtime import NotFiniteError
from sefa_runtime.editor import check_finite
from support.paths import CHECKPOINTS


@pytest.fixture
def generator(golden: Path) -> sefa.Generator:
    return sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")


@pytest.fixture
def graph(generator: sefa.Generator) -> EditGraph:
    return bake(generator, sefa.factorize(generator, top=5), output_type="float32")


def test_edits_are_those_recorded_from_the_original(graph: EditGraph, generator: sefa.Generator, golden: Path) -> None:
    every = bake(generator, sefa.factorize(generator, top=20), output_type="float32")
    with np.load(golden / "checkpoints/dcgan_small_64/golden.npz") as recorded:
        z = torch.from_numpy(recorded["z"][recorded["edit_batch"]])
        top, bottom, left, right = recorded["crop_box"]
        for index, alpha, expected in zip(
            recorded["edit_index__layer0"], recorded["edit_alpha"], recorded["imgcrop_edit__layer0"], strict=True
        ):
            image = every(z, torch.tensor([[int(index)]]), torch.tensor([[float(alpha)]]))
            np.testing.assert_allclose(image[:, :, top:bottom, left:right].numpy(), expected, atol=1e-4)


def test_several_edits_add_up(graph: EditGraph, generator: sefa.Generator) -> None:
    z = torch.randn(2, 20, generator=torch.Generator().manual_seed(0))
    image = graph(z, torch.tensor([[0, 3, 3], [1, 2, 4]]), torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 3.0]]))
    n = graph.vectors
    moved = z + torch.stack([n[0] - 1.5 * n[3], n[2] + 3 * n[4]])
    torch.testing.assert_close(image, generator.decode(generator.encode(moved)), atol=1e-5, rtol=0)


def test_an_edit_touches_only_its_layers(generator: sefa.Generator) -> None:
    bank = sefa.factorize(generator, top=2)
    untouched = replace(bank, edited_layers=torch.tensor([[True], [False]]))
    z = torch.zeros(1, 20)
    graph = bake(generator, untouched)
    unedited = graph(z, torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0))
    assert (graph(z, torch.tensor([[0]]), torch.tensor([[3.0]])) != unedited).any()
    assert (graph(z, torch.tensor([[1]]), torch.tensor([[3.0]])) == unedited).all()


def test_directions_out_of_range_are_clamped(graph: EditGraph) -> None:
    z, alpha = torch.zeros(1, 20), torch.tensor([[2.0]])
    for outside, last in ((99, 4), (-1, 0)):
        torch.testing.assert_close(
            graph(z, torch.tensor([[outside]]), alpha), graph(z, torch.tensor([[last]]), alpha), atol=0, rtol=0
        )


def test_uint8_is_the_image_in_255_levels(generator: sefa.Generator) -> None:
    bank = sefa.factorize(generator)
    inputs = torch.randn(2, 20), torch.tensor([[0], [1]]), torch.tensor([[30.0], [-30.0]])
    image, levels = bake(generator, bank, "float32")(*inputs), bake(generator, bank)(*inputs)
    assert (levels.dtype, levels.shape) == (torch.uint8, (2, 64, 64, 3))
    error = levels.permute(0, 3, 1, 2).double() - (image.double() + 1) * 127.5
    assert float(error.abs().max()) <= 0.5 + 1e-4


def test_what_does_not_belong_together_is_refused(generator: sefa.Generator) -> None:
    bank = sefa.factorize(generator)
    with pytest.raises(ArgumentError, match="output must be uint8 or float32, got 'png'"):
        bake(generator, bank, "png")
    with pytest.raises(ArgumentError, match=r"must be in float32, got torch\.float16"):
        bake(sefa.load(CHECKPOINTS / "dcgan_small_64/netG.pth").half(), bank)
    wrong: Any = "bank.safetensors"
    with pytest.raises(ArgumentError, match=r"^a direction bank was expected, got str: sefa\.factorize finds one"):
        bake(generator, wrong)
    swapped: Any = bank, generator, "model.onnx"
    with pytest.raises(ArgumentError, match=r"^a generator was expected, got DirectionBank: sefa\.load reads one"):
        export_onnx(*swapped)
    other: Any = replace(bank.source, checkpoint_sha256="0" * 64)
    with pytest.raises(BankError, match="another checkpoint"):
        bake(generator, replace(bank, source=other))


def test_an_edit_of_layers_4_to_7_changes_exactly_their_codes(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = sefa.load(golden / "checkpoints/sefa_stylegan2_64/checkpoint.pth")
    drawn: list[Tensor] = []
    decode = generator.decode

    def draw(codes: Tensor) -> Tensor:
        drawn.append(codes)
        return decode(codes)

    monkeypatch.setattr(generator, "decode", draw)
    graph = bake(generator, sefa.factorize(generator, layers="4-7"))
    z = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    for alpha in (0.0, 2.0):
        graph(z, torch.tensor([[0, 5]] * 2), torch.full((2, 2), alpha))
    unedited, edited = drawn
    changed = (edited != unedited).any(dim=2)  # [N, L]
    assert changed.tolist() == [[4 <= layer <= 7 for layer in range(10)]] * 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_image_that_is_not_finite_is_none(value: float) -> None:
    image = torch.rand(3, 3, 4, 6) * 2.4 - 1.2
    expected = (image.numpy() * 127.5 + 128).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(quantize(image).numpy(), expected)
    check_finite(expected)
    image[1, 2, 3, 5] = value  # One value of one image.
    expected[1] = np.array([0, 255, 0, 255, 0, 255], np.uint8)[:, None]
    np.testing.assert_array_equal(quantize(image).numpy(), expected)
    with pytest.raises(NotFiniteError, match="in 1 of 3 images, the first is image 1"):
        check_finite(expected)
