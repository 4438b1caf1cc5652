"""The page of `sefa explore`, in a real browser, from a file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from sefa_runtime import Editor
from sefa_runtime.explore import explore, save_exploration

pytestmark = pytest.mark.browser
PLACE = "element => getComputedStyle(element).backgroundPositionX"


@pytest.fixture
def address(tiny: Editor, tmp_path: Path) -> str:
    save_exploration(explore(tiny, samples=8, seeds=[5, 9]), tmp_path / "sheet.html")
    return (tmp_path / "sheet.html").as_uri()


@pytest.fixture
def open_file(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """Open the page, with options by keyword. Errors of the page, and requests to anywhere, fail the test."""
    pages, faults = [], []

    def begin(**options: Any) -> Page:
        page = browser.new_page(**options)
        pages.append(page)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: faults.append(request.url) if request.url.startswith("http") else None)
        page.goto(address)
        return page

    yield begin
    for page in pages:
        page.close()
    assert faults == []


def test_rows_are_sorted_and_samples_chosen(open_file: Callable[..., Page]) -> None:
    page = open_file()
    for key, upwards in (("strength", False), ("area", True), ("alike", False), ("index", True)):
        page.select_option("#sort", key)
        values = page.eval_on_selector_all(".direction", f"rows => rows.map((row) => Number(row.dataset.{key}))")
        assert values == sorted(values, reverse=not upwards)
    page.check("#reverse")
    assert page.eval_on_selector_all(".direction", "rows => rows.map((row) => row.id)") == ["d3", "d2", "d1", "d0"]
    assert page.inner_text("#status") == "Sorted by number, reversed"
    page.select_option("#shown", "1")
    assert page.locator(".strip:visible").count() == 4


def test_a_strip_moves_under_the_pointer_and_the_keyboard(open_file: Callable[..., Page]) -> None:
    page = open_file()
    player = page.locator("#d1 .player")
    page.hover("#d1 .strip")
    page.wait_for_function("document.querySelector('#d1 .at').textContent.includes('alpha +')")
    page.mouse.move(0, 0)
    assert page.inner_text("#d1 .at") == "seed 5, alpha 0"
    assert player.evaluate(PLACE) == "50%"
    page.focus("#d1 .strip")
    page.keyboard.press("ArrowLeft")
    before = player.evaluate(PLACE)
    page.keyboard.press("ArrowLeft")
    assert float(player.evaluate(PLACE)[:-1]) == pytest.approx(max(float(before[:-1]) - 100 / 6, 0), abs=0.01)


def test_a_strip_is_shown_large(open_file: Callable[..., Page]) -> None:
    page = open_file(reduced_motion="reduce")
    page.focus("#d2 .strip >> nth=1")
    page.keyboard.press("Enter")
    assert page.inner_text("#large-title") == "Direction 2, seed 9"
    slider = page.locator("#large input")
    assert page.inner_text('[data-go="play"]') == "Play"  # It does not move on its own.
    assert slider.input_value() == "3"
    page.keyboard.press("ArrowRight")
    assert page.locator("#large .image").evaluate(PLACE).startswith("66.66")
    page.click('[data-go="next"]')
    page.click('[data-go="sample"]')
    assert page.inner_text("#large-title") == "Direction 3, seed 5"
    page.click('[data-go="play"]')
    page.wait_for_function("document.querySelector('#large input').value !== '4'")
    page.keyboard.press("Escape")
    assert not page.locator("#large").is_visible()
    # The page hears of it a moment after the dialog is gone.
    page.wait_for_function("document.activeElement.closest('.direction')?.id === 'd3'")


def test_nothing_moves_on_its_own_where_motion_is_unwelcome(open_file: Callable[..., Page]) -> None:
    page = open_file(reduced_motion="reduce")
    page.hover("#d0 .strip")
    shown = page.inner_text("#d0 .at")
    page.wait_for_timeout(400)
    assert page.inner_text("#d0 .at") == shown


@pytest.mark.parametrize("width", [320, 390, 800, 1440])
def test_it_fits_the_screen(open_file: Callable[..., Page], width: int) -> None:
    page = open_file(viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_file: Callable[..., Page], scheme: str) -> None:
    page = open_file(color_scheme=scheme, reduced_motion="reduce")
    page.click("summary")
    report = Axe().run(page)
    assert report.violations_count == 0, report.generate_report()
    page.click("#d1 .strip")
    report = Axe().run(page)
    assert report.violations_count == 0, report.generate_report()
