"""Say which line of a user's own code keeps its generator from becoming a graph, and what to write instead."""

import linecache
import re
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.jit._trace import TracerWarning
from torch.overrides import TorchFunctionMode

import sefa
from sefa.custom.user_code import kind
from sefa_export.draft import Draft
from sefa_export.errors import ExportError, VerificationError
from sefa_export.tracing import silenced

# Folders without code of the user's; a library of theirs is only named where nothing else is.
NOT_THEIRS = [Path(torch.__file__).parent, Path(sefa.__file__).parent, Path(__file__).parent]
LIBRARIES = [Path(path) for name, path in sysconfig.get_paths().items() if name in ("stdlib", "purelib", "platlib")]
MAX_NAMED = 3  # lines in a message
MAX_SOURCE = 100  # characters of a line
FRAMES = re.compile(r"^\s*(?P<file>\S.*)\((?P<number>\d+)\): ", re.M)
UNSUPPORTED = re.compile(r"the operator '(aten::\w+)' to ONNX")
NO_OPERATOR = "write it with others, or export with --format pt2 or torchscript"
# What a line does that no graph can do, found in its text or by what it calls, and what to write instead.
REASONS = {
    "loop": (
        re.compile(r"\bfor\b|\bwhile\b.*\brange\b"),
        "goes through a batch one by one: compute the whole batch at once",
    ),
    "length": (
        re.compile(r"\blen\("),
        "fixes the batch size: write x.shape[0] for len(x)",
    ),
    "branch": (
        re.compile(r"\b(if|while|assert|and|or|not)\b|\bbool\("),
        "decides by a tensor's values, and a graph has no branches: compute both and choose with torch.where, or "
        "decide in __init__",
    ),
    "number": (
        re.compile(r"\.item\(|\.tolist\(|\bint\(|\bfloat\(|\brange\("),
        "makes a Python number of a tensor or of its size, which a graph would keep as a constant: keep the tensor, or "
        "compute the number in __init__",
    ),
    "numpy": (
        re.compile(r"\.numpy\(|\bnp\.|\bnumpy\."),
        "leaves torch for numpy, where no exporter follows: write it with torch's functions",
    ),
    "shape": (
        re.compile(r"nonzero|unique|masked_select|argwhere|\[[^\]]*[<>=]=?[^\]]*\]"),
        "makes a tensor whose size depends on values: keep the size, with torch.where or by multiplying with the mask",
    ),
    "in place": (
        re.compile(r"\.data\b|resize_|\.set_\(|\bout="),
        "changes a tensor past torch's records: make a new tensor instead",
    ),
}
OTHER = "is not taken by the exporter: write it with other operators"
CALLS = {
    "loop": (Tensor.__iter__, Tensor.unbind),
    "length": (Tensor.__len__,),
    "branch": (Tensor.__bool__,),
    "number": (Tensor.__int__, Tensor.__float__, Tensor.__index__, Tensor.item, Tensor.tolist),
    "numpy": (Tensor.numpy, Tensor.__array__),
    "shape": (Tensor.nonzero, torch.nonzero, torch.argwhere, torch.unique, torch.masked_select, Tensor.masked_select),
    "in place": (Tensor.data.__get__, Tensor.resize_, Tensor.set_),  # type: ignore[attr-defined]
}
REASON_OF_CALL = {call: reason for reason, calls in CALLS.items() for call in calls}


@dataclass(frozen=True)
class Line:
    """A line of the user's code."""

    file: str
    number: int

    @property
    def place(self) -> str:
        """File name and number."""
        return f"{Path(self.file).name}:{self.number}"

    @property
    def source(self) -> str:
        """Its text."""
        return linecache.getline(self.file, self.number).strip()[:MAX_SOURCE]

    def __str__(self) -> str:
        return f"{self.place}: `{self.source}`" if self.source else self.place


@contextmanager
def naming_the_users_lines(draft: Draft, write: Callable[[Draft, Path], object]) -> Iterator[list[BaseException]]:
    """Name the lines of the user's code in an ExportError raised inside, where they can be found, and the way on.

    Args:
        draft: What is exported.
        write: Exports and verifies a draft, to find out whether a fixed batch size is a way on.

    Yields:
        A list for errors that were overcome, and that may say why a later step fails.
    """
    overcome: list[BaseException] = []
    try:
        yield overcome
    except ExportError as error:
        if not draft.graph.generator.runs_user_code:
            raise
        suspects, traced = _suspects(draft)
        said = _say_why(draft, [error, *overcome], suspects, traced), _say_batch(draft, error, suspects, write)
        if not any(said):
            raise
        found = str(error)
        if isinstance(error, VerificationError):  # It lists every mismatch.
            first, *more = found.split("; ")
            found = f"{first}, ..." if said[0] and more else found
        raise type(error)("; ".join(filter(None, (*said, found)))) from error


def line_of(error: BaseException) -> Line | None:
    """Return the innermost line of the user's code that an error, or what caused it, came from."""
    found: Line | None = None
    seen: BaseException | None = error
    while seen is not None:
        found = _innermost(_lines(seen.__traceback__)) or found
        seen = seen.__cause__ or seen.__context__
    return found


