"""Errors that a caller of the runtime can fix."""


class SefaRuntimeError(Exception):
    """Base of all errors of `sefa_runtime`; the message is one line that names the file or value."""


class ModelFileError(SefaRuntimeError):
    """The file is missing, damaged, or not a model exported by `sefa export`."""


class ContentError(SefaRuntimeError):
    """A file's content is damaged, wants to run code, or would take too much; the message does not name the file."""


class ProviderError(SefaRuntimeError):
    """The requested execution provider cannot run here.

    Attributes:
        reason: What is missing.
        remedy: How to fix it, if known.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(f"{reason}; to fix it: {remedy}" if remedy else reason)
        self.reason = reason
        self.remedy = remedy


class InputError(SefaRuntimeError, ValueError):
    """A latent, direction, alpha, path or option is invalid for the call."""


class RunError(SefaRuntimeError):
    """The graph was loaded, but onnxruntime failed to run it: out of memory, or a lost device."""


class NotFiniteError(RunError):
    """The graph ran, but gave NaN or infinity instead of an image."""
