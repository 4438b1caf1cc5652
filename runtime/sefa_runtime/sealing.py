"""Accept a model that another tool changed after the export: measure what became of its images, and write that down.

Tools that simplify, quantise or convert graphs leave files that work, but are not those that were verified at export.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np

from sefa_runtime.editor import Editor, as_images, load
from sefa_runtime.errors import InputError, ModelFileError, NotFiniteError
from sefa_runtime.files import check_output, input_problem, write_whole
from sefa_runtime.inputs.batches import split
from sefa_runtime.inputs.examples import as_arguments, latent_scale, random_inputs, reference_inputs
from sefa_runtime.model.choices import OutputType
from sefa_runtime.model.description_entries import description_entries, without_description
from sefa_runtime.model.graph_check import bank_and_files
from sefa_runtime.model.info import ModelInfo, Payload, Seal, WeightsFile
from sefa_runtime.model.reading import Contents, check_graph, is_onnx
from sefa_runtime.model.signature import BATCH, EDITS, ORT_TYPES
from sefa_runtime.session.session import build_session
from sefa_runtime.verification import MAX_PSNR_DB, mean_levels, psnr_db

# Below this PSNR, what differs is usually not the precision but the image.
LEAST_PSNR_DB = 20.0
# What is compared besides the reference images, of which one is unedited: random edits of these numbers, and each
# direction, up to so many.
BATCHES, EDITS_AT_ONCE = (1, 2, 4), (1, 3)
MAX_DIRECTIONS = 16


def seal(
    path: str | Path, like: str | Path, output: str | Path | None = None, *, least_psnr_db: float = LEAST_PSNR_DB
) -> ModelInfo:
    """Measure a model that another tool changed against the export that it was made from, and accept it.

    The description is the original's, with sizes that the tool fixed, whatever of it the tool left. Compared on the CPU
    are the reference images, together and one by one, and random edits along every direction.

    Args:
        path: The changed model.
        like: The exported model.
        output: Where to write; None: in place.
        least_psnr_db: The least PSNR of the worst image.

    Returns:
        The new description; its `seal` says how far the images are from the original's. If the tool left graph and
        weights alone, it is the original's.

    Raises:
        ModelFileError: If a file is missing or damaged, `like` is not an ONNX model made by `sefa export`, or the
            inputs of `path` are others, or its images are, or are not finite.
        InputError: If the weights of `path` are in a file beside it and `output` is in another folder.
        RunError: If onnxruntime fails.
        OSError: If the file cannot be written.
    """
    path, like = Path(path), Path(like)
    target = path if output is None else Path(output)
    original = load(like, "cpu")
    check_output(target, like)
    payload, contents = _read_changed(path, len(original.info.directions))
    if payload.weights is not None and target.resolve().parent != path.resolve().parent:
        raise InputError(
            f"{target}: {path.name} has its weights in {payload.weights.name}: the output must be beside it"
        )
    if payload == original.info.payload:  # Only the description was lost.
        write_whole(target, contents.graph + description_entries(original.info.to_json()))
        return original.info
    changed = _load_changed(path, contents, replace(original.info, payload=payload, seal=None, prefix=None))
    try:
        measured = _compare(changed, original)
    except NotFiniteError as error:
        raise ModelFileError(
            f"{path}: {error}; {like} has none: float16 is not enough everywhere in it "
            "(`sefa export --precision fp16` knows where)"
        ) from error
    if measured.psnr_db < least_psnr_db:
        raise ModelFileError(
            f"{path}: its images are not those of {like}: PSNR {measured.psnr_db:.1f} dB in the worst of "
            f"{measured.images}, {least_psnr_db:g} is the least (--min-psnr); it was made from another model, or lost "
            "too much"
        )
    info = replace(changed.info, seal=measured)
    write_whole(target, contents.graph + description_entries(info.to_json()))
    return info


def _read_changed(path: Path, directions: int) -> tuple[Payload, Contents]:
    """Read a model without any description that it may have, and the file beside it with its weights, if it has one."""
    problem = input_problem(path)
    if problem:
        raise ModelFileError(f"{path}: {problem}; a model that a tool made of an exported one was expected")
    if not is_onnx(path):
        raise ModelFileError(f"{path}: not an ONNX model; one that a tool made of an exported model was expected")
    try:
        graph = without_description(path.read_bytes())
        rows, beside = bank_and_files(graph)
    except (EOFError, ValueError) as error:
        raise ModelFileError(f"{path}: truncated or damaged: not a whole ONNX model") from error
    if rows not in (0, directions):  # 0: quantised under another name.
        raise ModelFileError(f"{path}: made from another model: its graph has {rows} directions, not {directions}")
    if len(beside) > 1 or any(Path(name).name != name for name in beside):
        raise ModelFileError(f"{path}: its weights are in {', '.join(sorted(beside)[:4])}; one file beside it is read")
    weights, contents = None, {}
    for name in beside:
        file = path.parent / name
        if not file.is_file():
            raise ModelFileError(f"{file}: no such file; {path.name} has its weights in it")
        contents[name] = file.read_bytes()
        weights = WeightsFile(name, len(contents[name]), hashlib.sha256(contents[name]).hexdigest())
    check_graph(path, graph, directions, beside)
    return Payload(len(graph), hashlib.sha256(graph).hexdigest(), weights), Contents(graph, contents)


def _load_changed(path: Path, contents: Contents, info: ModelInfo) -> Editor:
    """Load a changed model with the original's description, adapted to sizes and types that the tool fixed."""
    session = build_session(path, "cpu", contents=contents)
    fixed: dict[str, set[int]] = {BATCH: set(), EDITS: set()}
    for spec, found in zip(info.signature.inputs, session.inference.get_inputs(), strict=False):
        for axis, size in zip(spec.shape, found.shape, strict=False):
            if isinstance(axis, str) and isinstance(size, int):
                fixed[axis].add(size)
    (batch, edits) = (next(iter(sizes)) if len(sizes) == 1 else None for sizes in fixed.values())
    images = session.inference.get_outputs()
    types = {ORT_TYPES[kind]: kind for kind in OutputType}
    info = replace(
        info,
        batch=batch or info.batch,
        num_edits=info.num_edits if edits is None else edits,
        output_type=types.get(images[0].type, info.output_type),
    )
    problems = info.signature.mismatches(session.inference, may_be_free=True)
    if problems:
        half = any("float16" in problem for problem in problems)
        advice = "; convert it with its inputs and outputs kept as they are (keep_io_types=True)" if half else ""
        raise ModelFileError(f"{path}: its inputs or image are not the original's: {'; '.join(problems)}{advice}")
    return Editor(path, info, session)


