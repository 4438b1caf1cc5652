import string
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sefa_runtime import Editor, InputError
from sefa_runtime.inputs.labels import parse_labels
from sefa_runtime.model.class_names import class_name_problems, listed_classes

NAMES = ("S", "e", "a", "3", "cat", "cats and dogs")  # Of classes 0 to 5.


@pytest.fixture
def named(style_z: Editor) -> Editor:
    """`style_z`, whose classes have names."""
    style_z.info = replace(style_z.info, class_names=NAMES)
    return style_z


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("S,e,a", [0, 1, 2]),
        ("Sea", [0, 1, 2]),
        ("cat", [4]),  # A name comes before the word c, a, t.
        ("Seas,a".replace("s", "S"), [0, 1, 2, 0, 2]),
        ("3", [3]),  # A name comes before an index.
        ("33", [3, 3]),
        ("5", [5]),
        ("0-2, 4", [0, 1, 2, 4]),
        (" cats and dogs ,S", [5, 0]),
    ],
)
def test_names_words_and_indices(named: Editor, text: str, labels: list[int]) -> None:
    assert parse_labels(named.info, text) == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("S,x", "there is no class 'x': there are S, e, a, 3, cat, cats and dogs"),
        ("Sex", "there is no class 'Sex'"),
        ("6", "there is no class '6'"),
        ("4-6", "there is no class '4-6'"),
        ("", "there is no class ''"),
        ("S," * 1000 + "S", "at most 1000 labels at once"),
    ],
)
def test_what_is_no_class_is_refused_with_those_that_there_are(named: Editor, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_labels(named.info, text)


@pytest.mark.parametrize(
    ("names", "there"),
    [
        (string.ascii_letters + string.digits, "a to z, A to Z, 0 to 9"),
        ("SeFa", "S, e, F, a"),
        (["dog", "cat"], "dog, cat"),
        ([f"class {index}" for index in range(7)], "class 0, class 1, class 2, class 3, class 4, class 5 and more"),
    ],
)
def test_which_classes_there_are(names: Sequence[str], there: str) -> None:
    assert listed_classes(list(names), len(names)) == there


def test_classes_without_names_are_called_by_index_alone(style_z: Editor, tiny: Editor) -> None:
    assert parse_labels(style_z.info, "5,0-2") == [5, 0, 1, 2]
    with pytest.raises(
        InputError, match=r"label must be in 0\.\.5, got 'Sea': the classes of this model have no names"
    ):
        parse_labels(style_z.info, "Sea")
    with pytest.raises(InputError, match=r"label must be in 0\.\.5, got 2-6"):
        parse_labels(style_z.info, "2-6")
    with pytest.raises(InputError, match="not class-conditional: it takes no label"):
        parse_labels(tiny.info, "0")


def test_one_latent_in_several_classes_is_one_image_of_each(named: Editor) -> None:
    each = [named.edit(seed=7, label=label, edits={0: 2})[0] for label in (0, 1, 0)]
    np.testing.assert_array_equal(named.edit(seed=7, label=["S", "e", "S"], edits={0: 2}), each)
    np.testing.assert_array_equal(named.edit(seed=7, label=np.array([0, 1, 0]), edits={0: [2, 2, 2]}), each)
    swept = named.sweep(seed=7, label=["S", "e"], direction=0, alphas=[0, 2])
    assert swept.shape[:2] == (2, 2)
    np.testing.assert_array_equal(swept[:, 1], each[:2])


def test_a_name_is_as_good_as_an_index(named: Editor) -> None:
    np.testing.assert_array_equal(named.edit(seed=[7, 8], label="cat"), named.edit(seed=[7, 8], label=4))
    mixed: list[str | int] = ["cat", 0]
    np.testing.assert_array_equal(named.edit(seed=[7, 8], label=mixed), named.edit(seed=[7, 8], label=[4, 0]))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("dog", "there is no class 'dog'"),
        (["S", "dog"], "there is no class 'dog'"),
        (None, "a label is needed, the index or name of a class: S, e, a"),
        ([0, 1, 2], "label must be one number or one for each of 2 images"),
        ([[0], [1, 2]], "label must be an array of numbers, got rows of unequal length"),
    ],
)
def test_labels_that_do_not_fit_are_refused(named: Editor, label: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        named.edit(seed=[7, 8], label=label)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["S", "e"], "2 names of classes for 3 classes"),
        (["S", "e", "S"], "two classes have the same name 'S'"),
        (["S", "e", "a,b"], "'a,b' cannot name a class"),
        (["S", "e", " a"], "' a' cannot name a class"),
        (["S", "e", ""], "'' cannot name a class"),
        (["S", "e", "a\x1b[2J"], "cannot name a class"),
        (["S", "e", 3], "3 cannot name a class"),
        (["S", "e", "a" * 101], "cannot name a class"),
    ],
)
def test_what_cannot_name_classes(names: list[object], problem: str) -> None:
    assert problem in class_name_problems(names, 3)[0]
