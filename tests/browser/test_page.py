"""The page of `sefa serve`, in a real browser against a real server."""

import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

import sefa_runtime
from browser.conftest import OpenPage
from browser.pages import alphas, fragment, pixels, shown, slide, wait_for_image
from support.descriptions import change_description
from support.paths import GOLDEN
from support.serving import Running, Start

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(start: Start) -> Running:
    """Of a model without labels, and one with labels and truncation."""
    return start(GOLDEN / "tiny.onnx", GOLDEN / "style_z.onnx")


@pytest.fixture
def tiny_page(server: Running, open_page: OpenPage) -> Page:
    """The page, of the model of 4 directions."""
    page = open_page(f"http://{server.address}/#model=tiny&seed=7")
    wait_for_image(page)
    return page


def drawn(server: Running, model: str, query: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """An image by the server's own address, as PNG."""
    return pixels(server.http.get(f"/models/{model}/image?{query}&format=png").content)


def test_the_first_model_is_shown_without_being_asked_for(server: Running, open_page: OpenPage) -> None:
    page = open_page(f"http://{server.address}/")
    wait_for_image(page)
    np.testing.assert_array_equal(shown(page), drawn(server, "tiny", "seed=0"))
    assert fragment(page) == {"model": ["tiny"], "seed": ["0"]}
    expect(page.locator(".name")).to_have_text(["pose", "light", "direction-2", "direction-3"])
    assert page.locator(".slider").evaluate_all("all => all.map((one) => [one.min, one.max])") == [["-3", "3"]] * 4


def test_licence_and_note_are_shown_as_text(start: Start, tiny_page: Page, open_page: OpenPage, tmp_path: Path) -> None:
    expect(tiny_page.locator("#card")).to_be_hidden()  # The file has neither.
    note = "<img src=x onerror=alert(1)> of nobody"
    card = {"license": "CC-BY-4.0", "note": note}
    model = change_description(GOLDEN / "tiny.onnx", tmp_path / "m.onnx", lambda document: document.update(card))
    page = open_page(f"http://{start(model).address}/")
    page.get_by_text("Licence and note").click()
    expect(page.locator("#card p")).to_have_text(f"Licence: CC-BY-4.0. {note}")
    expect(page.locator("#card img")).to_have_count(0)


def test_the_image_follows_several_sliders(server: Running, tiny_page: Page) -> None:
    before = shown(tiny_page)
    slide(tiny_page, 0, 2.5)
    slide(tiny_page, 3, -1.25)
    wait_for_image(tiny_page)
    after = shown(tiny_page)
    assert (after != before).any()
    np.testing.assert_array_equal(after, drawn(server, "tiny", "seed=7&edit=0:2.5&edit=3:-1.25"))
    assert fragment(tiny_page)["edit"] == ["0:2.5", "3:-1.25"]
    expect(tiny_page.locator("#edited")).to_have_attribute("alt", "Seed 7, pose 2.5, direction-3 -1.25")


def test_an_exact_value_may_lie_beyond_the_suggested_range(server: Running, tiny_page: Page) -> None:
    tiny_page.get_by_label("light, exact").fill("7.125")
    wait_for_image(tiny_page)
    assert alphas(tiny_page)[1] == 3
    np.testing.assert_array_equal(shown(tiny_page), drawn(server, "tiny", "seed=7&edit=light:7.125"))


def test_reset_of_one_and_of_all(server: Running, tiny_page: Page) -> None:
    for index, alpha in enumerate((1.0, 2.0, -1.0)):
        slide(tiny_page, index, alpha)
    tiny_page.get_by_role("button", name="Reset light").click()
    assert alphas(tiny_page) == [1, 0, -1, 0]
    tiny_page.get_by_role("button", name="Reset all").click()
    wait_for_image(tiny_page)
    assert alphas(tiny_page) == [0, 0, 0, 0]
    np.testing.assert_array_equal(shown(tiny_page), drawn(server, "tiny", "seed=7"))
    tiny_page.go_back()
    wait_for_image(tiny_page)
    assert alphas(tiny_page) == [1, 0, -1, 0]


def test_locked_directions_stay(tiny_page: Page) -> None:
    slide(tiny_page, 1, 1.5)
    tiny_page.get_by_role("button", name="Lock light").click()
    seen = set()
    for _ in range(6):
        tiny_page.get_by_role("button", name="Random edits").click()
        values = alphas(tiny_page)
        assert values[1] == 1.5
        assert any(values[index] for index in (0, 2, 3))
        assert all(-3 <= value <= 3 for value in values)
        seen.add(tuple(values))
    assert len(seen) > 1
    tiny_page.get_by_role("button", name="Reset all").click()
    assert alphas(tiny_page) == [0, 1.5, 0, 0]
    wait_for_image(tiny_page)
    assert fragment(tiny_page)["lock"] == ["1"]


def test_another_seed_keeps_the_edits(server: Running, tiny_page: Page) -> None:
    slide(tiny_page, 0, 2)
    tiny_page.get_by_role("button", name="Random seed").click()
    wait_for_image(tiny_page)
    (seed,) = fragment(tiny_page)["seed"]
    assert seed != "7"
    np.testing.assert_array_equal(shown(tiny_page), drawn(server, "tiny", f"seed={seed}&edit=0:2"))
    tiny_page.get_by_label("Seed", exact=True).fill("-4")
    expect(tiny_page.locator("#seed")).to_have_attribute("aria-invalid", "true")
    tiny_page.get_by_label("Seed", exact=True).fill("9")
    wait_for_image(tiny_page)
    np.testing.assert_array_equal(shown(tiny_page), drawn(server, "tiny", "seed=9&edit=0:2"))


def test_a_link_shows_the_same_image(server: Running, open_page: OpenPage) -> None:
    link = f"http://{server.address}/#model=style_z&seed=12&label=3&truncation=0.7&edit=0:2.5&edit=2:-1&lock=2"
    page = open_page(link)
    wait_for_image(page)
    assert page.url == link
    np.testing.assert_array_equal(
        shown(page), drawn(server, "style_z", "seed=12&label=3&truncation=0.7&edit=0:2.5&edit=2:-1")
    )
    expect(page.locator("#labels")).to_have_value("3")
    expect(page.locator("#truncation")).to_have_value("0.7")
    expect(page.get_by_role("button", name="Lock direction-2")).to_have_attribute("aria-pressed", "true")


def test_a_link_with_names_and_with_nonsense(server: Running, open_page: OpenPage) -> None:
    page = open_page(f"http://{server.address}/#model=tiny&seed=x&edit=pose:1.5&edit=nobody:1&edit=3:y")
    wait_for_image(page)
    assert alphas(page) == [1.5, 0, 0, 0]
    expect(page.locator("#message")).to_have_text(
        "Parts of the link say nothing to this model: seed=x, edit=3:y, nobody."
    )
    slide(page, 2, 1)
    expect(page.locator("#notice")).to_be_hidden()


def test_another_model_with_classes_and_truncation(server: Running, tiny_page: Page) -> None:
    slide(tiny_page, 3, 1)
    tiny_page.get_by_label("Model").select_option("style_z")
    expect(tiny_page.locator(".name")).to_have_text(["direction-0", "direction-1", "direction-2"])
    tiny_page.get_by_label("Classes, 0 to 5").fill("4")
    tiny_page.locator("#truncation").fill("0.5")
    slide(tiny_page, 1, 2)
    wait_for_image(tiny_page)
    np.testing.assert_array_equal(shown(tiny_page), drawn(server, "style_z", "seed=7&label=4&truncation=0.5&edit=1:2"))
    tiny_page.go_back()
    expect(tiny_page.locator(".name")).to_have_count(4)
    wait_for_image(tiny_page)
    np.testing.assert_array_equal(shown(tiny_page), drawn(server, "tiny", "seed=7&edit=3:1"))


def test_everything_by_keyboard(server: Running, tiny_page: Page) -> None:
    keyboard = tiny_page.keyboard
    for _ in range(40):
        keyboard.press("Tab")
        if tiny_page.evaluate("document.activeElement.id") == "alpha-0":
            break
    for key in ("ArrowRight", "ArrowRight", "PageUp", "ArrowDown"):
        keyboard.press(key)
    value = alphas(tiny_page)[0]
    assert 0 < value < 3
    keyboard.press("End")
    assert alphas(tiny_page)[0] == 3
    wait_for_image(tiny_page)
    np.testing.assert_array_equal(shown(tiny_page), drawn(server, "tiny", "seed=7&edit=0:3"))
    keyboard.press("Delete")
    assert alphas(tiny_page)[0] == 0
    keyboard.press("n")
    keyboard.press("e")
    assert any(alphas(tiny_page))
    keyboard.press("x")
    assert not any(alphas(tiny_page))
    wait_for_image(tiny_page)
    assert fragment(tiny_page)["seed"] != ["7"]
    tiny_page.get_by_label("Keys that are single letters work").uncheck()
    keyboard.press("e")
    assert not any(alphas(tiny_page))


def test_the_original_while_a_button_or_key_is_held(server: Running, tiny_page: Page) -> None:
    slide(tiny_page, 0, 3)
    wait_for_image(tiny_page)
    box = tiny_page.locator("#hold").bounding_box()
    assert box is not None
    expect(tiny_page.locator("#original")).to_be_hidden()
    tiny_page.mouse.move(box["x"] + 5, box["y"] + 5)
    tiny_page.mouse.down()
    expect(tiny_page.locator("#original")).to_be_visible()
    expect(tiny_page.locator("#edited")).to_be_hidden()
    np.testing.assert_array_equal(shown(tiny_page, "#original"), drawn(server, "tiny", "seed=7"))
    tiny_page.mouse.up()
    expect(tiny_page.locator("#edited")).to_be_visible()
    for key in ("Space", "o"):
        tiny_page.keyboard.down(key)
        expect(tiny_page.locator("#edited")).to_be_hidden()
        tiny_page.keyboard.up(key)
        expect(tiny_page.locator("#edited")).to_be_visible()
    assert alphas(tiny_page)[0] == 3


def test_side_by_side(server: Running, tiny_page: Page) -> None:
    tiny_page.get_by_role("button", name="Side by side").click()
    slide(tiny_page, 0, 3)
    tiny_page.get_by_label("Seed", exact=True).fill("8")
    wait_for_image(tiny_page)
    expect(tiny_page.locator("#original")).to_be_visible()
    expect(tiny_page.locator("#edited")).to_be_visible()
    np.testing.assert_array_equal(shown(tiny_page, "#original"), drawn(server, "tiny", "seed=8"))
    np.testing.assert_array_equal(shown(tiny_page), drawn(server, "tiny", "seed=8&edit=0:3"))


def test_a_new_name_lasts_and_breaks_nothing(server: Running, tiny_page: Page, tmp_path: Path) -> None:
    tiny_page.get_by_role("button", name="Rename direction-2").click()
    field = tiny_page.get_by_label("New name of direction-2")
    for wrong, problem in (("a=b", "no = : or ,"), ("12", "cannot be a number"), ("pose", "Another direction")):
        field.fill(wrong)
        field.press("Enter")
        expect(tiny_page.locator(".name-problem:visible")).to_contain_text(problem)
    field.fill("wide smile's")
    field.press("Enter")
    expect(tiny_page.get_by_role("button", name="Rename wide smile's")).to_be_focused()
    tiny_page.reload()
    wait_for_image(tiny_page)
    slide(tiny_page, 2, 1)
    wait_for_image(tiny_page)
    expect(tiny_page.locator(".name").nth(2)).to_have_text("wide smile's")
    np.testing.assert_array_equal(shown(tiny_page), drawn(server, "tiny", "seed=7&edit=2:1"))
    words = shlex.split(tiny_page.locator("#name-command").inner_text())
    assert words == ["sefa", "name", "tiny.onnx", "2=wide smile's"]

    tiny_page.get_by_role("button", name="Rename wide smile's").click()
    field = tiny_page.get_by_label("New name of wide smile's")
    field.fill("")
    field.press("Enter")
    expect(tiny_page.locator(".name").nth(2)).to_have_text("direction-2")
    expect(tiny_page.locator("#renamed")).to_be_hidden()


def test_escape_leaves_a_name(tiny_page: Page) -> None:
    tiny_page.get_by_role("button", name="Rename pose").click()
    field = tiny_page.get_by_label("New name of pose")
    field.fill("other")
    field.press("Escape")
    expect(tiny_page.locator(".name").nth(0)).to_have_text("pose")


def test_the_recipes_make_the_same_image(
    server: Running, open_page: OpenPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page(f"http://{server.address}/#model=style_z&seed=12&label=3&truncation=0.7&edit=0:2.5&edit=2:-1")
    wait_for_image(page)
    image = shown(page)
    (tmp_path / "style_z.onnx").symlink_to(GOLDEN / "style_z.onnx")
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "style_z.png"

    exec(page.locator("#python").inner_text(), {})
    np.testing.assert_array_equal(pixels(made.read_bytes()), image)
    made.unlink()
    subprocess.run(shlex.split(page.locator("#curl").inner_text()), check=True, capture_output=True)
    np.testing.assert_array_equal(pixels(made.read_bytes()), image)
    words = shlex.split(page.locator("#sefa-command").inner_text())
    assert words[:2] == ["sefa", "edit"]
    assert words[2:] == shlex.split(
        "style_z.onnx -o style_z.png --seed 12 --edit 0=2.5 --edit 2=-1 --label 3 --truncation 0.7"
    )


def test_downloads_of_the_image_and_of_a_sweep(server: Running, tiny_page: Page) -> None:
    slide(tiny_page, 1, 2)
    slide(tiny_page, 0, 1)
    wait_for_image(tiny_page)
    tiny_page.get_by_label("This image as").select_option("png")
    with tiny_page.expect_download() as saved:
        tiny_page.get_by_role("button", name="Download", exact=True).click()
    assert saved.value.suggested_filename == "tiny-seed-7.png"
    np.testing.assert_array_equal(pixels(Path(saved.value.path()).read_bytes()), shown(tiny_page))

    tiny_page.get_by_label("Sweep along", exact=True).select_option("pose")
    tiny_page.get_by_label("Steps").fill("5")
    tiny_page.get_by_label("as", exact=True).select_option("png")
    tiny_page.locator("#sweep-scale").select_option("1")
    tiny_page.get_by_role("button", name="Make sweep").click()
    with tiny_page.expect_download() as saved:
        tiny_page.get_by_role("link", name="Download tiny-seed-7-sweep-0.png").click()
    strip = pixels(Path(saved.value.path()).read_bytes())
    editor = sefa_runtime.load(GOLDEN / "tiny.onnx", "cpu")
    steps = [editor.edit(7, edits={0: alpha, 1: 2})[0] for alpha in (-3, -1.5, 0, 1.5, 3)]
    np.testing.assert_array_equal(strip, np.concatenate(steps, axis=1))

    tiny_page.get_by_label("as", exact=True).select_option("gif")
    tiny_page.get_by_role("button", name="Make sweep").click()
    with tiny_page.expect_download() as saved:
        tiny_page.get_by_role("link", name="Download tiny-seed-7-sweep-0.gif").click()
    assert Path(saved.value.path()).read_bytes().startswith(b"GIF89a")


def test_the_address_is_not_written_faster_than_browsers_allow(tiny_page: Page) -> None:
    tiny_page.evaluate(
        """() => {
            const replace = history.replaceState;
            window.writes = 0;
            history.replaceState = (...state) => { writes += 1; replace.apply(history, state); };
        }"""
    )
    for step in range(60):
        slide(tiny_page, 0, round(0.05 * (step % 50), 2))
    wait_for_image(tiny_page)
    assert tiny_page.evaluate("writes") <= 5
