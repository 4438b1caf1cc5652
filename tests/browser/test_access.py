"""That the page can be used by all: names, contrast, sizes, motion; in the light and in the dark, large and small."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from browser.conftest import OpenPage
from browser.pages import contrast, slide, wait_for_image
from support.paths import GOLDEN
from support.serving import Running, Start

pytestmark = pytest.mark.browser
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
DESKTOP = {"viewport": {"width": 1280, "height": 800}}


@pytest.fixture(scope="module")
def server(start: Start) -> Running:
    """Of models of each kind of input."""
    return start(*(GOLDEN / f"{name}.onnx" for name in ("tiny", "style_z", "style_w+")))


def use_everything(page: Page) -> None:
    """Bring to sight what is hidden at first."""
    slide(page, 0, 2)
    page.get_by_role("button", name="Lock direction-1").click()
    page.get_by_role("button", name="Side by side").click()
    page.get_by_role("button", name="Rename direction-2").click()
    page.locator(".new-name:visible").fill("smile")
    page.locator(".new-name:visible").press("Enter")
    page.locator("#sweep-scale").select_option("1")
    page.get_by_role("button", name="Make sweep").click()
    expect(page.locator("#sweep-result")).to_be_visible()
    page.route("**/image?**", lambda route: route.abort())
    slide(page, 0, 1)
    expect(page.locator("#notice")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing(server: Running, open_page: OpenPage, scheme: str, screen: dict[str, object]) -> None:
    # It puts its program into the page, which our own policy forbids.
    page = open_page(f"http://{server.address}/#model=style_z", color_scheme=scheme, bypass_csp=True, **screen)
    wait_for_image(page)
    use_everything(page)
    found = Axe().run(page).response["violations"]
    assert not [(fault["id"], [node["html"][:120] for node in fault["nodes"]]) for fault in found]


def test_axe_finds_nothing_where_a_code_is_missing(server: Running, open_page: OpenPage) -> None:
    page = open_page(f"http://{server.address}/#model=style_w%2B", bypass_csp=True)
    expect(page.locator("#no-image")).to_be_visible()
    assert not [fault["id"] for fault in Axe().run(page).response["violations"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_controls_stand_out_and_text_is_legible(server: Running, open_page: OpenPage, scheme: str) -> None:
    page = open_page(f"http://{server.address}/#model=style_z&edit=0:2", color_scheme=scheme)
    wait_for_image(page)

    def colour(selector: str, name: str) -> str:
        return str(page.locator(selector).first.evaluate(f"element => getComputedStyle(element)['{name}']"))

    surface = colour("#source", "backgroundColor")
    for selector in ("#seed", "#random-seed", ".exact", "#sweep-format"):
        assert contrast(colour(selector, "borderColor"), surface) >= 3
    for selector in (".hint", ".name", "#curl", "h3"):
        assert contrast(colour(selector, "color"), surface) >= 4.5


@pytest.mark.parametrize("model", ["tiny", "style_z", "style_w%2B"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_screen(server: Running, open_page: OpenPage, model: str, width: int) -> None:
    page = open_page(f"http://{server.address}/#model={model}", viewport={"width": width, "height": 844})
    expect(page.locator(".name").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_image_stays_in_sight_on_a_phone(server: Running, open_page: OpenPage) -> None:
    page = open_page(f"http://{server.address}/#model=tiny", **PHONE)
    wait_for_image(page)
    page.locator("#alpha-3").scroll_into_view_if_needed()
    page.mouse.wheel(0, 300)
    expect(page.locator("#edited")).to_be_in_viewport()
    sizes = page.locator("button:visible").evaluate_all("all => all.map((one) => [one.offsetWidth, one.offsetHeight])")
    assert min(map(min, sizes)) >= 32


def test_animations_are_not_played_where_motion_is_unwanted(server: Running, open_page: OpenPage) -> None:
    for wish, hidden in (("reduce", True), ("no-preference", False)):
        page = open_page(f"http://{server.address}/#model=tiny", reduced_motion=wish)
        wait_for_image(page)
        page.locator("#sweep-scale").select_option("1")
        page.get_by_role("button", name="Make sweep").click()
        expect(page.locator("#sweep-download")).to_be_visible()
        assert page.locator("#sweep").is_hidden() == hidden
