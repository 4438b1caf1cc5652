"""Writing explorations to files: a page, a contact sheet, or JSON."""

import json
from pathlib import Path

from sefa_runtime.explore.effects import STEPS
from sefa_runtime.explore.exploration import Exploration
from sefa_runtime.explore.page import layers_in_words, to_html
from sefa_runtime.explore.similarity import looks_like
from sefa_runtime.files import write_whole
from sefa_runtime.images import IMAGE_SUFFIXES, Images, check_suffix, contact_sheet, save_image

PAGE_SUFFIX, JSON_SUFFIX = ".html", ".json"
SUFFIXES = (PAGE_SUFFIX, JSON_SUFFIX, *IMAGE_SUFFIXES)


def check_output_name(path: Path) -> None:
    """Check that a file's suffix is one that an exploration can be written as.

    Raises:
        InputError: If it is not.
    """
    check_suffix(path, SUFFIXES)


def save_exploration(exploration: Exploration, path: str | Path) -> None:
    """Write an exploration in the format that the suffix selects.

    Args:
        exploration: From `explore`.
        path: `.html` gives a self-contained page, `.json` all measurements, an image suffix a contact sheet.

    Raises:
        InputError: If the suffix is any other, or the format cannot hold the sheet.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    check_output_name(path)
    suffix = path.suffix.lower()
    if suffix == PAGE_SUFFIX:
        write_whole(path, to_html(exploration).encode())
    elif suffix == JSON_SUFFIX:
        write_whole(path, (json.dumps(exploration.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())
    else:
        save_image(sheet(exploration), path)


def sheet(exploration: Exploration) -> Images:
    """Return a contact sheet: directions down, their ranges across, one block per image shown: uint8 [H', W', 3]."""
    sides = [""] * (STEPS - 1)
    return contact_sheet(
        exploration.frames.swapaxes(0, 1),  # [images shown, directions, alphas, h, w, C]
        titles=exploration.titles,
        row_labels=[_row_label(exploration, index) for index in range(len(exploration.effects))],
        column_labels=["low", *sides, "0", *sides, "high"],
    )


def _row_label(exploration: Exploration, index: int) -> str:
    direction, effect = exploration.info.directions[index], exploration.effects[index]
    low, high = effect.alpha_range
    parts = [f"{index} {direction.name}"]
    if len(exploration.groups()) > 1:
        parts.append(f"layers {layers_in_words(direction.analysed_layers)}")
    parts += [
        f"alpha {low:g} to {high:g}",
        f"{effect.strength:.3g} per alpha",
        f"half in {effect.area:.0%}",
        f"monotone {effect.monotone:.0%}",
    ]
    alike = looks_like(exploration.similarity, index)
    if alike:
        parts.append(f"like {alike[0][0]} ({alike[0][1]:.2f})")
    return " · ".join(parts)
