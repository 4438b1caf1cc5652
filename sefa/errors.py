"""What a caller of `sefa` can mend."""


class SefaError(Exception):
    """Base of all errors of `sefa` and `sefa_export`; the message is one line that names the file or value."""


class CheckpointError(SefaError):
    """The file is missing, damaged, or holds no generator that can be read."""


class BankError(SefaError):
    """The direction bank is missing, damaged, or was made for another generator."""


class ArgumentError(SefaError, ValueError):
    """A layer, number or option that the call cannot take."""
