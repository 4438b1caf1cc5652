"""Turn a trained generator into all that ships with it.

    python -m letters.package RUN/letters-001500k.safetensors DATA classifier.safetensors

writes, into this repository, the weights that `sefa.load("letters")` reads, with a centre of truncation for each class;
the record of the evaluation; images that the training's own code renders, for the tests; the figures and images of
docs/letters.md; and the images of letters in other documents.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import sefa
from letters.evaluate import evaluate
from letters.generator import Generator, ToImage, load_generator, save_generator
from letters.glyphs import CHARACTERS, as_coverage, sheet
from sefa.bundled import BUNDLED, LETTERS
from sefa.generators.common.mapping import StyleBasedGenerator
from sefa_runtime.inputs.latents import latents_from_seeds
from sefa_runtime.machine.description import describe_machine

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "benchmarks" / "results" / "letters.json"
GOLDEN = ROOT / "tests" / "golden" / "letters.npz"
CARD = ROOT / "docs" / "letters.md"
FONTS_IMAGE = ROOT / "docs" / "letters-fonts.webp"
PICTURES = ROOT / "docs" / "site_build" / "pictures.py"
FIGURES = re.compile(r"(<!-- Written by letters.package. -->\n).*?(<!-- To here. -->)", re.DOTALL)
# In the file, and in all models that are exported from it.
LICENSE = "Apache-2.0"
NOTE = "letters and digits of a class-conditional StyleGAN2 trained on free fonts; docs/letters.md is its model card"
# What tests render: a font each, and how far it is truncated.
GOLDEN_TEXT = "SeFa"
GOLDEN_PSI = (1.0, 1.0, 0.7, 0.4)
SHOWN_FONTS = 10
# What images are multiplied by: the discriminator saw them clamped, which hides that white paper is not quite white.
CONTRAST = 1.08


def package(snapshot: Path, data: Path, classifier: Path, out: Path) -> dict[str, Any]:
    """Write everything that ships; return the record.

    Args:
        snapshot: What `letters.train` saved.
        data: The folder that letters.fonts wrote.
        classifier: The file that letters.classifier wrote.
        out: A folder for the sheets of `letters.evaluate`, which do not ship.
    """
    weights = BUNDLED[LETTERS]
    generator = load_generator(snapshot)
    raise_contrast(generator)
    save_generator(generator, weights, CHARACTERS, {"license": LICENSE, "note": NOTE})
    record = {
        "what": "the generator of letters that comes with sefa: its training, its glyphs, its directions",
        "training": {"snapshot": snapshot.name, **_training(snapshot)},
        **evaluate(weights, data, classifier, out),
        "machine": describe_machine(),
        "versions": {"torch": torch.__version__, "sefa": sefa.__version__},
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    _write_golden(weights)
    _draw_fonts(FONTS_IMAGE)
    write_card(record)
    return record


def write_card(record: dict[str, Any]) -> None:
    """Write the figures of docs/letters.md."""
    CARD.write_text(FIGURES.sub(lambda found: found[1] + card_figures(record) + found[2], CARD.read_text()))


@torch.no_grad()
def raise_contrast(generator: Generator) -> None:
    """Multiply a generator's images by `CONTRAST`; changed in place. An image is a sum over sizes, linear in these."""
    for layer in generator.modules():
        if isinstance(layer, ToImage):
            layer.weight.mul_(CONTRAST)
            layer.bias.mul_(CONTRAST)


def card_figures(record: dict[str, Any]) -> str:
    """Return the part of docs/letters.md that says what the record holds."""
    quality, training = record["quality"], record["training"]
    trained = f" after {training['images']:,} images of training" if "images" in training else ""
    fonts = quality["fonts"]
    worst = list(quality["accuracy"]["generated"]["worst"].items())[:5]
    groups = record["directions"].values()
    return "\n".join(
        [
            f"{fonts['generated']} generated fonts{trained}, beside {fonts['held_out']} real ones that neither the "
            "generator nor the classifier has seen:\n",
            _table(("", "generated", "real"), _quality_rows(quality)),
            f"Recognised least are {', '.join(f'{one} ({_percent(share)})' for one, share in worst)}.\n",
            "Truncated by psi, towards a centre for each class or one for all:\n",
            _table(
                ("psi", "recognised, a centre for each class", "one for all"),
                [
                    (f"{row['psi']:g}", _percent(row["centre_of_class"]), _percent(row["centre_of_all"]))
                    for row in record["truncation"]
                ],
            ),
            "Directions of all layers or some, and what the ruler says that they do to fonts; the effect is that of "
            "the whole range of alpha, in standard deviations of fonts, whichever way a direction points:\n",
            _table(
                ("layers", "fonts", "direction", "moves", "correlation with alpha", "effect"),
                [
                    (
                        group["layers"],
                        *map(str, (group["fonts"], one["index"], one["measured"])),
                        *(f"{abs(one[figure]):.2f}" for figure in ("correlation", "effect")),
                    )
                    for group in groups
                    for one in group["named"]
                ],
            ),
        ]
    )


