"""The measurements, each in a process of its own: a generator yields one entry after the other.

An entry is a dictionary with `what` was measured, `status` ("ok", "error", "absent") and, instead of numbers, the
error's text. What fails is an entry, and the next measurement goes on.
"""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import sefa
import sefa_export
import sefa_runtime
from generators import TOP, make_generator, stylegan2_spec
from peer_comparison.networks import CLONES, STYLEGAN2, importing_from
from sefa.errors import CheckpointError
from sefa.linear_algebra import principal_angles
from sefa_export.bake import quantize
from sefa_runtime.inputs.examples import random_inputs
from sefa_runtime.latency.statistics import percentile
from sefa_runtime.model.info import ModelInfo
from sefa_runtime.session.doctor import examine as examine_machine
from sefa_runtime.verification import psnr_db, verify
from support.stylegan2_files import random_tensors

Entry = dict[str, Any]
Entries = Iterator[Entry]
Feeds = Mapping[str, NDArray[Any]]
Image = NDArray[np.uint8]
Way = Callable[[Feeds], Image]

# Exports of one generator; `kept` has no layers in the forms that are for CPUs.
FORMS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "kept": {"keep_layers": True},
    "fp16": {"precision": "fp16"},
}
EDITS = 2
WARM_UP_RUNS, WARM_UP_S = 5, 0.3
ROUNDS = 3
LEAST_RUNS = 5
# Different inputs of each shape that are compared; the CPU renders them, too.
SEEDS = {1: 4, 4: 1, 16: 1}
SAMPLES = 50_000


@dataclass(frozen=True)
class Context:
    """What every measurement needs to know."""

    folder: Path  # of the exported models
    provider: str
    small: bool
    seconds: float  # of each way and batch
    peers: Path | None

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if self.provider == "cuda" else "cpu")

    @property
    def batches(self) -> tuple[int, ...]:
        return (1, 2) if self.small else (1, 4, 16)

    def model(self, name: str, form: str) -> Path:
        return self.folder / f"{name}-{form}.onnx"


def attempt(what: str, measure: Callable[[], Mapping[str, Any]], **facts: Any) -> Entry:
    """Make an entry of a measurement, or of the error in its place."""
    try:
        return {"what": what, **facts, "status": "ok", **measure()}
    except CheckpointError as error:
        return {"what": what, **facts, "status": "absent", "error": one_line(error)}
    except Exception as error:
        return {"what": what, **facts, "status": "error", "error": one_line(error)}


