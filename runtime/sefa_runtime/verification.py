"""Verification: does a model render here, on this provider, what PyTorch rendered at export?"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.editor import Editor, as_images, load
from sefa_runtime.errors import InputError
from sefa_runtime.files import input_problem, sha256_of
from sefa_runtime.inputs.batches import split
from sefa_runtime.inputs.examples import as_arguments, reference_inputs
from sefa_runtime.model.info import REFERENCE_GRID, SHOWN

# The least PSNR between matching images: at export in half precision, and here between providers and batches.
MIN_PSNR_DB = 40.0
MAX_PSNR_DB = 999.0  # recorded for identical images: JSON has no infinity
# Two images that are both so far from a third may differ by twice as much: 6 dB.
TWICE_DB = 20 * math.log10(2)
# How far the mean of part of an image may be from PyTorch's, in grey levels.
MAX_LEVELS = {"fp32": 1.0, "fp16": 3.0}


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str  # what was checked
    ok: bool  # whether it passed
    detail: str  # what was found, in words


@dataclass(frozen=True)
class Verification:
    """The findings on one model with one provider."""

    model: str  # the file's name
    provider: str  # what actually ran
    findings: tuple[Finding, ...]  # one of each check

    @property
    def ok(self) -> bool:
        """Whether all findings are good."""
        return all(finding.ok for finding in self.findings)


def verify(
    path: str | Path,
    provider: str = "auto",
    provider_options: Mapping[str, object] | None = None,
    threads: int | None = None,
    *,
    checkpoint: str | Path | None = None,
) -> Verification:
    """Check that a model is intact and renders the right images.

    The file records the mean levels of a few images as PyTorch rendered them at export (`inputs.examples`). Here
    they are rendered again, together and one by one, and also on the CPU if the provider is another.

    Args:
        path: A file made by `sefa export` or `sefa_export.export_onnx`.
        provider: As for `load`, but without fallback, which would be verified instead.
        provider_options: As for `load`.
        threads: As for `load`.
        checkpoint: The file that the model should have been made from; None skips this check.

    Raises:
        ModelFileError: If the file is missing, damaged, or not one of ours.
        ProviderError: If the provider cannot run here; the message says what is missing.
        InputError: If an option is invalid, or the checkpoint cannot be read.
        RunError: If onnxruntime fails.

    Examples:
        >>> verification = verify("faces.onnx", "cpu")
        >>> [finding.name for finding in verification.findings if finding.ok]
        ['file', 'provider', 'images', 'batches']
    """
    editor = load(path, provider, provider_options, threads)
    findings = [_whole(editor)]
    if checkpoint is not None:
        findings.append(_made_from(editor, Path(checkpoint)))
    findings.append(_placed(editor))
    images = _render(editor)
    findings.append(_as_exported(editor, images))
    seal = editor.info.seal
    least = MIN_PSNR_DB if seal is None else min(MIN_PSNR_DB, seal.psnr_db - TWICE_DB)
    others = {("batches", "images rendered together and one by one"): _render(editor, together=False)}
    if editor.provider != "cpu":
        others["cpu", f"images of {editor.provider} and of the CPU"] = _render(load(path, "cpu"))
    findings += [_alike(name, how, images, other, least) for (name, how), other in others.items()]
    return Verification(editor.name, editor.provider, tuple(findings))


def mean_levels(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean of each channel in each of `REFERENCE_GRID`² parts, or fewer where an image has fewer pixels.

    Args:
        images: [N, H, W, C].

    Returns:
        [N, parts · C], in grey levels, row by row of the grid.
    """
    height, width = images.shape[1:3]
    rows = np.array_split(np.arange(height), min(REFERENCE_GRID, height))
    columns = np.array_split(np.arange(width), min(REFERENCE_GRID, width))
    parts = [images[:, row[0] : row[-1] + 1, column[0] : column[-1] + 1] for row in rows for column in columns]
    return np.concatenate([part.mean(axis=(1, 2), dtype=np.float64) for part in parts], axis=1)


