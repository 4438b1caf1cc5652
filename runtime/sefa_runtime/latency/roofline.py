"""The roofline: how close a model comes to the rates that the machine reaches in the operations it consists of.

Source: Williams, Waterman & Patterson, "Roofline: An Insightful Visual Performance Model for Multicore Architectures",
CACM 2009.

A model can be no faster than its multiply-adds at the rate of the best convolution, nor than the bytes that it must
move at the rate of a copy. Both rates are measured here, through onnxruntime on the same provider and threads.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.editor import Editor
from sefa_runtime.latency.graph_facts import GRAPH, INITIALIZER, NODE, OP_TYPE, OPSET_IMPORT, VERSION
from sefa_runtime.model.info import ELEMENT_TYPES, ModelInfo, PrefixTensor
from sefa_runtime.model.protobuf import bytes_field, varint_field
from sefa_runtime.model.reading import Contents
from sefa_runtime.session.cutting import INPUT, NAME, NODE_INPUT, OUTPUT, value_info
from sefa_runtime.session.session import build_session

# onnx.proto: ModelProto, NodeProto, AttributeProto and its types, TensorProto.
IR_VERSION = 1
NODE_OUTPUT, ATTRIBUTE = 2, 5
ATTRIBUTE_NAME, ATTRIBUTE_INTS, ATTRIBUTE_TYPE, INTS = 1, 8, 20, 7
DIMS, DATA_TYPE, TENSOR_NAME, RAW_DATA = 1, 2, 8, 9
OPSET, IR = 18, 8

# Channels and height (= width) of the 3x3 convolutions among which the best is looked for, as generators have them.
CONVOLUTIONS = ((512, 32), (256, 64), (128, 128))
# Rows and columns of the factors of the matrix product.
MATRIX = 1536
# One after the other in one graph, so that what happens once per run counts little.
CHAIN = 3
COPIED = 2**27  # bytes: more than caches hold
LEAST_RUNS = 3
# Of each rate, at most.
SECONDS = 0.3
# The rates are for this provider; elsewhere copying to the device would count.
PROVIDER = "cpu"

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Rates:
    """What this machine reaches, with as many threads as the model runs with; all in float32."""

    convolution_gflops: float  # the best 3x3 convolution
    convolution: str  # which one that is
    matrix_gflops: float  # a matrix product
    copy_gb_per_s: float  # copying memory: bytes read and written


@dataclass(frozen=True)
class Roofline:
    """One run held against the machine's rates."""

    gflops: float  # two operations for each multiply-add of the description, over the median time
    of_convolution: float  # share of the rate of the best convolution
    of_matrix: float  # share of the rate of the matrix product
    gb_per_s: float  # weights read once, inputs and images, over the median time
    of_copy: float  # share of the rate of a copy
    bound: str  # which rate makes the least time: "convolution" or "copy"
    least_ms: float  # what a run takes at that rate


def least_bytes(info: ModelInfo, parameter_bytes: int, batch: int, edits: int) -> int:
    """Return the bytes that one run must move at least: every weight once, inputs and images."""
    signature = info.signature
    values = sum(
        math.prod(edits if isinstance(size, str) else size for size in spec.shape[1:]) * np.dtype(spec.dtype).itemsize
        for spec in (*signature.inputs, signature.output)
    )
    return parameter_bytes + batch * values


def roofline(macs: int, moved: int, milliseconds: float, rates: Rates) -> Roofline:
    """Hold one run against the machine's rates.

    Args:
        macs: Multiply-adds of the run.
        moved: Bytes that it moves at least.
        milliseconds: How long it takes.
        rates: The machine's.
    """
    gflops, gb_per_s = 2 * macs / milliseconds / 1e6, moved / milliseconds / 1e6
    by_convolution, by_copy = 2 * macs / rates.convolution_gflops / 1e6, moved / rates.copy_gb_per_s / 1e6
    return Roofline(
        gflops=_digits(gflops),
        of_convolution=_digits(gflops / rates.convolution_gflops),
        of_matrix=_digits(gflops / rates.matrix_gflops),
        gb_per_s=_digits(gb_per_s),
        of_copy=_digits(gb_per_s / rates.copy_gb_per_s),
        bound="convolution" if by_convolution >= by_copy else "copy",
        least_ms=_digits(max(by_convolution, by_copy)),
    )


