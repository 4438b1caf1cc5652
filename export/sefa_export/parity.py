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


@dataclass(frozen=True)
class Case:
    """Inputs of one run."""

    z: NDArray[np.float32]  # [batch, z_dim]
    direction: NDArray[np.int64]  # [batch, edits]
    alpha: NDArray[np.float32]  # [batch, edits]
    label: NDArray[np.int64] | None  # [batch]

    @property
    def name(self) -> str:
        """How messages call it."""
        return "batch {}, edits {}".format(*self.direction.shape)

    @property
    def feeds(self) -> dict[str, NDArray[Any]]:
        """The inputs by name."""
        feeds: dict[str, NDArray[Any]] = {"z": self.z, "direction": self.direction, "alpha": self.alpha}
        return feeds if self.label is None else feeds | {"label": self.label}


def make_cases(graph: EditGraph, seed: int = 0) -> list[Case]:
    """Random inputs for every combination of `BATCHES` and `EDITS`, the same at every call."""
    random = np.random.default_rng(seed)
    generator, directions = graph.generator, graph.vectors.shape[0]
    return [
        Case(
            random.standard_normal((batch, generator.z_dim), np.float32),
            random.integers(directions, size=(batch, edits)),
            random.uniform(-3, 3, (batch, edits)).astype(np.float32),
            random.integers(generator.num_classes, size=batch) if generator.num_classes else None,
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
        # Sums in another order differ by a share of the largest value.
        limit = graph.generator.tolerance * max(1.0, float(image.abs().max()))
        if graph.output == "float32":
            fits = difference <= limit  # False if it is NaN.
        else:  # A value that near to a rounding border may fall on its other side.
            fits = (quantize(image - limit).numpy() <= actual) & (actual <= quantize(image + limit).numpy())
        if not fits.all():
            mismatches.append(
                f"{case.name}: {1 - fits.mean():.2%} of the values are farther than {limit:.2g} from PyTorch's; "
                f"largest error {errors[-1]:.3g}" + (" levels" if graph.output == "uint8" else "")
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
