"""What a caller of `sefa_export` can fix."""

from sefa.errors import SefaError


class ExportError(SefaError):
    """The generator cannot be exported."""


class ExporterError(ExportError):
    """An exporter of torch's, or onnx's checker, failed; the cause is its own error."""


class VerificationError(ExportError):
    """The exported graph does not do what PyTorch does; the message lists every mismatch. No file was written."""
