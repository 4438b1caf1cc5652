"""Editing pictures with an exported model: latents, directions and alphas in, uint8 pictures out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sefa_runtime.errors import InputError, ModelFileError
from sefa_runtime.exported import check_payload, is_onnx, read_info
from sefa_runtime.latents import latents_from_seeds
from sefa_runtime.model_info import ModelInfo
from sefa_runtime.session import Session, build_session

# Pictures that `edit` and `sweep` compute at once: bounds the memory, whatever is asked for.
MAX_BATCH = 16


def load(
    path: str | Path,
    provider: str = "auto",
    provider_options: Mapping[str, object] | None = None,
    threads: int | None = None,
    *,
    allow_cpu_fallback: bool = False,
    binding: bool | None = None,
    cuda_graph: bool = False,
) -> "Editor":
    """Load an exported `.onnx` model.

    Args:
        path: A file made by `sefa export` or `sefa_export.export_onnx`.
        provider: `auto` takes CUDA where it really works, else the CPU; `Editor.session` says which and why. A provider
            asked for by name (`cuda`, `tensorrt`, `openvino`, `cpu`, or any that onnxruntime knows) is the one that
            runs every convolution, or the call fails.
        provider_options: onnxruntime's options of that provider, over our defaults (`sefa_runtime.providers`); a key
            with a dot in it is an entry of the session: `{"session.intra_op.allow_spinning": 0}`.
        threads: Threads of one operator on the CPU; None takes the physical cores that this process may use.
        allow_cpu_fallback: Take the CPU if the provider asked for cannot run; `Editor.session.reason` says why.
        binding: Run into buffers that stay on the device; None does so on CUDA and TensorRT. The images are the same.
        cuda_graph: Capture a CUDA graph for each batch size and number of edits at its first run and replay it from
            then on: less work for the CPU at small batches. For `cuda`; the runs of several threads then wait for each
            other.

    Raises:
        ModelFileError: If the file is missing, damaged, or not one of ours.
        ProviderError: If the provider cannot run here; the message says what is missing.
        InputError: If the provider's name, an option or `threads` is impossible.
        RunError: If there is no memory for the model.
    """
    path = Path(path)
    info = read_info(path)
    if not is_onnx(path):
        raise ModelFileError(f"{path}: an archive that runs in torch; the .onnx export is needed here")
    check_payload(path, info)
    session = build_session(
        path,
        provider,
        provider_options,
        threads,
        allow_cpu_fallback=allow_cpu_fallback,
        binding=binding,
        cuda_graph=cuda_graph,
    )
    return Editor(path, info, session)


class Editor:
    """A loaded model. It keeps no state between calls, and may be used from several threads at once.

    Attributes:
        path: The file it was loaded from.
        info: What the file says about itself: resolution, directions, where it came from.
        session: The onnxruntime session, the provider it really runs on, and load times.
    """

    def __init__(self, path: Path, info: ModelInfo, session: Session) -> None:
        self.path = path
        self.info = info
        self.session = session

    @property
    def provider(self) -> str:
        """The execution provider that really runs: "cpu", "cuda", ..."""
        return self.session.provider

    def run(self, z: ArrayLike, direction: ArrayLike, alpha: ArrayLike, label: ArrayLike | None = None) -> NDArray[Any]:
        """Run the graph: the images of latents, moved by Σ_e alpha_e · n_{direction_e}.

        Args:
            z: Latents, shape [batch, z_dim]; one latent may be given as [z_dim].
            direction: Indices into the bank, integers, shape [batch, edits]. An integer goes to every image; [batch]
                is one edit per image; with a batch of 1, [edits] is several edits of that image.
            alpha: Distances along the directions, shaped as `direction`.
            label: Class indices, for a class-conditional model: one for every image, or [batch].

        Returns:
            image: uint8 [batch, H, W, C], or for a model exported with float32 output [batch, C, H, W] in [-1, 1].

        Raises:
            InputError: If shapes do not fit, an index is out of range, or a value is not finite.
            RunError: If onnxruntime fails: out of memory, a lost device.
        """
        z = self._latents(z)
        direction, alpha = self._edits(direction, alpha, len(z))
        return self._infer(z, direction, alpha, self._labels(label, len(z)))

    def edit(
        self,
        seed: int | Sequence[int] | None = None,
        z: ArrayLike | None = None,
        edits: Mapping[str | int, float | Sequence[float]] | None = None,
        label: ArrayLike | None = None,
    ) -> NDArray[np.uint8]:
        """Edit the pictures of some seeds or latents.

        Args:
            seed: One seed or several; each draws its own latent (see `latents_from_seeds`).
            z: Latents instead of seeds, shape [N, z_dim] or [z_dim].
            edits: Alpha for each direction, by name or index; a number for all pictures or one number per picture.
                None or empty gives the unedited pictures.
            label: Class indices, for a class-conditional model: one for all pictures, or one per picture.

        Returns:
            Pictures, uint8 [N, H, W, C].

        Raises:
            InputError: If not exactly one of `seed` and `z` is given, a direction is unknown or named twice, or a value
                cannot be taken.
        """
        z = self._choose_latents(seed, z)
        edits = edits or {}
        indices = [self.direction_index(key) for key in edits]
        if len(set(indices)) != len(indices):
            raise InputError(f"a direction is given twice: {', '.join(map(str, edits))}")
        alpha = np.empty((len(z), len(edits)), np.float32)
        for column, (key, value) in enumerate(edits.items()):
            values = _numbers(value, f"alpha of direction {key}", np.float32)
            if values.shape not in ((), (len(z),)):
                raise InputError(
                    f"alpha of direction {key} must be one number or one for each of {len(z)} pictures, "
                    f"got shape {list(values.shape)}"
                )
            alpha[:, column] = values
        direction = np.tile(np.asarray(indices, np.int64), (len(z), 1))
        return self._pictures(z, direction, alpha, self._labels(label, len(z)))

    def sweep(
        self,
        seed: int | Sequence[int] | None = None,
        z: ArrayLike | None = None,
        direction: str | int = 0,
        alphas: Sequence[float] | None = None,
        label: ArrayLike | None = None,
        progress: Callable[[float], None] = lambda share: None,
    ) -> NDArray[np.uint8]:
        """Move along one direction.

        Args:
            seed: One seed or several.
            z: Latents instead of seeds, shape [N, z_dim] or [z_dim].
            direction: Name or index.
            alphas: The distances, A of them; None takes 7 steps over the direction's suggested range.
            label: As `edit`.
            progress: Called with the share that is done, 0 to 1.

        Returns:
            Pictures, uint8 [N, A, H, W, C].

        Raises:
            InputError: As `edit`.
        """
        z = self._choose_latents(seed, z)
        index = self.direction_index(direction)
        if alphas is None:
            alphas = np.linspace(*self.info.directions[index].alpha_range, 7).tolist()
        steps = _numbers(alphas, "alphas", np.float32)
        if steps.ndim != 1 or not len(steps):
            raise InputError(f"alphas must be a list of one or more numbers, got shape {steps.shape}")
        alpha = np.tile(steps, len(z))[:, None]  # [N·A, 1]
        labels = self._labels(label, len(z))
        labels = None if labels is None else np.repeat(labels, len(steps))
        z_repeated = np.repeat(z, len(steps), axis=0)
        pictures = self._pictures(z_repeated, np.full(alpha.shape, index), alpha, labels, progress)
        return pictures.reshape(len(z), len(steps), *self.info.image_shape)

    def direction_index(self, direction: str | int) -> int:
        """The index of a direction given by name or index.

        Raises:
            InputError: If there is no such direction.
        """
        names = self.info.names
        if isinstance(direction, str) and direction in names:
            return names.index(direction)
        is_integer = isinstance(direction, int | np.integer) and not isinstance(direction, bool)
        if is_integer and 0 <= int(direction) < len(names):
            return int(direction)
        raise InputError(f"direction must be in 0..{len(names) - 1} or a name ({_some(names)}), got {direction!r}")

    def _choose_latents(self, seed: int | Sequence[int] | None, z: ArrayLike | None) -> NDArray[np.float32]:
        if (seed is None) == (z is None):
            raise InputError("give either seed or z")
        if seed is not None:
            seeds = list(seed) if isinstance(seed, Iterable) and np.ndim(seed) else [seed]
            return latents_from_seeds(seeds, self.info.z_dim)  # type: ignore[arg-type]  # Checked there.
        return self._latents(z)

    def _latents(self, z: ArrayLike | None) -> NDArray[np.float32]:
        latents = _numbers(z, "z", np.float32)
        if latents.ndim == 1:
            latents = latents[None]
        if latents.ndim != 2 or latents.shape[1] != self.info.z_dim or not len(latents):
            raise InputError(f"z must have shape [batch, {self.info.z_dim}], got {list(np.shape(latents))}")
        return np.ascontiguousarray(latents)

    def _edits(
        self, direction: ArrayLike, alpha: ArrayLike, batch: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        direction = _numbers(direction, "direction", np.int64)
        alpha = _numbers(alpha, "alpha", np.float32)
        last = len(self.info.directions) - 1
        if direction.size and not (direction.min() >= 0 and direction.max() <= last):
            wrong = direction[(direction < 0) | (direction > last)][0]
            raise InputError(f"direction must be in 0..{last}, got {wrong}")
        try:
            columns = _columns(direction, batch), _columns(alpha, batch)
            shape = (batch, np.broadcast_shapes(columns[0].shape, columns[1].shape)[1])
            direction, alpha = (np.broadcast_to(column, shape) for column in columns)
        except ValueError:
            raise InputError(
                f"direction and alpha must be single numbers or have shape [{batch}] or [{batch}, edits], "
                f"got {list(np.shape(direction))} and {list(np.shape(alpha))}"
            ) from None
        return np.ascontiguousarray(direction), np.ascontiguousarray(alpha)

    def _labels(self, label: ArrayLike | None, batch: int) -> NDArray[np.int64] | None:
        count = self.info.num_classes
        if (label is None) == bool(count):
            raise InputError(
                f"class-conditional: a label in 0..{count - 1} is needed"
                if count
                else "not class-conditional: it takes no label"
            )
        if label is None:
            return None
        labels = _numbers(label, "label", np.int64)
        if labels.shape not in ((), (1,), (batch,)):
            raise InputError(f"label must be one number or one for each of {batch} images, got {list(labels.shape)}")
        if not (labels.min() >= 0 and labels.max() < count):
            raise InputError(f"label must be in 0..{count - 1}, got {labels[(labels < 0) | (labels >= count)][0]}")
        return np.ascontiguousarray(np.broadcast_to(labels, batch))

    def _infer(
        self,
        z: NDArray[np.float32],
        direction: NDArray[np.int64],
        alpha: NDArray[np.float32],
        label: NDArray[np.int64] | None,
    ) -> NDArray[Any]:
        feeds: dict[str, NDArray[Any]] = {"z": z, "direction": direction, "alpha": alpha}
        if label is not None:
            feeds["label"] = label
        return self.session.run(feeds)

    def _pictures(
        self,
        z: NDArray[np.float32],
        direction: NDArray[np.int64],
        alpha: NDArray[np.float32],
        label: NDArray[np.int64] | None,
        progress: Callable[[float], None] = lambda share: None,
    ) -> NDArray[np.uint8]:
        """Run in batches of `MAX_BATCH`; the inputs are checked: [N, z_dim], twice [N, edits], [N]."""
        pictures = np.empty((len(z), *self.info.image_shape), np.uint8)
        for start in range(0, len(z), MAX_BATCH):
            rows = slice(start, start + MAX_BATCH)
            image = self._infer(z[rows], direction[rows], alpha[rows], None if label is None else label[rows])
            if self.info.output == "float32":
                # As the uint8 graphs do it: [batch, C, H, W] in [-1, 1] -> [batch, H, W, C] in 0..255.
                image = (image * 127.5 + 128).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
            pictures[rows] = image
            progress(min(rows.stop / len(z), 1.0))
        return pictures


def _columns(values: NDArray[Any], batch: int) -> NDArray[Any]:
    """Bring direction or alpha to two dimensions that broadcast to [batch, edits]."""
    if values.ndim == 1 and batch > 1:
        return values[:, None]  # One edit per image: [batch] -> [batch, 1]
    if values.ndim > 2:
        raise ValueError
    return np.atleast_2d(values)


def _numbers(values: ArrayLike | None, name: str, dtype: type[np.generic]) -> NDArray[Any]:
    """Take an array of finite numbers of the kind that `dtype` is."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} must be an array of numbers, got rows of unequal length") from error
    integers = np.issubdtype(dtype, np.integer)
    # An empty list is an array of floats to numpy.
    if array.dtype.kind not in ("iu" if integers and array.size else "iuf"):
        raise InputError(f"{name} must be {'integers' if integers else 'numbers'}, got {array.dtype}")
    with np.errstate(over="ignore"):
        array = array.astype(dtype, copy=False)
    if not np.isfinite(array).all():
        raise InputError(f"{name} must be finite, got NaN or infinity")
    return array


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