def lines_as_run(draft: Draft, overcome: Sequence[BaseException] | None = None) -> Draft:
    """Return a draft whose description says which lines of the user's code a trace keeps as they went in one run.

    Args:
        draft: The draft, traced.
        overcome: Why it was traced; None: it would have been in any case.
    """
    if not draft.graph.generator.runs_user_code or overcome == []:
        return draft
    found = [line for line, reason in _suspects(draft)[0].items() if reason in ("branch", "number")]
    if not found:
        return draft
    said = "goes as it went for the images that were compared: " + ", ".join(map(str, found[:MAX_NAMED]))
    return replace(draft, info=replace(draft.info, assumptions=(*draft.info.assumptions, said)))


def _say_why(
    draft: Draft, errors: list[BaseException], suspects: dict[Line, str], traced: torch.jit.ScriptModule | None
) -> str:
    who = kind(draft.graph.generator.get_submodule("module"))
    for error in errors:
        operator = UNSUPPORTED.search(str(error))
        if operator and traced:
            graph: Any = traced.inlined_graph  # Its nodes live as long as it does.
            line = next(filter(None, map(_line_of_node, graph.findAllNodes(operator[1]))), None)
            if line:
                return f"{who}, {line}: ONNX has no operator for {operator[1]}: {NO_OPERATOR}"
    for error in errors:
        line = line_of(error)
        if line is not None:
            return f"{who}, {line}: it {_reason(line, suspects.get(line))}"
    lines = list(suspects.items())[:MAX_NAMED]
    return f"{who}, " + "; ".join(f"{line}: it {_reason(line, reason)}" for line, reason in lines) if lines else ""


def _say_batch(
    draft: Draft, error: ExportError, suspects: dict[Line, str], write: Callable[[Draft, Path], object]
) -> str:
    """Say that a fixed batch size is a way on, if the export of a batch of one is found to be right."""
    # In these cases it cannot be; torch may even crash where a module writes past its records.
    if draft.info.batch is not None or UNSUPPORTED.search(str(error)) or {"in place", "shape"} & {*suspects.values()}:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        try:
            write(replace(draft, info=replace(draft.info, batch=1)), Path(folder, "model"))
        except Exception:  # Whatever it is, this is no way on.
            return ""
    return "with --batch 1 it can be exported as it is, for one image at a time"


def _reason(line: Line, called: str | None) -> str:
    for pattern, reason in REASONS.values():
        if called is not None and pattern is REASONS[called][0]:
            return reason
    return next((reason for pattern, reason in REASONS.values() if pattern.search(line.source)), OTHER)


def _line_of_node(node: Any) -> Line | None:
    """Return the line that a node of TorchScript's graph is from: its stack begins with the innermost call."""
    frames = [Line(match["file"], int(match["number"])) for match in FRAMES.finditer(node.sourceRange())]
    return _innermost(frames[::-1])


def _suspects(draft: Draft) -> tuple[dict[Line, str], torch.jit.ScriptModule | None]:
    """Trace once more; return the lines of the user's code that a trace cannot follow, what they do, and the trace."""
    watch, traced = _Watch(), None
    with suppress(Exception), silenced(), torch.no_grad(), warnings.catch_warnings(record=True) as caught, watch:
        warnings.simplefilter("always")
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            draft.graph, example_kwarg_inputs=draft.example_inputs(), check_trace=False
        )
    for warning in caught:
        line = Line(warning.filename, warning.lineno)
        if issubclass(warning.category, TracerWarning) and _is_theirs(line):
            found = (name for name, (pattern, _) in REASONS.items() if pattern.search(line.source))
            watch.found.setdefault(line, next(found, "number"))
    return watch.found, traced


class _Watch(TorchFunctionMode):
    """Notes the lines of the user's code that ask tensors for what a graph does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[Line, str] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        reason = REASON_OF_CALL.get(func)
        if func is Tensor.unbind and (*args[1:], *(kwargs or {}).values()) not in ((), (0,)):
            reason = None  # The other axes have the same length in every run.
        if reason is None and func is Tensor.__getitem__ and _is_mask(args[1]):
            reason = "shape"
        line = None if reason is None else _innermost(_frames(sys._getframe(1)))
        if reason is not None and line is not None:
            self.found.setdefault(line, reason)
        return func(*args, **(kwargs or {}))


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype == torch.bool


def _frames(frame: FrameType | None) -> list[Line]:
    lines = []
    while frame is not None:
        lines.append(Line(frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return lines[::-1]


def _lines(traceback: TracebackType | None) -> list[Line]:
    lines = []
    while traceback is not None:
        lines.append(Line(traceback.tb_frame.f_code.co_filename, traceback.tb_lineno))
        traceback = traceback.tb_next
    return lines


def _innermost(lines: list[Line]) -> Line | None:
    """Return the last line that is the user's, after the last of ours that called their module."""
    calls = [index for index, line in enumerate(lines) if Path(line.file).name == "custom_generator.py"]
    theirs = [line for line in lines[calls[-1] :] if _is_theirs(line)] if calls else []
    return next((line for line in reversed(theirs) if not _is_in(line, LIBRARIES)), theirs[-1] if theirs else None)


def _is_theirs(line: Line) -> bool:
    return not _is_in(line, NOT_THEIRS) and Path(line.file).is_file()


def _is_in(line: Line, folders: list[Path]) -> bool:
    return any(Path(line.file).is_relative_to(folder) for folder in folders)