def one_line(error: Exception) -> str:
    """Return an error as one line of at most 400 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]


def entries_of(context: Context, function: str, *names: str) -> Entries:
    """Yield the entries of an item; that a generator is not there is one, too."""
    try:
        yield from globals()[function](context, *names)
    except CheckpointError as error:
        yield {"what": function, "status": "absent", "error": one_line(error)}


def doctor(context: Context) -> Entries:
    """Say what works on this machine."""

    def device() -> Mapping[str, Any]:
        if context.device.type == "cpu":
            return {"torch": str(torch.__version__)}
        properties = torch.cuda.get_device_properties(0)
        return {
            "torch": str(torch.__version__),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "device": properties.name,
            "multiprocessors": properties.multi_processor_count,
            "memory_gib": round(properties.total_memory / 2**30, 1),
        }

    yield attempt("device", device)
    yield attempt("doctor", lambda: {"checks": [asdict(check) for check in examine_machine()]})


def export(context: Context, name: str) -> Entries:
    """Export a generator in every form."""
    generator = make_generator(name, context.small)
    bank = sefa.factorize(generator, top=TOP)
    for form, options in FORMS.items():

        def run(form: str = form, options: Mapping[str, Any] = options) -> Mapping[str, Any]:
            started = time.perf_counter()
            path = sefa_export.export_onnx(generator, bank, context.model(name, form), **options)
            return {"seconds": round(time.perf_counter() - started, 1), "mib": round(path.stat().st_size / 2**20, 1)}

        yield attempt("export", run, form=form)


def directions(context: Context, name: str) -> Entries:
    """Find directions with SeFa and GANSpace on the CPU and on the device; compare."""
    generator = make_generator(name, context.small)
    for method, samples in (("sefa", None), ("ganspace", 1000 if context.small else SAMPLES)):
        found = partial(sefa.factorize, top=TOP, method=method, samples=samples)

        def run(found: Callable[..., sefa.DirectionBank] = found) -> Mapping[str, Any]:
            on_cpu, cpu_s = timed(context, lambda: found(generator.cpu()))
            generator.to(context.device)
            found(generator)
            on_device, device_s = timed(context, lambda: found(generator))
            a, b = on_cpu.vectors.double(), on_device.vectors.cpu().double()
            cosines = (a * b).sum(1).abs() / a.norm(dim=1) / b.norm(dim=1)
            eigenvalues = on_cpu.eigenvalues.double()
            relative = (on_device.eigenvalues.cpu().double() / eigenvalues - 1).abs()
            gaps = 1 - eigenvalues[1:] / eigenvalues[:-1]
            return {
                "cpu_s": round(cpu_s, 4),
                "device_s": round(device_s, 4),
                "eigenvalues_differ_by": float(relative.max()),
                "least_cosine": float(cosines.min()),
                "angle_between_subspaces_deg": float(principal_angles(a.float(), b.float()).max().rad2deg()),
                "smallest_gap_of_eigenvalues": float(gaps.min()),
            }

        yield attempt("directions", run, method=method, directions=TOP, samples=samples)


def timed(context: Context, run: Callable[[], Any]) -> tuple[Any, float]:
    """Return a result and the median time of three runs, in seconds."""
    times = []
    for _ in range(3):
        synchronize(context)
        started = time.perf_counter()
        result = run()
        synchronize(context)
        times.append(time.perf_counter() - started)
    return result, statistics.median(times)


def synchronize(context: Context) -> None:
    if context.device.type == "cuda":
        torch.cuda.synchronize()


def roofline(context: Context) -> Entries:
    """Measure the rates that nothing on this device can exceed: matrix products, convolutions, copies."""
    size = 512 if context.small else 8192
    kinds = {"fp32": (torch.float32, False), "tf32": (torch.float32, True), "fp16": (torch.float16, False)}
    for name, (dtype, tf32) in kinds.items():

        def product(dtype: torch.dtype = dtype, tf32: bool = tf32) -> Mapping[str, Any]:
            a, b = (torch.randn(size, size, device=context.device, dtype=dtype) for _ in range(2))
            with allowing_tf32(tf32):
                seconds = kernel_seconds(context, lambda: a @ b)
            return {"tflops": digits(2 * size**3 / seconds / 1e12)}

        yield attempt("matrix rate", product, arithmetic=name, size=size)
    channels, side, batch = (64, 16, 2) if context.small else (512, 64, 16)
    for name, (dtype, tf32) in kinds.items():

        def convolution(dtype: torch.dtype = dtype, tf32: bool = tf32) -> Mapping[str, Any]:
            x = torch.randn(batch, channels, side, side, device=context.device, dtype=dtype)
            weight = torch.randn(channels, channels, 3, 3, device=context.device, dtype=dtype)
            with allowing_tf32(tf32):
                seconds = kernel_seconds(context, lambda: nn.functional.conv2d(x, weight, padding=1))
            return {"tflops": digits(2 * 9 * batch * channels**2 * side**2 / seconds / 1e12)}

        yield attempt("convolution rate", convolution, arithmetic=name, shape=[batch, channels, side, side])

    def copy() -> Mapping[str, Any]:
        source = torch.randn(2**22 if context.small else 2**29, device=context.device)  # 2 GiB
        target = torch.empty_like(source)
        seconds = kernel_seconds(context, lambda: target.copy_(source))
        return {"gb_per_s": digits(2 * source.numel() * 4 / seconds / 1e9)}

    yield attempt("copy rate", copy)


def digits(number: float) -> float:
    """Round to three significant digits."""
    return float(f"{number:.3g}")


@contextlib.contextmanager
def allowing_tf32(allowed: bool) -> Iterator[None]:
    """Let torch round float32 operands of matrix products and convolutions to TF32, or not."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    yield
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def kernel_seconds(context: Context, run: Callable[[], Any], repeats: int = 10) -> float:
    """Return the median time of a kernel, in seconds: by the device's own events if it has any."""
    for _ in range(3):
        run()
    if context.device.type == "cpu":
        return timed(context, run)[1]
    times: list[float] = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


def model(context: Context, name: str, precision: str) -> Entries:
    """Verify a model, compare every way of running it with the CPU and with PyTorch, then time them in turns."""
    path = context.model(name, precision)
    if not path.exists():
        yield {"what": "model", "status": "absent", "error": "it was not exported"}
        return
    yield attempt("verify", lambda: verified(path, context.provider))
    ways, entries = load_ways(context, name, precision)
    yield from entries
    cpu = sefa_runtime.load(context.model(name, "fp32"), "cpu")
    kinds = ["fp16"] if precision == "fp16" else ["fp32", "tf32"]
    if context.device.type == "cpu":
        kinds = [kind for kind in kinds if kind == "fp32"]

    def add_eager() -> Mapping[str, Any]:
        graph = baked(context, name)
        ways.update({f"eager {kind}": partial(run_eager, context, graph, kind) for kind in kinds})
        return count_flops(context, graph, cpu.info)

    yield attempt("arithmetic", add_eager)
    yield from compare_and_time(context, cpu.info, ways, cpu.session.run)


