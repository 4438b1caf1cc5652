"""Render the documents' images of letters: python docs/site_build/pictures.py [CHECKPOINT]

Writes docs/assets/letters-*.webp, from the letters that come with sefa, or from a checkpoint of the same classes.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import sefa
from sefa.demo.ruler import CHARACTERS
from sefa_export import EditGraph, bake
from sefa_runtime import latents_from_seeds
from sefa_runtime.images import enlarge, grid

ASSETS = Path(__file__).parents[1] / "assets"
FONTS = (3, 7, 12, 21)
STEPS = 7
PSI = 0.7
REACH = 0.6  # of alpha, as a share of the mean distance of codes from their class's mean
GAP = 6  # pixels between what is compared


@dataclass(frozen=True)
class Letters:
    """A graph of letters that takes z, direction, alpha, label and truncation."""

    graph: EditGraph

    def render(
        self, letter: str, fonts: Sequence[int], alphas: float | Sequence[float] = 0.0, psi: float = PSI
    ) -> NDArray[np.uint8]:
        """Render a letter of each font, moved along the first direction: [fonts, H, W, C]."""
        count = len(fonts)
        images = self.graph(
            torch.from_numpy(latents_from_seeds(fonts, self.graph.generator.z_dim)),
            torch.zeros(count, 1, dtype=torch.int64),
            torch.from_numpy(np.broadcast_to(np.asarray(alphas, np.float32), count)[:, None].copy()),
            torch.full((count,), CHARACTERS.index(letter)),
            torch.full((count,), psi),
        )
        return images.numpy()  # type: ignore[no-any-return]


def main(checkpoint: str = "letters") -> None:
    """Render all images."""
    torch.set_grad_enabled(False)
    generator = sefa.load(checkpoint)
    middle = generator.num_layers // 2
    every, coarse, fine = (
        Letters(bake(generator, sefa.factorize(generator, layers=layers), truncation=None))
        for layers in ("all", f"0-{middle - 1}", f"{middle}-{generator.num_layers - 1}")
    )
    alphas = np.linspace(-1, 1, STEPS) * reach(generator, "g")

    save("alpha", [every.render("g", [font] * STEPS, list(alphas)) for font in FONTS])
    save("layers", [graph.render("g", [font] * STEPS, list(alphas)) for graph in (coarse, fine) for font in FONTS[:2]])
    save("truncation", [every.render("R", range(1, 9), psi=psi) for psi in (1, 0.7, 0.4, 0)])
    save("labels", [np.concatenate([every.render(letter, [font]) for letter in "SeFa"]) for font in FONTS], gap=0)


def reach(generator: sefa.Generator, letter: str, samples: int = 200) -> float:
    """Return an alpha at which letters are still letters."""
    z = torch.from_numpy(latents_from_seeds(range(samples), generator.z_dim))
    codes = generator.encode(z, torch.full((samples,), CHARACTERS.index(letter)))[:, 0]  # [samples, D]
    return REACH * float((codes - codes.mean(dim=0)).norm(dim=1).mean())


def save(name: str, rows: Sequence[NDArray[np.uint8]], gap: int = GAP) -> None:
    """Write an image of rows of images."""
    image = enlarge(grid(np.stack(rows), gap), 2)
    path = ASSETS / f"letters-{name}.webp"
    Image.fromarray(image[..., 0]).save(path, quality=70, method=6)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(*sys.argv[1:])
