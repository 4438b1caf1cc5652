"""Draw a record of the comparison: a group of horizontal bars for each model. Needs matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peer_comparison.contest import Entry
from sefa_runtime.files import replacing
from sefa_runtime.machine.description import machine_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Narrow, so that on a phone the type is large enough to read.
WIDTH_IN, BAR_IN, GAP_IN, HEAD_IN, FOOT_IN = 5.0, 0.26, 0.48, 0.78, 0.42
BARS_LEFT, BARS_RIGHT, COLUMNS = 0.35, 0.68, (0.86, 0.98)  # fractions of the width
INK, PALE, BACKGROUND = "#1f2328", "#59636e", "#ffffff"
OURS, OURS_IN_TORCH, OTHERS = "#0969da", "#8cb4e8", "#b4bac1"
DPI = 216


def save_chart(record: Entry, path: Path, models: Sequence[str] | None = None) -> None:
    """Draw a record into an image file, whose format is its suffix's.

    Args:
        record: As benchmarks/peers.py writes it.
        path: The file.
        models: Only these, by name; None: all.

    Raises:
        OSError: If the file cannot be written.
    """
    figure = draw([one for one in record["models"] if not models or one["model"] in models], record)
    lossless = {"lossless": True, "method": 6} if path.suffix == ".webp" else {}
    with replacing(path) as partial:
        figure.savefig(partial, format=path.suffix[1:], dpi=DPI, facecolor=BACKGROUND, pil_kwargs=lossless)


def draw(models: Sequence[Entry], record: Entry) -> "Figure":
    """Return the chart as a matplotlib figure: bars of the first batch, and a column of ratios for each."""
    from matplotlib.figure import Figure

    groups = [(model["title"], rows) for model in models if (rows := _rows(model))]
    heights = [len(rows) * BAR_IN for _, rows in groups]
    total = HEAD_IN + sum(heights) + GAP_IN * len(groups) + FOOT_IN
    figure = Figure(figsize=(WIDTH_IN, total))

    def write(x: float, inches: float, text: str, **style: Any) -> None:
        figure.text(x, 1 - inches / total, text, **{"color": INK, "size": 9.5, **style})

    write(0.03, 0.3, "Milliseconds for one image, batch 1", size=13, weight="bold")
    write(0.03, 0.52, "same weights, latents and images; ratios to the first row", color=PALE)
    batches = list(dict.fromkeys(result["batch"] for model in models for result in model["results"]))
    for x, batch in zip(COLUMNS, batches, strict=False):
        write(x, 0.92, f"batch {batch}", color=PALE, ha="right")
    place = HEAD_IN
    for (title, rows), height in zip(groups, heights, strict=True):
        write(0.03, place + 0.38, title, size=10.5, weight="bold")
        place += GAP_IN + height
        axes = figure.add_axes((BARS_LEFT, 1 - place / total, BARS_RIGHT - BARS_LEFT, height / total))
        _bars(axes, rows)
        for index, row in enumerate(rows):
            middle = place - height + (index + 0.5) * BAR_IN
            for x, result in zip(COLUMNS, row, strict=False):
                write(x, middle, _times(result["ratio"]), ha="right", va="center")
    words = f"{machine_in_words(record['machine'])}; {record['threads']} threads; float32 but for bf16"
    write(0.03, total - 0.14, words, size=7.5, color=PALE)
    return figure


def _rows(model: Entry) -> list[list[Entry]]:
    """Return each contestant's results, one for each batch, if there is something to compare."""
    timed = [result for result in model["results"] if "ratio" in result]
    names = list(dict.fromkeys(result["name"] for result in timed))
    rows = [[result for result in timed if result["name"] == name] for name in names]
    return rows if len(rows) > 1 else []


def _bars(axes: "Axes", rows: list[list[Entry]]) -> None:
    """Draw the milliseconds of each row's first batch."""
    names = [row[0]["name"] for row in rows]
    values = [row[0]["ms_per_image"] for row in rows]
    axes.barh(range(len(rows)), values, height=0.74, color=[_color(name) for name in names])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, max(values))
    axes.set_yticks(range(len(rows)), names, size=9.5, color=INK)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for place, value in enumerate(values):
        axes.text(value, place, f" {_digits(value)}", size=9.5, color=INK, va="center")


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _times(ratio: float) -> str:
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.1f}×"


def _color(name: str) -> str:
    if not name.startswith("SeFa"):
        return OTHERS
    return OURS_IN_TORCH if "orch" in name else OURS
