"""Measure what half precision does to trained generators: python benchmarks/precision.py [-o RECORD.json]

The demo's letters and faces, each exported in float32 and with `--precision fp16`, on the CPU. The same latents, edits
and labels go through both; the differences are between their uint8 images. For comparison with weights that were not
trained, the letters' own are also shuffled within each tensor. (The letters' weights are float16 in their file.)
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sefa
import sefa_runtime
from records import Record, make_parser
from sefa.demo import find_faces
from sefa.generators import Generator
from sefa_export import ExportError, export_onnx
from sefa_runtime.inputs.examples import random_inputs
from sefa_runtime.verification import MAX_PSNR_DB, psnr_db

IMAGES = 256
BATCH = 16


def main() -> None:
    """Measure, print, and write the record."""
    output: Path | None = make_parser(__doc__).parse_args().output
    record = Record(
        f"{IMAGES} edited images of the fp16 export against those of the float32 export, on the CPU", ("torch",)
    )
    with tempfile.TemporaryDirectory() as folder:
        results = {name: measure(generator, Path(folder)) for name, generator in generators()}
    record.finish({"results": results}, output)


def generators() -> Iterator[tuple[str, Generator]]:
    """Yield the generators, by name."""
    yield "letters", sefa.load("letters")
    yield "faces", sefa.load(find_faces())
    shuffled = sefa.load("letters")
    random = torch.Generator().manual_seed(0)
    for parameter in shuffled.parameters():
        order = torch.randperm(parameter.numel(), generator=random)
        parameter.data = parameter.data.flatten()[order].view_as(parameter)
    yield "letters, weights shuffled", shuffled


def measure(generator: Generator, folder: Path) -> dict[str, Any]:
    """Export a generator in both precisions and compare their images."""
    bank = sefa.factorize(generator, top=8)
    paths = {kind: folder / f"{kind}.onnx" for kind in ("fp32", "fp16")}
    try:
        for kind, path in paths.items():
            export_onnx(generator, bank, path, precision=kind)
    except ExportError as error:
        return {"refused": str(error)}
    full, half = (sefa_runtime.load(path, "cpu") for path in paths.values())
    random = np.random.default_rng(0)
    ratios: list[float] = []
    levels = 0
    for _ in range(IMAGES // BATCH):
        feeds = random_inputs(full.info.signature, random, BATCH, 1)
        expected, image = full.infer(feeds), half.infer(feeds)
        ratios += psnr_db(image, expected, 255.0).clip(max=MAX_PSNR_DB).tolist()
        levels = max(levels, int(np.abs(image.astype(int) - expected).max()))
    sizes = {kind: path.stat().st_size for kind, path in paths.items()}
    return {
        "psnr_db": {"worst": round(min(ratios), 1), "median": round(float(np.median(ratios)), 1)},
        "largest_difference_in_levels": levels,
        "bytes": sizes,
        "size_ratio": round(sizes["fp16"] / sizes["fp32"], 3),
    }


if __name__ == "__main__":
    main()
