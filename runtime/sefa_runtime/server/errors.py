"""Why a request is not answered with an image; every transport maps these to its own codes."""

from sefa_runtime.errors import SefaRuntimeError


class RefusedError(SefaRuntimeError):
    """Base of what the server answers instead of an image, beside `InputError` and `RunError`."""


class UnknownModelError(RefusedError):
    """There is no model, or no version of it, of that name."""


class UnavailableError(RefusedError):
    """The model is loading, failed to load, or the server is about to stop.

    Attributes:
        retry_after_s: When to try again; None if that will not help.
    """

    def __init__(self, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFullError(UnavailableError):
    """As many images wait as may wait."""


class DeadlineError(RefusedError):
    """The answer was not ready in time."""


class BodyTimeoutError(RefusedError):
    """The request's body did not arrive in time."""


class BodyTooLargeError(RefusedError):
    """The request's body is larger than the server takes."""


class MediaTypeError(RefusedError):
    """The request's body is of a type or encoding that the server does not read."""


class TokenError(RefusedError):
    """The token is missing or wrong."""


class ClientGoneError(RefusedError):
    """The client closed the connection: nobody reads the answer."""
