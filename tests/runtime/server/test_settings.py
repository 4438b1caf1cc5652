"""Settings that cannot be."""

from typing import Any

import pytest

from sefa_runtime.errors import InputError
from sefa_runtime.server.settings import Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_batch": 0},
        {"max_queue": 0},
        {"prefix_mb": -1.0},
        {"instances": 0},
        {"timeout_s": 0.0},
        {"timeout_s": float("nan")},
        {"port": 70_000},
        {"token": ""},
        {"cors": ("page.example",)},
        {"cors": ("https://page.example", "https://page.example/")},
        {"cors": ("https://Page.example",)},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Settings(**wrong)


def test_a_token_is_not_printed() -> None:
    assert "secret" not in repr(Settings(token="secret"))


def test_origins_are_taken_as_browsers_send_them() -> None:
    Settings(
        cors=("*", "null", "http://127.0.0.1:8080", "https://page.example", "http://[::1]:80", "tauri://localhost")
    )
