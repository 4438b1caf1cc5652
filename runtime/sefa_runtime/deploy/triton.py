"""A Triton model repository for exported models, for `tritonserver --model-repository`.

    repo/faces/config.pbtxt       how to serve it
    repo/faces/1/model.onnx       the model, and beside it its weights file if it has one
    repo/faces/labels.txt         the directions' names, one a line, in the order of their indices
    repo/faces/perf_input.json    real inputs for perf_analyzer

Sources: triton-inference-server/common, model_config.proto; triton-inference-server/onnxruntime_backend, README.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sefa_runtime.deploy.perf_input import perf_input
from sefa_runtime.deploy.text_format import Message, Word, to_text
from sefa_runtime.errors import InputError, ModelFileError
from sefa_runtime.files import check_output, staging
from sefa_runtime.model.info import ModelInfo
from sefa_runtime.model.reading import check_payload, is_onnx, read_info, weights_path
from sefa_runtime.model.tensor_metadata import start_config

CONFIG = "config.pbtxt"
# The first line of every config we write: a folder that has it may be replaced.
HEADER = "# Written by `sefa triton`"
# No plus sign: clients escape it in an address, and Triton does not unescape it.
MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
# onnxruntime's cudnn_conv_algo_search as the backend numbers it; 0, the default, spends seconds on every new shape.
HEURISTIC = "1"
DEFAULT_MAX_BATCH = 16


@dataclass(frozen=True)
class TritonOptions:
    """How Triton serves.

    Raises:
        InputError: If a number is out of range, or options exclude each other.
    """

    gpus: int | None = None  # run on this many GPUs, from the first; None: Triton's choice of device
    cpu: bool = False  # run on the CPU
    instances: int = 1  # sessions per device
    threads: int | None = None  # per operator, on the CPU; None: onnxruntime's choice, all cores
    max_batch: int | None = None  # images in one run; None: 16
    max_delay_ms: float = 2.0  # how long a request may wait for batch-mates
    preferred_batch: tuple[int, ...] = ()  # batch sizes that do not wait for more; empty: `max_batch`
    max_queue: int = 256  # requests that may wait
    timeout_s: float = 30.0  # how long a request may wait before it is refused; it may ask for less
    tensorrt: bool = False  # let TensorRT run what it can
    precision: str | None = None  # TensorRT's: "fp32" or "fp16"; None: the model's
    engine_cache: str | None = None  # folder on the server where TensorRT keeps its engines

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("gpus", self.gpus, 1, 64),
            ("instances", self.instances, 1, 256),
            ("threads", self.threads, 1, 1024),
            ("max-batch", self.max_batch, 1, 4096),
            ("max-delay-ms", self.max_delay_ms, 0, 10_000),
            ("max-queue", self.max_queue, 1, 1_000_000),
            ("timeout-s", self.timeout_s, 0.001, 86_400),
        ):
            if value is not None and not least <= value <= most:
                raise InputError(f"{name} must be in {least:g}..{most:g}, got {value:g}")
        if self.cpu and (self.gpus is not None or self.tensorrt):
            raise InputError(f"cpu and {'gpus' if self.gpus is not None else 'tensorrt'} exclude each other")
        if self.precision not in (None, "fp32", "fp16"):
            raise InputError(f"precision must be fp32 or fp16, got {self.precision!r}")
        if self.precision is not None and not self.tensorrt:
            raise InputError(
                "precision is TensorRT's: give tensorrt too; onnxruntime computes in the one the model was exported in"
            )
        if self.engine_cache is not None and not self.tensorrt:
            raise InputError("an engine cache is TensorRT's: give tensorrt too")
        if self.threads is not None and not self.cpu:
            raise InputError("threads are of sessions on the CPU: give cpu too")
        wrong = [size for size in self.preferred_batch if not 1 <= size <= (self.max_batch or DEFAULT_MAX_BATCH)]
        if wrong:
            raise InputError(f"a preferred batch must be in 1..{self.max_batch or DEFAULT_MAX_BATCH}, got {wrong[0]}")


def write_repository(
    models: Mapping[str, Path], repository: Path, options: TritonOptions, *, force: bool = False
) -> tuple[Path, ...]:
    """Write a model repository, whole or not at all.

    Models already in the repository stay, except those of the same names, which are replaced.

    Args:
        models: ONNX files made by `sefa export`, by the names to serve them under.
        repository: A folder that is missing, empty or was made by this function.
        options: How Triton serves them.
        force: Write into any folder and replace any model of the same name.

    Returns:
        The models' folders.

    Raises:
        ModelFileError: If a model is missing, damaged or not one of ours.
        InputError: If a name cannot be served, or the options do not fit a model.
        OSError: If the repository cannot be written, or is a folder with other things in it.
    """
    if not models:
        raise InputError("at least one model is needed")
    infos = {name: _read(path) for name, path in models.items()}
    configs = {name: triton_config(name, info, options) for name, info in infos.items()}
    repository = Path(os.path.realpath(repository))
    _check_repository(repository, tuple(models), force)
    with _staged(repository, tuple(models)) as folder:
        for name, path in models.items():
            _write_model(folder / name, path, infos[name], configs[name])
    return tuple(repository / name for name in models)


def triton_config(name: str, info: ModelInfo, options: TritonOptions) -> Message:
    """Return the model's `config.pbtxt` as a mapping, with fields named as in model_config.proto.

    Triton adds the batch to every shape, and batches requests, only if the batch may be of any size; a model exported
    with a fixed batch gets `max_batch_size: 0`, and takes requests of exactly that batch.

    Raises:
        InputError: If the name cannot be served, or the options do not fit the model.
    """
    if not MODEL_NAME.fullmatch(name):
        raise InputError(
            f"Triton takes names of letters, digits, _ . - that begin with one of the first three, got {name[:128]!r}; "
            "give it as NAME=PATH"
        )
    if info.num_edits == 0:
        raise InputError(
            f"{name} was exported for 0 edits, and Triton takes no input of size 0: export it without --edits; its "
            "callers may then send one edit of alpha 0"
        )
    if info.batch is not None and (options.max_batch is not None or options.preferred_batch):
        raise InputError(
            f"{name} was exported for a batch of just {info.batch}: Triton cannot batch its requests; "
            "export it without --batch or leave out max-batch and preferred-batch"
        )
    max_batch = options.max_batch or DEFAULT_MAX_BATCH
    config = start_config(name, info.signature, max_batch if info.batch is None else 0)
    config |= {side: [_tensor(tensor, info.batch) for tensor in config[side]] for side in ("input", "output")}
    config["default_model_filename"] = "model.onnx"
    if info.batch is None:
        config["dynamic_batching"] = _batching(options, max_batch)
    config["instance_group"] = [_instances(options)]
    config["model_warmup"] = _warm_up(info, max_batch)
    if options.tensorrt:
        config["optimization"] = {
            "execution_accelerators": {"gpu_execution_accelerator": [_tensorrt(info, options)]},
        }
    bank = [{"name": direction.name, "alpha_range": direction.alpha_range} for direction in info.directions]
    parameters = {"directions": json.dumps(bank, ensure_ascii=False)}  # For clients that ask for the configuration.
    if not options.cpu:
        parameters["cudnn_conv_algo_search"] = HEURISTIC
    if options.threads is not None:
        parameters["intra_op_thread_count"] = str(options.threads)
    config["parameters"] = [{"key": key, "value": {"string_value": value}} for key, value in parameters.items()]
    return config


def _write_model(folder: Path, path: Path, info: ModelInfo, config: Message) -> None:
    version = folder / "1"
    version.mkdir(parents=True)
    shutil.copyfile(path, version / "model.onnx")
    weights = weights_path(path, info)
    if weights is not None:
        shutil.copyfile(weights, version / weights.name)
    check_payload(version / "model.onnx", info)  # Triton will serve the copies.
    labels = [" ".join(name.split()) for name in info.names]
    (folder / CONFIG).write_text(f"{HEADER}\n{to_text(config)}", encoding="utf-8")
    (folder / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    (folder / "perf_input.json").write_text(perf_input(info), encoding="utf-8")


def _read(path: Path) -> ModelInfo:
    info = read_info(path)
    if not is_onnx(path):
        raise ModelFileError(f"{path}: an archive that runs in torch; the .onnx export is needed here")
    check_payload(path, info)
    return info


def _tensor(tensor: dict[str, Any], batch: int | None) -> dict[str, Any]:
    """Return a tensor's entry as the text format and the graph need it."""
    tensor = tensor | {"data_type": Word(tensor["data_type"])}
    # Clients send [batch, 1], since Triton has no shape of [batch] alone; the graph gets [batch].
    return tensor if batch is not None or tensor["dims"] != [1] else tensor | {"reshape": {"shape": []}}


