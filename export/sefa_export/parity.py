"""Does the exported graph do what PyTorch does? Values over several batches, directions and alphas."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sefa_export.bake import EditGraph, quantize
from sefa_export.errors import VerificationError
from sefa_runtime.model_info import Parity

BATCHES = (1, 2, 7)
EDITS = (0, 1, 3)
# float32 convolutions summed in another order; the image is in [-1, 1], so 1e-4 is 1/80 of a grey level.
MAX_ABS_ERROR = 1e-4
# A value within that error of a rounding border may fall on its other side.
MAX_LEVELS = 1
MAX_CHANGED_FRACTION = 1e-3


@dataclass(frozen=True)
class Case:
    """Inputs of one run."""

    z: NDArray[np.float32]  # [batch, z_dim]
    direction: NDArray[np.int64]  # [batch, edits]
    alpha: NDArray[np.float32]  # [batch, edits]

    @property
    def name(self) -> str:
        """How messages call it."""
        return "batch {}, edits {}".format(*self.direction.shape)

    @property
    def feeds(self) -> dict[str, NDArray[Any]]:
        """The inputs by name."""
        return {"z": self.z, "direction": self.direction, "alpha": self.alpha}


def make_cases(z_dim: int, directions: int, seed: int = 0) -> list[Case]:
    """Random inputs for every combination of `BATCHES` and `EDITS`, the same at every call."""
    random = np.random.default_rng(seed)
    return [
        Case(
            random.standard_normal((batch, z_dim), np.float32),
            random.integers(directions, size=(batch, edits)),
            random.uniform(-3, 3, (batch, edits)).astype(np.float32),
        )
        for batch in BATCHES
        for edits in EDITS
    ]


def verify(
    graph: EditGraph, exported: Callable[[Case], NDArray[Any]], cases: list[Case], mismatches: list[str]
) -> Parity:
    """Compare an exported graph's images with PyTorch's.

    Args:
        graph: What was exported, on the CPU.
        exported: Runs the exported graph.
        cases: Inputs.
        mismatches: What is already known to be wrong with it (names, axes), reported together with what is found here.

    Returns:
        The largest difference seen.

    Raises:
        VerificationError: If there is any mismatch; all of them are in the message.
    """
    mismatches = list(mismatches)
    errors, changed = [], []
    for case in cases:
        with torch.no_grad():
            image = graph.draw(**{name: torch.from_numpy(value) for name, value in case.feeds.items()})
            expected = (image if graph.output == "float32" else quantize(image)).numpy()
        if not image.isfinite().all():  # As uint8, NaN on both sides would pass for equal.
            mismatches.append(f"{case.name}: PyTorch's own image has NaN or infinite values")
            continue
        try:
            actual = exported(case)
        except Exception as error:  # onnxruntime's errors have no common base; whatever it is, it is a mismatch.
            mismatches.append(f"{case.name}: does not run ({' '.join(str(error).split())[:300]})")
            continue
        if actual.dtype != expected.dtype or actual.shape != expected.shape:
            mismatches.append(
                f"{case.name}: image is {actual.dtype} {list(actual.shape)}, "
                f"expected {expected.dtype} {list(expected.shape)}"
            )
            continue
        difference = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
        errors.append(float(difference.max()))
        changed.append(float((difference > 0).mean()))
        limit = MAX_ABS_ERROR if graph.output == "float32" else MAX_LEVELS
        if not errors[-1] <= limit:  # Also if it is NaN.
            mismatches.append(f"{case.name}: largest error {errors[-1]:.3g}, allowed {limit}")
        if graph.output == "uint8" and changed[-1] > MAX_CHANGED_FRACTION:
            mismatches.append(
                f"{case.name}: {changed[-1]:.2%} of the values differ, allowed {MAX_CHANGED_FRACTION:.1%}"
            )
    if mismatches:
        raise VerificationError(f"the exported graph does not match PyTorch: {'; '.join(mismatches)}")
    return Parity(
        max_abs_error=max(errors),
        changed_fraction=float(np.average(changed, weights=[len(case.z) for case in cases])),
        images=sum(len(case.z) for case in cases),
        batches=BATCHES,
        edits=EDITS,
    )
