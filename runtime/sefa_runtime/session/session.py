"""Build onnxruntime sessions, here and nowhere else, and check what they really run on.

onnxruntime silently gives a CPU session when a requested provider cannot load, and leaves single nodes to the CPU when
a provider cannot run them. Here, the first is an error that says what is missing, and so is the second if one of the
nodes is a convolution.
"""

import contextlib
import ctypes
import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.errors import InputError, ModelFileError, ProviderError, RunError
from sefa_runtime.machine.cores import usable_cores
from sefa_runtime.machine.memory import give_back_memory
from sefa_runtime.model.info import Prefix
from sefa_runtime.model.reading import Contents
from sefa_runtime.session.binding import BoundRuns, Feeds, can_bind
from sefa_runtime.session.cutting import StylesCut, cut
from sefa_runtime.session.importing import import_onnxruntime
from sefa_runtime.session.onnxruntime_output import FATAL, is_from_onnxruntime, one_line, silence
from sefa_runtime.session.placement import RECORD_PLACEMENT, Placement, check_convolutions, read_placement
from sefa_runtime.session.prefix_cache import PrefixCache
from sefa_runtime.session.providers import (
    CPU,
    CUDA,
    NVIDIA,
    REMOTE,
    complete_options,
    full_name,
    in_order,
    is_on,
    short_name,
)
from sefa_runtime.session.styles import StylesFirst, outputs_of

if TYPE_CHECKING:
    import onnxruntime

MAX_THREADS = 1024
MAX_FIRST = 1024  # convolutions that may run before the others
# With it, a graph of a few bytes could fill all memory while loading; exported graphs have nothing left to fold.
DISABLED, FOLDING = "optimization.disable_specified_optimizers", "ConstantFolding"
DO_NOT_SPIN = {"session.intra_op.allow_spinning": "0"}
# It joins slices of a tensor in one Split, for which CUDA's provider copies addresses from the host in each run if the
# parts are many or differ in size: a replayed CUDA graph would copy whatever then stands there.
SPLITTING = "GatherSliceToSplitFusion"
# What onnxruntime, its arena and the CUDA libraries say when memory runs out.
OUT_OF_MEMORY = ("out of memory", "failed to allocate", "bad_alloc", "alloc_failed", "bad allocation")
# onnxruntime's errors about the model itself, whatever the provider.
FAULTS_OF_THE_FILE = ("InvalidProtobuf", "InvalidGraph", "NoSuchFile", "NoModel")
# The types of a graph's inputs, in onnxruntime's spelling.
INPUT_TYPES: dict[str, type[np.generic]] = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
# The current run of each thread, by thread identifier.
_runs: dict[int, "onnxruntime.RunOptions"] = {}


@dataclass(frozen=True, eq=False)
class Session:
    """An onnxruntime session and how it runs."""

    inference: "onnxruntime.InferenceSession"  # onnxruntime's own
    requested: str  # as the caller wrote it
    provider: str  # what really runs, in lower case: "cpu", "cuda", ...
    reason: str  # why another provider than the requested one runs, or why `auto` chose this one; else empty
    options: dict[str, str]  # the provider's
    entries: dict[str, str]  # the session's
    threads: int  # per operator, on the CPU
    placement: Placement  # how many nodes each provider runs
    load_ms: float  # to build the onnxruntime session, without reading the description and checking the weights
    warm_up_ms: float | None  # the first run, if `build_session` made it
    bound: BoundRuns | None  # its runs through IO binding, if used
    # The part of the graph that no edit reaches, or that precedes the convolutions, if it runs separately; `inference`
    # is then the rest.
    prefix: PrefixCache | StylesFirst | None = None
    input_names: tuple[str, ...] = ()  # of the whole graph, if it runs in two parts

    def get_inputs(self) -> "list[onnxruntime.NodeArg]":
        """Return the whole graph's inputs, as `InferenceSession.get_inputs` does."""
        inputs = self.inference.get_inputs()
        if self.prefix is None:
            return inputs  # type: ignore[no-any-return]
        by_name = {value.name: value for value in (*inputs, *self.prefix.inference.get_inputs())}
        return [by_name[name] for name in self.input_names if name in by_name]

    def get_outputs(self) -> "list[onnxruntime.NodeArg]":
        """Return the graph's output, as `InferenceSession.get_outputs` does."""
        return self.inference.get_outputs()  # type: ignore[no-any-return]

    def forget_latents(self) -> None:
        """Let the next run compute everything, whatever latents it is given."""
        if self.prefix is not None:
            self.prefix.clear()

    def run(self, feeds: Feeds) -> NDArray[Any]:
        """Run the graph.

        Args:
            feeds: A contiguous array for each input, of the graph's types and shapes; the batch is the first axis of
                the first input.

        Raises:
            RunError: If onnxruntime fails: out of memory, a lost device.
            InputError: If the graph was exported with other sizes.
        """
        try:
            if self.prefix is not None:
                feeds = self.prefix.complete(feeds)
            return _run(self.inference, self.bound, feeds)
        except Exception as error:
            if not is_from_onnxruntime(error):
                raise
            raise _run_error(error, self.provider, feeds) from error


