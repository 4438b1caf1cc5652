"""Edit images with an exported model: latents, directions and alphas in, uint8 images out."""

from __future__ import annotations  # Keeps `ArrayLike` short where `help` shows it.

import math
import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sefa_runtime.errors import InputError, ModelFileError, NotFiniteError, ProviderError, RunError
from sefa_runtime.inputs.batches import Feeds, pad, split, with_edits
from sefa_runtime.inputs.call import Call, Sweep, prepare
from sefa_runtime.inputs.edits import NamedEdits, direction_index
from sefa_runtime.inputs.latents import is_ambiguous
from sefa_runtime.model.info import MAX_FIXED, ModelInfo, Payload
from sefa_runtime.model.reading import GIVEN_BYTES, read_model, read_model_bytes
from sefa_runtime.session.session import Session, build_session
from sefa_runtime.session.tuned import choose

# Images that `edit` and `sweep` compute at once, which bounds the memory however many are requested.
MAX_BATCH = 16
# Memory for prefixes: 15 latents of a StyleGAN2 of 256x256 that is edited from its layers of 64x64 on.
PREFIX_MB = 128.0


def load(
    path: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO,
    provider: str = "auto",
    provider_options: Mapping[str, object] | None = None,
    threads: int | None = None,
    *,
    allow_cpu_fallback: bool = False,
    binding: bool | None = None,
    cuda_graph: bool = False,
    prefix_mb: float = PREFIX_MB,
    batch: int | None = None,
    num_edits: int | None = None,
    styles_on_cpu: bool = False,
    convolutions_on_cpu: int = 0,
    tuned: str | os.PathLike[str] | None = None,
) -> Editor:
    """Load an exported `.onnx` model.

    Args:
        path: A file made by `sefa export` or `sefa_export.export_onnx`: its path, its contents as bytes, or a file
            opened in binary mode. Contents are kept as long as the editor, which may have to load them again.
        provider: `auto` uses CUDA if it really works, else the CPU; `Editor.session` says which and why. A provider
            requested by name (`cuda`, `tensorrt`, `openvino`, `cpu`, or any that onnxruntime knows) runs every
            convolution, or the call fails.
        provider_options: onnxruntime's options for that provider, on top of our defaults
            (`sefa_runtime.session.providers`); a key with a dot is a session entry:
            `{"session.intra_op.allow_spinning": 0}`.
        threads: Threads per operator on the CPU; None uses the physical cores available to this process.
        allow_cpu_fallback: Use the CPU if the requested provider cannot run; `Editor.session.reason` says why.
        binding: Run into buffers that stay on the device; None does so on CUDA and TensorRT. The images are the same.
        cuda_graph: Capture a CUDA graph for each batch size and number of edits at its first run and replay it
            afterwards, which saves CPU work at small batches. For `cuda` only; runs from several threads then wait for
            each other.
        prefix_mb: Memory, in MB, for what the layers before the first edited one computed for the latents used last,
            so that another edit of the same latent runs only the rest of the graph (see `ModelInfo.prefix`). 0 runs
            the whole graph every time, as CUDA, TensorRT and IO binding do.
        batch: Fix the number of images of one run, as `sefa export --batch` does: some providers, OpenVINO among them,
            are faster with static shapes. Calls with more images run in parts, with fewer they are padded.
        num_edits: Likewise the number of edits of one image; calls with more are errors.
        styles_on_cpu: Compute what precedes the convolutions, such as a StyleGAN's mapping network, edits and styles,
            on the CPU in the model's own precision, and only the rest on the provider: for providers that are told to
            round to half precision (`sefa_runtime.session.styles`). Nothing is then kept for the latents used last.
        convolutions_on_cpu: With `styles_on_cpu`, also compute the first so many convolutions there, counted along each
            path from the inputs: those of the smallest images, which take little of the time.
        tuned: A file that `sefa tune -o` wrote: what it found best for one caller takes the place of `provider`,
            `provider_options`, `threads`, `batch` and `styles_on_cpu`, and a variant that of the model.

    Raises:
        ModelFileError: If the file is missing, damaged, or not one of ours.
        ProviderError: If the provider cannot run here; the message says what is missing.
        InputError: If the provider's name, an option or `threads` is invalid.
        RunError: If there is not enough memory for the model.

    Examples:
        >>> editor = sefa_runtime.load("faces.onnx", "cpu")
        >>> editor.provider, editor.info.names[1], editor.info.latent_shape
        ('cpu', 'turn', (20,))
    """
    if tuned is not None:
        if provider != "auto" or provider_options or batch is not None or styles_on_cpu or threads is not None:
            raise InputError(
                "tuned decides provider, provider_options, threads, batch and styles_on_cpu: leave those out"
            )
        if not isinstance(path, str | os.PathLike):
            raise InputError("tuned names files: load the model by its path")
        choice = choose(tuned, path)
        if choice.warning:
            warnings.warn(choice.warning, stacklevel=2)
        path, provider, provider_options = choice.path, choice.setting.provider, dict(choice.setting.options)
        threads, batch, styles_on_cpu = choice.setting.threads, choice.setting.batch, choice.setting.styles_on_cpu
        convolutions_on_cpu = choice.setting.convolutions_on_cpu
    source = _path_or_contents(path)
    where = source if isinstance(source, Path) else GIVEN_BYTES
    info, contents = read_model(source) if isinstance(source, Path) else read_model_bytes(source)
    arguments = {
        "provider": provider,
        "provider_options": provider_options,
        "threads": threads,
        "allow_cpu_fallback": allow_cpu_fallback,
        "binding": binding,
        "cuda_graph": cuda_graph,
        "prefix_mb": prefix_mb,
        "batch": batch,
        "num_edits": num_edits,
        "styles_on_cpu": styles_on_cpu,
        "convolutions_on_cpu": convolutions_on_cpu,
    }
    if not 0 <= prefix_mb < math.inf:
        raise InputError(f"prefix_mb must be a number of MB, 0 or more, got {prefix_mb}")
    own_sizes = info.signature.static_sizes
    info = _fix_sizes(info, batch, num_edits)
    session = build_session(
        where,
        provider,
        provider_options,
        threads,
        allow_cpu_fallback=allow_cpu_fallback,
        binding=binding,
        cuda_graph=cuda_graph,
        contents=contents,
        prefix=info.prefix,
        prefix_bytes=int(prefix_mb * 1e6),
        sizes={axis: size for axis, size in info.signature.static_sizes.items() if axis not in own_sizes},
        styles_on_cpu=styles_on_cpu,
        convolutions_on_cpu=convolutions_on_cpu,
    )
    problems = info.signature.mismatches(session, may_be_free=info.seal is not None)
    if problems:
        raise ModelFileError(f"{where}: its graph is not as its description says: {'; '.join(problems)}")
    return Editor(source, info, session, arguments)


