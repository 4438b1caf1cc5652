"""The direction bank: directions of one generator, as a file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from sefa.errors import BankError
from sefa.generators import Generator
from sefa_runtime.files import input_problem, write_whole

METADATA_KEY = "sefa_bank"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class DirectionSource:
    """Where a bank's directions came from."""

    family: str
    checkpoint_sha256: str  # empty if the generator did not come from a file
    method: str
    normalize: str
    rank: int  # of the analysed matrix A: directions beyond it change nothing
    version: str  # of sefa


@dataclass(frozen=True, eq=False)
class DirectionBank:
    """K directions in a latent space of D dimensions, for a generator of L layers.

    Attributes:
        vectors: Unit directions, float32 [K, D].
        eigenvalues: λ of AᵀA, float64 [K], descending: the squared change of A·z per unit of alpha.
        edited_layers: Which layers' codes an edit changes, bool [K, L].
        analysed_layers: Which layers' affine weights the direction was found in, bool [K, L].
        names: K distinct names; none looks like an integer, since those are indices.
        alpha_range: Suggested least and greatest alpha, float32 [K, 2].
        source: The generator and method.
    """

    vectors: Tensor
    eigenvalues: Tensor
    edited_layers: Tensor
    analysed_layers: Tensor
    names: tuple[str, ...]
    alpha_range: Tensor
    source: DirectionSource

    def __post_init__(self) -> None:
        problems = self._problems()
        if problems:
            raise BankError(f"not a valid direction bank: {'; '.join(problems)}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def code_dim(self) -> int:
        """D, the length of a direction."""
        return self.vectors.shape[1]

    def check_fits(self, generator: Generator) -> None:
        """Refuse a generator that the bank was not made for.

        Raises:
            BankError: If latent size, layers, family or checkpoint differ.
        """
        mine = {
            "latent size": self.code_dim,
            "layers": self.edited_layers.shape[1],
            "family": self.source.family,
        }
        its = {
            "latent size": generator.code_dim,
            "layers": generator.num_layers,
            "family": generator.family,
        }
        differing = [f"{what} {mine[what]}, not {its[what]}" for what in mine if mine[what] != its[what]]
        if differing:
            raise BankError(f"the bank was made for another generator: {', '.join(differing)}")
        checksums = (self.source.checkpoint_sha256, generator.source_sha256)
        if all(checksums) and checksums[0] != checksums[1]:
            raise BankError(
                "the bank was made for another generator: its checkpoint's sha256 begins with "
                f"{checksums[0][:12]}, this one's with {checksums[1][:12]}"
            )

    def save(self, path: str | Path) -> Path:
        """Write the bank as `.safetensors`, whole or not at all.

        Raises:
            OSError: If the file cannot be written.
        """
        path = Path(path)
        tensors = {
            "vectors": self.vectors.contiguous(),
            "eigenvalues": self.eigenvalues.contiguous(),
            "edited_layers": self.edited_layers.contiguous(),
            "analysed_layers": self.analysed_layers.contiguous(),
            "alpha_range": self.alpha_range.contiguous(),
        }
        document = {
            "format_version": FORMAT_VERSION,
            "names": list(self.names),
            "source": asdict(self.source),
        }
        write_whole(path, serialize(tensors, {METADATA_KEY: json.dumps(document)}))
        return path

    @classmethod
    def load(cls, path: str | Path) -> "DirectionBank":
        """Read a bank.

        Raises:
            BankError: If the file is missing, damaged, or holds something else.
        """
        path = Path(path)
        problem = input_problem(path)
        if problem:
            raise BankError(f"{path}: {problem}")
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                metadata: Mapping[str, str] = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise BankError(
                f"{path}: not a direction bank, or damaged; a file made by `sefa factorize` was expected ({error})"
            ) from error
        if METADATA_KEY not in metadata:
            raise BankError(f"{path}: a safetensors file, but not a direction bank made by `sefa factorize`")
        try:
            document = json.loads(metadata[METADATA_KEY])
            if document["format_version"] != FORMAT_VERSION:
                raise BankError(f"a bank of format {document['format_version']}, this sefa reads {FORMAT_VERSION}")
            return cls(names=tuple(document["names"]), source=_source(document["source"]), **tensors)
        except (ValueError, KeyError, TypeError) as error:
            raise BankError(f"{path}: damaged direction bank ({error})") from error
        except BankError as error:
            raise BankError(f"{path}: {error}") from error

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
            fits = len(tensor.shape) == len(shape) and all(
                want in (None, got) for want, got in zip(shape, tensor.shape, strict=True)
            )
            if tensor.dtype != dtype or not fits:
                problems.append(f"{name} is {tensor.dtype} {list(tensor.shape)}")
            elif not tensor.isfinite().all():
                problems.append(f"{name} has NaN or infinite values")
        if not count:
            problems.append("no directions")
        problems += [f"{name!r} is not a name" for name in self.names if not is_name(name)]
        if problems:
            return problems
        if len(set(self.names)) != count:
            problems.append("two directions have the same name")
        if self.edited_layers.shape != self.analysed_layers.shape:
            problems.append("edited_layers and analysed_layers differ in shape")
        if not torch.allclose(self.vectors.norm(dim=1), torch.ones(count), atol=1e-3):
            problems.append("vectors are not of unit length")
        if (self.eigenvalues < 0).any():
            problems.append("eigenvalues are negative")
        if (self.alpha_range[:, 0] >= self.alpha_range[:, 1]).any():
            problems.append("alpha_range is not from low to high")
        return problems


def is_name(name: object) -> bool:
    """Whether `name` can name a direction: text that `0=2.5` style options cannot mistake for an index."""
    if not isinstance(name, str) or not name or name != name.strip() or not name.isprintable():
        return False
    if "=" in name or ":" in name:
        return False
    try:
        int(name)
    except ValueError:
        return True
    return False


def _source(document: dict[str, Any]) -> DirectionSource:
    names = {field.name for field in fields(DirectionSource)}
    if set(document) != names:
        raise ValueError(f"source has unexpected or missing fields {sorted(set(document) ^ names)}")
    for field in fields(DirectionSource):
        if type(document[field.name]) is not field.type:
            raise ValueError(f"source's {field.name} is {document[field.name]!r}")
    return DirectionSource(**document)
