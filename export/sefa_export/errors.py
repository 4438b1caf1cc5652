"""Errors that a caller of `sefa_export` can fix."""

from sefa.errors import SefaError


class ExportError(SefaError):
    """The generator cannot be exported."""


class ExporterError(ExportError):
    """One of torch's exporters, or onnx's checker, failed; its own error is the cause."""


class VerificationError(ExportError):
    """The exported graph does not match PyTorch; the message lists every mismatch. No file was written."""
