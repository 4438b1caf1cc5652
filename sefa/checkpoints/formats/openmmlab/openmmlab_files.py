"""What OpenMMLab's files hold beside the generator: their configuration as text, and how far training had grown it.

mmgeneration writes the text into `meta` as `config`, mmagic's engine as `cfg`: assignments such as
`model = dict(type=..., generator=dict(type=..., rgb2bgr=True))`. It is read as data, and never run.
"""

import ast
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from sefa.checkpoints.assumptions import Assumptions, one_of
from sefa.checkpoints.checkpoint import Checkpoint
from sefa.checkpoints.parts.assembly import Assembly
from sefa.checkpoints.parts.growing import Growth

MAX_TEXT = 200_000  # characters of a configuration
SMALLEST = 4  # pixels of the first level
# What mmagic's averaged copy counts.
COUNTER = "steps"


def configuration(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the assignments of the configuration; empty if the file has none that can be read."""
    meta = checkpoint.beside.get("meta")
    texts = [meta.get("config"), meta.get("cfg")] if isinstance(meta, Mapping) else []
    for text in texts:
        if isinstance(text, str) and len(text) <= MAX_TEXT:
            try:
                statements = ast.parse(text).body
                return {
                    statement.targets[0].id: _value(statement.value)
                    for statement in statements
                    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
                }
            except (SyntaxError, ValueError, RecursionError, MemoryError):  # It may be any text.
                continue
    return {}


def generator_options(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options of the configuration's generator."""
    return _inner(config, "model", "generator")


def growth_of(checkpoint: Checkpoint, file: Assembly, levels: int) -> Growth:
    """Return how far progressive training had come, from the numbers that it keeps beside its networks.

    Its images are those of the size that it had reached, which are not enlarged. A generator's state dict alone has no
    such numbers: it is taken to be fully grown.

    Raises:
        CheckpointError: If the generator has no such size.
    """
    size = _number(checkpoint, "_curr_scale_int", SMALLEST << levels - 1)
    share = _number(checkpoint, "_curr_transition_weight", 1.0)
    sizes = [SMALLEST << level for level in range(levels)]
    if size not in sizes or not 0 <= share <= 1 or (size == SMALLEST and share != 1):
        raise file.misfit(f"its training had reached {size:g} pixels with a share of {share:g}, of sizes {sizes}")
    return Growth(1 + sizes.index(int(size)), 1 - share, 1)


def _number(checkpoint: Checkpoint, name: str, usual: float) -> float:
    """Return a number beside the networks."""
    outer = checkpoint.beside.get("state_dict")
    for container in (checkpoint.beside, outer if isinstance(outer, Mapping) else {}):
        value = container.get(name)
        if isinstance(value, Tensor) and value.numel() == 1:
            return float(value)
    return usual


def in_rgb(
    tensors: Mapping[str, Tensor],
    keys: str,
    config: Mapping[str, Any],
    assumptions: Assumptions,
    transposed: bool = False,
) -> dict[str, Tensor]:
    """Return the tensors with the image's channels in the order red, green, blue.

    OpenMMLab reads images as BGR, so its generators make BGR, unless they were converted from elsewhere (`rgb2bgr`) or
    trained on images that the pipeline had turned into RGB.

    Args:
        tensors: The generator's tensors.
        keys: A regular expression for those that make the image's channels, which are the first axis of 3.
        config: The configuration.
        assumptions: Takes and notes the fact `channels`.
        transposed: Whether their weights are those of a transposed convolution, [in, 3, k, k].
    """
    usual = "rgb" if generator_options(config).get("rgb2bgr") is True or _trained_on_rgb(config) else "bgr"
    order = assumptions.take("channels", usual, partial(one_of, names=("rgb", "bgr")))
    assumptions.note(f"the weights give images as {order.upper()}", "channels")
    if order == "rgb":
        return dict(tensors)
    flipped = dict(tensors)
    for key, tensor in tensors.items():
        first = 1 if transposed and tensor.ndim > 1 else 0
        axes = [axis for axis, length in enumerate(tensor.shape[:2]) if length == 3 and axis >= first]
        if axes and re.fullmatch(keys, key):
            flipped[key] = tensor.flip(axes[0])
    return flipped


def _trained_on_rgb(config: Mapping[str, Any]) -> bool:
    """Return whether the pipeline of the training images says that it gives RGB."""
    order = _inner(config, "model", "data_preprocessor").get("output_channel_order")
    if isinstance(order, str):
        return order.upper() == "RGB"
    pipeline = config.get("train_pipeline")
    steps = [step for step in pipeline if isinstance(step, Mapping)] if isinstance(pipeline, list) else []
    loaded_as_rgb = any(step.get("channel_order") == "rgb" for step in steps) or "CIFAR" in str(config.get("data"))
    exchanged = any(step.get("type") == "Normalize" and step.get("to_rgb") is True for step in steps)
    return loaded_as_rgb != exchanged  # `to_rgb` exchanges red and blue, whatever they were.


def _inner(config: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        inner = config.get(name)
        config = inner if isinstance(inner, Mapping) else {}
    return config


def _value(node: ast.expr) -> Any:
    """Return the value that a node of a configuration stands for; None for what is no plain value."""
    if isinstance(node, ast.Call):
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords if keyword.arg is not None}
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None
