"""The description inside an exported model: written by the exporter, read by the runtime.

The same JSON document lives in an ONNX file's `metadata_props` under `METADATA_KEY`, and in a TorchScript or .pt2
archive as the extra file `EXTRA_FILE`.
"""

import hashlib
import json
import math
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from functools import cached_property
from reprlib import repr as short
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from sefa_runtime.errors import ModelFileError
from sefa_runtime.json_text import parse_json
from sefa_runtime.model.card import card_problems
from sefa_runtime.model.choices import Latent, OutputType, Precision
from sefa_runtime.model.class_names import class_name_problems
from sefa_runtime.model.direction_names import name_problems
from sefa_runtime.model.signature import REFERENCE_IMAGES, RESERVED_NAMES, OptionalInput, Signature, make_signature

METADATA_KEY = "sefa"
# sha256 of that document, in hex; the payload's is inside the document.
CHECKSUM_KEY = "sefa_sha256"
EXTRA_FILE = "sefa.json"
# Increased when a reader of the earlier format would misunderstand a file.
FORMAT_VERSION = 4
# Larger than any generator's.
MAX_CODE, MAX_LAYERS, MAX_SIDE, MAX_CHANNELS, MAX_DIRECTIONS = 1 << 20, 4096, 1 << 14, 1024, 1 << 16
MAX_BYTES, MAX_MACS = 2**50, 2**60
# Field names in the document that differ from those in Python.
STORED_NAMES = {"num_edits": "edits", "output_type": "output"}
SHOWN = 12  # digits of a sha256 in messages
# TensorProto.DataType of onnx.proto, by numpy's names.
ELEMENT_TYPES = {"float32": 1, "float16": 10, "int64": 7}
# Limit for a batch or number of edits fixed at export.
MAX_FIXED = 4096
# For `reference`: the parts that each image is divided into, down and across.
REFERENCE_GRID = 4


@dataclass(frozen=True)
class DirectionInfo:
    """One entry of the direction bank inside the graph."""

    name: str  # what edits call it, besides its index
    eigenvalue: float  # λ of AᵀA: the squared change of A·z per unit of alpha
    alpha_range: tuple[float, float]  # suggested, not enforced
    edited_layers: tuple[int, ...]  # those that an edit changes
    analysed_layers: tuple[int, ...]  # those that it was found in


@dataclass(frozen=True)
class Parity:
    """How far the exported graph is from PyTorch, measured when it was exported.

    For `output_type="uint8"` the errors are in grey levels, for `output_type="float32"` in units of [-1, 1].
    """

    max_abs_error: float  # the largest difference of a value
    changed_fraction: float  # share of values that differ at all
    images: int  # compared
    batches: tuple[int, ...]  # sizes that were compared
    edits: tuple[int, ...]  # numbers of edits that were compared
    psnr_db: float | None = None  # fp16 only: the worst image's, against float32


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights beside a model, which other models may share."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Payload:
    """The part of an ONNX file before its metadata: the graph, and the weights unless they are in a file beside it."""

    bytes: int
    sha256: str
    weights: WeightsFile | None = None

    @property
    def content_sha256(self) -> str:
        """Return one checksum of graph and weights, which does not depend on the directions' names."""
        if self.weights is None:
            return self.sha256
        return hashlib.sha256(f"{self.sha256} {self.weights.sha256}".encode()).hexdigest()


@dataclass(frozen=True)
class Seal:
    """How far the images of a graph that another tool changed are from the export's, measured by `sefa seal`."""

    like_sha256: str  # `Payload.content_sha256` of the model that it was compared with
    max_levels: int  # largest difference of a value, of 255 levels
    psnr_db: float  # the worst image's
    mean_levels: float  # largest difference between `reference` and the means of the parts of its own images
    images: int  # compared

    @property
    def in_words(self) -> str:
        """What commands and the page of `sefa serve` show."""
        far = f"at most {self.max_levels} of 255 levels apart, PSNR at least {self.psnr_db:.1f} dB"
        return (
            f"like {self.like_sha256[:SHOWN]}..., {self.images} images {far if self.max_levels else 'equal to the bit'}"
        )