def _fix_sizes(info: ModelInfo, batch: int | None, num_edits: int | None) -> ModelInfo:
    """Return the description of a model as if it had been exported with these sizes.

    Raises:
        InputError: If a size is out of range, or was fixed differently at export.
    """
    for name, size, exported, least in (("batch", batch, info.batch, 1), ("num_edits", num_edits, info.num_edits, 0)):
        if size is None:
            continue
        if isinstance(size, bool) or not isinstance(size, int) or not least <= size <= MAX_FIXED:
            raise InputError(f"{name} must be in {least}..{MAX_FIXED}, got {size}")
        if exported not in (None, size):
            raise InputError(f"the model was exported with {name} {exported}, which cannot be {size}")
    return replace(info, batch=info.batch or batch, num_edits=num_edits if info.num_edits is None else info.num_edits)


def _path_or_contents(model: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO) -> Path | bytes:
    """Return a model's path or its contents.

    Raises:
        InputError: If it is something else.
    """
    if isinstance(model, str | os.PathLike):
        return Path(model)
    content = model.read() if hasattr(model, "read") else model
    if not isinstance(content, bytes | bytearray | memoryview):
        what = "a file opened as text" if isinstance(content, str) else type(content).__name__
        raise InputError(f"a model is its path, its contents as bytes, or a file opened in binary mode, got {what}")
    return bytes(content)