def verified(path: Path, provider: str) -> Mapping[str, Any]:
    found = verify(path, provider)
    return {"ok": found.ok, "findings": [asdict(finding) for finding in found.findings]}


def load_ways(context: Context, name: str, precision: str) -> tuple[dict[str, Way], list[Entry]]:
    """Load a model in every way that the provider has."""
    path, kept = context.model(name, precision), context.model(name, "kept")
    wanted: dict[str, tuple[Path, dict[str, Any]]] = {
        "plain": (path, {"binding": False}),
        "bound": (path, {"binding": True}),
    }
    if precision == "fp32":
        wanted["kept bound"] = (kept, {"binding": True})
    if context.provider == "cuda":
        wanted["cuda graph"] = (path, {"cuda_graph": True})
        wanted["nhwc"] = (path, {"provider_options": {"prefer_nhwc": 1}})
        wanted["nhwc graph"] = (path, {"provider_options": {"prefer_nhwc": 1}, "cuda_graph": True})
        if precision == "fp32":
            wanted["kept graph"] = (kept, {"cuda_graph": True})
            wanted["tf32 graph"] = (path, {"provider_options": {"use_tf32": 1}, "cuda_graph": True})
    ways: dict[str, Way] = {}
    entries = []
    for way, (file, options) in wanted.items():

        def load(way: str = way, file: Path = file, options: dict[str, Any] = options) -> Mapping[str, Any]:
            session = sefa_runtime.load(file, context.provider, **options).session
            ways[way] = session.run
            return {
                "load_ms": round(session.load_ms, 1),
                "first_run_ms": round(session.warm_up_ms or 0, 1),
                "options": session.options,
                "nodes": session.placement.nodes,
            }

        entries.append(attempt("load", load, way=way))
    return ways, entries


def baked(context: Context, name: str) -> nn.Module:
    """Return the edit graph in PyTorch, on the device."""
    generator = make_generator(name, context.small)
    return sefa_export.bake(generator, sefa.factorize(generator, top=TOP)).eval().to(context.device)


def count_flops(context: Context, graph: nn.Module, info: ModelInfo) -> Mapping[str, Any]:
    """Count the floating-point operations of one image, two for each multiplication and addition."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        graph(*tensors(context, feeds_of(info, 1, 0)))
    weights = sum(tensor.numel() for tensor in graph.state_dict().values())
    return {"gflop_per_image": digits(counter.get_total_flops() / 1e9), "million_weights": digits(weights / 1e6)}


def feeds_of(info: ModelInfo, batch: int, seed: int) -> Feeds:
    return random_inputs(info.signature, np.random.default_rng(seed), batch, EDITS)


def tensors(context: Context, feeds: Feeds) -> list[torch.Tensor]:
    return [torch.from_numpy(array).to(context.device) for array in feeds.values()]


def run_eager(context: Context, graph: nn.Module, kind: str, feeds: Feeds) -> Image:
    """Render with PyTorch, from arrays to uint8 images; `fp16` is autocast."""
    half = torch.autocast(context.device.type, torch.float16, enabled=kind == "fp16")
    with torch.inference_mode(), allowing_tf32(kind == "tf32"), half:
        image: Image = graph(*tensors(context, feeds)).cpu().numpy()
        return image


def compare_and_time(context: Context, info: ModelInfo, ways: dict[str, Way], reference: Way) -> Entries:
    """Compare the images of all ways with a reference; then time those that work, in turns."""
    working = dict(ways)
    for batch in context.batches:
        inputs = [feeds_of(info, batch, seed) for seed in range(SEEDS.get(batch, 1))]
        expected = [reference(feeds) for feeds in inputs]
        plain: list[Image] = []  # the images of the first way
        for way, run in ways.items():
            entry = attempt("parity", partial(compare, run, inputs, expected, plain), way=way, batch=batch)
            if entry["status"] != "ok":
                working.pop(way, None)
            yield entry
    for batch in context.batches:
        yield from time_in_turns(context, working, feeds_of(info, batch, 0), batch)


def compare(run: Way, inputs: list[Feeds], expected: list[Image], plain: list[Image]) -> Mapping[str, Any]:
    """Compare a way's images with what is expected, and with those of the first way that is asked."""
    images = [run(feeds) for feeds in inputs]
    plain[:] = plain or images
    same = all(map(np.array_equal, images, plain))
    return {"images": sum(map(len, images)), "same_as_plain": same, **difference(images, expected)}