@dataclass(frozen=True)
class PrefixTensor:
    """One of the tensors that the prefix computes and the rest reads."""

    name: str
    dtype: str  # "float32", "float16" or "int64"
    shape: tuple[int, ...]  # of one image; the graph's has the batch before it

    @property
    def bytes(self) -> int:
        """Size of one image's."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Prefix:
    """The first nodes of a graph, up to where the edits come in."""

    nodes: int
    tensors: tuple[PrefixTensor, ...]
    share: float  # of the graph's multiplications


@dataclass(frozen=True)
class ModelInfo:
    """Everything a caller needs to know about a graph to use it, available without loading it."""

    format_version: int  # of the description
    family: str  # of the generator: "dcgan", "stylegan2", ...
    latent: str  # the space of the first input: "z" [batch, z_dim], "w" [batch, code_dim], "w+" [batch, L, code_dim]
    z_dim: int  # length of a latent z
    code_dim: int  # length of one layer's code
    num_layers: int  # L
    batch: int | None  # fixed at export; None: dynamic
    num_edits: int | None  # likewise
    resolution: tuple[int, int]  # H, W
    channels: int  # of an image
    output_type: str  # "uint8": [batch, H, W, C]; "float32": [batch, C, H, W] in [-1, 1]
    precision: str  # "fp32" or "fp16"
    num_classes: int  # 0: not class-conditional
    truncation: float | None  # psi, fixed in the graph; 1: off; None: it is an input
    code_rms: tuple[float, float] | None  # for graphs of w and w+: smallest and largest RMS of the mapping's w
    truncation_center: str  # where the centre of truncation comes from; empty: no truncation in this family
    noise: str  # a StyleGAN's noise inputs: "const" or "none"; empty: it has none
    directions: tuple[DirectionInfo, ...]  # in the order of their indices
    method: str  # "sefa" or "ganspace"; of several banks, what they share
    normalize: str  # how the rows of A were scaled
    source_format: str  # whose format the checkpoint is in; empty if the generator did not come from a file
    source_sha256: str  # of the checkpoint file; empty if the generator did not come from a file
    payload: Payload | None  # ONNX only
    parity: Parity  # with PyTorch
    reference: tuple[
        tuple[float, ...], ...
    ]  # [image][part · C]: `mean_levels` of PyTorch's images for `reference_inputs`
    versions: dict[str, str]  # of the packages that exported it
    # The fields below have defaults, used for files written before the field existed.
    source_entry: str = ""  # which of the checkpoint's entries was read; empty: there was only one
    assumptions: tuple[str, ...] = ()  # what the checkpoint does not say and was assumed
    # sha256 of the checkpoints that directions were found in; empty: the generator's own, or unknown
    bank_sha256: tuple[str, ...] = ()
    optional_inputs: tuple[OptionalInput, ...] = ()  # taken by the graph besides label and truncation
    class_names: tuple[str, ...] = ()  # in the order of their indices; empty: they have none
    seal: Seal | None = None  # the graph was changed by another tool after the export; None: it was not
    license: str = ""  # the generator's, as its owner or its checkpoint says; empty: neither does
    note: str = ""  # likewise
    # The part of an ONNX graph that no edit reaches; None: next to nothing, or another format.
    prefix: Prefix | None = None
    macs: int | None = None  # multiply-adds of one image in convolutions and matrix products; None: not counted
    winograd: tuple[int, ...] = ()  # rows of the 3x3 convolutions in Winograd's form, ascending; empty: there are none

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The directions' names, in the order of their indices."""
        return tuple(direction.name for direction in self.directions)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one uint8 image: H, W, C."""
        return (*self.resolution, self.channels)

    @property
    def latent_name(self) -> str:
        """The graph's first input: "z", "w" or "codes"."""
        return {"z": "z", "w": "w", "w+": "codes"}[self.latent]

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one image's latent."""
        return {"z": (self.z_dim,), "w": (self.code_dim,), "w+": (self.num_layers, self.code_dim)}[self.latent]

    @property
    def takes_label(self) -> bool:
        """Whether the graph has the input `label`, which is only used to make a code from z."""
        return self.num_classes > 0 and self.latent == "z"

    @cached_property
    def signature(self) -> Signature:
        """The graph's inputs and output."""
        return make_signature(
            self.latent_name,
            self.latent_shape,
            len(self.directions),
            num_classes=self.num_classes if self.takes_label else None,
            truncation=self.truncation is None,
            optional=self.optional_inputs,
            output_type=self.output_type,
            image_shape=self.image_shape,
            batch=self.batch,
            num_edits=self.num_edits,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain values, named as in the document."""
        return {STORED_NAMES.get(name, name): value for name, value in asdict(self).items()}

    def to_json(self) -> str:
        """Return the document that `from_json` reads; fields at their default are left out."""
        defaults = {STORED_NAMES.get(field.name, field.name): field.default for field in fields(self)}
        document = {name: value for name, value in self.to_dict().items() if value != defaults[name]}
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, where: str) -> "ModelInfo":
        """Read the document back.

        Args:
            text: What `to_json` wrote.
            where: Name of the file it was found in, for error messages.

        Raises:
            ModelFileError: If the document is damaged, in a newer format, or says something impossible.
        """
        try:
            document = parse_json(text)
            version = document["format_version"]
            if version != FORMAT_VERSION:
                raise ModelFileError(
                    f"{where}: its format is version {version}, this sefa reads version {FORMAT_VERSION}; "
                    "export it again or install the sefa that wrote it"
                )
            for name, stored in STORED_NAMES.items():
                document[name] = document.pop(stored)
            info: ModelInfo = _read(document, cls)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise ModelFileError(f"{where}: its sefa metadata is damaged ({error})") from error
        problems = _problems(info)
        if problems:
            raise ModelFileError(f"{where}: its sefa metadata is damaged ({problems[0]})")
        return info


def _problems(info: ModelInfo) -> list[str]:
    """Return what in the description no export can have written; an empty list if nothing."""
    height, width = info.resolution
    problems = [
        f"{name} is {value}, expected {least} to {most}"
        for name, value, least, most in (
            ("z_dim", info.z_dim, 1, MAX_CODE),
            ("code_dim", info.code_dim, 1, MAX_CODE),
            ("num_layers", info.num_layers, 1, MAX_LAYERS),
            ("num_classes", info.num_classes, 0, MAX_CODE),
            ("batch", 1 if info.batch is None else info.batch, 1, MAX_FIXED),
            ("edits", 0 if info.num_edits is None else info.num_edits, 0, MAX_FIXED),
            ("height", height, 1, MAX_SIDE),
            ("width", width, 1, MAX_SIDE),
            ("channels", info.channels, 1, MAX_CHANNELS),
            ("number of directions", len(info.directions), 1, MAX_DIRECTIONS),
        )
        if not least <= value <= most
    ]
    problems += [
        f"{name} is {value!r}, expected {' or '.join(values)}"
        for name, value, values in (
            ("latent", info.latent, Latent),
            ("output", info.output_type, OutputType),
            ("precision", info.precision, Precision),
        )
        if value not in tuple(values)
    ]
    problems += name_problems(info.names)
    problems += card_problems(info.license, info.note)
    problems += class_name_problems(info.class_names, info.num_classes)
    if info.truncation is not None and not math.isfinite(info.truncation):
        problems.append(f"truncation is {info.truncation}")
    if info.code_rms is not None and not 0 <= info.code_rms[0] <= info.code_rms[1] < math.inf:
        problems.append(f"code_rms is {info.code_rms[0]} to {info.code_rms[1]}")
    for index, entry in enumerate(info.optional_inputs):
        others = {other.name for other in info.optional_inputs[:index]}
        if not entry.name.isidentifier() or entry.name in RESERVED_NAMES | others:
            problems.append(f"an optional input is called {entry.name!r}")
        if not -math.inf < entry.low <= entry.high < math.inf or not math.isfinite(entry.default):
            problems.append(f"the input {entry.name} is {entry.default} by default, from {entry.low} to {entry.high}")
    for direction in info.directions:
        low, high = direction.alpha_range
        if not -math.inf < low < high < math.inf:
            problems.append(f"alpha_range of {direction.name} is {low} to {high}")
        if not 0 <= direction.eigenvalue < math.inf:
            problems.append(f"eigenvalue of {direction.name} is {direction.eigenvalue}")
        if not all(0 <= layer < info.num_layers for layer in direction.edited_layers + direction.analysed_layers):
            problems.append(f"layers of {direction.name} are beyond the {info.num_layers} that there are")
    payload, parity, seal = info.payload, info.parity, info.seal
    if seal is not None and not (seal.max_levels <= 255 and 0 <= seal.mean_levels <= 255 and 0 <= seal.psnr_db < 1000):
        problems.append("seal is out of range")
    if any(rows not in range(1, MAX_SIDE + 1) for rows in info.winograd):
        problems.append(f"winograd is of resolutions outside 1 to {MAX_SIDE}")
    if info.prefix is not None and not (
        info.prefix.nodes > 0
        and info.prefix.tensors
        and all(tensor.dtype in ELEMENT_TYPES and min(tensor.shape, default=1) > 0 for tensor in info.prefix.tensors)
    ):
        problems.append("the prefix is empty, or its tensors are of another kind")
    if info.macs is not None and not 0 <= info.macs <= MAX_MACS:
        problems.append(f"macs is {info.macs}")
    sizes = () if payload is None else (payload.bytes, payload.weights.bytes if payload.weights else 0)
    if not all(0 <= size <= MAX_BYTES for size in sizes):
        problems.append("payload is of a size that no file has")
    if not (0 <= parity.max_abs_error < math.inf and 0 <= parity.changed_fraction <= 1):
        problems.append("parity is out of range")
    levels = min(REFERENCE_GRID, height) * min(REFERENCE_GRID, width) * info.channels
    if len(info.reference) != REFERENCE_IMAGES or any(len(row) != levels for row in info.reference):
        problems.append(f"reference is not of {REFERENCE_IMAGES} images and {levels} levels")
    if not all(0 <= level <= 255 for row in info.reference for level in row):
        problems.append("reference levels are out of range")
    return problems


def _read(value: Any, kind: Any) -> Any:
    """Convert plain values from JSON to `kind`, a type made of dataclasses, tuples, dicts and scalars."""
    if is_dataclass(kind):
        types = get_type_hints(kind)
        required = {field.name for field in fields(kind) if field.default is MISSING}
        if not isinstance(value, dict) or not required <= set(value) <= set(types):
            raise ValueError(
                f"unexpected or missing fields {short(sorted(set(value) - set(types) | required - set(value)))}"
            )
        build: Any = kind
        return build(**{name: _read(value[name], types[name]) for name in types if name in value})
    arguments = get_args(kind)
    if get_origin(kind) is tuple and isinstance(value, list):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_read(item, item_kind) for item, item_kind in zip(value, kinds, strict=True))
    if get_origin(kind) is dict and isinstance(value, dict):
        return {_read(key, str): _read(item, arguments[1]) for key, item in value.items()}
    if get_origin(kind) is UnionType:  # A type or None.
        return None if value is None else _read(value, arguments[0])
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{short(value)} where {kind} was expected")
    if kind is str:
        value.encode()  # JSON can spell lone surrogates, which are not text.
    return value