# Sessions of this process.
_alive: weakref.WeakSet[Session] = weakref.WeakSet()


def _keep_inherited() -> None:
    """Never destroy sessions inherited by a forked process: destruction would wait for threads that it lacks."""
    for session in _alive:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):  # Windows does not fork.
    os.register_at_fork(after_in_child=_keep_inherited)


def build_session(
    model: Path,
    provider: str = "auto",
    provider_options: Mapping[str, object] | None = None,
    threads: int | None = None,
    *,
    allow_cpu_fallback: bool = False,
    binding: bool | None = None,
    cuda_graph: bool = False,
    contents: Contents | None = None,
    prefix: Prefix | None = None,
    prefix_bytes: int = 0,
    sizes: Mapping[str, int] | None = None,
    styles_on_cpu: bool = False,
    convolutions_on_cpu: int = 0,
) -> Session:
    """Load `model` on the requested provider, and prove that it runs there.

    Providers other than the CPU's are warmed up with one run of zeros, since some failures, such as cuDNN's, occur only
    then.

    Args:
        model: An ONNX file.
        provider: `auto` (CUDA if it works, else CPU), or the name of an onnxruntime execution provider, with or without
            the suffix, in any case: `cpu`, `cuda`, `TensorrtExecutionProvider`.
        provider_options: Override the defaults in `providers.py`: the provider's options by onnxruntime's names, and
            session entries, which have a dot in their name: `{"session.intra_op.allow_spinning": 0}`.
        threads: Threads per operator on the CPU; None uses the physical cores available to this process, or one thread
            with CUDA and TensorRT, which leave the CPU nothing but shape arithmetic.
        allow_cpu_fallback: Use the CPU if the requested provider cannot run; `Session.reason` says why.
        binding: Keep inputs and image in buffers on the device (IO binding); None does so on NVIDIA's providers.
        cuda_graph: Capture a CUDA graph for each shape at its first run; for `cuda` only. Runs then take turns. The
            provider option `enable_cuda_graph` does the same.
        contents: Contents of the file and the one beside it, if already read; None: onnxruntime reads them.
        prefix: The part of the graph that no edit reaches, to run it separately; needs `contents`.
        prefix_bytes: Memory for what it computed for the latents used last. 0 runs the graph whole, as NVIDIA's
            providers and IO binding always do.
        sizes: Sizes to fix for axes of the graph that are free, by the axes' names.
        styles_on_cpu: Run what precedes the convolutions on the CPU, in the model's own precision; needs `contents`.
            The graph is then not cut after `prefix`.
        convolutions_on_cpu: With `styles_on_cpu`, also run the first so many convolutions of each path there.

    Raises:
        InputError: If onnxruntime has no such provider, options are given without a named provider or do not suit it,
            or `threads` is out of range.
        ProviderError: If the provider cannot run here, or not all convolutions; the message names the missing piece.
        ModelFileError: If onnxruntime cannot load the file at all.
        RunError: If there is not enough memory for it.
    """
    ort = import_onnxruntime()
    integer = isinstance(threads, int | np.integer) and not isinstance(threads, bool)
    if threads is not None and not (integer and 1 <= threads <= MAX_THREADS):
        raise InputError(f"threads must be in 1..{MAX_THREADS}, got {threads}")
    options = dict(provider_options or {})
    cuda_graph = cuda_graph or is_on(options, "enable_cuda_graph")
    if styles_on_cpu and (binding or cuda_graph):
        raise InputError("styles on the CPU are not for IO binding and CUDA graphs")
    wanted = _Wanted(model, contents, provider, options, threads, binding, cuda_graph, prefix, prefix_bytes)
    if convolutions_on_cpu and not (styles_on_cpu and 0 < convolutions_on_cpu <= MAX_FIRST):
        raise InputError(f"convolutions_on_cpu must be in 0..{MAX_FIRST} and goes with styles_on_cpu")
    wanted = replace(wanted, sizes=dict(sizes or {}), styles_on_cpu=styles_on_cpu)
    wanted = replace(wanted, convolutions_on_cpu=convolutions_on_cpu)
    if provider.lower() == "auto":
        if options:
            raise InputError("options belong to one provider: name it instead of auto")
        if cuda_graph:
            raise InputError("CUDA graphs belong to one provider: name cuda instead of auto")
        try:
            return _build(ort, wanted, CUDA, "CUDA works here")
        except ProviderError as error:
            return _build(ort, wanted, CPU, error.reason)
    name = full_name(ort, provider)
    if cuda_graph and (name != CUDA or binding is False):
        raise InputError("CUDA graphs need the provider cuda and IO binding")
    try:
        return _build(ort, wanted, name)
    except ProviderError as error:
        if not allow_cpu_fallback or name == CPU:
            raise
        return _build(ort, replace(wanted, options={}, cuda_graph=False), CPU, error.reason)


