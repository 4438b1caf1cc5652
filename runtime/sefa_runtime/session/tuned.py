"""Read what `sefa tune -o` wrote: which file, provider and settings run a model best on a machine.

Such a file may come from anywhere. It decides nothing but what `sefa tune` tries: options that could make a provider
load a library or write a file are refused.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from reprlib import repr as short
from typing import Any

from sefa_runtime.errors import InputError
from sefa_runtime.files import input_problem
from sefa_runtime.json_text import read_json
from sefa_runtime.machine.description import describe_machine, machine_in_words
from sefa_runtime.model.info import MAX_FIXED, SHOWN, ModelInfo
from sefa_runtime.model.reading import read_info

# Increased whenever a reader of the earlier format would misunderstand a file.
TUNED_VERSION = 1
# Everything that may stand in such a file; the second of each pair matches the values.
OPTIONS = {
    "cudnn_conv_algo_search": "EXHAUSTIVE|HEURISTIC|DEFAULT",
    "device_id": r"\d{1,3}",
    "device_type": "CPU|GPU|NPU",
    "enable_cuda_graph": "0|1",
    "load_config": r'\{"CPU": \{"INFERENCE_PRECISION_HINT": "(bf16|f16|f32)"\}\}',
    "precision": "ACCURACY|FP32|FP16|BF16",
    "prefer_nhwc": "0|1",
    "session.intra_op.allow_spinning": "0|1",
    "session.intra_op.spin_duration_us": r"\d{1,6}",
    "trt_fp16_enable": "0|1",
    "use_tf32": "0|1",
}
PROVIDER = re.compile("[a-z0-9_]{1,64}")
MAX_COUNT = 1024  # instances, threads
CALLERS = ("one_caller", "many_callers")


@dataclass(frozen=True)
class Setting:
    """One way of running a model."""

    model: str  # its file; in a tuned file, relative to that
    provider: str  # its short name
    instances: int = 1  # concurrent runs
    threads: int | None = None  # per run; None: the provider's default
    options: Mapping[str, str] = field(default_factory=dict)  # of the provider and the session, on top of our defaults
    batch: int | None = None  # a static shape; None: any
    styles_on_cpu: bool = False  # see `load`
    convolutions_on_cpu: int = 0  # likewise

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `load` after the path."""
        return {
            "provider": self.provider,
            "provider_options": dict(self.options) or None,
            "threads": self.threads,
            "batch": self.batch,
            "styles_on_cpu": self.styles_on_cpu,
            "convolutions_on_cpu": self.convolutions_on_cpu,
        }


@dataclass(frozen=True)
class Choice:
    """How to run a model: arguments of `load` and of `sefa serve`."""

    path: Path  # the file to load, which may be a variant of the one asked for
    setting: Setting
    max_batch: int  # images of one run
    warning: str  # why it may not be the best here; else empty


def choose(tuned: str | os.PathLike[str], model: str | os.PathLike[str], callers: str = "one_caller") -> Choice:
    """Return how a model runs best, according to a file that `sefa tune -o` wrote.

    Args:
        tuned: That file.
        model: The model that was tuned, or one of its variants, recognised by its content.
        callers: `one_caller` for the shortest wait, `many_callers` for the most images per second.

    Raises:
        InputError: If the file is missing, damaged, from a newer version, or about another model, or if the variant
            that it names is not there.
        ModelFileError: If the model, or the variant, cannot be read.
    """
    if callers not in CALLERS:
        raise InputError(f"callers must be {' or '.join(CALLERS)}, got {callers!r}")
    where, path = Path(tuned), Path(model)
    document = _read(where)
    contents = {entry["file"]: entry["content_sha256"] for entry in document["models"]}
    info = read_info(path)
    found = content_of(info)
    if found not in contents.values():
        names = ", ".join(contents)
        raise InputError(f"{where}: made for {names}, and {path} is another model: tune it with `sefa tune`")
    best = document[callers]
    setting, max_batch = best["setting"], best["batch"]
    if contents[setting.model] != found:
        path = _variant(where, setting.model, contents[setting.model], info, path)
    return Choice(path, setting, max_batch, _machine_warning(where, document["machine"]))


def content_of(info: ModelInfo) -> str:
    """Return the checksum of a model's graph and weights, empty for a file that has none."""
    return info.payload.content_sha256 if info.payload else ""


def unsafe_options(options: Mapping[str, object]) -> list[str]:
    """Return the options that a tuned file cannot carry."""
    return [key for key, value in options.items() if not re.fullmatch(OPTIONS.get(key, r"(?!)"), str(value))]


