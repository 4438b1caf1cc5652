import pytest

from sefa.errors import ArgumentError
from sefa.generators.layers import LayerSpec, parse_layers


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("all", (0, 1, 2, 3, 4)),
        ("3", (3,)),
        ("0-2", (0, 1, 2)),
        ("4, 0-1 ,1", (0, 1, 4)),
        (2, (2,)),
        ([4, 0], (0, 4)),
        (range(2), (0, 1)),
    ],
)
def test_what_a_specification_means(spec: LayerSpec, expected: tuple[int, ...]) -> None:
    assert parse_layers(spec, num_layers=5) == expected


@pytest.mark.parametrize(
    "spec",
    ["5", "0-5", "-1", "", "a", "1-", "1.5", "0--2", [5], [-1], [], "3-1", "0-99999999999", [0.7], 1.5, None, ["a"]],
)
def test_what_is_no_specification_is_refused(spec: LayerSpec) -> None:
    with pytest.raises(ArgumentError, match="layers"):
        parse_layers(spec, num_layers=5)
