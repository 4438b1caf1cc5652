"""A file's tensors become a generator's parameters, and all that does not fit is said at once."""

import re
import traceback
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from sefa.checkpoints.parts.assembly import Assembly, Parameters
from sefa.errors import CheckpointError
from sefa.generators.generator import Generator, Truncation


class Small(Generator):
    """Two linear layers and a number."""

    family = "small"

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.second = nn.Linear(3, 4)
        self.gain = nn.Parameter(torch.empty(1))

    def _encode(self, z: Tensor, label: Tensor | None, truncation: Truncation, truncation_layers: int | None) -> Tensor:
        return z[:, None]

    def decode(self, codes: Tensor) -> Tensor:
        image: Tensor = self.second(self.first(codes[:, 0]) * self.gain)
        return image

    def affines(self) -> list[Tensor]:
        return [self.first.weight]


def tensors() -> dict[str, Tensor]:
    return {
        "a.weight": torch.arange(6.0).reshape(2, 3),  # stored [in, out]
        "a.bias": torch.ones(1, 3),
        "b.weight": torch.arange(12.0).reshape(4, 3),
        "b.bias": torch.zeros(4),
        "gain": torch.tensor(2.0),
        "step": torch.tensor(7),
    }


def turned(weight: Tensor, bias: Tensor, scale: float = 1.0) -> Parameters:
    return {"weight": weight.T * scale, "bias": bias.reshape(-1)}


def as_vector(gain: Tensor) -> Parameters:
    return {"gain": gain.reshape(1)}


def filled(stored: dict[str, Tensor], make: object = turned, ignored: tuple[str, ...] = ("step",)) -> Small:
    file = Assembly(stored)
    with torch.device("meta"):
        generator = Small()
    file.layer(generator, as_vector, gain=("gain", 1))
    file.layer(generator.first, make, weight=("a.weight", (2, 3)), bias=("a.bias", 3))  # type: ignore[arg-type]
    file.layer(generator.second, weight="b.weight", bias="b.bias")
    return file.fill(generator, ignored)


def problems(stored: dict[str, Tensor], **options: object) -> str:
    with pytest.raises(CheckpointError) as caught:
        filled(stored, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_parameters_are_what_the_layers_functions_make() -> None:
    generator = filled(tensors(), partial(turned, scale=2.0))
    assert torch.equal(generator.first.weight, 2 * torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]))
    assert torch.equal(generator.first.bias, torch.ones(3))
    assert torch.equal(generator.second.weight, tensors()["b.weight"])
    assert torch.equal(generator.gain, torch.tensor([2.0]))
    assert not generator.training
    assert not any(parameter.requires_grad for parameter in generator.parameters())


def test_all_problems_are_in_one_message_with_the_layers_they_belong_to() -> None:
    stored = tensors() | {"a.scale": torch.ones(3), "c": torch.ones(1), "b.bias": torch.ones(5)}
    del stored["a.bias"], stored["gain"]
    assert problems(stored, ignored=()) == (
        "missing gain for gain, a.bias for first; not understood step, a.scale beside first, c; of the wrong shape "
        "b.bias [5] for second where [4] was expected; a variant of the original is read with its own code: "
        "MODULE:CLASS --weights FILE"
    )


@pytest.mark.parametrize(
    ("key", "tensor", "message"),
    [
        ("a.bias", torch.ones(2), r"a\.bias \[2\] for first where 3 numbers were expected"),
        ("a.weight", torch.ones(3, 2), r"a\.weight \[3, 2\] for first where \[2, 3\] was expected"),
        ("b.weight", torch.ones(4, 3).long(), r"b\.weight torch\.int64 for second where floating point"),
    ],
)
def test_tensors_that_do_not_fit_are_described(key: str, tensor: Tensor, message: str) -> None:
    assert re.search(f"of the wrong shape {message}", problems(tensors() | {key: tensor}))


def test_no_function_is_called_where_something_does_not_fit() -> None:
    def fail(weight: Tensor, bias: Tensor) -> Parameters:
        raise AssertionError

    assert problems(tensors() | {"strange": torch.ones(1)}, make=fail).startswith("not understood strange;")


def test_a_mistake_in_a_layers_function_flies_from_it_and_names_the_layer() -> None:
    def wrong(weight: Tensor, bias: Tensor) -> Parameters:
        return {"weight": weight @ weight, "bias": bias}

    with pytest.raises(RuntimeError) as caught:
        filled(tensors(), wrong)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "wrong"
    assert caught.value.__notes__ == ["while making first of a.weight, a.bias"]


def test_what_a_layers_function_refuses_names_the_layer() -> None:
    def refuse(weight: Tensor, bias: Tensor) -> Parameters:
        raise CheckpointError("its values are all zero")

    assert problems(tensors(), make=refuse) == "first: its values are all zero"


def test_a_function_that_makes_something_else_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match=r"first\.weight"):
        filled(tensors(), lambda weight, bias: {"weight": weight, "bias": bias.reshape(-1)})
    with pytest.raises(AssertionError, match=r"first\.bias"):
        filled(tensors(), lambda weight, bias: {"weight": weight.T})


def test_sizes_of_a_tensor_that_is_missing_or_of_other_axes_are_ones_until_it_is_reported() -> None:
    file = Assembly(tensors())
    assert file.shape("a.weight", 2) == (2, 3)
    assert str(file.misfit("3 is not 2")) == "3 is not 2"
    assert file.shape("nothing.weight", 2) == (1, 1)
    assert file.shape("b.bias", 2) == (1, 1)
    message = "missing nothing.weight; of the wrong shape b.bias [4] where 2 axes were expected"
    assert str(file.misfit("1 is not 2")).startswith(message)
    with torch.device("meta"):
        generator = Small()
    file.layer(generator.second, weight=("nothing.weight", (1, 1)), bias=("b.bias", (1,)))
    with pytest.raises(
        CheckpointError, match=r"missing nothing\.weight for second; .*b\.bias \[4\] for second where 2 "
    ):
        file.fill(generator, [r"a\..*", "b.weight", "gain", "step"])


def test_keys_are_counted_up_to_the_first_gap() -> None:
    file = Assembly({f"layer{index}": torch.ones(1) for index in (1, 2, 4)})
    assert file.count("layer{}", start=1) == 2
    assert file.count("layer{}") == 0
