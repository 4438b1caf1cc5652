"""Real inputs for Triton's perf_analyzer, which otherwise sends zeros or random bits: directions that do not exist.

The format is that of `perf_analyzer --input-data`. Source: triton-inference-server/perf_analyzer, docs/input_data.md.
"""

import json

import numpy as np

from sefa_runtime.inputs.latents import latents_from_seeds
from sefa_runtime.model.info import ModelInfo
from sefa_runtime.model.signature import inputs

ENTRIES = 8


def perf_input(info: ModelInfo) -> str:
    """Requests of one image (of the batch that was fixed at export) with one edit (or as many as were fixed), as JSON.

    Latents are those of seeds 0, 1, ...; of a model that takes codes, numbers drawn in the same way. Directions are
    drawn from the bank, alphas from their suggested ranges, labels from the classes, truncation psi from 0.5 to 1.
    """
    random = np.random.RandomState(0)
    size = int(np.prod(info.latent_shape))
    count = info.batch or 1
    latents = latents_from_seeds(range(ENTRIES * count), size).reshape(ENTRIES, count, *info.latent_shape)
    low, high = np.array([direction.alpha_range for direction in info.directions]).T  # [K] each
    entries = []
    for latent in latents:
        direction = random.randint(0, len(info.directions), (count, info.num_edits or 1))  # [count, edits]
        values = {
            info.latent_name: latent,
            "direction": direction,
            "alpha": random.uniform(low[direction], high[direction]).astype(np.float32),
            "label": random.randint(0, max(info.num_classes, 1), count),
            "truncation": random.uniform(0.5, 1.0, count).astype(np.float32),
        }
        entries.append({tensor.name: _tensor(values[tensor.name], info.batch) for tensor in inputs(info)})
    return json.dumps({"data": entries}) + "\n"


def _tensor(values: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]", batch: int | None) -> dict[str, object]:
    """Shapes are without the batch where Triton makes it; there [1] stands for a single number."""
    shape = values.shape if batch is not None else values.shape[1:] or (1,)
    return {"content": values.ravel().tolist(), "shape": list(shape)}
