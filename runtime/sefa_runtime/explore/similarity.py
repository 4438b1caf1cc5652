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

    1 is the same change, whatever its size and sign; 0 is unrelated. Two directions are compared on the images that
    both were measured on.

    Args:
        signatures: `Measurement.signature` of K directions.

    Returns:
        float32 [K, K]. A direction that changes nothing has 0 with every direction, even itself.
    """
    count, size = max(map(len, signatures)), signatures[0][0].size
    products = np.zeros((len(signatures), len(signatures)))
    squares = np.zeros_like(products)  # [a, b]: of the changes of a, on the images of both
    at_once = max(1, COLUMNS // size)
    for start in range(0, count, at_once):
        part = np.zeros((len(signatures), min(at_once, count - start), size), np.float32)
        measured = np.zeros(part.shape[:2], np.float32)
        for index, signature in enumerate(signatures):
            rows = signature[start : start + at_once].reshape(-1, size)
            part[index, : len(rows)] = rows
            measured[index, : len(rows)] = 1
        flat = part.reshape(len(part), -1)
        products += flat @ flat.T
        squares += (part**2).sum(2) @ measured.T
    lengths = np.sqrt(squares * squares.T)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return np.clip(np.abs(cosines), 0, 1).astype(np.float32)


def looks_like(cosines: NDArray[np.float32], direction: int) -> list[tuple[int, float]]:
    """Return up to `NAMED` directions that a direction looks like, most alike first, with their |cosine|."""
    others = [
        (other, float(cosine))
        for other, cosine in enumerate(cosines[direction])
        if other != direction and cosine >= ALIKE
    ]
    return sorted(others, key=lambda pair: -pair[1])[:NAMED]
