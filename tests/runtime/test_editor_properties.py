"""What the Editor hands to the graph, for inputs of any shape, type and layout: the right arrays or one clear error."""

from dataclasses import replace
from itertools import product
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sefa_runtime import Editor, InputError
from sefa_runtime.model.reading import read_info
from sefa_runtime.session.binding import Feeds
from sefa_runtime.session.session import Session
from support.paths import GOLDEN

Z_DIM, DIRECTIONS, CLASSES = 6, 4, 5
FLOATS = [np.float16, np.float32, np.float64, np.dtype(">f4"), np.dtype(">f8")]
INTEGERS = [np.int8, np.uint8, np.int32, np.int64, np.uint64, np.dtype(">i4")]


class Recorder:
    """Stands where a session would, and keeps what it is fed."""

    def run(self, feeds: Feeds) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        self.feeds = feeds
        # The image tells which latent and edits it is of: alpha summed per row, in the first pixel.
        image = np.zeros((len(feeds["z"]), 8, 4, 3), np.uint8)
        image[:, 0, 0, 0] = np.abs(feeds["alpha"]).sum(axis=1).astype(np.int64) % 256
        return image


def make_editor(num_classes: int = 0) -> tuple[Editor, Recorder]:
    recorder = Recorder()
    info = replace(read_info(GOLDEN / "tiny.onnx"), num_classes=num_classes)
    return Editor(GOLDEN / "tiny.onnx", info, cast(Session, recorder)), recorder


def check_feed(array: np.ndarray[Any, Any], dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """The graph takes native, contiguous arrays of exactly these types."""
    assert array.dtype == np.dtype(dtype)
    assert array.dtype.isnative
    assert array.flags.c_contiguous
    assert array.shape == shape


@st.composite
def laid_out(draw: st.DrawFn, array: np.ndarray[Any, Any]) -> Any:
    """The same values in another layout: transposed memory, strided, read-only, or nested lists."""
    match draw(st.sampled_from(["plain", "fortran", "strided", "read-only", "lists"])):
        case "fortran":
            return np.asfortranarray(array)
        case "strided" if array.ndim:
            return np.repeat(array, 2, axis=-1)[..., ::2]
        case "read-only":
            array = array.copy()
            array.flags.writeable = False
            return array
        case "lists" if array.size:  # Empty lists do not tell their shape.
            return array.tolist()
    return array


def numbers(dtypes: list[Any], shape: tuple[int, ...], low: int, high: int) -> st.SearchStrategy[Any]:
    return st.sampled_from(dtypes).flatmap(
        lambda dtype: arrays.arrays(
            dtype,
            shape,
            elements=st.integers(low, high)
            if np.dtype(dtype).kind in "iu"
            else st.floats(low, high, width=16 if np.dtype(dtype).itemsize == 2 else 32),
        )
    )


@given(data=st.data(), batch=st.integers(1, 4), kind=st.sampled_from([FLOATS, INTEGERS]))
def test_latents_of_any_type_and_layout_reach_the_graph_as_float32(data: st.DataObject, batch: int, kind: Any) -> None:
    editor, recorder = make_editor()
    z = data.draw(numbers(kind, (batch, Z_DIM), 0, 100))
    given_z = data.draw(laid_out(z if batch > 1 or data.draw(st.booleans()) else z[0]))
    before = np.array(given_z)
    editor.run(given_z, 0, 0.0)
    check_feed(recorder.feeds["z"], np.float32, (batch, Z_DIM))
    np.testing.assert_array_equal(recorder.feeds["z"], z.astype(np.float32))
    np.testing.assert_array_equal(given_z, before)


@given(shape=arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7))
def test_latents_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    assume(shape != (Z_DIM,) and not (len(shape) == 2 and shape[0] > 0 and shape[1] == Z_DIM))
    editor, _ = make_editor()
    with pytest.raises(InputError, match=r"z must have shape \[batch, 6\], got"):
        editor.run(np.zeros(shape), 0, 0.0)


@given(
    name=st.sampled_from(["z", "alpha"]),
    bad=st.sampled_from([np.nan, np.inf, -np.inf, 1e39, -1e300]),
    row=st.integers(0, 2),
    column=st.integers(0, 5),
)
def test_one_number_that_is_not_finite_is_enough(name: str, bad: float, row: int, column: int) -> None:
    editor, _ = make_editor()
    values = {"z": np.zeros((3, Z_DIM)), "alpha": np.zeros((3, 6))}
    values[name][row, column] = bad
    with pytest.raises(InputError, match=f"{name} must be finite"):
        editor.run(values["z"], np.zeros((3, 6), int), values["alpha"])


def rows_of(array: np.ndarray[Any, Any], batch: int) -> list[list[Any]] | None:
    """What the documentation of `Editor.run` says an array of directions or alphas means: a list for each image.

    One list stands for all images, one entry for all edits; None: it means nothing.
    """
    values = array.tolist()
    match array.ndim:
        case 0:
            return [[values]]
        case 1 if batch == 1 or len(values) == 1:
            return [values]
        case 1:
            return [[value] for value in values] if len(values) == batch else None
        case 2 if len(values) in (1, batch):
            return values  # type: ignore[no-any-return]
    return None


