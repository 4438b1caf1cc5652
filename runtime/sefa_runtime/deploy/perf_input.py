"""Real inputs for Triton's perf_analyzer, which otherwise sends zeros or random bits, such as invalid directions.

The format of `perf_analyzer --input-data`. Source: triton-inference-server/perf_analyzer, docs/input_data.md.
"""

import json

import numpy as np

from sefa_runtime.inputs.examples import random_inputs, seeded_latents
from sefa_runtime.model.info import ModelInfo

ENTRIES = 8


def perf_input(info: ModelInfo) -> str:
    """Return requests as JSON, each with one image and one edit, or the numbers of them fixed at export.

    Latents are those of seeds 0, 1, ...; for a model that takes codes, numbers drawn in the same way. Other inputs are
    drawn within their bounds, and alphas within the suggested ranges of their directions.
    """
    signature, random = info.signature, np.random.default_rng(0)
    batch, edits = info.batch or 1, info.num_edits or 1
    low, high = np.array([direction.alpha_range for direction in info.directions]).T  # [K] each
    entries = []
    for latents in np.split(seeded_latents(signature, ENTRIES * batch), ENTRIES):
        feeds = random_inputs(signature, random, batch, edits, latents)
        moved = feeds["direction"]  # [batch, edits]
        feeds["alpha"] = random.uniform(low[moved], high[moved]).astype(np.float32)
        entries.append({name: _tensor(values, info.batch) for name, values in feeds.items()})
    return json.dumps({"data": entries}) + "\n"


def _tensor(values: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]", batch: int | None) -> dict[str, object]:
    """Return an input's entry; its shape omits the batch where Triton adds it, and is [1] for a single number."""
    shape = values.shape if batch is not None else values.shape[1:] or (1,)
    return {"content": values.ravel().tolist(), "shape": list(shape)}
