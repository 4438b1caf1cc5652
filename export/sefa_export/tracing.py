"""Trace a graph to TorchScript, and call torch's exporters without their noise."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import torch
from torch import nn
from torch.jit._trace import TracerWarning
from torch.onnx import OnnxExporterError

from sefa_export.bake import EditGraph
from sefa_export.determinism import check_trace
from sefa_export.draft import Draft
from sefa_export.errors import ExporterError


def holds_torchscript(module: nn.Module) -> bool:
    """Return whether a module is, or contains, compiled TorchScript, which torch.export does not look inside."""
    return any(isinstance(layer, torch.jit.ScriptModule) for layer in module.modules())


def trace(draft: Draft) -> torch.jit.ScriptModule:
    """Return a TorchScript module with the operators of one run.

    Raises:
        ExportError: If the generator cannot be traced, or uses random numbers.
    """
    with exporting(draft.graph, "torch.jit.trace"), warnings.catch_warnings():
        # Later runs on several inputs check that the trace holds for other inputs.
        warnings.filterwarnings("ignore", category=TracerWarning)
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            draft.graph, example_kwarg_inputs=draft.example_inputs(), check_trace=False
        )
    assert isinstance(traced, torch.jit.ScriptModule)
    check_trace(traced)
    return traced


@contextmanager
def exporting(graph: EditGraph, exporter: str, way_on: str = "") -> Iterator[None]:
    """Keep an exporter quiet and reduce whatever it raises to one line; wrap only the exporter's call.

    Args:
        graph: The graph being exported.
        exporter: The exporter's name.
        way_on: What the user can do instead.

    Raises:
        ExporterError: If the exporter fails.
    """
    try:
        with silenced(), warnings.catch_warnings():
            # torch advises torch.export instead of TorchScript; notes to torch's developers are no use here.
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    except Exception as error:  # Exporters' errors have no common base, and a user's class may raise anything.
        reason = f"{graph.generator.family}: {exporter} does not take it: {one_line(error)}"
        raise ExporterError(reason + (f"; {way_on}" if way_on else "")) from error


@contextmanager
def silenced() -> Iterator[None]:
    """Keep exporters from printing whole programs when they give up, or notes to their own developers."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)


def one_line(error: BaseException) -> str:
    """Describe an error from torch or a user's class: its kind, and the first line that says something."""
    if isinstance(error, OnnxExporterError) and error.__cause__ is not None:
        error = error.__cause__  # The outer error only says which step failed and how to report it.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"