def _batching(options: TritonOptions, max_batch: int) -> dict[str, object]:
    """Return how requests wait for batch-mates: not forever, and refused if the queue is full."""
    return {
        "preferred_batch_size": sorted(set(options.preferred_batch)) or [max_batch],
        "max_queue_delay_microseconds": round(options.max_delay_ms * 1e3),
        "default_queue_policy": {
            "timeout_action": Word("REJECT"),
            "default_timeout_microseconds": round(options.timeout_s * 1e6),
            "allow_timeout_override": True,
            "max_queue_size": options.max_queue,
        },
    }


def _instances(options: TritonOptions) -> dict[str, object]:
    if options.cpu:
        return {"count": options.instances, "kind": Word("KIND_CPU")}
    if options.gpus is not None:
        return {"count": options.instances, "kind": Word("KIND_GPU"), "gpus": list(range(options.gpus))}
    return {"count": options.instances, "kind": Word("KIND_AUTO")}


def _warm_up(info: ModelInfo, max_batch: int) -> list[dict[str, Any]]:
    """Return the warm-up runs, on zeros: of the smallest and the largest batch.

    `batch_size` is how many requests run together: 1 if a request is a whole batch; never 0, which Triton skips.
    """
    signature = info.signature
    inputs = [
        {
            "key": spec.name,
            "value": {
                "data_type": Word(f"TYPE_{spec.datatype}"),
                "dims": list(spec.sizes(info.batch or 1, info.num_edits or 1))[info.batch is None :] or [1],
                "zero_data": True,
            },
        }
        for spec in signature.inputs
    ]
    return [
        {"name": f"batch {info.batch or size}", "batch_size": size, "inputs": inputs}
        for size in (sorted({1, max_batch}) if info.batch is None else [1])
    ]


