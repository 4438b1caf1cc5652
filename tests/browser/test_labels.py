"""Several classes of one seed side by side on the page, such as the letters of a word."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

import sefa_runtime
from browser.conftest import OpenPage
from browser.pages import fragment, pixels, shown, slide, wait_for_image
from support.named_classes import SIZE, write_named
from support.serving import Running, Start

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Running:
    """Of a model whose classes are called S, e, F, a, 5 and dog."""
    return start(write_named(tmp_path_factory.mktemp("named")))


@pytest.fixture
def page(server: Running, open_page: OpenPage) -> Page:
    """The page, of its first class."""
    page = open_page(f"http://{server.address}/#model=named&seed=7")
    wait_for_image(page)
    return page


def drawn(server: Running, query: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """An image by the server's own address, as PNG."""
    return pixels(server.http.get(f"/models/named/image?{query}&format=png").content)


def test_a_word_moves_as_one(server: Running, page: Page) -> None:
    np.testing.assert_array_equal(shown(page), drawn(server, "seed=7&label=S"))
    expect(page.locator("#labels-hint")).to_have_text(
        "One of S, e, F, a, 5, dog; or several, side by side, with commas between them."
    )
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/image?" in request.url else None)
    page.get_by_label("Classes").fill("SeFa,dog")
    slide(page, 0, 2)
    wait_for_image(page)
    assert shown(page).shape == (SIZE, 5 * SIZE, 3)
    np.testing.assert_array_equal(shown(page), drawn(server, "seed=7&labels=S,e,F,a,dog&edit=0:2"))
    assert len(asked) <= 2  # One request for all of them.
    assert fragment(page)["labels"] == ["S,e,F,a,dog"]
    page.get_by_label("Classes").fill("SeFa")
    wait_for_image(page)
    assert fragment(page)["labels"] == ["SeFa"]
    expect(page.locator("#edited")).to_have_attribute("alt", "Seed 7, classes SeFa, direction-0 2")
    page.get_by_role("button", name="Side by side").click()
    wait_for_image(page)
    expect(page.locator("#original")).to_be_visible()
    np.testing.assert_array_equal(shown(page, "#original"), drawn(server, "seed=7&labels=SeFa"))


def test_a_link_shows_the_same_word(server: Running, open_page: OpenPage) -> None:
    link = f"http://{server.address}/#model=named&seed=7&labels=SeFa&truncation=0.8&edit=1:2"
    page = open_page(link)
    wait_for_image(page)
    assert page.url == link
    expect(page.locator("#labels")).to_have_value("SeFa")
    np.testing.assert_array_equal(shown(page), drawn(server, "seed=7&labels=SeFa&truncation=0.8&edit=1:2"))
    page.goto(f"http://{server.address}/#model=named&labels=Sx")
    expect(page.locator("#message")).to_have_text("Parts of the link say nothing to this model: label=Sx.")
    expect(page.locator("#labels")).to_have_value("S")


def test_what_is_no_class_is_said_beside_the_field(server: Running, page: Page) -> None:
    field = page.get_by_label("Classes")
    field.fill("Sx")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_role("alert").filter(visible=True)).to_have_text(
        "There is no class Sx; there are S, e, F, a, 5, dog."
    )
    np.testing.assert_array_equal(shown(page), drawn(server, "seed=7&label=S"))
    field.fill("5")  # A name, not the index of the last one.
    expect(page.locator("#labels-problem")).to_be_hidden()
    wait_for_image(page)
    np.testing.assert_array_equal(shown(page), drawn(server, "seed=7&label=5"))
    field.fill("e,")
    field.blur()
    expect(page.locator("#labels-problem")).to_be_hidden()
    expect(field).to_have_value("5")


def test_the_recipes_and_files_are_of_the_word(
    server: Running, open_page: OpenPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page(f"http://{server.address}/#model=named&seed=7&labels=SeFa&edit=0:2.5")
    wait_for_image(page)
    image = shown(page)
    write_named(tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(page.locator("#python").inner_text(), {})
    np.testing.assert_array_equal(pixels((tmp_path / "named.png").read_bytes()), image)
    address = next(word for word in shlex.split(page.locator("#curl").inner_text()) if word.startswith("http"))
    np.testing.assert_array_equal(pixels(server.http.get(address).content), image)
    words = shlex.split(page.locator("#sefa-command").inner_text())
    assert words == shlex.split("sefa edit named.onnx -o named.png --seed 7 --edit 0=2.5 --labels SeFa --truncation 1")

    expect(page.locator("#image-scale option").first).to_have_text("128 × 32")
    page.get_by_label("as", exact=True).select_option("png")
    page.get_by_label("Steps").fill("2")
    page.locator("#sweep-scale").select_option("1")
    page.get_by_role("button", name="Make sweep").click()
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download named-SeFa-seed-7-sweep-0.png").click()
    strip = pixels(Path(saved.value.path()).read_bytes())
    editor = sefa_runtime.load(tmp_path / "named.onnx", "cpu")
    ends = [editor.edit(7, label=list("SeFa"), edits={0: alpha}) for alpha in editor.info.directions[0].alpha_range]
    np.testing.assert_array_equal(strip[:, : 4 * SIZE], np.concatenate(list(ends[0]), axis=1))
    np.testing.assert_array_equal(strip[:, -4 * SIZE :], np.concatenate(list(ends[1]), axis=1))


@pytest.mark.parametrize(
    ("width", "scheme"), [(320, "light"), (390, "dark"), (1280, "light")], ids=["narrow", "phone", "desktop"]
)
def test_a_word_fits_every_screen(server: Running, open_page: OpenPage, width: int, scheme: str) -> None:
    # axe puts its program into the page, which our own policy forbids.
    options = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme, "bypass_csp": True}
    page = open_page(f"http://{server.address}/#model=named&seed=7&labels=SeFa", **options)
    wait_for_image(page)
    page.get_by_role("button", name="Side by side").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in ("#edited", "#original"):  # One below the other, as wide as the page.
        box = page.locator(selector).bounding_box()
        assert box is not None
        assert box["width"] > 0.8 * width
    page.get_by_label("Classes").fill("Sx")
    assert not [fault["id"] for fault in Axe().run(page).response["violations"]]
    page.mouse.wheel(0, 5000)
    expect(page.locator("#edited")).to_be_in_viewport()


def test_arrows_go_from_class_to_class_where_they_have_no_names(
    start: Start, golden: Path, open_page: OpenPage
) -> None:
    server = start(golden / "style_z.onnx")
    page = open_page(f"http://{server.address}/#label=5")
    field = page.get_by_label("Classes, 0 to 5")
    expect(field).to_have_value("5")
    field.press("ArrowUp")
    expect(field).to_have_value("0")
    field.press("ArrowDown")
    field.press("ArrowDown")
    expect(field).to_have_value("4")
    field.fill("0-2")
    field.blur()
    expect(field).to_have_value("0,1,2")
    wait_for_image(page)
    answer = server.http.get("/models/style_z/image?labels=0-2&format=png")
    np.testing.assert_array_equal(shown(page), pixels(answer.content))
