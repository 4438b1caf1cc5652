"""The inputs and the output of an exported graph, as serving systems ask for them: names, types and shapes."""

from dataclasses import dataclass

from sefa_runtime.model.info import ModelInfo


@dataclass(frozen=True)
class Tensor:
    """One input or output."""

    name: str
    dtype: str  # "float32", "int64" or "uint8"
    shape: tuple[int, ...]  # of one image, without the batch; -1: any size


def inputs(info: ModelInfo) -> tuple[Tensor, ...]:
    """The graph's inputs, in its order."""
    edits = (-1 if info.num_edits is None else info.num_edits,)
    tensors = [
        Tensor(info.latent_name, "float32", info.latent_shape),
        Tensor("direction", "int64", edits),
        Tensor("alpha", "float32", edits),
    ]
    if info.takes_label:
        tensors.append(Tensor("label", "int64", ()))
    if info.truncation is None:
        tensors.append(Tensor("truncation", "float32", ()))
    return tuple(tensors)


def image(info: ModelInfo) -> Tensor:
    """The graph's output."""
    height, width, channels = info.image_shape
    if info.output_type == "uint8":
        return Tensor("image", "uint8", (height, width, channels))
    return Tensor("image", "float32", (channels, height, width))