def _compare(changed: Editor, original: Editor) -> Seal:
    levels, ratio, count = 0, MAX_PSNR_DB, 0
    reference = as_arguments(reference_inputs(changed.info))
    means = 0.0
    for feeds in chain([reference], split(reference, 1), _random_edits(changed.info)):
        images, expected = (as_images(editor.run(**feeds)) for editor in (changed, original))
        levels = max(levels, int(np.abs(images.astype(int) - expected).max()))
        ratio = min(ratio, float(psnr_db(images, expected, 255.0).min()))
        if feeds is reference:
            means = float(np.abs(mean_levels(images) - np.array(original.info.reference)).max())
        count += len(images)
    assert original.info.payload is not None  # All that `load` takes have one.
    return Seal(original.info.payload.content_sha256, levels, round(ratio, 2), round(means, 2), count)


def _random_edits(info: ModelInfo) -> Iterator[dict[str, Any]]:
    """Yield arguments of `Editor.run`."""
    signature, random = info.signature, np.random.default_rng(0)
    batches = BATCHES if signature.batch is None else (signature.batch,)
    edits = EDITS_AT_ONCE if signature.num_edits is None else (signature.num_edits,)
    runs = [random_inputs(signature, random, batch, count) for batch, count in product(batches, edits)]
    if signature.num_edits != 0:
        directions = np.unique(np.linspace(0, len(info.directions) - 1, MAX_DIRECTIONS).round().astype(np.int64))
        runs.append(random_inputs(signature, random, len(directions), 1) | {"direction": directions[:, None]})
    for feeds in runs:
        feeds[signature.latent.name] *= np.float32(latent_scale(info))
        yield as_arguments(feeds)
