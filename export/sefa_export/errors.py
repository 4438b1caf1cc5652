"""What a caller of `sefa_export` can mend."""

from sefa.errors import SefaError


class ExportError(SefaError):
    """The generator cannot be exported."""


class VerificationError(ExportError):
    """The exported graph does not do what PyTorch does; the message lists every mismatch. No file was written."""
