from typing import Any

import numpy as np
import pytest

from sefa_runtime import Editor, InputError
from support.comparing import assert_same

Arrays = dict[str, np.ndarray[Any, Any]]


def test_labels_and_truncation_go_to_each_image(style_z: Editor, style_arrays: Arrays) -> None:
    names = ("z", "direction", "alpha", "label", "truncation")
    assert_same(style_z.run(**{name: style_arrays[name] for name in names}), style_arrays["images_z"])


def test_one_label_and_one_truncation_go_to_every_image(style_z: Editor, style_arrays: Arrays) -> None:
    z = style_arrays["z"]
    np.testing.assert_array_equal(
        style_z.run(z, label=5, truncation=0.7), style_z.run(z, label=[5] * 3, truncation=[0.7] * 3)
    )


def test_truncation_is_off_unless_given(style_z: Editor, style_arrays: Arrays) -> None:
    z = style_arrays["z"]
    np.testing.assert_array_equal(style_z.run(z, label=1), style_z.run(z, label=1, truncation=1.0))
    assert (style_z.run(z, label=1) != style_z.run(z, label=1, truncation=0.3)).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "a label in 0..5 is needed"),
        ({"label": 6}, "label must be in 0..5, got 6"),
        ({"label": [-1]}, "label must be in 0..5, got -1"),
        ({"label": [1, 2]}, "label must be one number or one for each of 3 images"),
        ({"label": 1.5}, "label must be integers"),
        ({"label": 1, "truncation": np.nan}, "truncation must be finite"),
        ({"label": 1, "truncation": [1, 1]}, "truncation must be one number or one for each of 3 images"),
        ({"label": 1, "w": np.zeros((3, 24))}, "give z, got z and w"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(
    style_z: Editor, style_arrays: Arrays, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        style_z.run(style_arrays["z"], **arguments)
