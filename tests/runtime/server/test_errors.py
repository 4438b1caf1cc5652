"""The table of errors: complete, and of codes that there are."""

from http import HTTPStatus

import grpc
import pytest

from sefa_runtime.errors import InputError, NotFiniteError, RunError
from sefa_runtime.server import errors
from sefa_runtime.server.errors import STATUS, QueueFullError, RefusedError, UnavailableError, status_of


def test_every_error_of_the_server_has_a_status() -> None:
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RefusedError)]
    assert len(classes) > 10
    assert set(classes) - {RefusedError} <= set(STATUS)


@pytest.mark.parametrize(("status", "code"), STATUS.values())
def test_statuses_and_codes_exist(status: int, code: str) -> None:
    assert code in grpc.StatusCode.__members__
    assert status == 499 or 400 <= HTTPStatus(status) < 600


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InputError("a"), (400, "INVALID_ARGUMENT")),
        (RunError("a"), (503, "UNAVAILABLE")),
        (NotFiniteError("a"), (500, "INTERNAL")),  # Derived from RunError.
        (UnavailableError("a"), (503, "UNAVAILABLE")),
        (QueueFullError("a"), (503, "RESOURCE_EXHAUSTED")),  # Derived from UnavailableError.
        (ZeroDivisionError("a"), (500, "INTERNAL")),
    ],
)
def test_the_nearest_class_decides(error: Exception, expected: tuple[int, str]) -> None:
    assert status_of(error) == expected