def difference(images: list[Image], expected: list[Image]) -> Mapping[str, Any]:
    a, b = np.concatenate(images), np.concatenate(expected)
    levels = np.abs(a.astype(int) - b)
    worst = float(psnr_db(a, b, 255.0).min())
    return {
        "grey_levels": int(levels.max()),
        "changed_fraction": round(float((levels > 0).mean()), 6),
        "psnr_db": None if math.isinf(worst) else round(worst, 1),  # None: no difference
    }


def time_in_turns(context: Context, ways: dict[str, Way], feeds: Feeds, batch: int) -> Entries:
    """Time all ways, alternating; an entry each."""
    times_ms: dict[str, list[float]] = {way: [] for way in ways}
    failed: dict[str, Entry] = {}
    for _ in range(ROUNDS):
        for way, run in ways.items():
            if way in failed:
                continue

            def turn(way: str = way, run: Way = run) -> Mapping[str, Any]:
                warm = time.perf_counter() + WARM_UP_S / ROUNDS
                for _ in range(WARM_UP_RUNS):
                    run(feeds)
                    if time.perf_counter() > warm:
                        break
                until = time.perf_counter() + context.seconds / ROUNDS
                while time.perf_counter() < until or len(times_ms[way]) < LEAST_RUNS:
                    started = time.perf_counter_ns()
                    run(feeds)
                    times_ms[way].append((time.perf_counter_ns() - started) / 1e6)
                return {}

            entry = attempt("latency", turn, way=way, batch=batch)
            if entry["status"] != "ok":
                failed[way] = entry
    for way, samples in times_ms.items():
        yield failed.get(way) or {
            "what": "latency",
            "way": way,
            "batch": batch,
            "status": "ok",
            **summary(samples, batch),
        }


def summary(samples: list[float], batch: int) -> Mapping[str, Any]:
    p50 = statistics.median(samples)
    p90 = percentile(samples, 90)
    return {
        "runs": len(samples),
        "p50_ms": round(p50, 3),
        "p90_ms": None if p90 is None else round(p90, 3),
        "images_per_second": round(batch * 1000 / p50, 1),
    }


def compiled(context: Context, name: str) -> Entries:
    """Time PyTorch's compiler beside its eager mode, float32."""
    info = sefa_runtime.load(context.model(name, "fp32"), "cpu").info
    graph = baked(context, name)
    fast: Any = torch.compile(graph)
    ways: dict[str, Way] = {
        "eager fp32": partial(run_eager, context, graph, "fp32"),
        "compiled fp32": partial(run_eager, context, fast, "fp32"),
    }
    for batch in context.batches[:2]:
        feeds = feeds_of(info, batch, 0)

        def compile_it(feeds: Feeds = feeds) -> Mapping[str, Any]:
            started = time.perf_counter()
            image = ways["compiled fp32"](feeds)
            seconds = time.perf_counter() - started
            return {"compile_s": round(seconds, 1), **difference([image], [ways["eager fp32"](feeds)])}

        entry = attempt("parity", compile_it, way="compiled fp32", batch=batch)
        yield entry
        if entry["status"] == "ok":
            yield from time_in_turns(context, ways, feeds, batch)


def peers(context: Context, name: str) -> Entries:
    """Time other people's implementations beside ours, with the same weights; the images are compared first."""
    editor = sefa_runtime.load(context.model(name, "fp32"), context.provider)
    info, ours = editor.info, editor.session.run
    for peer in [one for one in STYLEGAN2 if one in CLONES]:
        ways: dict[str, Way] = {"ours": ours}

        def load(peer: str = peer, ways: dict[str, Way] = ways) -> Mapping[str, Any]:
            ways[peer] = load_way(context, name, peer)
            return {}

        entry = attempt("peer", load, peer=peer)
        yield entry
        if entry["status"] != "ok":
            continue
        for batch in context.batches:
            feeds = dict(feeds_of(info, batch, 0))
            feeds["alpha"] = np.zeros_like(feeds["alpha"])  # They do not edit.
            entry = attempt("parity", partial(compare, ways[peer], [feeds], [ours(feeds)], []), way=peer, batch=batch)
            yield entry
            if entry["status"] == "ok":
                yield from time_in_turns(context, ways, feeds, batch)


def load_way(context: Context, name: str, peer: str) -> Way:
    """Build a peer's generator with the weights of ours, which renders from arrays to uint8 images."""
    if context.peers is None:
        raise CheckpointError("no --peers folder was given")
    spec = stylegan2_spec(name, context.small)
    with importing_from(context.peers / CLONES[peer]):
        network = STYLEGAN2[peer](spec, random_tensors(spec), context.device)

    def run(feeds: Feeds) -> Image:
        with torch.inference_mode():
            image: Image = quantize(network(torch.from_numpy(feeds["z"]).to(context.device), None)).cpu().numpy()
            return image

    return run