@given(
    data=st.data(),
    batch=st.integers(1, 3),
    shapes=st.tuples(*[arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)] * 2),
)
@settings(max_examples=150)
def test_directions_and_alphas_are_broadcast_as_documented(
    data: st.DataObject, batch: int, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    editor, recorder = make_editor()
    direction = data.draw(numbers(INTEGERS, shapes[0], 0, DIRECTIONS - 1))
    alpha = data.draw(numbers(FLOATS, shapes[1], -3, 3))
    z = np.zeros((batch, Z_DIM))
    meant = rows_of(direction, batch), rows_of(alpha, batch)
    # By lists, without numpy's rules: each list is repeated for all images, each single entry for all edits.
    edits = {len(row) for rows in meant for row in (rows or [])}
    if None in meant or len(edits - {1}) > 1 or not edits:
        with pytest.raises(InputError, match="direction and alpha must be single numbers or have shape"):
            editor.run(z, data.draw(laid_out(direction)), data.draw(laid_out(alpha)))
        return
    editor.run(z, data.draw(laid_out(direction)), data.draw(laid_out(alpha)))
    count = next(iter(edits - {1}), 1)
    for name, rows, dtype in (("direction", meant[0], np.int64), ("alpha", meant[1], np.float32)):
        assert rows is not None
        check_feed(recorder.feeds[name], dtype, (batch, count))
        for image, edit in product(range(batch), range(count)):
            row = rows[image if len(rows) > 1 else 0]
            assert recorder.feeds[name][image, edit] == np.float32(row[edit if len(row) > 1 else 0])


@given(
    index=st.one_of(st.integers(max_value=-1), st.integers(min_value=DIRECTIONS)),
    batch=st.integers(1, 3),
    data=st.data(),
)
def test_a_direction_out_of_range_is_refused_wherever_it_is(index: int, batch: int, data: st.DataObject) -> None:
    editor, _ = make_editor()
    directions: list[list[int]] = [[0, 1] for _ in range(batch)]
    directions[data.draw(st.integers(0, batch - 1))][data.draw(st.integers(0, 1))] = index
    with pytest.raises(InputError, match="direction must be"):
        editor.run(np.zeros((batch, Z_DIM)), directions, 1.0)


@given(data=st.data(), batch=st.integers(1, 4))
def test_a_label_goes_to_every_image_or_one_to_each(data: st.DataObject, batch: int) -> None:
    editor, recorder = make_editor(CLASSES)
    shape = data.draw(st.sampled_from([(), (1,), (batch,)]))
    label = data.draw(numbers(INTEGERS, shape, 0, CLASSES - 1))
    editor.run(np.zeros((batch, Z_DIM)), 0, 0.0, data.draw(laid_out(label)))
    check_feed(recorder.feeds["label"], np.int64, (batch,))
    expected = [int(label.reshape(-1)[image if label.size > 1 else 0]) for image in range(batch)]
    assert recorder.feeds["label"].tolist() == expected


@given(shape=arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), batch=st.integers(1, 3))
def test_labels_of_another_shape_are_refused(shape: tuple[int, ...], batch: int) -> None:
    assume(shape not in ((), (1,), (batch,)))
    editor, _ = make_editor(CLASSES)
    with pytest.raises(InputError, match=f"label must be one number or one for each of {batch} images"):
        editor.run(np.zeros((batch, Z_DIM)), 0, 0.0, np.zeros(shape, int))


@given(
    label=st.one_of(st.integers(max_value=-1), st.integers(min_value=CLASSES), st.floats(), st.booleans(), st.none())
)
def test_labels_that_are_no_class_are_refused(label: Any) -> None:
    editor, _ = make_editor(CLASSES)
    with pytest.raises(InputError, match="label"):
        editor.run(np.zeros(Z_DIM), 0, 0.0, label)


JUNK = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.text(max_size=3),
        st.binary(max_size=3),
        st.complex_numbers(),
        st.floats(),
        st.integers(),
        st.dates(),
        st.builds(object),
        st.just({}),
        arrays.arrays(arrays.scalar_dtypes(), arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6)),
    ),
    lambda inner: st.lists(inner, max_size=7) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(z=JUNK, direction=JUNK, alpha=JUNK, label=JUNK, wrong=st.sets(st.sampled_from(["z", "d", "a", "l"]), min_size=1))
@settings(max_examples=150)
def test_whatever_is_given_there_is_an_answer_or_an_input_error(
    z: Any, direction: Any, alpha: Any, label: Any, wrong: set[str]
) -> None:
    for classes in (0, CLASSES):
        editor, recorder = make_editor(classes)
        try:
            editor.run(
                z if "z" in wrong else np.zeros((2, Z_DIM)),
                direction if "d" in wrong else [0, 1],
                alpha if "a" in wrong else 1.0,
                label if "l" in wrong else ([1, 2] if classes else None),
            )
        except InputError:
            continue
        assert np.isfinite(recorder.feeds["z"]).all()
        assert np.isfinite(recorder.feeds["alpha"]).all()
        assert ((recorder.feeds["direction"] >= 0) & (recorder.feeds["direction"] < DIRECTIONS)).all()


@given(
    seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20),
    edits=st.dictionaries(st.sampled_from([0, "light", 2, "direction-3"]), st.floats(-3, 3, width=32), max_size=4),
)
@settings(max_examples=30)
def test_edits_by_name_reach_the_graph_by_index(seeds: list[int], edits: dict[str | int, float]) -> None:
    editor, recorder = make_editor()
    images = editor.edit(seed=seeds, edits=edits)
    names = {"light": 1, "direction-3": 3}
    expected = [names.get(str(key), key) for key in edits]
    assert recorder.feeds["direction"].tolist() == [expected] * len(recorder.feeds["direction"])
    assert recorder.feeds["alpha"].tolist() == [list(edits.values())] * len(recorder.feeds["alpha"])
    assert len(images) == len(seeds)
