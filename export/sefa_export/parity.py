"""Does the exported graph do what PyTorch does? Values over several batches, directions and alphas."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sefa_export.bake import EditGraph, quantize
from sefa_export.errors import VerificationError
from sefa_export.pinned import DYNAMIC, Pinned
from sefa_runtime.model.info import Parity
from sefa_runtime.verification import MIN_PSNR_DB, psnr_db

BATCHES = (1, 2, 7)
EDITS = (0, 1, 3)
# Half precision is another arithmetic: images are held to MIN_PSNR_DB, not to float32's rounding.
HALF_EDITS = 64
HALF_BATCH = 4
MAX_PSNR_DB = 999.0  # what equal images are recorded with: JSON has no infinity


@dataclass(frozen=True)
class Case:
    """Inputs of one run, by name."""

    feeds: dict[str, NDArray[Any]]

    @property
    def shape(self) -> tuple[int, int]:
        """Batch and edits."""
        batch, edits = self.feeds["direction"].shape
        return batch, edits

    @property
    def name(self) -> str:
        """How messages call it."""
        return "batch {}, edits {}".format(*self.shape)

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The inputs as tensors."""
        return {name: torch.from_numpy(value) for name, value in self.feeds.items()}


def make_cases(graph: EditGraph, pinned: Pinned = DYNAMIC, seed: int = 0) -> list[Case]:
    """Random inputs for every combination of `BATCHES` and `EDITS`, or of the pinned sizes; the same at every call."""
    random = np.random.default_rng(seed)
    batches = BATCHES if pinned.batch is None else (pinned.batch,)
    edits = EDITS if pinned.edits is None else (pinned.edits,)
    return [make_case(graph, batch, count, random) for batch in batches for count in edits]


@torch.no_grad()
def make_case(graph: EditGraph, batch: int, edits: int, random: np.random.Generator) -> Case:
    """Random inputs of one size."""
    generator = graph.generator
    z = random.standard_normal((batch, generator.z_dim), np.float32)
    direction = random.integers(graph.vectors.shape[0], size=(batch, edits))
    alpha = random.uniform(-3, 3, (batch, edits)).astype(np.float32)
    label = random.integers(generator.num_classes, size=batch) if generator.num_classes else None
    truncation = random.uniform(0.5, 1, batch).astype(np.float32)
    feeds: dict[str, NDArray[Any] | None] = {
        "z": z,
        "direction": direction,
        "alpha": alpha,
        "label": label,
        "truncation": truncation,
    }
    if graph.latent != "z":
        codes = generator.encode(torch.from_numpy(z), None if label is None else torch.from_numpy(label)).numpy()
        feeds |= {"w": codes[:, 0], "codes": codes}
    return Case({name: value for name in graph.input_names if (value := feeds[name]) is not None})


def make_half_cases(graph: EditGraph, pinned: Pinned = DYNAMIC, seed: int = 1) -> list[Case]:
    """Random inputs of at least `HALF_EDITS` edited images, one edit each, the same at every call."""
    random = np.random.default_rng(seed)
    batch = pinned.batch or HALF_BATCH
    count = 1 if pinned.edits is None else pinned.edits
    return [make_case(graph, batch, count, random) for _ in range(-(-HALF_EDITS // batch))]


def verify_half(
    graph: EditGraph, exported: Callable[[Case], NDArray[Any]], cases: list[Case], mismatches: list[str]
) -> Parity:
    """Compare a half precision graph's images with PyTorch's float32 images; arguments and errors as `verify`."""
    mismatches = list(mismatches)
    errors, changed, ratios = [], [], []
    for index, case in enumerate(cases):
        with torch.no_grad():
            expected = graph(**case.tensors).numpy()
        try:
            actual = exported(case)
        except Exception as error:  # As in `verify`.
            mismatches.append(f"run {index}: does not run ({' '.join(str(error).split())[:300]})")
            break
        if actual.dtype != expected.dtype or actual.shape != expected.shape:
            mismatches.append(f"image is {actual.dtype} {list(actual.shape)}, expected {expected.dtype}")
            break
        if actual.dtype.kind == "f" and not np.isfinite(actual).all():
            mismatches.append(f"run {index}: NaN or infinite values")
            break
        difference = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
        errors.append(float(difference.max()))
        changed.append(float((difference > 0).mean()))
        ratios.append(float(psnr_db(actual, expected, 255.0 if graph.output_type == "uint8" else 2.0).min()))
    if ratios and min(ratios) < MIN_PSNR_DB:
        mismatches.append(f"PSNR {min(ratios):.1f} dB to float32, {MIN_PSNR_DB:g} dB is the least allowed")
    if mismatches:
        raise VerificationError(f"the half precision graph does not match PyTorch: {'; '.join(mismatches)}")
    return Parity(
        max_abs_error=max(errors),
        changed_fraction=float(np.mean(changed)),
        images=sum(case.shape[0] for case in cases),
        batches=tuple(sorted({case.shape[0] for case in cases})),
        edits=tuple(sorted({case.shape[1] for case in cases})),
        psnr_db=min(min(ratios), MAX_PSNR_DB),
    )


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
            image = graph.draw(**case.tensors)
            expected = (image if graph.output_type == "float32" else quantize(image)).numpy()
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
        if graph.output_type == "float32":
            fits = difference <= limit  # False if it is NaN.
        else:  # A value that near to a rounding border may fall on its other side.
            fits = (quantize(image - limit).numpy() <= actual) & (actual <= quantize(image + limit).numpy())
        if not fits.all():
            mismatches.append(
                f"{case.name}: {1 - fits.mean():.2%} of the values are farther than {limit:.2g} from PyTorch's; "
                f"largest error {errors[-1]:.3g}" + (" levels" if graph.output_type == "uint8" else "")
            )
    if mismatches:
        raise VerificationError(f"the exported graph does not match PyTorch: {'; '.join(mismatches)}")
    return Parity(
        max_abs_error=max(errors),
        changed_fraction=float(np.average(changed, weights=[case.shape[0] for case in cases])),
        images=sum(case.shape[0] for case in cases),
        batches=tuple(sorted({case.shape[0] for case in cases})),
        edits=tuple(sorted({case.shape[1] for case in cases})),
    )
