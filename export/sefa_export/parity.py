"""Compare an exported graph with PyTorch over several batches, directions and alphas."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sefa_export.bake import quantize
from sefa_export.draft import Draft
from sefa_export.errors import VerificationError
from sefa_runtime.inputs.examples import random_inputs
from sefa_runtime.model.choices import Precision
from sefa_runtime.model.info import Parity
from sefa_runtime.verification import MAX_PSNR_DB, MIN_PSNR_DB, psnr_db

BATCHES: tuple[int, ...] = (1, 2, 7)
EDITS: tuple[int, ...] = (0, 1, 3)
# Half precision is different arithmetic: images are held to MIN_PSNR_DB, not to float32's rounding.
HALF_EDITS = 64
HALF_BATCH = 4


@dataclass(frozen=True)
class Case:
    """The inputs of one run, by name."""

    feeds: dict[str, NDArray[Any]]

    @property
    def shape(self) -> tuple[int, int]:
        """Batch and edits."""
        batch, edits = self.feeds["direction"].shape
        return batch, edits

    @property
    def name(self) -> str:
        """How messages refer to it."""
        return "batch {}, edits {}".format(*self.shape)

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The inputs as tensors."""
        return {name: torch.from_numpy(value) for name, value in self.feeds.items()}


def make_cases(draft: Draft) -> list[Case]:
    """Draw the inputs of all runs; every call draws the same.

    In float32: every combination of `BATCHES` and `EDITS`, or of the static sizes. In half precision: at least
    `HALF_EDITS` images with one edit each.
    """
    signature = draft.signature
    batches, edits = BATCHES, EDITS
    if draft.info.precision == Precision.FP16:
        batch = signature.batch or HALF_BATCH
        batches, edits = (batch,) * -(-HALF_EDITS // batch), (1,)
    elif signature.batch is not None:
        batches = (signature.batch,)
    if signature.num_edits is not None:
        edits = (signature.num_edits,)
    random = np.random.default_rng(0)
    return [_draw(draft, batch, count, random) for batch in batches for count in edits]


@torch.no_grad()
def _draw(draft: Draft, batch: int, edits: int, random: np.random.Generator) -> Case:
    generator, latents = draft.graph.generator, None
    if draft.graph.latent != "z":  # Random numbers would not be codes that the mapping makes.
        z = torch.from_numpy(random.standard_normal((batch, generator.z_dim), np.float32))
        classes = generator.num_classes
        label = torch.from_numpy(random.integers(classes, size=batch)) if classes else None
        codes = generator.encode(z, label).numpy()
        latents = codes[:, 0] if draft.graph.latent == "w" else codes
    return Case(random_inputs(draft.signature, random, batch, edits, latents))


def verify(
    draft: Draft, exported: Callable[[Case], NDArray[Any]], cases: list[Case], mismatches: Sequence[str] = ()
) -> Parity:
    """Compare an exported graph's images with PyTorch's.

    In float32 they must agree within the generator's tolerance, in half precision within `MIN_PSNR_DB`.

    Args:
        draft: What was exported.
        exported: Runs the exported graph.
        cases: Inputs.
        mismatches: Mismatches that are already known (names, axes), reported together with those found here.

    Returns:
        The largest difference seen.

    Raises:
        VerificationError: If there is any mismatch; the message lists them all.
    """
    graph, half = draft.graph, draft.info.precision == Precision.FP16
    mismatches = list(mismatches)
    errors, changed, ratios = [], [], []
    for case in cases:
        others = case.tensors
        latents = others.pop(next(iter(others)))
        with torch.no_grad():
            image = graph.render(latents, **others)
        if not image.isfinite().all():  # As uint8, NaN on both sides would pass for equal.
            mismatches.append(f"{case.name}: PyTorch's own image has NaN or infinite values")
            continue
        expected = (image if graph.output_type == "float32" else quantize(image)).numpy()
        try:
            actual = exported(case)
        except Exception as error:  # onnxruntime's errors have no common base; any error is a mismatch.
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
        if half:
            peak = 255.0 if graph.output_type == "uint8" else 2.0
            ratios.append(min(float(psnr_db(actual, expected, peak).min()), MAX_PSNR_DB))
            continue
        # Summing in another order changes the result in proportion to the largest value.
        limit = graph.generator.tolerance * max(1.0, float(image.abs().max()))
        if graph.output_type == "float32":
            fits = difference <= limit  # False if it is NaN.
        else:  # A value this close to a rounding boundary may fall on the other side.
            fits = (quantize(image - limit).numpy() <= actual) & (actual <= quantize(image + limit).numpy())
        if not fits.all():
            mismatches.append(
                f"{case.name}: {1 - fits.mean():.2%} of the values are farther than {limit:.2g} from PyTorch's; "
                f"largest error {errors[-1]:.3g}" + (" levels" if graph.output_type == "uint8" else "")
            )
    worst = float(np.min(ratios)) if ratios else None
    if worst is not None and not worst >= MIN_PSNR_DB:  # It may be NaN.
        mismatches.append(f"PSNR {worst:.1f} dB to float32, {MIN_PSNR_DB:g} dB is the least allowed")
    if mismatches:
        what = "half precision" if half else "exported"
        raise VerificationError(f"the {what} graph does not match PyTorch: {'; '.join(mismatches)}")
    return Parity(
        max_abs_error=max(errors),
        changed_fraction=float(np.average(changed, weights=[case.shape[0] for case in cases])),
        images=sum(case.shape[0] for case in cases),
        batches=tuple(sorted({case.shape[0] for case in cases})),
        edits=tuple(sorted({case.shape[1] for case in cases})),
        psnr_db=worst,
    )
