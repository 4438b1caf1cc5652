"""What the Open Inference Protocol v2 means for our models, whatever carries it: REST, gRPC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sefa_runtime.editor import check_finite
from sefa_runtime.errors import InputError
from sefa_runtime.inputs.batches import Feeds
from sefa_runtime.inputs.call import Call
from sefa_runtime.model.info import ModelInfo
from sefa_runtime.server.batching import Answer
from sefa_runtime.server.http.v2_tensors import Tensor
from sefa_runtime.server.models import VERSION, HostedModel
from sefa_runtime.session.providers import NVIDIA, short_name
from sefa_runtime.version import VERSION as SEFA_VERSION

OUTPUT = "image"
PLATFORM = "onnxruntime_onnx"
DATATYPES = {
    "z": "FP32",
    "w": "FP32",
    "codes": "FP32",
    "direction": "INT64",
    "alpha": "FP32",
    "label": "INT64",
    "truncation": "FP32",
}
SERVER_METADATA = {"name": "sefa", "version": SEFA_VERSION, "extensions": ["binary_tensor_data", "statistics"]}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model."""

    name: str
    datatype: str
    shape: tuple[int, ...]  # -1: any size


def input_specs(info: ModelInfo) -> list[TensorSpec]:
    """The inputs of a model, the batch first in each shape."""
    shapes = {info.latent_name: (-1, *info.latent_shape), "direction": (-1, -1), "alpha": (-1, -1)}
    return [TensorSpec(name, DATATYPES[name], shapes.get(name, (-1,))) for name in input_names(info)]


def input_names(info: ModelInfo) -> tuple[str, ...]:
    """The names of a model's inputs."""
    names: tuple[str, ...] = (info.latent_name, "direction", "alpha")
    if info.takes_label:
        names += ("label",)
    if info.truncation is None:
        names += ("truncation",)
    return names


def datatypes(info: ModelInfo) -> dict[str, str]:
    """Return the types of a model's inputs by their names."""
    return {name: DATATYPES[name] for name in input_names(info)}


def output_spec(info: ModelInfo) -> TensorSpec:
    """The output of a model."""
    if info.output_type == "uint8":
        return TensorSpec(OUTPUT, "UINT8", (-1, *info.image_shape))
    return TensorSpec(OUTPUT, "FP32", (-1, info.channels, *info.resolution))


async def infer(model: HostedModel, inputs: Mapping[str, Tensor], outputs: Sequence[str] = ()) -> Answer:
    """Answer one inference request and count it.

    Args:
        model: The model.
        inputs: By name, of the types in `datatypes`. `direction` and `alpha` may be left out, both or neither, and be
            [batch] instead of [batch, edits]; `truncation` may be left out.
        outputs: Names of the outputs that are wanted; empty is all.

    Raises:
        InputError: If an input is missing, unknown, or cannot be taken.
        UnavailableError, DeadlineError, RunError: As `HostedModel.infer`.
        NotFiniteError: If there is NaN or infinity in an image.
    """
    with model.counted():
        check_outputs(outputs)
        answer = await model.infer(read_inputs(model, inputs))
        check_finite(answer.image)
        return answer


def check_outputs(names: Sequence[str]) -> None:
    """Refuse outputs that no model has.

    Raises:
        InputError: If so.
    """
    for name in names:
        if name != OUTPUT:
            raise InputError(f"the only output is {OUTPUT!r}, got {name[:128]!r}")


def read_inputs(model: HostedModel, inputs: Mapping[str, Tensor]) -> Feeds:
    """Check inputs and bring them to what the graph takes.

    Raises:
        InputError: If an input is missing, unknown, or cannot be taken.
        UnavailableError: If the model is not ready.
    """
    info, settings = model.info, model.settings
    if info.latent_name not in inputs:
        raise InputError(f"input {info.latent_name!r} is missing")
    if ("direction" in inputs) != ("alpha" in inputs):
        raise InputError("direction and alpha belong together: give both or neither")
    arrays = {name: tensor.array for name, tensor in inputs.items()}
    for name in ("label", "truncation"):
        if name in arrays and arrays[name].ndim == 2 and arrays[name].shape[1] == 1:
            arrays[name] = arrays[name][:, 0]  # [batch, 1], as `model_config` describes them.
    latent = arrays[info.latent_name]
    if latent.ndim > len(info.latent_shape):
        check_batch(model, len(latent))
    for name in ("direction", "alpha"):
        if name in arrays and arrays[name].size > settings.max_batch * settings.max_edits:
            raise InputError(f"input {name!r}: at most {model.max_edits} edits of an image")
    return model.editor.prepare(Call(arrays))


def check_batch(model: HostedModel, images: int) -> None:
    """Refuse more images than one request may have.

    Raises:
        InputError: If so.
    """
    if images > model.settings.max_batch:
        raise InputError(f"at most {model.settings.max_batch} images in a request, got {images}")


def model_metadata(model: HostedModel) -> dict[str, Any]:
    """The protocol's model metadata. Raises `UnavailableError` if the model is not loaded."""
    return {
        "name": model.name,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": [_tensor_metadata(spec) for spec in input_specs(model.info)],
        "outputs": [_tensor_metadata(output_spec(model.info))],
    }


def model_config(model: HostedModel) -> dict[str, Any]:
    """Triton's model configuration, as its clients and perf_analyzer ask for it. Raises as `model_metadata`."""
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "max_batch_size": model.settings.max_batch,
        "input": [_tensor_config(spec) for spec in input_specs(model.info)],
        "output": [_tensor_config(output_spec(model.info))],
        "instance_group": [{"count": model.settings.instances, "kind": _kind(model.editor.provider)}],
        "dynamic_batching": {"max_queue_delay_microseconds": round(model.settings.max_delay_ms * 1000)},
    }


def model_statistics(model: HostedModel) -> dict[str, Any]:
    """Triton's statistics of one model: counts, and nanoseconds summed since the start."""
    statistics = model.statistics
    nothing = {"count": 0, "ns": 0}
    return {
        "name": model.name,
        "version": VERSION,
        "last_inference": statistics.last_request_ms,
        "inference_count": statistics.images,
        "execution_count": statistics.runs,
        "inference_stats": {
            "success": {"count": statistics.requests, "ns": statistics.request_ns},
            "fail": {"count": statistics.failures, "ns": statistics.failure_ns},
            "queue": {"count": statistics.queued, "ns": statistics.queue_ns},
            "compute_input": nothing,
            "compute_infer": {"count": statistics.runs, "ns": statistics.run_ns},
            "compute_output": nothing,
        },
        "batch_stats": [
            {
                "batch_size": images,
                "compute_input": nothing,
                "compute_infer": {"count": runs, "ns": run_ns},
                "compute_output": nothing,
            }
            for images, (runs, run_ns) in sorted(statistics.runs_by_images.items())
        ],
    }


def _kind(provider: str) -> str:
    return "KIND_GPU" if provider in map(short_name, NVIDIA) else "KIND_CPU"


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _tensor_config(spec: TensorSpec) -> dict[str, Any]:
    # `max_batch_size` stands for the first axis; Triton has no empty dims: one number per image is [1].
    return {"name": spec.name, "data_type": f"TYPE_{spec.datatype}", "dims": list(spec.shape[1:]) or [1]}