@dataclass(frozen=True)
class _Wanted:
    """What the caller of `build_session` asked for."""

    model: Path
    contents: Contents | None
    provider: str
    options: dict[str, object]
    threads: int | None
    binding: bool | None
    cuda_graph: bool
    prefix: Prefix | None
    prefix_bytes: int
    sizes: Mapping[str, int] = field(default_factory=dict)
    styles_on_cpu: bool = False
    convolutions_on_cpu: int = 0

    def part(self, graph: bytes) -> "_Wanted":
        """Return the same for a part of the model."""
        assert self.contents is not None
        return replace(self, contents=replace(self.contents, graph=graph))


def _build(ort: ModuleType, wanted: _Wanted, provider: str, reason: str = "") -> Session:
    from sefa_runtime.session.provider_problems import left_out, not_built, preload

    name = short_name(provider)
    if provider in REMOTE:
        raise ProviderError(f"{name}: calls a web service and runs nothing on this machine")
    if provider not in ort.get_available_providers():
        raise not_built(ort, provider)
    cores = wanted.threads or usable_cores()
    threads = wanted.threads or 1 if provider in NVIDIA else cores
    options, entries = complete_options(provider, cores, wanted.options)
    if wanted.cuda_graph:
        options["enable_cuda_graph"] = "1"
    providers = in_order(provider, options)
    try:
        with contextlib.nullcontext() if provider == CPU else silence(ort):
            preload(ort, provider)
            started = time.perf_counter_ns()
            inference, before, input_names = _load_parts(ort, wanted, provider, threads, entries, providers)
            load_ms = (time.perf_counter_ns() - started) / 1e6
    except Exception as error:
        # onnxruntime also checks options in Python (ValueError) and loads libraries (OSError).
        if not (is_from_onnxruntime(error) or isinstance(error, ValueError | OSError)):
            raise
        if provider == CPU or type(error).__name__ in FAULTS_OF_THE_FILE:
            raise _load_error(error, wanted.model) from error
        raise left_out(ort, provider, options, one_line(error)) from error
    if inference.get_providers()[0] != provider:
        raise left_out(ort, provider, options)
    where = read_placement(inference) if before is None else read_placement(before) + read_placement(inference)
    check_convolutions(read_placement(inference) if wanted.styles_on_cpu else where, name)
    separate: PrefixCache | StylesFirst | None = None
    if before is not None and wanted.styles_on_cpu:
        separate = StylesFirst(before, inference, _run_all)
    elif before is not None and wanted.prefix is not None:
        separate = PrefixCache(before, inference, wanted.prefix, _run_all, wanted.prefix_bytes)
    bound = _bound_runs(inference, provider, options, wanted)
    session = Session(
        inference=inference,
        requested=wanted.provider,
        provider=name,
        reason=reason,
        options=options,
        entries=entries,
        threads=threads,
        placement=where,
        load_ms=load_ms,
        warm_up_ms=None if provider == CPU else _warm_up(inference, bound, name),
        bound=bound,
        prefix=separate,
        input_names=input_names,
    )
    _alive.add(session)
    return session


