"""The page's small images: strips of frames, heat maps, the similarity matrix, the spectrum."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sefa_runtime.images import Images, grid, on_white, to_pillow

# WebP quality of strips and maps; a 64x64 thumbnail of a face takes about 1 kB.
QUALITY = 82
# From little change to much: dark red, red, orange, yellow, almost white.
HEAT = np.array([(90, 0, 20), (200, 30, 10), (250, 120, 0), (255, 215, 70), (255, 255, 220)], np.float32)
# How bright the mean image is under the heat map, as a share.
DIMMED = 0.75
MATRIX_COLOUR = (37, 99, 235)
PLOT_WIDTH, PLOT_HEIGHT, PLOT_LEFT, PLOT_TOP, PLOT_BOTTOM = 640, 220, 56, 12, 24
GROUP_COLOURS = 6


def data_uri(image: Image.Image, kind: str = "webp") -> str:
    """Return an image as a data URI."""
    buffer = io.BytesIO()
    # WebP has no greyscale mode.
    image = image.convert("RGB") if image.mode == "L" else image
    image.save(buffer, kind, quality=QUALITY, method=4)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def strip(frames: Images) -> str:
    """Return frames, [A, h, w, C], side by side, as a data URI."""
    return data_uri(to_pillow(grid(frames[None])))


def heat_map(change_map: NDArray[np.float32], image: Images) -> str:
    """Return a data URI that shows where the images change, over their mean in grey.

    Args:
        change_map: [h, w].
        image: The mean image, uint8 [h, w, C].
    """
    grey = np.asarray(on_white(to_pillow(image)).convert("L"), np.float32)[..., None] * DIMMED
    most = float(change_map.max())
    share = (change_map / most if most else change_map)[..., None]  # [h, w, 1]
    colour = np.stack(
        [np.interp(share[..., 0], np.linspace(0, 1, len(HEAT)), HEAT[:, channel]) for channel in range(3)], axis=-1
    )
    cover = np.clip(1.6 * share - 0.2, 0, 0.92)  # Little change leaves the image visible, much only its outlines.
    return data_uri(Image.fromarray((grey * (1 - cover) + colour * cover).round().astype(np.uint8)))


def matrix_image(cosines: NDArray[np.float32]) -> str:
    """Return |cosine| as a data URI, one pixel each: the opacity of one colour, to suit light and dark pages."""
    pixels = np.empty((*cosines.shape, 4), np.uint8)
    pixels[..., :3] = MATRIX_COLOUR
    pixels[..., 3] = np.rint(cosines * 255)
    return data_uri(Image.fromarray(pixels), "png")


def spectrum(eigenvalues: Sequence[float], names: Sequence[str], groups: Sequence[int]) -> str:
    """Return eigenvalues as bars in SVG, each a link to its direction.

    Args:
        eigenvalues: K numbers, not negative.
        names: The directions' names.
        groups: The number of each direction's group, which chooses the colour.
    """
    most = max(eigenvalues) or 1.0
    pitch = (PLOT_WIDTH - PLOT_LEFT) / len(eigenvalues)
    height = PLOT_HEIGHT - PLOT_TOP - PLOT_BOTTOM
    every = max(1, round(24 / pitch))
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = PLOT_TOP + height * (1 - share)
        parts.append(f'<line class="rule" x1="{PLOT_LEFT}" x2="{PLOT_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{PLOT_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{most * share:.3g}</text>')
    for index, (eigenvalue, name, group) in enumerate(zip(eigenvalues, names, groups, strict=True)):
        x = PLOT_LEFT + index * pitch
        tall = max(height * eigenvalue / most, 1.0)
        label = escape(f"{index} {name}: eigenvalue {eigenvalue:.4g}")
        parts.append(
            f'<a href="#d{index}" aria-label="{label}"><title>{label}</title>'
            f'<rect class="hit" x="{x:.1f}" y="{PLOT_TOP}" width="{pitch:.1f}" height="{height}"/>'
            f'<rect class="g{group % GROUP_COLOURS}" x="{x + 0.12 * pitch:.1f}" y="{PLOT_TOP + height - tall:.1f}" '
            f'width="{0.76 * pitch:.1f}" height="{tall:.1f}"/></a>'
        )
        if index % every == 0:
            parts.append(f'<text x="{x + pitch / 2:.1f}" y="{PLOT_HEIGHT - 6}" text-anchor="middle">{index}</text>')
    return (
        f'<svg class="spectrum" viewBox="0 0 {PLOT_WIDTH} {PLOT_HEIGHT}" role="group" '
        f'aria-label="Eigenvalues of {len(eigenvalues)} directions">{"".join(parts)}</svg>'
    )
