"""Limits that cannot be."""

import pytest

from sefa_runtime.errors import InputError
from sefa_runtime.server.settings import Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_batch": 0},
        {"max_queue": 0},
        {"instances": 0},
        {"timeout_s": 0.0},
        {"timeout_s": float("nan")},
        {"port": 70_000},
        {"token": ""},
    ],
)
def test_impossible_limits_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Settings(**wrong)  # type: ignore[arg-type]


def test_a_token_is_not_printed() -> None:
    assert "secret" not in repr(Settings(token="secret"))
