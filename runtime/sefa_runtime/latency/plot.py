"""Plotting a latency record: the distribution of latency, and throughput by batch size. Needs matplotlib."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sefa_runtime.errors import InputError
from sefa_runtime.files import replacing
from sefa_runtime.latency.record import BatchResult, LatencyRecord
from sefa_runtime.latency.statistics import SAMPLES_BEYOND
from sefa_runtime.machine.description import machine_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKED = (50, 90, 99)


def check_plot(path: Path) -> None:
    """Check that a plot can be made, so that it fails before the measurement rather than after it.

    Raises:
        InputError: If matplotlib is not installed or the file's name does not end in `.png`.
    """
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: a plot is a .png file")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"a plot needs matplotlib, which cannot be imported ({error}): pip install matplotlib"
        ) from error


def save_plot(record: LatencyRecord, path: Path) -> None:
    """Plot a record with its samples, as `measure` returns it, into a PNG file.

    Raises:
        InputError: As `check_plot`.
        OSError: If the file cannot be written.
    """
    check_plot(path)
    figure = plot(record)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=144)


def plot(record: LatencyRecord) -> "Figure":
    """Return the plot as a matplotlib figure with two axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    latency, throughput = figure.subplots(1, 2, width_ratios=(3, 2))
    _plot_latency(latency, record)
    _plot_throughput(throughput, record)
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=9)
    for axes in (latency, throughput):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
        axes.set_axisbelow(True)
    figure.suptitle(
        f"{record.model['file']}, {record.scenario}, provider {record.provider} on {machine_in_words(record.machine)}; "
        f"{record.created[:10]}",
        fontsize=10,
        x=0.01,
        ha="left",
    )
    return figure


def _plot_latency(axes: "Axes", record: LatencyRecord) -> None:
    """Plot latency against the share of requests at or below it; equal steps to the right are tenfold rarer."""
    for result in record.results:
        samples = np.sort([np.inf if sample is None else sample for sample in result.samples_ms or ()])
        beyond = (len(samples) - np.arange(len(samples))) / len(samples)  # share that take at least as long
        rarity = -np.log10(beyond)
        known = np.isfinite(samples)
        meant = known & (np.arange(len(samples)) < len(samples) - SAMPLES_BEYOND)
        (line,) = axes.plot(rarity[meant], samples[meant], linewidth=1.8, label=_label(result))
        axes.plot(rarity[known], samples[known], linewidth=0.8, alpha=0.5, color=line.get_color())
    ticks = {"0": 0.0, "50": -np.log10(0.5), "90": 1.0, "99": 2.0, "99.9": 3.0, "99.99": 4.0}
    most = max(len(result.samples_ms or ()) for result in record.results)
    shown = {name: place for name, place in ticks.items() if place <= max(2, np.log10(most))}
    axes.set_xticks(list(shown.values()), list(shown))
    if len(record.results) > 1:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(f"% of requests that take at most so long (thin: fewer than {SAMPLES_BEYOND} take longer)")
    axes.set_title("Latency, ms", loc="left", fontsize=11)


def _plot_throughput(axes: "Axes", record: LatencyRecord) -> None:
    best = max(result.images_per_second for result in record.results)
    bars = axes.bar(
        [str(result.batch) for result in record.results],
        [result.images_per_second for result in record.results],
        width=0.6,
        color=["C0" if result.images_per_second == best else "#9ec3df" for result in record.results],
    )
    axes.set_xlim(-1, len(record.results))
    axes.bar_label(bars, fmt="{:,.0f}" if best >= 10 else "{:.2f}", padding=2)
    axes.set_xlabel("batch size")
    axes.set_title("Images per second", loc="left", fontsize=11)


def _label(result: BatchResult) -> str:
    given = [(percent, getattr(result, f"p{percent}_ms")) for percent in MARKED]
    numbers = ", ".join(f"p{percent} {value:.4g}" for percent, value in given if value is not None)
    rate = f" at {result.arrivals.rate:g}/s" if result.arrivals else ""
    return f"batch {result.batch}{rate}" + (f": {numbers} ms" if numbers else "")
