"""Judge a trained generator.

    python -m letters.evaluate letters.safetensors DATA classifier.safetensors -o EVALUATION

writes EVALUATION/record.json; sheets of fonts, of glyphs beside the nearest that training saw, and of directions; and
EVALUATION/bank.safetensors, the directions, named.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sefa
from letters.classifier import ambiguous_pairs, load_classifier
from letters.dataset import Glyphs
from letters.directions import SIGMAS, named, respond
from letters.glyphs import CHARACTERS, as_coverage, sheet
from letters.quality import Fonts, generated_fonts, judge, nearest, real_fonts
from sefa.bank.editing import merge

LAYER_GROUPS = {"all": "all", "coarse": "0-2", "middle": "3-5", "fine": "6-9"}
TOP = 6
WORD = "HamburgefonSiv"
STEPS = 7


def evaluate(path: Path, data: Path, classifier: Path, out: Path, fonts: int, samples: int) -> dict[str, Any]:
    """Judge the glyphs and the directions of a generator; return the record."""
    generator = sefa.load(path)
    out.mkdir(parents=True, exist_ok=True)
    glyphs = Glyphs(data, held_out=False)
    seen, held_out = real_fonts(glyphs), real_fonts(Glyphs(data, held_out=True))
    generated = generated_fonts(generator, fonts)
    sheet(generated.coverage[:24].reshape(-1, 64, 64), len(CHARACTERS)).save(out / "fonts.png")
    _neighbour_sheet(generated, seen, out / "nearest.png")
    record = {
        "generator": {"file": path.name, "bytes": path.stat().st_size, "sha256": generator.source_sha256},
        "quality": judge(generated, seen, held_out, load_classifier(classifier), ambiguous_pairs(seen.coverage)),
        "directions": {},
    }
    banks = []
    for group, layers in LAYER_GROUPS.items():
        bank = sefa.factorize(generator, layers=layers, top=TOP)
        responses, sigmas = respond(generator, bank, samples)
        bank = named(bank, responses, sigmas)
        banks.append(bank)
        _direction_sheet(generator, bank, sigmas, out / f"directions-{group}.png")
        record["directions"][group] = [
            {
                "name": name,
                "sigma": round(sigma, 3),
                "correlations": response.correlations(),
                "of_change": response.correlations_of_change(),
            }
            for name, sigma, response in zip(bank.names, sigmas, responses, strict=True)
        ]
    merge(banks, [f"{group}-" for group in LAYER_GROUPS]).save(out / "bank.safetensors")
    return record


def _neighbour_sheet(generated: Fonts, seen: Fonts, path: Path, count: int = 6) -> None:
    """Draw generated fonts, and below each the nearest seen glyph of each character."""
    some = Fonts(generated.coverage[:count])
    index, _ = nearest(some, seen)
    below = np.stack([seen.coverage[row, np.arange(len(CHARACTERS))] for row in index])
    sheet(np.stack([some.coverage, below], axis=1).reshape(-1, 64, 64), len(CHARACTERS)).save(path)


@torch.no_grad()
def _direction_sheet(generator: sefa.Generator, bank: sefa.DirectionBank, sigmas: list[float], path: Path) -> None:
    """Draw a word along each direction: a row for each alpha from -3 to 3 sigma."""
    labels = torch.tensor([CHARACTERS.index(character) for character in WORD])
    z = torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(3))
    codes = generator.encode(z.expand(len(labels), -1), labels)
    rows = []
    for step, sigma in zip(bank.steps(), sigmas, strict=True):
        for amount in torch.linspace(-SIGMAS * sigma, SIGMAS * sigma, STEPS):
            rows.append(as_coverage(generator.decode(codes + amount * step)[:, 0].numpy()))
    sheet(np.concatenate(rows), len(WORD)).save(path)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", type=Path)
    parser.add_argument("data", type=Path, help="folder that letters.fonts wrote")
    parser.add_argument("classifier", type=Path, help="file that letters.classifier wrote")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--fonts", type=int, default=68, help="how many fonts to generate and judge")
    parser.add_argument("--samples", type=int, default=200, help="how many fonts to edit along each direction")
    given = parser.parse_args()
    record = evaluate(given.generator, given.data, given.classifier, given.out, given.fonts, given.samples)
    text = json.dumps(record, indent=1)
    (given.out / "record.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