def rates_for(editor: Editor, seconds: float = SECONDS) -> Rates | None:
    """Measure the machine's rates with an editor's threads, in about four times `seconds`.

    Returns:
        None if the model does not run on the CPU's provider.
    """
    session = editor.session
    return measure_rates(session.threads, seconds) if session.provider == PROVIDER and session.threads else None


@cache
def measure_rates(threads: int, seconds: float = SECONDS) -> Rates:
    """Measure what this machine reaches with onnxruntime's CPU provider; once in a process.

    Args:
        threads: Of one operator.
        seconds: For each rate.
    """
    found = {}
    for channels, side in CONVOLUTIONS:
        weights = _random(channels, channels, 3, 3) / math.sqrt(9 * channels)
        run = _chain("Conv", (channels, side, side), weights, threads)
        macs = CHAIN * 9 * channels**2 * side**2
        found[f"3x3, {channels} channels, {side}x{side} pixels"] = 2 * macs / _least_s(run, seconds) / 1e9
    product = _chain("MatMul", (MATRIX,), _random(MATRIX, MATRIX) / math.sqrt(MATRIX), threads, rows=MATRIX)
    best = max(found, key=lambda name: found[name])
    return Rates(
        convolution_gflops=_digits(found[best]),
        convolution=best,
        matrix_gflops=_digits(2 * CHAIN * MATRIX**3 / _least_s(product, seconds) / 1e9),
        copy_gb_per_s=_digits(_copy_rate(threads, seconds)),
    )


def _chain(
    operator: str,
    shape: tuple[int, ...],
    weights: Values,
    threads: int,
    rows: int = 1,
) -> Callable[[], object]:
    """Return a run of a graph with an operator `CHAIN` times, on values [rows, *shape]."""
    names = ["x", *(f"y{index}" for index in range(CHAIN))]
    attribute = b""
    if operator == "Conv":
        pads = b"".join(varint_field(ATTRIBUTE_INTS, 1) for _ in range(4))
        attribute = bytes_field(
            ATTRIBUTE, bytes_field(ATTRIBUTE_NAME, b"pads") + pads + varint_field(ATTRIBUTE_TYPE, INTS)
        )
    nodes = [_node(operator, [before, "weights"], after) + attribute for before, after in pairwise(names)]
    nodes.append(_node("ReduceMean", names[-1:], "mean"))  # Returning all values would take time.
    kind = ELEMENT_TYPES["float32"]
    tensor = b"".join(varint_field(DIMS, size) for size in weights.shape) + varint_field(DATA_TYPE, kind)
    tensor += bytes_field(TENSOR_NAME, b"weights") + bytes_field(RAW_DATA, weights.tobytes())
    graph = [bytes_field(NODE, node) for node in nodes]
    graph += [bytes_field(NAME, b"rate"), bytes_field(INITIALIZER, tensor)]
    graph.append(bytes_field(INPUT, value_info(PrefixTensor("x", "float32", shape))))
    graph.append(bytes_field(OUTPUT, value_info(PrefixTensor("mean", "float32", (1,) * len(shape)))))
    model = varint_field(IR_VERSION, IR) + bytes_field(OPSET_IMPORT, varint_field(VERSION, OPSET))
    model += bytes_field(GRAPH, b"".join(graph))
    session = build_session(Path("rate.onnx"), PROVIDER, threads=threads, contents=Contents(model, {}))
    return partial(session.run, {"x": _random(rows, *shape)})


def _node(operator: str, inputs: list[str], output: str) -> bytes:
    texts = [(NODE_INPUT, name) for name in inputs] + [(NODE_OUTPUT, output), (OP_TYPE, operator)]
    return b"".join(bytes_field(number, text.encode()) for number, text in texts)


def _random(*shape: int) -> Values:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _copy_rate(threads: int, seconds: float) -> float:
    """Return the bytes per second, in billions, that threads read and write when they copy memory together."""
    source, target = (np.ones(COPIED // 4 // threads * threads, np.float32).reshape(threads, -1) for _ in range(2))
    with ThreadPoolExecutor(threads) as pool:
        return 2 * source.nbytes / _least_s(lambda: list(pool.map(np.copyto, target, source)), seconds) / 1e9


def _least_s(run: Callable[[], object], seconds: float) -> float:
    """Return the shortest of the runs within some time, and of at least a few."""
    run()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < LEAST_RUNS or time.perf_counter() < until:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def _digits(number: float) -> float:
    """Round to three significant digits."""
    return float(f"{number:.3g}")
