import io
import json
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sefa_runtime import Editor
from sefa_runtime.explore import Exploration, explore, save_exploration
from sefa_runtime.explore.figures import heat_map, matrix_image, spectrum, strip
from sefa_runtime.explore.page import layers_in_words, to_html

Attributes = dict[str, str | None]


class Page(HTMLParser):
    """The elements of a page, and the text in scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, Attributes]] = []
        self.open: list[str] = []
        self.scripts: dict[str, str] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "input", "line", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts[self.elements[-1][1].get("id") or "script"] = data

    def all(self, tag: str, css_class: str | None = None) -> list[Attributes]:
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and (css_class is None or css_class in (attributes.get("class") or "").split())
        ]


@pytest.fixture
def explored(tiny: Editor) -> Exploration:
    return explore(tiny, samples=8, seeds=[5, 9])


@pytest.fixture
def page(explored: Exploration) -> Page:
    return Page(to_html(explored))


def _decode(uri: str | None) -> Image.Image:
    assert uri is not None
    return Image.open(io.BytesIO(b64decode(uri.partition(",")[2])))


def test_the_page_needs_no_other_file(explored: Exploration, page: Page, tmp_path: Path) -> None:
    assert page.open == []
    for _, attributes in page.elements:
        for name in ("src", "href", "data", "action", "srcset", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#"))
    save_exploration(explored, tmp_path / "sheet.html")
    text = (tmp_path / "sheet.html").read_text()
    assert text == to_html(explored)
    assert "url(http" not in text
    assert "@import" not in text
    assert "://" not in text.replace("data:", "")


def test_every_direction_and_sample_is_there(explored: Exploration, page: Page) -> None:
    rows = page.all("li", "direction")
    assert [row["id"] for row in rows] == ["d0", "d1", "d2", "d3"]
    for effect, row in zip(explored.effects, rows, strict=True):
        assert float(row["data-strength"] or "") == pytest.approx(effect.strength, abs=1e-4)
        assert float(row["data-area"] or "") == pytest.approx(effect.area, abs=1e-4)
        assert json.loads(row["data-alphas"] or "") == pytest.approx(explored.alphas(effect.direction), abs=1e-6)
    strips = page.all("button", "strip")
    assert [item["data-title"] for item in strips] == ["seed 5", "seed 9"] * 4
    images = [attributes for attributes in page.all("img") if " along " in (attributes["alt"] or "")]
    height, width, _ = explored.info.image_shape
    for attributes in images:
        assert _decode(attributes["src"]).size == (7 * width, height)
    assert len(images) == 8


def test_what_can_be_used_has_a_name(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all("alt" in attributes for attributes in page.all("img"))
    for attributes in page.all("section") + page.all("dialog"):
        assert attributes.get("aria-label") or attributes.get("aria-labelledby") in ids
    assert page.all("html")[0]["lang"] == "en"
    for attributes in page.all("a"):
        assert (attributes["href"] or "")[1:] in ids
    cosines = json.loads(page.scripts["cosines"])
    assert np.array(cosines).shape == (4, 4)
    assert cosines[2][2] == 100


def test_names_are_text_and_nothing_else(explored: Exploration) -> None:
    name = '"><script>alert("a" & 1)</script>'
    directions = (replace(explored.info.directions[0], name=name), *explored.info.directions[1:])
    hostile = replace(explored, model=name, info=replace(explored.info, directions=directions))
    page = Page(to_html(hostile))
    assert len(page.all("script")) == 2
    assert page.all("li", "direction")[0]["data-title"] == f"0 · {name}"


def test_groups_of_layers_stand_side_by_side(explored: Exploration) -> None:
    layers = [(0, 1, 2), (4, 5, 7), (0, 1, 2), (4, 5, 7)]
    directions = tuple(
        replace(direction, analysed_layers=group)
        for direction, group in zip(explored.info.directions, layers, strict=True)
    )
    info = replace(explored.info, num_layers=8, directions=directions)
    text = to_html(replace(explored, info=info))
    page = Page(text)
    assert len(page.all("section", "group")) == 2
    assert [row["id"] for row in page.all("li", "direction")] == ["d0", "d2", "d1", "d3"]
    assert "Layers 0–2</h2>" in text
    assert "Layers 4–5, 7</h2>" in text


def test_a_page_of_large_images_stays_small(explored: Exploration) -> None:
    smooth = np.linspace(0, 255, 128 * 7 * 128 * 3).reshape(128, 7 * 128, 3)
    noise = np.random.RandomState(0).normal(0, 4, smooth.shape)  # About as detailed as photographs of faces.
    frames = np.clip(smooth + noise, 0, 255).astype(np.uint8).reshape(128, 7, 128, 3).swapaxes(0, 1)
    one = len(strip(frames))
    assert 16 * 4 * one < 5_000_000


def test_layers_are_counted_in_runs() -> None:
    assert layers_in_words([0, 1, 2, 3]) == "0–3"
    assert layers_in_words([7, 2, 4, 5]) == "2, 4–5, 7"


def test_the_heat_is_where_the_change_is() -> None:
    change_map = np.zeros((16, 16), np.float32)
    change_map[4:8, 8:16] = 5.0
    image = np.full((16, 16, 3), 80, np.uint8)
    pixels = np.asarray(_decode(heat_map(change_map, image)).convert("RGB"), np.float32)
    hot, cold = pixels[5:7, 10:14], pixels[10:14, 2:14]
    assert (hot.mean((0, 1)) > [200, 200, 150]).all()
    assert abs(cold - 60).max() < 12  # The mean image, dimmed; WebP is not exact.
    unmoved = np.asarray(_decode(heat_map(np.zeros_like(change_map), image)).convert("RGB"), np.float32)
    assert abs(unmoved - 60).max() < 4


def test_grey_and_transparent_images_are_shown(explored: Exploration) -> None:
    for channels in (1, 4):
        frames = np.zeros((9, 8, 4, channels), np.uint8)
        assert _decode(strip(frames)).size == (36, 8)
        heat_map(np.ones((8, 4), np.float32), frames[0])


def test_the_matrix_is_opaque_where_effects_are_alike() -> None:
    cosines = np.array([[1, 0.25], [0.25, 1]], np.float32)
    pixels = np.asarray(_decode(matrix_image(cosines)))
    assert pixels[..., 3].tolist() == [[255, 64], [64, 255]]


def test_the_spectrum_has_a_bar_for_each_direction() -> None:
    page = Page(spectrum([8.0, 2.0, 0.0], ["a", "<b>", "c"], [0, 0, 1]))
    assert [link["href"] for link in page.all("a")] == ["#d0", "#d1", "#d2"]
    assert page.all("a")[1]["aria-label"] == "1 <b>: eigenvalue 2"
    heights = [float(bar["height"] or "") for bar in page.all("rect", "g0") + page.all("rect", "g1")]
    assert heights[1] == pytest.approx(heights[0] / 4, abs=0.1)
    assert heights[2] == 1  # Still to be seen.
    Page(spectrum([0.0], ["a"], [0]))
