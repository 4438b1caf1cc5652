"""The reasons why a request gets no image, and the one table of how each transport reports them."""

from sefa_runtime.errors import InputError, NotFiniteError, RunError, SefaRuntimeError


class RefusedError(SefaRuntimeError):
    """Base class of the server's own errors; `InputError` and `RunError` are not among them."""


class NoSuchAddressError(RefusedError):
    """There is no such endpoint."""


class MethodError(RefusedError):
    """The endpoint takes other HTTP methods.

    Attributes:
        allowed: These methods.
    """

    def __init__(self, allowed: str) -> None:
        super().__init__(f"this address takes {allowed}")
        self.allowed = allowed


class HostError(RefusedError):
    """The request is addressed to a host that the server does not answer for."""


class UnknownModelError(RefusedError):
    """There is no model of that name, or no such version of it."""


class UnavailableError(RefusedError):
    """The model is loading or failed to load, or the server is about to stop.

    Attributes:
        retry_after_s: When to try again; None if that will not help.
    """

    def __init__(self, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFullError(UnavailableError):
    """As many images are waiting as the queue may hold."""


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


# HTTP status and name of the gRPC code for each error class and those derived from it.
STATUS: dict[type[BaseException], tuple[int, str]] = {
    InputError: (400, "INVALID_ARGUMENT"),
    TokenError: (401, "UNAUTHENTICATED"),
    NoSuchAddressError: (404, "UNIMPLEMENTED"),
    UnknownModelError: (404, "NOT_FOUND"),
    MethodError: (405, "UNIMPLEMENTED"),
    BodyTimeoutError: (408, "DEADLINE_EXCEEDED"),
    BodyTooLargeError: (413, "RESOURCE_EXHAUSTED"),
    MediaTypeError: (415, "INVALID_ARGUMENT"),
    HostError: (421, "PERMISSION_DENIED"),  # HTTP only.
    ClientGoneError: (499, "CANCELLED"),  # Appears only in the log.
    NotFiniteError: (500, "INTERNAL"),
    RunError: (503, "UNAVAILABLE"),  # Out of memory, or the device is lost.
    QueueFullError: (503, "RESOURCE_EXHAUSTED"),
    UnavailableError: (503, "UNAVAILABLE"),
    DeadlineError: (504, "DEADLINE_EXCEEDED"),
    Exception: (500, "INTERNAL"),  # Our own faults.
}


def status_of(error: Exception) -> tuple[int, str]:
    """Return the HTTP status and gRPC code of an error, from the nearest of its classes in the table."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
