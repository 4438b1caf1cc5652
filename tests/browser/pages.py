"""What tests read off the page."""

import io
import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect

# The image's pixels as the browser shows them, by way of a canvas.
PIXELS = """
async (selector) => {
  const image = document.querySelector(selector);
  await image.decode();
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return [canvas.height, canvas.width, ...context.getImageData(0, 0, canvas.width, canvas.height).data];
}
"""


def wait_for_image(page: Page) -> None:
    """Wait until nothing is being rendered and the address has followed."""
    expect(page.locator("#edited[src]")).to_be_attached()
    page.wait_for_timeout(350)
    expect(page.locator("#stage")).to_have_attribute("aria-busy", "false")


def shown(page: Page, selector: str = "#edited") -> NDArray[np.uint8]:
    """Return the pixels of an image on the page, RGB, [H, W, 3]."""
    height, width, *values = page.evaluate(PIXELS, selector)
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def pixels(content: bytes) -> NDArray[np.uint8]:
    """Return the pixels of a file, RGB, [H, W, 3]."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def slide(page: Page, index: int, alpha: float) -> None:
    """Move a slider to a value."""
    page.locator(f"#alpha-{index}").fill(str(alpha))


def fragment(page: Page) -> dict[str, list[str]]:
    """Return what the address says after the #."""
    parts: dict[str, list[str]] = {}
    for key, value in parse_qsl(urlsplit(page.url).fragment):
        parts.setdefault(key, []).append(value)
    return parts


def alphas(page: Page) -> list[float]:
    """Return the values of all sliders."""
    values: list[Any] = page.locator(".slider").evaluate_all("sliders => sliders.map((slider) => Number(slider.value))")
    return [float(value) for value in values]


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two CSS colours, rgb(r, g, b), by WCAG's formula."""
    luminance = []
    for colour in (first, second):
        channels = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        luminance.append(float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(luminance) / min(luminance)