def _load_parts(
    ort: ModuleType,
    wanted: _Wanted,
    provider: str,
    threads: int,
    entries: dict[str, str],
    providers: list[Any],
) -> "tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession | None, tuple[str, ...]]":
    """Load a model whole or in two parts.

    Returns:
        inference: The model, or its second part.
        before: The first part; None: it is whole.
        input_names: The inputs of the whole model, if it is in two parts.
    """
    options = _session_options(ort, provider, threads, entries, wanted.sizes)
    # Threads that spin after their run would take the cores from the other part's.
    quiet = entries | DO_NOT_SPIN
    if wanted.styles_on_cpu and wanted.contents is not None:
        with _cutting(wanted.model, "it cannot be cut after its styles or first convolutions"):
            styles = StylesCut(wanted.contents.graph, wanted.convolutions_on_cpu)
        first = wanted.part(styles.styles)
        before = _load(ort, first, _session_options(ort, CPU, threads, quiet, wanted.sizes), [(CPU, {})])
        with _cutting(wanted.model):
            rest = styles.rest(outputs_of(before))
        return _load(ort, wanted.part(rest), options, providers), before, styles.input_names
    if wanted.prefix is None or wanted.contents is None or wanted.prefix_bytes <= 0:
        return _load(ort, wanted, options, providers), None, ()
    if provider in NVIDIA or wanted.binding:
        return _load(ort, wanted, options, providers), None, ()
    with _cutting(wanted.model):
        parts = cut(wanted.contents.graph, wanted.prefix)
    # The prefix runs for the latents that are new, however many.
    sizes = wanted.sizes if wanted.sizes.get("batch") == 1 else {}
    inference = _load(ort, wanted.part(parts.rest), options, providers)
    before = _load(ort, wanted.part(parts.prefix), _session_options(ort, provider, threads, quiet, sizes), providers)
    return inference, before, parts.input_names


@contextlib.contextmanager
def _cutting(
    model: Path, problem: str = "its graph is not as its description says: it cannot be cut"
) -> Iterator[None]:
    try:
        yield
    except (EOFError, KeyError, ValueError) as error:
        raise ModelFileError(f"{model}: {problem}") from error


def _session_options(
    ort: ModuleType, provider: str, threads: int, entries: dict[str, str], sizes: Mapping[str, int]
) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(threads)
    options.log_severity_level = FATAL
    for axis, size in sizes.items():
        options.add_free_dimension_override_by_name(axis, size)
    optimizers = (entries.get(DISABLED), FOLDING, SPLITTING if provider in NVIDIA else None)
    disabled = {DISABLED: ";".join(filter(None, optimizers))}
    for key, value in (entries | dict([RECORD_PLACEMENT]) | disabled).items():
        options.add_session_config_entry(key, value)
    return options