def _variant(where: Path, name: str, content: str, info: ModelInfo, asked: Path) -> Path:
    path = where.parent / name
    problem = input_problem(path)
    if problem:
        raise InputError(f"{where}: the fastest is the variant {path}: {problem}; put it there, or tune again")
    other = read_info(path)
    if content_of(other) != content:
        raise InputError(f"{where}: {path} is not the variant that was tuned ({content[:SHOWN]}...); tune again")
    if other.names != info.names:
        raise InputError(f"{where}: the directions of {path} are not named as those of {asked}: name them alike")
    return path


def _machine_warning(where: Path, machine: Mapping[str, Any]) -> str:
    here = describe_machine()
    keys = ("cpu", "cores", "cores_limit", "gpus")
    if all(machine.get(key) == here[key] for key in keys):
        return ""
    there = " ".join(str(machine.get("cpu"))[:80].split())
    return (
        f"{where} was made on another machine ({there}, {short(machine.get('cores'))} cores) than this "
        f"({machine_in_words(here)}): `sefa tune` finds what is best here"
    )


def _read(where: Path) -> dict[str, Any]:
    """Read a tuned file; its settings become `Setting`s.

    Raises:
        InputError: If it is not one.
    """
    problem = input_problem(where)
    if problem:
        raise InputError(f"{where}: {problem}; a file that `sefa tune -o` wrote was expected")
    try:
        document = read_json(where)
    except ValueError as error:
        raise InputError(f"{where}: not a file that `sefa tune -o` wrote: no JSON") from error
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror or error}") from error
    if not isinstance(document, dict) or "tuned_version" not in document:
        raise InputError(f"{where}: not a file that `sefa tune -o` wrote: no tuned_version")
    if document["tuned_version"] != TUNED_VERSION:
        version = short(document["tuned_version"])
        raise InputError(f"{where}: has version {version}, this sefa reads {TUNED_VERSION}: tune again")
    try:
        return _checked(document)
    except (KeyError, TypeError, ValueError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{where}: damaged: {said}") from error


def _checked(document: dict[str, Any]) -> dict[str, Any]:
    """Check the entries that are used."""
    models = [
        {"file": _text(entry, "file"), "content_sha256": _text(entry, "content_sha256")}
        for entry in _as(list, document["models"], "models")
    ]
    files = [entry["file"] for entry in models]
    found: dict[str, Any] = {"models": models, "machine": _as(dict, document["machine"], "machine")}
    for callers in CALLERS:
        trial = _as(dict, document[callers], callers)
        setting = _setting(_as(dict, trial["setting"], "setting"))
        if setting.model not in files:
            raise ValueError(f"{short(setting.model)} is not among its models")
        found[callers] = {"setting": setting, "batch": _count(trial, "batch", MAX_FIXED)}
    return found


def _setting(entry: Mapping[str, Any]) -> Setting:
    unknown = set(entry) - {one.name for one in fields(Setting)}
    if unknown:
        raise ValueError(f"setting has {', '.join(short(name) for name in sorted(unknown)[:3])}, which is unknown")
    options = _as(dict, entry["options"], "options")
    unsafe = unsafe_options(options)
    if unsafe or not all(isinstance(value, str) for value in options.values()):
        raise ValueError(f"the option {short((unsafe or list(options))[0])} is not one that `sefa tune` tries")
    provider = _text(entry, "provider")
    if not PROVIDER.fullmatch(provider) or provider == "auto":
        raise ValueError(f"provider is {short(provider)}")
    if not isinstance(entry["styles_on_cpu"], bool):
        raise ValueError(f"styles_on_cpu is {short(entry['styles_on_cpu'])}, expected true or false")
    return Setting(
        model=_text(entry, "model"),
        provider=provider,
        instances=_count(entry, "instances", MAX_COUNT),
        threads=None if entry["threads"] is None else _count(entry, "threads", MAX_COUNT),
        options=options,
        batch=None if entry["batch"] is None else _count(entry, "batch", MAX_FIXED),
        styles_on_cpu=entry["styles_on_cpu"],
        convolutions_on_cpu=_count(entry, "convolutions_on_cpu", MAX_COUNT, least=0),
    )


def _as(kind: type, value: Any, name: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {short(value)}, expected a {'list' if kind is list else 'JSON object'}")
    return value


def _text(entry: Any, name: str) -> str:
    value = _as(dict, entry, "an entry")[name]
    if not isinstance(value, str) or not value or len(value) > 4096 or not value.isprintable():
        raise ValueError(f"{name} is {short(value)}, expected a text")
    return value


def _count(entry: Mapping[str, Any], name: str, most: int, least: int = 1) -> int:
    value = entry[name]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be in {least}..{most}, got {short(value)}")
    return value


def relative_files(paths: Sequence[Path], tuned: Path) -> list[str]:
    """Return how a tuned file names its models: relative to it where they are on the same drive."""
    names = []
    for path in paths:
        try:
            names.append(Path(os.path.relpath(path, tuned.parent)).as_posix())
        except ValueError:  # Another drive, on Windows.
            names.append(str(path.absolute()))
    return names
