"""Plot comparisons: of two banks as a matrix, of methods as bars and curves. Needs matplotlib."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sefa.bank.comparison import BankComparison
from sefa.bank.direction_bank import DirectionBank
from sefa.method_comparison.methods import RANDOM, MethodComparison
from sefa_runtime.files import replacing
from sefa_runtime.latency.plot import check_plot
from sefa_runtime.machine.description import machine_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# With more directions, names and numbers would be too small to read.
MAX_NAMED = 40
MAX_NUMBERED = 20
COLOURS = {"sefa": "tab:blue", "sefa, rows": "tab:cyan", "ganspace": "tab:orange", RANDOM: "tab:gray"}


def save_matrix(comparison: BankComparison, a: DirectionBank, b: DirectionBank, path: Path) -> None:
    """Plot |cosine| between every direction of A and every direction of B as a PNG file; matched pairs are framed.

    Raises:
        InputError: If matplotlib is not installed or the file's name does not end in `.png`.
        OSError: If the file cannot be written.
    """
    check_plot(path)
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    values = comparison.cosines.abs().numpy()
    height, width = values.shape
    cell = 0.42 if max(values.shape) <= MAX_NUMBERED else 0.22 if max(values.shape) <= MAX_NAMED else 0.06
    figure = Figure(figsize=(max(5.0, 2.6 + cell * width), max(3.4, 1.8 + cell * height)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    draw_numbers(axes, values.tolist())
    for pair in comparison.pairs:
        corner = (pair.b - 0.5, pair.a - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="white", linewidth=1.6))
    axes.set_ylabel("A")
    axes.set_xlabel("B")
    name_ticks(axes, a.names, b.names)
    axes.set_title("|cosine| of two edits; framed: matched pairs", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=144)


def save_methods(comparison: MethodComparison, path: Path) -> None:
    """Plot a comparison of methods as a PNG file: times, principal angles, and what each direction changes.

    Raises:
        InputError: If matplotlib is not installed or the file's name does not end in `.png`.
        OSError: If the file cannot be written.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.4), layout="constrained")
    times, angles, changes = figure.subplots(1, 3, width_ratios=(4, 4, 5))
    _plot_times(times, comparison)
    _plot_angles(angles, comparison)
    _plot_changes(changes, comparison)
    for axes in (times, angles, changes):
        axes.spines[["top", "right"]].set_visible(False)
    facts = comparison.generator
    height, width = facts["resolution"]
    figure.suptitle(
        f"{facts['family']} {width}x{height}, {comparison.top} directions of {facts['latent_dim']} dimensions, layers "
        f"{facts['layers']}; {machine_in_words(comparison.machine)}, on {comparison.device}",
        fontsize=10,
    )
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=144)


def _plot_times(axes: "Axes", comparison: MethodComparison) -> None:
    timed = [method for method in comparison.methods if method.seconds is not None]
    seconds = [method.seconds or 0.0 for method in timed]
    bars = axes.barh([method.name for method in timed], seconds, color=[COLOURS[method.name] for method in timed])
    axes.set_xscale("log")
    axes.invert_yaxis()
    first, last = math.floor(math.log10(min(seconds)) - 0.3), math.ceil(math.log10(max(seconds)) + 0.1)
    first = min(first, last - 2)
    axes.set_xlim(10**first, 10**last)
    axes.set_xticks([10**power for power in range(first, last + 1)])
    axes.minorticks_off()
    for bar, method, second in zip(bars, timed, seconds, strict=True):
        samples = f"{method.samples:,} samples" if method.samples else "no samples"
        inside = math.log10(second) - first > (last - first) / 2  # Put the text where there is room for it.
        axes.annotate(
            f"{seconds_in_words(second)}, {samples}",
            (second, bar.get_y() + bar.get_height() / 2),
            xytext=(-4 if inside else 4, 0),
            textcoords="offset points",
            ha="right" if inside else "left",
            va="center",
            color="white" if inside else "black",
            fontsize=8,
        )
    axes.set_title(f"time to find them: SeFa {times_in_words(comparison.sefa_is_faster)} as fast", fontsize=9)
    axes.set_xlabel("seconds", fontsize=8)


def _plot_angles(axes: "Axes", comparison: MethodComparison) -> None:
    for agreement, style in zip(comparison.agreements, ("o-", "s-", "^-"), strict=True):
        label = f"{agreement.a} / {agreement.b}: {agreement.overlap:.1%} shared"
        axes.plot(range(1, comparison.top + 1), agreement.angles_deg, style, label=label, markersize=4)
    axes.set_ylim(-2, 92)
    axes.set_yticks(range(0, 91, 15))
    axes.legend(fontsize=8, frameon=False)
    axes.set_title(f"principal angles of the spaces; chance: {comparison.chance:.0%} shared", fontsize=9)
    axes.set_ylabel("degrees; 0: in both", fontsize=8)
    axes.set_xlabel("angle", fontsize=8)


def _plot_changes(axes: "Axes", comparison: MethodComparison) -> None:
    for method in comparison.methods:
        style = "o:" if method.name == RANDOM else "o-"
        colour = COLOURS[method.name]
        axes.plot(range(comparison.top), method.change, style, label=method.name, color=colour, markersize=4)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False)
    axes.set_title(f"change of the image by a move of length 1, {comparison.images} latents", fontsize=9)
    axes.set_ylabel("mean, grey levels of 255", fontsize=8)
    axes.set_xlabel("direction", fontsize=8)


def times_in_words(factor: float) -> str:
    """Return `3.1 times` or `210 times`, with two significant digits."""
    digits = max(0, 1 - math.floor(math.log10(factor)))
    return f"{round(factor, 1 - math.floor(math.log10(factor))):,.{digits}f} times"


def seconds_in_words(seconds: float) -> str:
    """Return `2.1 ms` or `14 s`, with at least two significant digits."""
    if seconds < 1:
        return f"{seconds * 1000:.2g} ms" if seconds < 0.0995 else f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"


def draw_numbers(axes: "Axes", values: Sequence[Sequence[float]]) -> None:
    """Write each value into its cell, unless the matrix is too large."""
    if max(len(values), len(values[0])) > MAX_NUMBERED:
        return
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            colour = "black" if value > 0.6 else "white"
            axes.text(column, row, f"{value:.2f}".lstrip("0"), ha="center", va="center", fontsize=7, color=colour)


def name_ticks(axes: "Axes", rows: Sequence[str], columns: Sequence[str]) -> None:
    """Name the rows and columns of a matrix, or number them if there are too many."""
    if len(rows) <= MAX_NAMED:
        axes.set_yticks(range(len(rows)), [_short(name) for name in rows], fontsize=7)
    if len(columns) <= MAX_NAMED:
        axes.set_xticks(range(len(columns)), [_short(name) for name in columns], fontsize=7, rotation=90)


def _short(name: str) -> str:
    name = name.replace("$", r"\$")  # No formulas.
    return name if len(name) <= 24 else name[:23] + "…"
