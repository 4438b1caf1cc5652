"""Tensors of torch where numbers are asked for: their values are taken, or one line says why not."""

from typing import Any

import numpy as np
import pytest

from sefa_runtime import Editor, InputError

torch = pytest.importorskip("torch")


@pytest.fixture
def z() -> Any:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((2, 6), np.float32))


def assert_same(images: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    np.testing.assert_array_equal(images, expected)


def test_a_gradient_does_not_matter(tiny: Editor, z: Any) -> None:
    alpha = torch.tensor([1.5, -2.0])
    expected = tiny.run(z.numpy(), [0, 1], alpha.numpy())
    with_gradient = z.clone().requires_grad_()
    for latents in (with_gradient, torch.nn.Parameter(z), list(with_gradient), [list(row) for row in with_gradient]):
        assert_same(tiny.run(latents, torch.tensor([0, 1]), alpha.clone().requires_grad_()), expected)
    assert_same(tiny.edit(z=with_gradient, edits={0: alpha.requires_grad_()}), tiny.edit(z=z, edits={0: [1.5, -2.0]}))
    steps = torch.linspace(-1, 1, 3)
    assert_same(tiny.sweep(z=z, alphas=steps.clone().requires_grad_()), tiny.sweep(z=z, alphas=steps.tolist()))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "float8_e4m3fn"])
def test_any_precision_is_taken(tiny: Editor, z: Any, dtype: str) -> None:
    given = z.to(getattr(torch, dtype))
    assert_same(tiny.run(given), tiny.run(given.float().numpy()))
    assert_same(tiny.edit(1, edits={0: given[0, 0]}), tiny.edit(1, edits={0: float(given[0, 0])}))


def test_bfloat16_of_numpy_is_taken(tiny: Editor, z: Any) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    given = z.numpy().astype(ml_dtypes.bfloat16)
    assert_same(tiny.run(given), tiny.run(given.astype(np.float32)))


def test_integers_may_be_tensors(tiny: Editor) -> None:
    expected = tiny.sweep([3, 4], direction=1)
    assert_same(tiny.sweep(torch.tensor([3, 4]), direction=torch.tensor(1)), expected)
    assert_same(tiny.sweep([torch.tensor(3), torch.tensor(4)], direction=np.array(1)), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda z: z.to("meta"), "z must be an array of numbers, got Tensor: Cannot copy out of meta tensor"),
        (lambda z: z.to_sparse(), "Use Tensor.to_dense"),
        (lambda z: z.to(torch.complex64), "z must be numbers, got complex64"),
        (lambda z: z > 0, "z must be numbers, got bool"),
        (lambda z: ["one", "two"], "z must be numbers, got text"),
        (lambda z: z / 0, "z must be finite"),
        (lambda z: np.ma.masked_greater(z.numpy(), 0), "got masked values"),
    ],
)
def test_what_has_no_numbers_is_refused(tiny: Editor, z: Any, make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny.run(make(z))


@pytest.mark.parametrize(
    "arguments",
    [
        {"seed": torch.tensor([3.0])},
        {"seed": [[1, 2], [3]]},
        {"seed": torch.tensor(3, device="meta")},
        {"seed": 1, "edits": [(0, 1.0)]},
        {"seed": 1, "edits": np.zeros(2)},
        {"seed": 1, "edits": {torch.tensor(0.0): 1.0}},
        {"seed": 1, "edits": {0: None}},
    ],
)
def test_nor_are_other_things_taken_for_something(tiny: Editor, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        tiny.edit(**arguments)