def _quality_rows(quality: dict[str, Any]) -> list[tuple[str, ...]]:
    def row(title: str, figures: str, *keys: str, share: bool = False) -> tuple[str, ...]:
        cells = [title]
        for fonts in ("generated", "held_out"):
            value = quality[figures][fonts]
            for key in keys:
                value = value[key]
            cells.append(_percent(value) if share else f"{value:g}")
        return tuple(cells)

    return [
        row("glyphs recognised", "accuracy", "but_for_ambiguous", share=True),
        row("the same, shapes that characters share counted as wrong", "accuracy", "exact", share=True),
        row("Fréchet distance to the fonts of the training", "frechet_distance_to_seen"),
        row("copies of a font of the training", "nearest_seen_glyph", "copied_fonts", share=True),
        row("one half of a font's characters against the other half: correlation of weight", "same_font", "ink"),
        row("the same of slant", "same_font", "slant"),
    ]


def _training(snapshot: Path) -> dict[str, Any]:
    """Return how long the training beside a snapshot had gone on when it was saved, from its log."""
    found, log = re.search(r"(\d+)k$", snapshot.stem), snapshot.with_name("log.jsonl")
    if found is None or not log.exists():
        return {}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    upto = [line for line in lines if line["images"] <= (int(found[1]) + 1) * 1000]
    return {"images": upto[-1]["images"], "hours": round(upto[-1]["seconds"] / 3600, 2)} if upto else {}


@torch.no_grad()
def _write_golden(weights: Path) -> None:
    """Render some letters with the training's own modules: what `sefa` renders is compared with these."""
    generator = load_generator(weights)
    reader = sefa.load(weights)
    assert isinstance(reader, StyleBasedGenerator)
    centers = reader.center
    seeds = np.arange(len(GOLDEN_TEXT))
    z = torch.from_numpy(latents_from_seeds(seeds.tolist(), generator.sizes.z_dim))
    label = torch.tensor([CHARACTERS.index(character) for character in GOLDEN_TEXT])
    psi = torch.tensor(GOLDEN_PSI)
    w = centers[label] + psi[:, None] * (generator.mapping(z, label) - centers[label])
    images = generator.synthesis(w)
    np.savez_compressed(GOLDEN, seed=seeds, label=label, truncation=psi, image=images)


@torch.no_grad()
def _draw_fonts(path: Path) -> None:
    """Draw all characters of some fonts, a font a row."""
    generator = sefa.load(LETTERS)
    labels = torch.arange(len(CHARACTERS))
    z = torch.from_numpy(latents_from_seeds(range(SHOWN_FONTS), generator.z_dim))
    rows = [
        as_coverage(generator.decode(generator.encode(latent.expand(len(labels), -1), labels))[:, 0].numpy())
        for latent in z
    ]
    image = sheet(np.concatenate(rows), len(labels))
    image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX).save(path, quality=80)


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [headings, ("---",) * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("snapshot", type=Path, help="file that letters.train wrote")
    parser.add_argument("data", type=Path, help="folder that letters.fonts wrote")
    parser.add_argument("classifier", type=Path, help="file that letters.classifier wrote")
    parser.add_argument("-o", "--out", type=Path, help="folder for the sheets of the evaluation; none are kept without")
    given = parser.parse_args()
    torch.set_num_threads(1)  # Several crawl where other work goes on, and gain little on small images.
    with tempfile.TemporaryDirectory() as temporary:
        package(given.snapshot, given.data, given.classifier, given.out or Path(temporary))
    subprocess.run([sys.executable, PICTURES], check=True)
    for path in (BUNDLED[LETTERS], RECORD, GOLDEN, FONTS_IMAGE, CARD):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
