"""Metadata, configuration and statistics of models, as the Open Inference Protocol v2 and Triton define them."""

from dataclasses import replace
from typing import Any

from sefa_runtime.model.signature import Signature
from sefa_runtime.model.tensor_metadata import describe_tensors, start_config
from sefa_runtime.server.models import VERSION, HostedModel
from sefa_runtime.session.providers import NVIDIA, short_name
from sefa_runtime.version import VERSION as SEFA_VERSION

PLATFORM = "onnxruntime_onnx"
SERVER_METADATA = {"name": "sefa", "version": SEFA_VERSION, "extensions": ["binary_tensor_data", "statistics"]}


def model_metadata(model: HostedModel) -> dict[str, Any]:
    """Return the protocol's model metadata. Raises `UnavailableError` if the model is not loaded."""
    return {"name": model.name, "versions": [VERSION], "platform": PLATFORM, **describe_tensors(_served(model))}


def model_config(model: HostedModel) -> dict[str, Any]:
    """Return the model configuration that Triton's clients and perf_analyzer read. Raises as `model_metadata`."""
    settings = model.settings
    on_gpu = model.editor.provider in map(short_name, NVIDIA)
    return {
        **start_config(model.name, _served(model), settings.max_batch),
        "platform": PLATFORM,
        "instance_group": [{"count": settings.instances, "kind": "KIND_GPU" if on_gpu else "KIND_CPU"}],
        "dynamic_batching": {"max_queue_delay_microseconds": round(settings.max_delay_ms * 1000)},
    }


def model_statistics(model: HostedModel) -> dict[str, Any]:
    """Return one model's statistics in Triton's format: counts, and total nanoseconds since the start."""
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


def _served(model: HostedModel) -> Signature:
    """Return the signature that clients see: any number of images and edits, since static shapes are padded."""
    return replace(model.info.signature, batch=None, num_edits=None)
