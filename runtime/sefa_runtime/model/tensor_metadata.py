"""A signature in the terms of the Open Inference Protocol v2, and of Triton's model configuration."""

from typing import Any

from sefa_runtime.model.signature import Signature, TensorSpec

Tensors = list[dict[str, Any]]


def describe_tensors(signature: Signature) -> dict[str, Tensors]:
    """Return `inputs` and `outputs` of the protocol's model metadata; -1 means any size."""
    return {
        "inputs": [_metadata(signature, spec) for spec in signature.inputs],
        "outputs": [_metadata(signature, signature.output)],
    }


def start_config(name: str, signature: Signature, max_batch: int) -> dict[str, Any]:
    """Return the beginning of every Triton configuration of a model.

    Args:
        name: The name that it is served under.
        signature: The graph's signature.
        max_batch: How many images the server may run together, the batch axis being left out of the shapes; 0: it uses
            the graph's own batch, which is part of the shapes.
    """
    return {
        "name": name,
        "backend": "onnxruntime",
        "max_batch_size": max_batch,
        "input": [_config(signature, spec, max_batch) for spec in signature.inputs],
        "output": [_config(signature, signature.output, max_batch)],
    }


def _metadata(signature: Signature, spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": _shape(signature, spec)}


def _config(signature: Signature, spec: TensorSpec, max_batch: int) -> dict[str, Any]:
    shape = _shape(signature, spec)
    # Triton has no empty dims: one number per image is [1].
    dims = (shape[1:] or [1]) if max_batch else shape
    return {"name": spec.name, "data_type": f"TYPE_{spec.datatype}", "dims": dims}


def _shape(signature: Signature, spec: TensorSpec) -> list[int]:
    return [axis if isinstance(axis, int) else -1 for axis in signature.axes(spec)]
