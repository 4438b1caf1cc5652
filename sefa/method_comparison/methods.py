"""Compare SeFa with GANSpace on one generator: what they cost, how well they agree, what their edits change."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sefa.bank.comparison import moves
from sefa.bank.direction_bank import DirectionBank
from sefa.directions.factorization import factorize
from sefa.directions.ganspace import DEFAULT_SAMPLES, random_codes
from sefa.errors import ArgumentError
from sefa.generators import Generator, check_generator
from sefa.generators.layers import LayerSpec, parse_layers
from sefa.linear_algebra import principal_angles
from sefa.method_comparison.peak_memory import peak_memory
from sefa_runtime.machine.description import describe_machine, load_average
from sefa_runtime.machine.packages import describe_versions

# A method that takes less than this uses its first run only to warm up.
SHORT_S = 2.0
DEFAULT_REPEATS = 3
DEFAULT_TOP, DEFAULT_IMAGES = 8, 4
RANDOM = "random"
CHUNK = 8  # images rendered at once
Progress = Callable[[float], None]


@dataclass(frozen=True)
class MethodResult:
    """What was measured of one method.

    Attributes:
        name: `sefa`, `sefa, rows`, `ganspace`; or `random`, random directions as a baseline.
        samples: How many latents were sampled.
        seconds: Time to find the directions, the median of `runs_s`. None for `random`.
        runs_s: Time of each run; the methods took turns.
        peak_bytes: Peak memory beyond the generator's; None if the system does not say.
        change: For each direction, the mean absolute change of the image for a move of length 1, in grey levels of 255.
    """

    name: str
    samples: int
    seconds: float | None
    runs_s: tuple[float, ...]
    peak_bytes: int | None
    change: tuple[float, ...]

    @property
    def mean_change(self) -> float:
        """Mean of `change` over the directions."""
        return statistics.fmean(self.change)


@dataclass(frozen=True)
class Agreement:
    """How similar the spaces are that two methods' directions span.

    Attributes:
        a: Name of one method.
        b: Name of the other.
        angles_deg: Principal angles, smallest first; 0 is a direction that both spaces contain.
        overlap: Share of one space that lies in the other, 0 to 1.
    """

    a: str
    b: str
    angles_deg: tuple[float, ...]
    overlap: float


@dataclass(frozen=True)
class MethodComparison:
    """What `compare_methods` measured.

    Attributes:
        generator: Family, sizes and checkpoint.
        top: How many directions of each method, K.
        images: How many latents the changes were measured on.
        methods: One entry for each method, and one for `random`.
        agreements: One entry for each pair of methods.
        chance: Overlap that random directions would have on average.
        sefa_is_faster: GANSpace's time divided by SeFa's.
        device: Where it ran.
        threads: Number of CPU threads.
        machine: See `sefa_runtime.machine.description`; as it was at the beginning.
        load_average_after: Like `machine["load_average"]`, but at the end.
        versions: Versions of the packages used.
    """

    generator: dict[str, Any]
    top: int
    images: int
    methods: tuple[MethodResult, ...]
    agreements: tuple[Agreement, ...]
    chance: float
    sefa_is_faster: float
    device: str
    threads: int
    machine: dict[str, Any]
    load_average_after: list[float] | None
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain values."""
        return asdict(self)


