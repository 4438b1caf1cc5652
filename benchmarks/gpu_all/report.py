"""Tables of a record: for the terminal, and in Markdown for documents."""

from collections.abc import Iterable, Mapping
from typing import Any

Entry = Mapping[str, Any]
# The arithmetic that a way computes in, whose measured matrix rate it is held against.
TF32 = ("tf32 graph", "eager tf32")


def write_report(record: Mapping[str, Any]) -> str:
    """Return the record's tables in Markdown."""
    entries: list[Entry] = record["entries"]
    parts = [heading(record, entries), *models(entries), directions(entries), peers(entries), rates(entries)]
    return "\n\n".join(filter(None, [*parts, troubles(entries)])) + "\n"


def heading(record: Mapping[str, Any], entries: list[Entry]) -> str:
    device: Entry = next(iter(good(entries, "device")), {})
    versions = {**record["versions"], **{key: device[key] for key in ("torch", "cuda", "cudnn") if key in device}}
    where = device.get("device") or record["machine"]["cpu"]
    small = ", small models for a rehearsal" if record["small"] else ""
    numbers = ", ".join(f"{name} {number}" for name, number in versions.items())
    return f"{where} ({record['provider']}{small}; {record['seconds']:.0f} s); {numbers}"


def models(entries: list[Entry]) -> Iterable[str]:
    """Yield a table for each model and precision: what each way of running it takes, and how far its images are."""
    rate = {entry["arithmetic"]: entry["tflops"] for entry in good(entries, "matrix rate")}
    for item in dict.fromkeys(entry["item"] for entry in good(entries, "latency")):
        if item.startswith("peers"):
            continue
        mine = [entry for entry in entries if entry["item"] == item]
        flops = next((entry["gflop_per_image"] for entry in good(mine, "arithmetic")), None)
        parity = {(entry["way"], entry["batch"]): entry for entry in good(mine, "parity")}
        batches = list(dict.fromkeys(entry["batch"] for entry in good(mine, "latency")))
        rows = []
        for way in dict.fromkeys(entry["way"] for entry in good(mine, "latency")):
            found = {entry["batch"]: entry for entry in good(mine, "latency") if entry["way"] == way}
            worst = [parity[way, batch] for batch in batches if (way, batch) in parity]
            arithmetic = "tf32" if way in TF32 else "fp16" if "fp16" in item or "fp16" in way else "fp32"
            last = found.get(batches[-1])
            reached = ""
            if flops and last and rate.get(arithmetic):
                reached = f"{flops * last['images_per_second'] / 1e3 / rate[arithmetic]:.1%}"
            times = [f"{found[batch]['p50_ms']:g}" if batch in found else "" for batch in batches]
            rate_of_images = f"{last['images_per_second']:g}" if last else ""
            rows.append([way, *times, rate_of_images, reached, apart(worst)])
        head = ["", *(f"batch {batch}, p50 ms" for batch in batches), f"images/s at {batches[-1]}"]
        title = item + (f": {flops:g} GFLOP an image" if flops else "")
        yield f"**{title}**\n\n" + table([*head, "of the matrix rate", "from the CPU's images"], rows)


def apart(parity: list[Entry]) -> str:
    """Say how far images are from the reference's, the worst of all batches."""
    if not parity:
        return ""
    levels = max(entry["grey_levels"] for entry in parity)
    decibels = [entry["psnr_db"] for entry in parity if entry["psnr_db"] is not None]
    return f"{levels} levels, {min(decibels):g} dB" if decibels else "the same"


def directions(entries: list[Entry]) -> str:
    rows = [
        [
            entry["item"].removeprefix("directions "),
            entry["method"],
            f"{entry['cpu_s']:g}",
            f"{entry['device_s']:g}",
            f"{entry['eigenvalues_differ_by']:.1e}",
            f"{entry['least_cosine']:.6f}",
            f"{entry['angle_between_subspaces_deg']:.4f}",
        ]
        for entry in good(entries, "directions")
    ]
    head = ["generator", "method", "CPU, s", "device, s", "eigenvalues differ by", "least cosine", "angle, degrees"]
    return "**Directions, on the CPU and on the device**\n\n" + table(head, rows) if rows else ""


def peers(entries: list[Entry]) -> str:
    rows = []
    for item in dict.fromkeys(entry["item"] for entry in entries if entry["item"].startswith("peers")):
        mine = [entry for entry in entries if entry["item"] == item]
        ours: Entry | None = None
        for entry in good(mine, "latency"):
            if entry["way"] == "ours":
                ours = entry
                continue
            same = next((one for one in good(mine, "parity") if one["way"] == entry["way"]), None)
            assert ours is not None
            name = f"{item.removeprefix('peers ')}, {entry['way']}"
            ratio = f"{entry['p50_ms'] / ours['p50_ms']:.2f}"
            times = [f"{ours['p50_ms']:g}", f"{entry['p50_ms']:g}"]
            rows.append([name, str(entry["batch"]), *times, ratio, apart([same] if same else [])])
    head = ["", "batch", "ours, p50 ms", "theirs, p50 ms", "theirs over ours", "images"]
    return "**Other people's code, same weights, float32**\n\n" + table(head, rows) if rows else ""


def rates(entries: list[Entry]) -> str:
    rows = [
        [f"matrix product, {entry['arithmetic']}", f"{entry['tflops']:g} TFLOP/s"]
        for entry in good(entries, "matrix rate")
    ]
    rows += [
        [f"convolution, {entry['arithmetic']}", f"{entry['tflops']:g} TFLOP/s"]
        for entry in good(entries, "convolution rate")
    ]
    rows += [["copy, bytes read and written", f"{entry['gb_per_s']:g} GB/s"] for entry in good(entries, "copy rate")]
    return "**What the device reaches in torch**\n\n" + table(["", "measured"], rows) if rows else ""


def troubles(entries: list[Entry]) -> str:
    """List what did not work, verification that failed among it."""
    lines = []
    for entry in entries:
        facts = ", ".join(str(entry[key]) for key in ("way", "form", "method", "peer", "batch") if key in entry)
        where = f"{entry['item']}: {entry['what']}" + (f" ({facts})" if facts else "")
        if entry["status"] != "ok":
            lines.append(f"- {where}: {entry['status']}, {entry['error']}")
        elif entry["what"] == "verify" and not entry["ok"]:
            bad = "; ".join(finding["detail"] for finding in entry["findings"] if not finding["ok"])
            lines.append(f"- {where}: {bad}")
    return "**Not measured, or not right**\n\n" + "\n".join(lines) if lines else ""


def good(entries: Iterable[Entry], what: str) -> list[Entry]:
    return [entry for entry in entries if entry["what"] == what and entry["status"] == "ok"]


def table(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
