"""The inputs and the output of an exported graph: the one place that knows their names, types and shapes.

All code that makes, checks, fills or describes inputs iterates over a `Signature`. Inputs that only some generators
have are `OptionalInput`s: the generator's class declares them, and the exporter records them in the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnxruntime

# Axes whose size is free unless fixed at export.
BATCH, EDITS = "batch", "edits"
# Types by their names in numpy, onnxruntime and the Open Inference Protocol.
ORT_TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)", "uint8": "tensor(uint8)"}
DATATYPES = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}
# Names that no optional input may have: those of the other inputs, and of a call's other arguments.
RESERVED_NAMES = {"z", "w", "codes", "seed", "direction", "alpha", "alphas", "edits", "label", "truncation", "progress"}
# Inputs of the reference images (`sefa_runtime.inputs.examples`), which have one edit each.
REFERENCE_IMAGES = 4
REFERENCE_ALPHAS = (0.0, 1.5, -1.5, 3.0)
REFERENCE_TRUNCATIONS = (1.0, 0.7, 0.7, 0.5)


@dataclass(frozen=True)
class OptionalInput:
    """A number per image that a generator takes besides its latent, such as the strength of its noise."""

    name: str
    default: float  # what the graph gets if the caller gives nothing
    low: float  # examples are drawn from this range; it is not enforced
    high: float


@dataclass(frozen=True)
class TensorSpec:
    """One input or output, with the values that an input may have."""

    name: str
    dtype: str  # "float32", "int64" or "uint8"
    shape: tuple[int | str, ...]  # BATCH and EDITS stand for these axes
    required: bool = True
    fill: float = 0  # value of an optional input if left out; makes no edit
    bounds: tuple[float, float] | None = None  # for examples; for integers, of all valid values, upper one excluded
    reference: tuple[float, ...] = ()  # the reference images' values

    @property
    def datatype(self) -> str:
        """The type's name in the Open Inference Protocol."""
        return DATATYPES[self.dtype]

    def sizes(self, batch: int, edits: int) -> tuple[int, ...]:
        """Return the shape for a number of images and edits."""
        free = {BATCH: batch, EDITS: edits}
        return tuple(free[axis] if isinstance(axis, str) else axis for axis in self.shape)


@dataclass(frozen=True)
class Signature:
    """A graph's inputs, in order, and its output."""

    inputs: tuple[TensorSpec, ...]  # the latent, direction and alpha, then those that are one number per image
    output: TensorSpec
    batch: int | None = None  # fixed at export; None: any
    num_edits: int | None = None

    @property
    def latent(self) -> TensorSpec:
        """The first input."""
        return self.inputs[0]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The inputs' names."""
        return tuple(spec.name for spec in self.inputs)

    @cached_property
    def by_name(self) -> dict[str, TensorSpec]:
        """The inputs by their names."""
        return {spec.name: spec for spec in self.inputs}

    @cached_property
    def conditions(self) -> tuple[TensorSpec, ...]:
        """The inputs that are one number per image: label, truncation and whatever else the generator takes."""
        return tuple(spec for spec in self.inputs if spec.shape == (BATCH,))

    @cached_property
    def static_sizes(self) -> dict[str, int]:
        """The axes fixed at export, with their sizes."""
        sizes = {BATCH: self.batch, EDITS: self.num_edits}
        return {axis: size for axis, size in sizes.items() if size is not None}

    def axes(self, spec: TensorSpec) -> tuple[int | str, ...]:
        """Return the axes of an input or the output as in the graph: a size, or a name if any size is allowed."""
        return tuple(self.static_sizes.get(axis, axis) if isinstance(axis, str) else axis for axis in spec.shape)

    def mismatches(
        self, session: "onnxruntime.InferenceSession", *, axis_names: bool = False, may_be_free: bool = False
    ) -> list[str]:
        """Return how a session's inputs and output differ from this signature, one line each.

        Args:
            session: The loaded graph, as onnxruntime's session or `sefa_runtime.session.session.Session`.
            axis_names: Whether the names of free axes must match, too.
            may_be_free: Whether the graph may leave sizes open that are fixed here, as graphs may that tools changed.
        """
        lines = []
        for side, found, wanted in (
            ("inputs", session.get_inputs(), self.inputs),
            ("outputs", session.get_outputs(), (self.output,)),
        ):
            names = [value.name for value in found]
            if names != [spec.name for spec in wanted]:
                lines.append(f"{side} {', '.join(names)} for {', '.join(spec.name for spec in wanted)}")
                continue
            for value, spec in zip(found, wanted, strict=True):
                axes = self.axes(spec)
                shape = [*value.shape] if axis_names else [*map(_size_or_any, value.shape)]
                expected = [*axes] if axis_names else [*map(_size_or_any, axes)]
                if may_be_free and len(shape) == len(expected):
                    shape = [size if found == "any" else found for found, size in zip(shape, expected, strict=True)]
                if value.type != ORT_TYPES[spec.dtype] or shape != expected:
                    shown = ", ".join(map(str, expected))
                    lines.append(f"{spec.name} {value.type} {value.shape} for {spec.dtype} [{shown}]")
        return lines


def make_signature(
    latent: str,
    latent_shape: tuple[int, ...],
    directions: int,
    *,
    num_classes: int | None,
    truncation: bool,
    optional: Sequence[OptionalInput],
    output_type: str,
    image_shape: tuple[int, int, int],
    batch: int | None,
    num_edits: int | None,
) -> Signature:
    """Make the signature of a graph.

    Args:
        latent: Name of the first input.
        latent_shape: Shape of one image's latent.
        directions: Number of directions in the bank.
        num_classes: Number of classes of a graph that takes a label; None: it takes none.
        truncation: Whether truncation psi is an input.
        optional: The graph's further inputs.
        output_type: "uint8" or "float32".
        image_shape: H, W, C.
        batch: Batch size fixed at export; None: any.
        num_edits: Number of edits fixed at export; None: any.
    """
    inputs = [
        TensorSpec(latent, "float32", (BATCH, *latent_shape)),
        TensorSpec("direction", "int64", (BATCH, EDITS), False, 0, (0, directions), _in_turn(directions)),
        TensorSpec("alpha", "float32", (BATCH, EDITS), False, 0, (-3, 3), REFERENCE_ALPHAS),
    ]
    if num_classes is not None:
        inputs.append(TensorSpec("label", "int64", (BATCH,), True, 0, (0, num_classes), _in_turn(num_classes)))
    if truncation:
        psi = OptionalInput("truncation", 1.0, 0.5, 1.0)
        inputs.append(_condition(psi, REFERENCE_TRUNCATIONS))
    inputs += [_condition(entry, _spread(entry)) for entry in optional]
    height, width, channels = image_shape
    image = (height, width, channels) if output_type == "uint8" else (channels, height, width)
    return Signature(tuple(inputs), TensorSpec("image", output_type, (BATCH, *image)), batch, num_edits)


def _condition(entry: OptionalInput, reference: tuple[float, ...]) -> TensorSpec:
    return TensorSpec(entry.name, "float32", (BATCH,), False, entry.default, (entry.low, entry.high), reference)


def _in_turn(count: int) -> tuple[int, ...]:
    return tuple(index % count for index in range(REFERENCE_IMAGES))


def _spread(entry: OptionalInput) -> tuple[float, ...]:
    """Return values for the reference images, from one end of the range to the other."""
    step = (entry.high - entry.low) / (REFERENCE_IMAGES - 1)
    return tuple(entry.low + index * step for index in range(REFERENCE_IMAGES))


def _size_or_any(axis: Any) -> int | str:
    return axis if isinstance(axis, int) else "any"