def psnr_db(image: NDArray[Any], reference: NDArray[Any], peak: float) -> NDArray[np.float64]:
    """Return the peak signal-to-noise ratio of each image in dB, [batch]; infinite where the images are equal."""
    difference = image.astype(np.float64) - reference.astype(np.float64)
    error = np.square(difference).mean(axis=tuple(range(1, image.ndim)))
    with np.errstate(divide="ignore"):
        ratio: NDArray[np.float64] = 10 * np.log10(peak**2 / error)
    return ratio


def _render(editor: Editor, *, together: bool = True) -> NDArray[np.uint8]:
    inputs = as_arguments(reference_inputs(editor.info))
    if together:
        return as_images(editor.run(**inputs))
    return np.concatenate([as_images(editor.run(**single)) for single in split(inputs, 1)])


def _whole(editor: Editor) -> Finding:
    # `load` has checked this already.
    payload = editor.info.payload
    assert payload is not None
    weights = f", weights in {payload.weights.name} {payload.weights.sha256[:SHOWN]}..." if payload.weights else ""
    seal = editor.info.seal
    if seal is not None:
        detail = f"changed by another tool, and sealed: {seal.in_words}"
        return Finding("file", True, f"{detail}; sha256 {payload.sha256[:SHOWN]}...{weights}")
    return Finding("file", True, f"as it was exported: sha256 {payload.sha256[:SHOWN]}...{weights}")


def _made_from(editor: Editor, checkpoint: Path) -> Finding:
    problem = input_problem(checkpoint)
    if problem:
        raise InputError(f"{checkpoint}: {problem}")
    recorded, found = editor.info.source_sha256, sha256_of(checkpoint)
    if not recorded:
        return Finding("checkpoint", False, "it was made of a generator that came from no file")
    if recorded != found:
        detail = f"not of {checkpoint} ({found[:SHOWN]}...): it was made of one with sha256 {recorded[:SHOWN]}..."
        return Finding("checkpoint", False, detail)
    others = ", ".join(f"{sha256[:SHOWN]}..." for sha256 in editor.info.bank_sha256)
    bank = f"; its directions are of another checkpoint, sha256 {others}" if others else ""
    return Finding("checkpoint", True, f"made of {checkpoint}, sha256 {found[:SHOWN]}...{bank}")


def _placed(editor: Editor) -> Finding:
    session = editor.session
    nodes, convolutions = session.placement.nodes, session.placement.convolutions
    detail = f"{session.provider} runs {nodes.get(session.provider, 0)} of {sum(nodes.values())} nodes"
    detail += f", all {sum(convolutions.values())} convolutions" if convolutions else ""
    return Finding("provider", True, detail + (f" ({session.reason})" if session.reason else ""))


def _as_exported(editor: Editor, images: NDArray[np.uint8]) -> Finding:
    expected, limit = np.array(editor.info.reference), MAX_LEVELS[editor.info.precision]
    if editor.info.seal is not None:
        limit += editor.info.seal.mean_levels
    error = float(np.abs(mean_levels(images) - expected).max())
    detail = f"means of the parts of {len(images)} images: at most {error:.2f} of 255 levels from PyTorch's at export"
    return Finding("images", error <= limit, f"{detail} ({limit:g} is allowed)")


def _alike(name: str, how: str, images: NDArray[np.uint8], others: NDArray[np.uint8], least: float) -> Finding:
    levels = int(np.abs(images.astype(int) - others).max())
    if not levels:
        return Finding(name, True, f"{how}: the same to the bit")
    ratio = float(psnr_db(images, others, 255.0).min())
    detail = f"{how}: at most {levels} of 255 levels apart, PSNR {ratio:.1f} dB ({least:.4g} is the least)"
    return Finding(name, ratio >= least, detail)