class Editor:
    """A loaded model. It keeps no state between calls and may be used from several threads at once.

    Copying or unpickling an editor loads the same file again with the same arguments. So does its first use in a
    process forked from the one that loaded it, where the session has lost its threads.

    Attributes:
        path: The file it was loaded from; None if it was loaded from bytes.
        info: The file's description of itself: resolution, directions, origin.
    """

    def __init__(
        self, source: Path | bytes, info: ModelInfo, session: Session, arguments: Mapping[str, Any] | None = None
    ) -> None:
        """Wrap what `load` made.

        Args:
            source: The file, or its contents.
            info: Its description.
            session: Its session.
            arguments: The arguments that `load` got after the path, for loading it again.
        """
        self.path = source if isinstance(source, Path) else None
        self.info = info
        self._output_shape = info.signature.output.shape[1:]
        self._session = session
        self._arguments = dict(arguments or {})
        self._source = source.absolute() if isinstance(source, Path) else source  # The working directory may change.
        self._process = os.getpid()
        self._loading = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_again, (self._source, self.info.payload, self._arguments)

    @property
    def name(self) -> str:
        """How messages refer to the model: the file's name."""
        return (self.path or GIVEN_BYTES).name

    @property
    def session(self) -> Session:
        """The onnxruntime session, the provider it really runs on, and load times.

        Raises:
            ModelFileError: If this process was forked after the model was loaded, and the file has changed since.
            ProviderError: If this process was forked, and the provider (such as CUDA) does not run in a forked process.
        """
        if self._process != os.getpid():
            with self._loading:
                if self._process != os.getpid():  # Another thread may have been first.
                    self._load_after_fork()
        return self._session

    def _load_after_fork(self) -> None:
        fresh = _load_again(self._source, self.info.payload, self._arguments)._session
        if fresh.provider != self._session.provider:
            raise ProviderError(
                f"{self._session.provider}: cannot run in a process that was forked after the model was loaded",
                "load it in the child, or start the process by spawn or forkserver",
            )
        self._session, self._process = fresh, os.getpid()

    @property
    def provider(self) -> str:
        """The execution provider that really runs: "cpu", "cuda", ..."""
        return self.session.provider

    def run(
        self,
        z: ArrayLike | None = None,
        direction: ArrayLike | None = None,
        alpha: ArrayLike | None = None,
        label: ArrayLike | None = None,
        truncation: ArrayLike | None = None,
        *,
        w: ArrayLike | None = None,
        codes: ArrayLike | None = None,
        **inputs: ArrayLike | None,
    ) -> NDArray[Any]:
        """Run the graph: render latents, moved by Σ_e alpha_e · n_{direction_e}.

        Args:
            z: Latents, shape [batch, z_dim]; one latent may be given as [z_dim].
            direction: Indices into the bank, integers, shape [batch, edits]. A single integer applies to every image;
                [batch] is one edit per image; with a batch of 1, [edits] is several edits of that image. None, with
                `alpha` None, means no edit.
            alpha: Distances along the directions, in the same shape as `direction`.
            label: Class indices, for a class-conditional model: one for all images, or [batch].
            truncation: Truncation psi, for a model that has it as an input: one for all images, or [batch]; None is 1.
            w: Style codes instead of `z`, [batch, D], for a model of `w`; also [batch, L, D] if all layers are equal.
                [L, D] is read as L images, with a warning, since it may have been meant as one image's code.
            codes: Codes for every layer instead of `z`, [batch, L, D], for a model of `w+`.
            inputs: Further inputs of the model, by their names in `info.signature`.

        Returns:
            image: uint8 [batch, H, W, C], or for a model exported with float32 output [batch, C, H, W] in [-1, 1].

        Raises:
            InputError: If shapes do not match, an index is out of range, or a value is not finite.
            RunError: If onnxruntime fails: out of memory, a lost device.
            NotFiniteError: If an image contains NaN or infinity.

        Examples:
            >>> editor = sefa_runtime.load("faces.onnx")
            >>> z = sefa_runtime.latents_from_seeds([7, 8], editor.info.z_dim)
            >>> editor.run(z, direction=[[1, 4], [1, 4]], alpha=[[2.5, 1.0], [-2.5, 0.0]]).shape
            (2, 64, 64, 3)
        """
        arrays = {"direction": direction, "alpha": alpha, "label": label, "truncation": truncation}
        feeds = self._prepare(Call({"z": z, "w": w, "codes": codes, **arrays, **inputs}))
        if self.info.batch is None:
            return check_finite(self.infer(feeds))
        return check_finite(np.concatenate([self.infer(part) for part in split(feeds, self.info.batch)]))

    def edit(
        self,
        seed: int | Sequence[int] | None = None,
        z: ArrayLike | None = None,
        edits: NamedEdits | None = None,
        label: ArrayLike | None = None,
        truncation: ArrayLike | None = None,
        *,
        w: ArrayLike | None = None,
        codes: ArrayLike | None = None,
        **inputs: ArrayLike | None,
    ) -> NDArray[np.uint8]:
        """Edit the images of some seeds, latents or codes.

        Args:
            seed: One seed or several; each gives its own latent (see `latents_from_seeds`).
            z: Latents instead of seeds, shape [N, z_dim] or [z_dim].
            edits: Alpha for each direction, by name or index; one number for all images or one per image.
                None or empty gives the unedited images.
            label: Class indices, for a class-conditional model: one for all images, or one per image.
            truncation: See `run`.
            w: See `run`.
            codes: See `run`.
            inputs: See `run`.

        Returns:
            Images, uint8 [N, H, W, C].

        Raises:
            InputError: Unless exactly one of `seed`, `z`, `w` and `codes` is given; if the model takes another of them,
                a direction is unknown or named twice, or a value is invalid.
            RunError: See `run`.

        Examples:
            >>> editor = sefa_runtime.load("faces.onnx")
            >>> editor.edit(seed=[7, 8], edits={"turn": 2.5, 4: [-1.0, 1.0]}).shape
            (2, 64, 64, 3)
        """
        arrays = {"z": z, "w": w, "codes": codes, "label": label, "truncation": truncation, **inputs}
        return self._images(self._prepare(Call(arrays, seed, {} if edits is None else edits)))

    def sweep(
        self,
        seed: int | Sequence[int] | None = None,
        z: ArrayLike | None = None,
        direction: str | SupportsIndex = 0,
        alphas: Sequence[float] | None = None,
        label: ArrayLike | None = None,
        truncation: ArrayLike | None = None,
        progress: Callable[[float], None] = lambda share: None,
        *,
        w: ArrayLike | None = None,
        codes: ArrayLike | None = None,
        **inputs: ArrayLike | None,
    ) -> NDArray[np.uint8]:
        """Move along one direction.

        Args:
            seed: One seed or several.
            z: Latents instead of seeds, shape [N, z_dim] or [z_dim].
            direction: Name or index.
            alphas: The distances, A of them; None takes 7 steps over the direction's suggested range.
            label: See `edit`.
            truncation: See `run`.
            progress: Called with the fraction done, 0 to 1.
            w: See `run`.
            codes: See `run`.
            inputs: See `run`.

        Returns:
            Images, uint8 [N, A, H, W, C].

        Raises:
            InputError: See `edit`.
            RunError: See `run`.

        Examples:
            >>> editor = sefa_runtime.load("faces.onnx")
            >>> editor.sweep(seed=7, direction="turn", alphas=[-3, 0, 3]).shape
            (1, 3, 64, 64, 3)
        """
        index = self.direction_index(direction)
        if alphas is None:
            alphas = np.linspace(*self.info.directions[index].alpha_range, 7).tolist()
        arrays = {"z": z, "w": w, "codes": codes, "label": label, "truncation": truncation, **inputs}
        feeds = self._prepare(Call(arrays, seed, sweep=Sweep(index, alphas)))
        return self._images(feeds, progress).reshape(-1, len(alphas), *self.info.image_shape)

    def prepare(self, call: Call) -> Feeds:
        """Check a call without running it, and return the arrays that `infer` takes, [batch, ...] each.

        Raises:
            InputError: See `run`.
        """
        return prepare(self.info, call)

    def infer(self, feeds: Feeds) -> NDArray[Any]:
        """Run what `prepare` returned, or several such results joined along the first axis.

        Args:
            feeds: An array for each of the graph's inputs. If the batch was fixed at export, at most that many
                images.

        Returns:
            image: See `run`.

        Raises:
            InputError: If there are more edits than the model was exported for.
            RunError: See `run`.
        """
        batch = len(feeds["direction"])
        if self.info.seal is not None and self.info.num_edits is None:
            feeds = with_edits(feeds, 1)  # onnxruntime crashes where a quantised operator gets an empty tensor.
        if self.info.batch is None and self.info.num_edits is None:
            image = self.session.run(feeds)
        else:
            image = self.session.run(pad(self.info.signature, feeds))[:batch]
        if image.shape != (batch, *self._output_shape):
            # onnxruntime only warns about an output unlike its declaration.
            shape = [batch, *self._output_shape]
            raise RunError(f"{self.name}: its graph gave an array of shape {list(image.shape)}, expected {shape}")
        return image

    def direction_index(self, direction: str | SupportsIndex) -> int:
        """Return the index of a direction given by name or index.

        Raises:
            InputError: If there is no such direction.
        """
        return direction_index(self.info, direction)

    def _prepare(self, call: Call) -> Feeds:
        """Prepare a call for the methods above, and warn their caller if it is ambiguous."""
        feeds, w = prepare(self.info, call), call.inputs.get("w")
        if w is not None and is_ambiguous(self.info, w):
            count, width = self.info.num_layers, self.info.code_dim
            warnings.warn(
                f"w of shape [{count}, {width}] is taken as {count} images; one image's code of each layer needs a "
                f"model of w+ (sefa export --latent w+). [{count}, 1, {width}] is {count} images without a warning",
                stacklevel=3,
            )
        return feeds

    def _images(self, feeds: Feeds, progress: Callable[[float], None] = lambda share: None) -> NDArray[np.uint8]:
        """Run in batches of `MAX_BATCH`, or of the model's own batch size."""
        count, size = len(feeds["direction"]), self.info.batch or MAX_BATCH
        images = np.empty((count, *self.info.image_shape), np.uint8)
        for index, part in enumerate(split(feeds, size)):
            image = as_images(self.infer(part))
            images[index * size : index * size + len(image)] = image
            progress(min((index + 1) * size / count, 1.0))
        return images


