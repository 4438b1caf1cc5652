"""How similar the effects of directions are."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# From this |cosine| on, a direction is said to look like another.
ALIKE = 0.5
NAMED = 3
# Numbers of each change processed at once: bounds the memory.
COLUMNS = 1 << 20


def similarity(signatures: Sequence[NDArray[np.float16]]) -> NDArray[np.float32]:
    """Compute |cosine| between the changes that directions make to the same images.

    1 is the same change, whatever its size and sign; 0 is unrelated.

    Args:
        signatures: `Measurement.signature` of K directions.

    Returns:
        float32 [K, K]. A direction that changes nothing has 0 with every direction, even itself.
    """
    flat = [signature.reshape(-1) for signature in signatures]
    products = np.zeros((len(flat), len(flat)))
    for start in range(0, flat[0].size, COLUMNS):
        part = np.stack([signature[start : start + COLUMNS] for signature in flat]).astype(np.float32)
        products += part @ part.T
    lengths = np.sqrt(products.diagonal())
    scale = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return np.clip(np.abs(products * scale[:, None] * scale), 0, 1).astype(np.float32)


def looks_like(cosines: NDArray[np.float32], direction: int) -> list[tuple[int, float]]:
    """Return up to `NAMED` directions that a direction looks like, most alike first, with their |cosine|."""
    others = [
        (other, float(cosine))
        for other, cosine in enumerate(cosines[direction])
        if other != direction and cosine >= ALIKE
    ]
    return sorted(others, key=lambda pair: -pair[1])[:NAMED]
