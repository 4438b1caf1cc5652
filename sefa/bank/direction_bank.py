"""The direction bank: the directions of one generator, and their file."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from reprlib import repr as short
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor
from torch.nn import functional as F

from sefa.errors import ArgumentError, BankError
from sefa.generators import Generator
from sefa.generators.layers import LayerSpec, parse_layers
from sefa_runtime.files import check_utf8_output, input_problem, utf8_problem, write_whole
from sefa_runtime.json_text import MAX_JSON, parse_json
from sefa_runtime.model.direction_names import name_problems
from sefa_runtime.printable import quoted
from sefa_runtime.version import VERSION

METADATA_KEY = "sefa_bank"
MODEL_ENDINGS = (".onnx", ".ts", ".pt2")
# Format 2 adds the unit of alpha, the samples, and the origin of each direction of a merged bank. Format 1 can be read.
FORMAT_VERSION = 2
ALPHA_UNITS = ("distance", "sigma", "vector")
UNIT_TOLERANCE = 1e-3
# Three standard deviations of a latent's entry: beyond that the generator has seen hardly any samples in training.
ALPHA_RANGE = (-3.0, 3.0)
MAX_MESSAGE = 1000  # characters
TENSORS = ("vectors", "eigenvalues", "edited_layers", "analysed_layers", "alpha_range")


@dataclass(frozen=True)
class DirectionSource:
    """Where directions came from."""

    family: str  # of the generator
    checkpoint_sha256: str  # empty if the generator did not come from a file
    method: str  # "sefa" or "ganspace", or what another tool's file was
    normalize: str  # how the rows of A were scaled
    rank: int  # of the matrix A, or of the samples: directions beyond it change nothing
    version: str  # of sefa
    # Unit of alpha: distance in code space; standard deviations of the sampled codes along the direction; or multiples
    # of the vector that another tool's file gives, of whatever length.
    alpha_unit: str = "distance"
    samples: int = 0  # how many latents were sampled; 0: none
    seed: int | None = None  # of the sampled latents
    label: int | None = None  # class of the sampled latents; None: any


@dataclass(frozen=True, eq=False)
class DirectionBank:
    """K directions in a latent space of D dimensions, for a generator of L layers.

    Attributes:
        vectors: What alpha 1 adds to a code, float32 [K, D], or [K, L, D] if each layer has a vector of its own: unit
            length if alpha is a distance, one standard deviation if alpha counts standard deviations.
        eigenvalues: Squared change of what was analysed per unit of alpha, float64 [K], descending within each source:
            the eigenvalues λ of AᵀA for SeFa, variances for GANSpace.
        edited_layers: Which layers' codes an edit changes, bool [K, L].
        analysed_layers: Which layers' affine weights the direction was found in, bool [K, L].
        names: K distinct names; none looks like an integer, since integers are indices.
        alpha_range: Suggested lowest and highest alpha, float32 [K, 2].
        source: The generator and method; for a merged bank, the `joint_source` of all directions.
        origins: Each direction's own source, K of them; empty if `source` is the source of all.

    Examples:
        >>> bank = sefa.factorize(sefa.load("netG.pth"), top=8)
        >>> bank.save("bank.safetensors")
        PosixPath('bank.safetensors')
        >>> len(sefa.DirectionBank.load("bank.safetensors"))
        8
    """

    vectors: Tensor
    eigenvalues: Tensor
    edited_layers: Tensor
    analysed_layers: Tensor
    names: tuple[str, ...]
    alpha_range: Tensor
    source: DirectionSource
    origins: tuple[DirectionSource, ...] = ()

    def __post_init__(self) -> None:
        problems = self._problems()
        if problems:
            raise BankError(f"not a valid direction bank: {'; '.join(problems)[:MAX_MESSAGE]}")

    def __repr__(self) -> str:
        shown = ", ".join(self.names[:4]) + ", ..." * (len(self) > 4)
        of = f"{self.source.family}, {self.num_layers} layer{'s' * (self.num_layers > 1)}, by {self.source.method}"
        return f"<DirectionBank of {len(self)} directions, {self.code_dim} components each ({of}): {shown}>"

    def __len__(self) -> int:
        return len(self.names)

    @property
    def code_dim(self) -> int:
        """D, the length of a direction."""
        return self.vectors.shape[-1]

    @property
    def has_own_vectors(self) -> bool:
        """Whether each layer is moved by a vector of its own."""
        return self.vectors.ndim == 3

    @property
    def num_layers(self) -> int:
        """L, the number of layers that an edit may touch."""
        return self.edited_layers.shape[1]

    def steps(self) -> Tensor:
        """Return what alpha 1 adds to the codes of all layers, [K, L, D]: zeros where a direction edits nothing."""
        vectors = self.vectors if self.has_own_vectors else self.vectors[:, None]
        return self.edited_layers[:, :, None] * vectors

    def lengths(self, index: int) -> Tensor:
        """Return the length of a direction's vector, [1], or of those of the layers that it edits."""
        mask = self.edited_layers[index]
        vectors = self.vectors[index, mask if mask.any() else ~mask] if self.has_own_vectors else self.vectors[[index]]
        lengths: Tensor = vectors.norm(dim=1)
        return lengths

    def origin(self, index: int) -> DirectionSource:
        """Return where one direction came from."""
        return self.origins[index] if self.origins else self.source

    def save(self, path: str | Path) -> Path:
        """Write the bank to a `.safetensors` file, whole or not at all.

        Raises:
            ArgumentError: If the name is that of an exported model.
            OSError: If the file cannot be written.
        """
        path = Path(path)
        check_bank_name(path)
        check_utf8_output(path)
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors().items()}
        write_whole(path, serialize(tensors, {METADATA_KEY: self.description()}))
        return path

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by their names in a file."""
        return {name: getattr(self, name) for name in TENSORS}

    def description(self) -> str:
        """Return everything but the tensors as JSON, for `build`."""
        document: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "names": list(self.names),
            "source": asdict(self.source),
        }
        if self.origins:
            places = {source: index for index, source in enumerate(dict.fromkeys(self.origins))}
            document["origins"] = [asdict(source) for source in places]
            document["origin_of"] = [places[source] for source in self.origins]
        return json.dumps(document)

    @classmethod
    def load(cls, path: str | Path) -> "DirectionBank":
        """Read a bank.

        Raises:
            BankError: If the file is missing, damaged, or holds something else.
        """
        path = Path(path)
        problem = input_problem(path) or utf8_problem(path)
        if problem:
            raise BankError(f"{path}: {problem}")
        _check_header(path)
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                metadata: Mapping[str, str] = file.metadata() or {}
                if METADATA_KEY not in metadata:
                    raise BankError(f"{path}: a safetensors file, but not a direction bank made by `sefa factorize`")
                tensors = {name: file.get_tensor(name) for name in TENSORS}
        except (SafetensorError, OSError) as error:
            raise BankError(
                f"{path}: not a direction bank, or damaged; a file made by `sefa factorize` was expected; if it holds "
                f"another tool's directions, `sefa bank import {quoted(str(path))} CHECKPOINT -o BANK` reads them"
            ) from error
        try:
            return cls.build(metadata[METADATA_KEY], tensors)
        except BankError as error:
            raise BankError(f"{path}: {error}") from error.__cause__

    @classmethod
    def build(cls, description: str, tensors: Mapping[str, Tensor]) -> "DirectionBank":
        """Make a bank from what `description` and `tensors` returned.

        Raises:
            BankError: If they do not describe a valid bank.
        """
        try:
            document = parse_json(description)
            version = document["format_version"]
            if version not in (1, FORMAT_VERSION):
                raise BankError(f"a bank of format {short(version)}, this sefa reads 1 and {FORMAT_VERSION}")
            names = tuple(document["names"])
            source = _source(document["source"], version)
            origins = _origins(document, version)
        except (ValueError, KeyError, TypeError, IndexError) as error:  # What JSON of another structure raises.
            raise BankError(f"damaged direction bank ({str(error)[:200]})") from error
        return cls(names=names, source=source, origins=origins, **tensors)

    @classmethod
    def found_in(
        cls,
        generator: Generator,
        vectors: Tensor,
        eigenvalues: Tensor,
        analysed: Sequence[Sequence[int]],
        edit_layers: LayerSpec | None,
        *,
        normalize: str = "none",
        **facts: Any,
    ) -> "DirectionBank":
        """Make a bank of directions that were found in a generator, named `direction-N`.

        Args:
            generator: The generator.
            vectors: Shape [K, latent_dim], or [K, L, latent_dim] for a vector of each layer.
            eigenvalues: Shape [K].
            analysed: The layers in which each direction was found.
            edit_layers: The layers that an edit changes; None: those that the direction was found in, or all layers if
                the generator has `edits_all_layers`.
            normalize: How the rows of A were scaled.
            facts: Further fields of `DirectionSource`.
        """
        count = len(vectors)
        if edit_layers is None and generator.edits_all_layers:
            edit_layers = range(generator.num_layers)
        edited = analysed
        if edit_layers is not None:
            edited = [
                parse_layers(edit_layers, generator.num_layers, generator.default_layers, generator.layer_names)
            ] * count
        return cls(
            vectors=F.pad(vectors, (0, generator.class_dim)).float().cpu(),  # No direction changes the class.
            eigenvalues=eigenvalues.cpu(),
            edited_layers=_mask(edited, generator.num_layers),
            analysed_layers=_mask(analysed, generator.num_layers),
            names=tuple(f"direction-{index}" for index in range(count)),
            alpha_range=torch.tensor(ALPHA_RANGE).repeat(count, 1),
            source=DirectionSource(
                generator.family, generator.source_sha256, normalize=normalize, version=VERSION, **facts
            ),
        )

    def _problems(self) -> list[str]:
        count = len(self.names)
        problems = []
        expected = {
            "vectors": (torch.float32, (count, None)),
            "eigenvalues": (torch.float64, (count,)),
            "edited_layers": (torch.bool, (count, None)),
            "analysed_layers": (torch.bool, (count, None)),
            "alpha_range": (torch.float32, (count, 2)),
        }
        for name, (dtype, shape) in expected.items():
            tensor: Tensor = getattr(self, name)
            if name == "vectors" and tensor.ndim == 3:
                shape = (count, self.edited_layers.shape[-1], None)
            fits = len(tensor.shape) == len(shape) and all(
                want in (None, got) for want, got in zip(shape, tensor.shape, strict=True)
            )
            if tensor.dtype != dtype or not fits:
                problems.append(f"{name} is {tensor.dtype} {list(tensor.shape)}")
            elif not tensor.isfinite().all():
                problems.append(f"{name} has NaN or infinite values")
        if not count:
            problems.append("no directions")
        problems += name_problems(self.names)
        if len(self.origins) not in (0, count):
            problems.append(f"{len(self.origins)} origins of {count} directions")
        if problems:
            return problems
        if self.edited_layers.shape != self.analysed_layers.shape:
            problems.append("edited_layers and analysed_layers differ in shape")
        problems += self._length_problems()
        if (self.eigenvalues < 0).any():
            problems.append("eigenvalues are negative")
        if (self.alpha_range[:, 0] >= self.alpha_range[:, 1]).any():
            problems.append("alpha_range is not from low to high")
        return problems

    def _length_problems(self) -> list[str]:
        problems = []
        origins = [self.origin(index) for index in range(len(self))]
        for unit in sorted({origin.alpha_unit for origin in origins} - set(ALPHA_UNITS)):
            problems.append(f"alpha_unit is {unit!r}")
        lengths = self.vectors.norm(dim=-1).reshape(len(self), -1)  # [K, 1] or [K, L]
        is_off = (lengths - 1).abs() > UNIT_TOLERANCE
        if self.has_own_vectors:
            is_off &= self.edited_layers
        if any(origin.alpha_unit == "distance" and bool(is_off[index].any()) for index, origin in enumerate(origins)):
            problems.append("vectors are not of unit length")
        if (lengths.amax(dim=1) == 0).any():
            problems.append("a vector is zero")
        if any(origin.family != self.source.family for origin in origins):
            problems.append("directions are of different generators")
        return problems


def _mask(layers: Sequence[Sequence[int]], num_layers: int) -> Tensor:
    mask = torch.zeros(len(layers), num_layers, dtype=torch.bool)
    for row, indices in enumerate(layers):
        mask[row, list(indices)] = True
    return mask


def _check_header(path: Path) -> None:
    """Refuse a safetensors file whose header is longer than any bank's: the reader would read all of it at once."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    # If the length does not fit the file, it is no safetensors file: leave that error to the reader.
    if 2 * MAX_JSON < length <= path.stat().st_size:
        raise BankError(f"{path}: not a direction bank: its header is longer than any bank's")


