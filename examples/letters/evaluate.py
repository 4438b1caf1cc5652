"""Judge a trained generator.

    python -m letters.evaluate letters.safetensors DATA classifier.safetensors -o EVALUATION

writes EVALUATION/record.json; sheets of fonts, of glyphs beside the nearest that training saw, and of directions; and
EVALUATION/bank.safetensors, the directions, named.
"""

import argparse
import json
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sefa
from letters.classifier import Classifier, accuracy, ambiguous_pairs, load_classifier, predict
from letters.dataset import Glyphs
from letters.glyphs import CHARACTERS, as_coverage, sheet
from letters.quality import Fonts, generated_fonts, judge, nearest, real_fonts
from sefa.bank.editing import change, merge
from sefa.bank.naming import parse_change, resolve
from sefa.demo.responses import Response, names_of, respond
from sefa.generators.common.mapping import StyleBasedGenerator
from sefa_runtime.inputs.latents import latents_from_seeds

LAYER_GROUPS = {"all": "all", "coarse": "0-2", "middle": "3-5", "fine": "6-9"}
TOP = 8
FONTS = 68  # as many as are held out
SAMPLES = 200
GROUP_SHARE = 4  # groups of layers are measured on a quarter of the fonts that all layers are
WORD = "HamburgefonSiv"
STEPS = 5
TRUNCATIONS = (0.7, 0.5)


def evaluate(
    path: Path, data: Path, classifier: Path, out: Path, fonts: int = FONTS, samples: int = SAMPLES
) -> dict[str, Any]:
    """Judge the glyphs and the directions of a generator; return the record."""
    generator = sefa.load(path)
    out.mkdir(parents=True, exist_ok=True)
    glyphs = Glyphs(data, held_out=False)
    seen, held_out = real_fonts(glyphs), real_fonts(Glyphs(data, held_out=True))
    generated = generated_fonts(generator, fonts)
    sheet(generated.coverage[:24].reshape(-1, 64, 64), len(CHARACTERS)).save(out / "fonts.png")
    _neighbour_sheet(generated, seen, out / "nearest.png")
    judge_of, ambiguous = load_classifier(classifier), ambiguous_pairs(seen.coverage)
    record: dict[str, Any] = {
        "generator": {"file": path.name, "bytes": path.stat().st_size, "sha256": generator.source_sha256},
        "quality": judge(generated, seen, held_out, judge_of, ambiguous),
        "truncation": _truncation(generator, judge_of, ambiguous, max(fonts // 4, 1)),
        "directions": {},
    }
    banks = []
    for group, layers in LAYER_GROUPS.items():
        bank = sefa.factorize(generator, layers=layers, top=TOP)
        count = samples if group == "all" else max(samples // GROUP_SHARE, 2)
        responses = respond(generator, bank, count)
        found = names_of(responses)
        changes = [parse_change(name.change) for name in found]
        bank = change(bank, resolve(bank.names, changes))
        banks.append(bank)
        _direction_sheet(generator, bank, responses, out / f"directions-{group}.png")
        record["directions"][group] = {
            "layers": layers,
            "fonts": count,
            "alpha_range": responses[0].alpha_range,
            "named": [asdict(name) for name in found],
            "measured": [
                {
                    "eigenvalue": round(float(eigenvalue), 3),
                    "effects": response.effects(),
                    "correlations": response.correlations(),
                    "correlations_over_fonts": response.correlations_over_fonts(),
                }
                for eigenvalue, response in zip(bank.eigenvalues, responses, strict=True)
            ],
        }
    merge(banks, [f"{group}-" for group in LAYER_GROUPS]).save(out / "bank.safetensors")
    return record


def _truncation(
    generator: sefa.Generator, classifier: Classifier, ambiguous: dict[str, float], fonts: int
) -> list[dict[str, float]]:
    """Return how many truncated glyphs are recognised, drawn towards the centre of their class and of all classes."""
    assert isinstance(generator, StyleBasedGenerator)
    of_all = deepcopy(generator)
    of_all.center = generator.center.mean(dim=0) if generator.center.ndim == 2 else generator.center
    rows = []
    for psi in TRUNCATIONS:
        row = {"psi": psi}
        for name, one in (("centre_of_class", generator), ("centre_of_all", of_all)):
            truncated = generated_fonts(one, fonts, truncation=psi)
            predicted = predict(classifier, truncated.images)[1]
            row[name] = accuracy(truncated.labels, predicted, ambiguous).but_for_ambiguous
        rows.append(row)
    return rows


def _neighbour_sheet(generated: Fonts, seen: Fonts, path: Path, count: int = 6) -> None:
    """Draw generated fonts, and below each the nearest seen glyph of each character."""
    some = Fonts(generated.coverage[:count])
    index, _ = nearest(some, seen)
    below = np.stack([seen.coverage[row, np.arange(len(CHARACTERS))] for row in index])
    sheet(np.stack([some.coverage, below], axis=1).reshape(-1, 64, 64), len(CHARACTERS)).save(path)


@torch.no_grad()
def _direction_sheet(
    generator: sefa.Generator, bank: sefa.DirectionBank, responses: list[Response], path: Path
) -> None:
    """Draw a word along each direction: a row for each alpha over the range that was measured."""
    labels = torch.tensor([CHARACTERS.index(character) for character in WORD])
    z = torch.from_numpy(latents_from_seeds([3], generator.z_dim))
    codes = generator.encode(z.expand(len(labels), -1), labels)
    rows = []
    for step, response in zip(bank.steps(), responses, strict=True):
        for amount in torch.linspace(*response.alpha_range, STEPS):
            rows.append(as_coverage(generator.decode(codes + amount * step)[:, 0].numpy()))
    sheet(np.concatenate(rows), len(WORD)).save(path)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", type=Path)
    parser.add_argument("data", type=Path, help="folder that letters.fonts wrote")
    parser.add_argument("classifier", type=Path, help="file that letters.classifier wrote")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--fonts", type=int, default=FONTS, help="how many fonts to generate and judge")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="how many fonts to edit along each direction")
    given = parser.parse_args()
    torch.set_num_threads(1)  # Several crawl where other work goes on, and gain little on small images.
    record = evaluate(given.generator, given.data, given.classifier, given.out, given.fonts, given.samples)
    text = json.dumps(record, indent=1)
    (given.out / "record.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