def compare_methods(
    generator: Generator,
    layers: LayerSpec = "all",
    top: int | None = None,
    samples: int = DEFAULT_SAMPLES,
    seed: int = 0,
    images: int = DEFAULT_IMAGES,
    progress: Progress | None = None,
    repeats: int = DEFAULT_REPEATS,
) -> MethodComparison:
    """Compare the directions that SeFa finds, with and without normalised rows, and those that GANSpace finds.

    Args:
        generator: The generator, on any device.
        layers: Layers to analyse and to edit.
        top: How many directions of each method, K; None: 8, or as many as there are.
        samples: How many latents GANSpace samples.
        seed: Seed of those latents, and of the latents and classes whose edits are rendered.
        images: How many latents have their edits rendered.
        progress: Called with the share that is done, 0 to 1.
        repeats: How many times each method is timed.

    Raises:
        ArgumentError: If it is no generator, or an argument is out of range.
    """
    if type(repeats) is not int or not 1 <= repeats <= 1000:
        raise ArgumentError(f"repeats must be in 1..1000, got {repeats!r}")
    if type(images) is not int or not 1 <= images <= 1000:
        raise ArgumentError(f"images must be in 1..1000, got {images!r}")
    check_generator(generator)
    report = progress or (lambda share: None)
    top = min(DEFAULT_TOP, generator.latent_dim) if top is None else top
    device = next(generator.parameters()).device
    machine = describe_machine()
    ways: dict[str, dict[str, Any]] = {
        "sefa": {},
        "sefa, rows": {"normalize": "rows"},
        "ganspace": {"method": "ganspace", "samples": samples, "seed": seed},
    }
    found: dict[str, DirectionBank] = {}
    peaks: dict[str, int | None] = {}
    runs_s: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, options in ways.items():
            if len(runs_s[name]) == repeats:
                continue
            if name == "ganspace":  # Count sampling as half of the work, rendering the edits as the other half.
                options = options | {"progress": lambda share, turn=turn: report((turn + share) / (repeats + 1) / 2)}
            with peak_memory(device) as peak:
                seconds, bank = _timed(generator, layers, top, options)
            if turn == 0:
                found[name], peaks[name] = bank, peak.bytes
            if turn > 0 or seconds >= SHORT_S:
                runs_s[name].append(seconds)
    medians = {name: statistics.median(runs) for name, runs in runs_s.items()}
    banks = found | {RANDOM: _random_bank(found["sefa"], seed)}
    codes = torch.cat(list(random_codes(generator, images, seed)))
    methods = []
    for index, (name, bank) in enumerate(banks.items()):
        change = _changes(generator, codes, bank)
        runs = tuple(runs_s.get(name, ()))
        methods.append(MethodResult(name, bank.source.samples, medians.get(name), runs, peaks.get(name), change))
        report(0.5 + 0.5 * (index + 1) / len(banks))
    return MethodComparison(
        generator={
            "family": generator.family,
            "resolution": list(generator.resolution),
            "latent_dim": generator.latent_dim,
            "layers": str(layers),
            "format": generator.checkpoint_format,
            "checkpoint_sha256": generator.source_sha256,
        },
        top=top,
        images=images,
        methods=tuple(methods),
        agreements=tuple(
            _agreement(a, banks[a], b, banks[b]) for i, a in enumerate(found) for b in list(found)[i + 1 :]
        ),
        chance=top / generator.latent_size(parse_layers(layers, generator.num_layers, generator.default_layers)),
        sefa_is_faster=medians["ganspace"] / medians["sefa"],
        device=str(device),
        threads=torch.get_num_threads(),
        machine=machine,
        load_average_after=load_average(),
        versions=describe_versions() | {"torch": str(torch.__version__)},
    )


def _timed(generator: Generator, layers: LayerSpec, top: int, options: dict[str, Any]) -> tuple[float, DirectionBank]:
    """Find directions; return the seconds it took and the bank, which is on the CPU."""
    started = time.perf_counter()
    bank = factorize(generator, layers, top=top, **options)
    return time.perf_counter() - started, bank


def _random_bank(like: DirectionBank, seed: int) -> DirectionBank:
    """Make random unit directions that edit the same layers as the directions of `like`."""
    random = torch.Generator().manual_seed(seed)
    vectors = torch.randn(like.vectors.shape, generator=random)
    return replace(like, vectors=F.normalize(vectors * (like.vectors != 0).any(dim=0), dim=1))


@torch.no_grad()
def _changes(generator: Generator, codes: Tensor, bank: DirectionBank) -> tuple[float, ...]:
    """Measure, for each direction, the mean of |image(+1) - image(-1)| / 2 over latents and pixels, in grey levels."""
    changes = []
    for vector, mask in zip(bank.vectors, bank.edited_layers, strict=True):
        step = (mask[:, None] * F.normalize(vector, dim=0)).to(codes.device)  # [L, D]
        sums = 0.0
        for some in torch.split(codes, CHUNK):  # All images at once would take unbounded memory.
            forward, backward = (generator.decode(some + sign * step).clamp(-1, 1) for sign in (1, -1))
            sums += float((forward - backward).abs().mean()) * len(some)
        changes.append(sums / len(codes) / 2 * 127.5)
    return tuple(changes)


def _agreement(a: str, bank_a: DirectionBank, b: str, bank_b: DirectionBank) -> Agreement:
    angles = principal_angles(moves(bank_a), moves(bank_b))
    return Agreement(
        a, b, tuple(round(float(angle), 6) for angle in angles.rad2deg()), float(angles.cos().square().mean())
    )