def joint_source(sources: Sequence[DirectionSource]) -> DirectionSource:
    """Combine several sources of one generator into one.

    Texts that differ are joined with " + "; seeds or labels that differ become None. `rank` is the smallest, `samples`
    the largest.
    """
    distinct = list(dict.fromkeys(sources))
    if len(distinct) == 1:
        return distinct[0]
    seeds, labels = {source.seed for source in distinct}, {source.label for source in distinct}
    return DirectionSource(
        family=distinct[0].family,
        checkpoint_sha256=_joined(source.checkpoint_sha256 for source in distinct if source.checkpoint_sha256),
        method=_joined(source.method for source in distinct),
        normalize=_joined(source.normalize for source in distinct),
        rank=min(source.rank for source in distinct),
        version=_joined(source.version for source in distinct),
        alpha_unit=_joined(source.alpha_unit for source in distinct),
        samples=max(source.samples for source in distinct),
        seed=seeds.pop() if len(seeds) == 1 else None,
        label=labels.pop() if len(labels) == 1 else None,
    )


def _joined(texts: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys(texts))


def _origins(document: Mapping[str, Any], version: int) -> tuple[DirectionSource, ...]:
    if "origins" not in document:
        return ()
    distinct = [_source(source, version) for source in document["origins"]]
    return tuple(distinct[index] for index in document["origin_of"])


def _source(document: Any, version: int) -> DirectionSource:
    if not isinstance(document, dict):
        raise ValueError(f"source is {type(document).__name__}")
    known = {field.name: field for field in fields(DirectionSource)}
    expected = {name for name, field in known.items() if version > 1 or field.default is MISSING}
    if set(document) != expected:
        raise ValueError(f"source has unexpected or missing fields {sorted(set(document) ^ expected)}")
    for name, value in document.items():
        kind: Any = known[name].type
        if isinstance(value, bool) or not isinstance(value, kind):
            raise ValueError(f"source's {name} is {value!r}")
    return DirectionSource(**document)


def check_bank_name(path: Path) -> None:
    """Check that a bank is not about to take the name, and perhaps the place, of an exported model.

    Raises:
        ArgumentError: If the name ends like a model's.
    """
    if path.suffix.lower() in MODEL_ENDINGS:
        raise ArgumentError(f"{path}: the name is that of an exported model: a direction bank ends in .safetensors")
