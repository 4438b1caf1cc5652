"""Glyphs as images, from the font that comes with Pillow."""

from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont

from letters.fonts import has_small_letters, select
from letters.glyphs import (
    BASELINE,
    CAP_HEIGHT,
    CHARACTERS,
    SIZE,
    Coverage,
    UnusableFaceError,
    as_coverage,
    as_images,
    render_face,
    sheet,
)


@pytest.fixture(scope="session")
def font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("font") / "default.ttf"
    default = ImageFont.load_default(10)
    assert isinstance(default, ImageFont.FreeTypeFont)
    path.write_bytes(default.font_bytes)
    return path


@pytest.fixture(scope="session")
def face(font: Path) -> Coverage:
    return render_face(font)


def rows(face: Coverage, character: str) -> tuple[int, int]:
    inked = np.flatnonzero(face[CHARACTERS.index(character)].max(axis=1) > 127)
    return int(inked[0]), int(inked[-1]) + 1


@pytest.mark.parametrize("character", "HEIZT")
def test_flat_capitals_stand_on_the_baseline_and_have_the_cap_height(face: Coverage, character: str) -> None:
    assert rows(face, character) == (BASELINE - CAP_HEIGHT, BASELINE)


def test_small_letters_have_the_scale_of_the_capitals(face: Coverage) -> None:
    top, bottom = rows(face, "x")
    assert bottom == BASELINE
    assert 0.6 * CAP_HEIGHT < bottom - top < 0.9 * CAP_HEIGHT
    assert rows(face, "p")[1] > BASELINE


def test_the_box_of_ink_is_in_the_middle(face: Coverage) -> None:
    for glyph in face:
        inked = np.flatnonzero(glyph.max(axis=0))
        assert abs((inked[0] + inked[-1] + 1) / 2 - SIZE / 2) <= 1


def test_a_file_that_is_no_font_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.ttf").write_bytes(b"no font")
    with pytest.raises(UnusableFaceError):
        render_face(tmp_path / "x.ttf")


def test_a_font_without_latin_is_refused(font: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letters.glyphs.CHARACTERS", "AБ漢")
    with pytest.raises(UnusableFaceError, match="lacks"):
        render_face(font)


def test_images_and_coverage_are_inverses() -> None:
    coverage = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(as_coverage(as_images(coverage)), coverage)
    assert as_images(coverage)[[0, 255]].tolist() == [1, -1]


def test_a_sheet_is_read_in_rows_dark_on_light() -> None:
    glyphs = np.zeros((3, 2, 2), np.uint8)
    glyphs[2] = 255
    pixels = np.asarray(sheet(glyphs, 2))
    np.testing.assert_array_equal(pixels, [[255] * 4] * 2 + [[0, 0, 255, 255]] * 2)


def test_capitals_in_the_place_of_small_letters_are_noticed(face: Coverage) -> None:
    assert has_small_letters(face)
    without = face.copy()
    without[26:52] = face[:26]
    assert not has_small_letters(without)


def test_duplicates_and_illegible_faces_are_left_out(face: Coverage) -> None:
    bolder = np.maximum(face, np.roll(face, 1, axis=2))
    thinner = np.minimum(face, np.roll(face, 1, axis=2))
    shuffled = face[np.random.default_rng(0).permutation(len(face))]
    selection = select(np.stack([face, bolder, thinner, face, shuffled]))
    assert selection.kept == [0, 1, 2]
    assert selection.refused["duplicate"] == 1
    assert selection.refused["no small letters of its own"] + selection.refused["not legible"] == 1
