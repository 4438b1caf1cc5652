"""The named choices made when a model is exported, as recorded in its file."""

from enum import StrEnum


class Latent(StrEnum):
    """The space of the graph's first input."""

    Z = "z"  # [batch, z_dim]
    W = "w"  # [batch, code_dim]
    W_PLUS = "w+"  # [batch, L, code_dim]


class OutputType(StrEnum):
    """The type of the graph's output image."""

    UINT8 = "uint8"  # [batch, H, W, C]
    FLOAT32 = "float32"  # [batch, C, H, W] in [-1, 1]


class Precision(StrEnum):
    """The precision that the graph computes images in."""

    FP32 = "fp32"
    FP16 = "fp16"