def _load_again(source: Path | bytes, payload: Payload | None, arguments: Mapping[str, Any]) -> Editor:
    """Load the same model again.

    Raises:
        ModelFileError: See `load`; also if another model has taken its place.
    """
    editor = load(source, **arguments)
    if editor.info.payload != payload:
        raise ModelFileError(f"{source!s:.200}: it is not the model that was loaded before: load it by its path")
    return editor


def as_images(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a graph's output as uint8 [batch, H, W, C]; float32 [batch, C, H, W] is rounded as uint8 graphs do.

    Raises:
        NotFiniteError: If it contains NaN or infinity.
    """
    check_finite(image)
    if image.dtype == np.uint8:
        return image
    return (image * 127.5 + 128).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def check_finite(image: NDArray[Any]) -> NDArray[Any]:
    """Return a graph's images, unless they contain NaN or infinity.

    Call it with the images of one caller: batch-mates from other callers must not fail with them.

    Args:
        image: float32 [batch, C, H, W], or uint8 [batch, H, W, C], where a graph puts alternating columns of 0 and 255
            in place of such an image (`sefa_export.bake.quantize`). Models exported before it did so render it black,
            which cannot be told from a real image.

    Raises:
        NotFiniteError: If they do.
    """
    if image.dtype == np.uint8:
        mark = _not_finite_mark(image.shape[2])
        begins = mark[:2, 0].tolist()  # The first two pixels alone cost next to nothing.
        suspects = [index for index, pixels in enumerate(image[:, 0, :2, 0].tolist()) if pixels == begins]
        wrong = [index for index in suspects if (image[index] == mark).all()]
    elif np.isfinite(image).all():
        return image
    else:
        wrong = [index for index, one in enumerate(image) if not np.isfinite(one).all()]
    if not wrong:
        return image
    raise NotFiniteError(
        f"NaN or infinity in {len(wrong)} of {len(image)} images, the first is image {wrong[0]}: the alphas or codes "
        "are far too large, or the model is broken"
    )


@cache
def _not_finite_mark(width: int) -> NDArray[np.uint8]:
    """Return a row of the image that marks a non-finite one: alternating columns of 0 and 255, [W, 1]."""
    return (np.arange(width, dtype=np.uint8) % 2 * 255)[:, None]