def _load(ort: ModuleType, wanted: _Wanted, options: Any, providers: list[Any]) -> "onnxruntime.InferenceSession":
    # With `enable_fallback`, onnxruntime would print a banner and use the CPU.
    if wanted.contents is None:
        return ort.InferenceSession(str(wanted.model), options, providers=providers, enable_fallback=0)
    graph, weights = wanted.contents.graph, wanted.contents.weights
    options.add_external_initializers_from_files_in_memory(
        list(weights), list(weights.values()), list(map(len, weights.values()))
    )
    inference = ort.InferenceSession(graph, options, providers=providers, enable_fallback=0)
    inference._model_bytes = b""  # Else it would keep a second copy of the weights.
    give_back_memory()
    return inference


def _bound_runs(
    inference: "onnxruntime.InferenceSession", provider: str, options: dict[str, str], wanted: _Wanted
) -> BoundRuns | None:
    on_gpu = provider in NVIDIA
    possible = can_bind(inference)
    if (wanted.binding or wanted.cuda_graph) and not possible:
        raise InputError(f"{wanted.model}: IO binding needs one output whose size is fixed except for the batch")
    if not (on_gpu and possible if wanted.binding is None else wanted.binding):
        return None
    device_id = int(options.get("device_id", "0")) if on_gpu else 0
    return BoundRuns(inference, "cuda" if on_gpu else "cpu", device_id, wanted.cuda_graph)


def _warm_up(inference: "onnxruntime.InferenceSession", bound: BoundRuns | None, name: str) -> float:
    """Run once on zeros; return the time in milliseconds."""
    feeds = {
        value.name: np.zeros(
            [size if isinstance(size, int) else 1 for size in value.shape], INPUT_TYPES.get(value.type, np.float32)
        )
        for value in inference.get_inputs()
    }
    started = time.perf_counter_ns()
    try:
        _run(inference, bound, feeds)
    except Exception as error:
        if not is_from_onnxruntime(error):
            raise
        raise ProviderError(f"{name}: loads, but the first run fails: {one_line(error)}") from error
    return (time.perf_counter_ns() - started) / 1e6


def _run(inference: "onnxruntime.InferenceSession", bound: BoundRuns | None, feeds: Feeds) -> NDArray[Any]:
    if bound is None:
        (image,) = _run_all(inference, feeds)
        return image
    with _stoppable() as options:
        return bound.run(feeds, options)


def _run_all(inference: "onnxruntime.InferenceSession", feeds: Feeds) -> list[NDArray[Any]]:
    """Run a session and return all of its outputs."""
    with _stoppable() as options:
        return inference.run(None, feeds, options)  # type: ignore[no-any-return]


@contextlib.contextmanager
def _stoppable() -> "Iterator[onnxruntime.RunOptions]":
    """Make options with which another thread can stop the run (`stop_run`)."""
    thread = threading.get_ident()
    options = _runs[thread] = _run_options()()
    try:
        yield options
    finally:
        del _runs[thread]


@cache
def _run_options() -> "type[onnxruntime.RunOptions]":
    return import_onnxruntime().RunOptions  # type: ignore[no-any-return]


def stop_run(thread: int) -> None:
    """Ask onnxruntime to end a thread's current run, if any: it fails with `RunError` before its next node.

    A run with CUDA graphs goes on.

    Args:
        thread: The thread's `threading.get_ident()`.
    """
    options = _runs.get(thread)
    if options is not None:
        options.terminate = True


def _load_error(error: Exception, model: Path) -> RunError | ModelFileError:
    if _is_out_of_memory(error):
        return RunError(f"{model}: out of memory while loading ({one_line(error)})")
    return ModelFileError(f"{model}: onnxruntime cannot load it: {one_line(error)}")


def _run_error(error: Exception, provider: str, feeds: Feeds) -> RunError | InputError:
    batch = len(next(iter(feeds.values())))
    if _is_out_of_memory(error):
        return RunError(
            f"{provider}: out of memory with {batch} images at once ({one_line(error)}); fewer at once need less"
        )
    if type(error).__name__ == "InvalidArgument":
        return InputError(f"the graph was exported for inputs of other sizes: {one_line(error)}")
    return RunError(f"{provider}: the run of {batch} images failed: {one_line(error)}")


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in OUT_OF_MEMORY)
