"""A classifier of glyphs: the judge of whether a generated letter is the letter that was asked for.

    python -m letters.classifier DATA -o classifier.safetensors

trains it on the faces that the generator learns from, and measures it on those that neither has seen.
"""

import argparse
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from letters.dataset import Glyphs
from letters.glyphs import CHARACTERS, Coverage, blurred

CHANNELS = (1, 24, 48, 96, 128)
FEATURES = 128
SHIFT = 1  # pixels by which glyphs are shifted while it learns
# Two characters are drawn alike by a face if their blurred glyphs differ by less, on average, 0 to 255 ...
ALIKE = 1.0
# ... and cannot be told apart in principle if as many faces as this do so.
AMBIGUOUS_SHARE = 0.05


class Classifier(nn.Module):
    """Four strided convolutions, and one hidden layer whose activations are the features."""

    def __init__(self, num_classes: int = len(CHARACTERS)) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in pairwise(CHANNELS)
        )
        self.hidden = nn.Linear(CHANNELS[-1] * 16, FEATURES)
        self.score = nn.Linear(FEATURES, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """[N, 1, 64, 64] -> [N, 128]."""
        x = images.contiguous(memory_format=torch.channels_last)
        for conv in self.convs:
            x = conv(x)
        return F.relu(self.hidden(x.flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        """[N, 1, 64, 64] -> logits [N, classes]."""
        logits: Tensor = self.score(F.dropout(self.features(images), 0.3, self.training))
        return logits


def train(glyphs: Glyphs, epochs: int = 8, batch: int = 128, rate: float = 2e-3, seed: int = 0) -> Classifier:
    """Train a classifier on all glyphs, its learning rate falling to 0."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    model = Classifier(glyphs.num_classes).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    count = len(glyphs.faces) * glyphs.num_classes
    steps = epochs * (count // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    for _ in range(epochs):
        order = random.permutation(count)
        for start in range(0, count - batch + 1, batch):
            faces, labels = np.divmod(order[start : start + batch], glyphs.num_classes)
            images = _shift(glyphs.images(faces, labels), random)
            loss = F.cross_entropy(model(images), torch.from_numpy(labels), label_smoothing=0.05)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def predict(model: Classifier, images: Tensor, batch: int = 256) -> tuple[Tensor, Tensor]:
    """Return the features [N, 128] and the predicted labels [N] of images [N, 1, 64, 64]."""
    features = torch.cat([model.features(part) for part in torch.split(images, batch)])
    return features, model.score(features).argmax(dim=1)


def load_classifier(path: Path) -> Classifier:
    """Load a trained classifier."""
    state = load_file(path)
    model = Classifier(len(state["score.weight"]))
    model.load_state_dict(state)
    return model.eval()


def ambiguous_pairs(coverage: Coverage) -> dict[str, float]:
    """Return the pairs of characters that many faces [n, 62, 64, 64] draw alike, and what share of them does.

    No classifier can tell these apart in such a face, and no generator of such faces can do better.
    """
    faces = torch.from_numpy(blurred(coverage))  # [n, 62, 256]
    alike = torch.cdist(faces, faces, p=1) / faces.shape[2] < ALIKE  # [n, 62, 62]
    share = alike.double().mean(dim=0).triu(1).numpy()
    pairs = [(CHARACTERS[a] + CHARACTERS[b], float(share[a, b])) for a, b in np.argwhere(share >= AMBIGUOUS_SHARE)]
    return dict(sorted(pairs, key=lambda pair: -pair[1]))


@dataclass(frozen=True)
class Accuracy:
    """How often predictions are right.

    Attributes:
        exact: Share of glyphs whose predicted character is the right one.
        but_for_ambiguous: The same, where a character that many faces draw alike counts as right.
        ignoring_case: The same, where the other case counts as right as well.
        confusions: The most frequent wrong predictions as "right predicted", and their share of all glyphs of the
            right character.
        worst: The characters recognised least often, and how often, ambiguous ones counted as right.
    """

    exact: float
    but_for_ambiguous: float
    ignoring_case: float
    confusions: dict[str, float]
    worst: dict[str, float]


def accuracy(labels: Tensor, predicted: Tensor, ambiguous: dict[str, float]) -> Accuracy:
    """Compare predictions [N] with labels [N]."""
    count = len(CHARACTERS)
    table = torch.zeros(count, count, dtype=torch.float64)
    table.index_put_((labels, predicted), torch.ones(len(labels), dtype=torch.float64), accumulate=True)
    same = torch.eye(count, dtype=torch.bool)
    alike = same.clone()
    for a, b in ((CHARACTERS.index(pair[0]), CHARACTERS.index(pair[1])) for pair in ambiguous):
        alike[a, b] = alike[b, a] = True
    case = alike | torch.tensor([[a.lower() == b.lower() for b in CHARACTERS] for a in CHARACTERS])
    per_class = table / table.sum(dim=1, keepdim=True).clamp(min=1)
    wrong = per_class.masked_fill(same, 0)
    top = wrong.flatten().argsort(descending=True)[:12].tolist()
    recognised = (per_class * alike).sum(dim=1)
    present = [index for index in recognised.argsort().tolist() if table[index].sum() > 0]

    def share(allowed: Tensor) -> float:
        return round(float(table[allowed].sum() / table.sum()), 4)

    return Accuracy(
        exact=share(same),
        but_for_ambiguous=share(alike),
        ignoring_case=share(case),
        confusions={
            f"{CHARACTERS[i // count]} {CHARACTERS[i % count]}": round(float(wrong.flatten()[i]), 3)
            for i in top
            if wrong.flatten()[i] > 0
        },
        worst={CHARACTERS[i]: round(float(recognised[i]), 3) for i in present[:8]},
    )


def _shift(images: Tensor, random: np.random.Generator) -> Tensor:
    """Shift a batch by up to `SHIFT` pixels; what comes in is paper."""
    height, width = images.shape[-2:]
    top, left = random.integers(2 * SHIFT + 1, size=2)
    return F.pad(images, [SHIFT] * 4, value=1.0)[:, :, top : top + height, left : left + width]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that letters.fonts wrote")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()
    seen, others = Glyphs(given.data, held_out=False), Glyphs(given.data, held_out=True)
    model = train(seen, given.epochs)
    save_file(model.state_dict(), given.out)
    images, labels = others.all()
    ambiguous = ambiguous_pairs(seen.coverage[seen.faces])
    print(
        json.dumps({"ambiguous": ambiguous, **vars(accuracy(labels, predict(model, images)[1], ambiguous))}, indent=1)
    )


if __name__ == "__main__":
    main()