def _tensorrt(info: ModelInfo, options: TritonOptions) -> Mapping[str, object]:
    parameters = {"precision_mode": (options.precision or info.precision).upper()}
    if options.engine_cache is not None:
        parameters |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": options.engine_cache}
    return {"name": "tensorrt", "parameters": [{"key": key, "value": value} for key, value in parameters.items()]}


def _check_repository(repository: Path, names: Sequence[str], force: bool) -> None:
    if not repository.exists():
        check_output(repository)
        return
    if not repository.is_dir():
        raise NotADirectoryError(20, "is a file, a folder was expected", str(repository))
    if not os.access(repository, os.W_OK | os.X_OK):
        raise PermissionError(13, "folder is not writable", str(repository))
    foreign = [entry.name for entry in sorted(repository.iterdir()) if not _is_ours(entry)]
    if foreign and not force:
        what = f"is a folder with other things in it ({foreign[0]}); another one or --force is needed"
        raise FileExistsError(17, what, str(repository))
    for name in names:
        if (repository / name).exists() and not (repository / name).is_dir():
            raise NotADirectoryError(20, "is a file, where the model's folder should be", str(repository / name))


def _is_ours(folder: Path) -> bool:
    try:
        with (folder / CONFIG).open(encoding="utf-8") as file:
            return file.readline().rstrip() == HEADER
    except (OSError, UnicodeDecodeError):
        return False


@contextlib.contextmanager
def _staged(repository: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield a folder beside the repository to write models to; they move into the repository when the block succeeds.

    A Triton that watches the repository never sees half a model. If the block or a move fails, all is as it was before.
    """
    moved: list[tuple[Path, Path]] = []  # from, to
    with staging(repository, lambda part: _bring_back(part, repository)) as part:
        (part / "new").mkdir()
        (part / "old").mkdir()
        yield part / "new"
        if not repository.exists():
            (part / "new").rename(repository)
            return
        try:
            for name in names:
                target = repository / name
                moves = [(part / "new" / name, target)]
                if target.exists():
                    moves.insert(0, (target, part / "old" / name))
                for source, destination in moves:
                    source.rename(destination)
                    moved.append((source, destination))
        except BaseException:
            for source, destination in reversed(moved):
                destination.rename(source)
            raise


def _bring_back(part: Path, repository: Path) -> None:
    """Put back models that an earlier process had moved away when it was killed."""
    for model in (part / "old").glob("*"):
        if not (repository / model.name).exists():
            model.rename(repository / model.name)
