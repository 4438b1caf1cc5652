"""Whether a loaded graph takes and gives what its description says."""

from typing import TYPE_CHECKING, Any

from sefa_runtime.model.info import ModelInfo
from sefa_runtime.model.signature import Tensor, image, inputs

if TYPE_CHECKING:
    import onnxruntime

# As onnxruntime spells them.
TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)", "uint8": "tensor(uint8)"}


def signature_problems(info: ModelInfo, inference: "onnxruntime.InferenceSession") -> list[str]:
    """How inputs and output of a session differ from the description, one line each; empty if they do not."""
    problems = []
    for side, found, wanted in (
        ("inputs", inference.get_inputs(), inputs(info)),
        ("outputs", inference.get_outputs(), (image(info),)),
    ):
        names = [value.name for value in found]
        if names != [tensor.name for tensor in wanted]:
            problems.append(f"{side} {', '.join(names)} for {', '.join(tensor.name for tensor in wanted)}")
            continue
        for value, tensor in zip(found, wanted, strict=True):
            shape = (-1 if info.batch is None else info.batch, *tensor.shape)
            if value.type != TYPES[tensor.dtype] or _sizes(value.shape) != shape:
                problems.append(f"{tensor.name} {value.type} {value.shape} for {_in_words(tensor, shape)}")
    return problems


def _sizes(shape: list[Any]) -> tuple[int, ...]:
    """A shape with -1 where any size may stand."""
    return tuple(size if isinstance(size, int) else -1 for size in shape)


def _in_words(tensor: Tensor, shape: tuple[int, ...]) -> str:
    return f"{tensor.dtype} [{', '.join('any' if size == -1 else str(size) for size in shape)}]"
