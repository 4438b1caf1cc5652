import pytest

from sefa_runtime import doctor
from sefa_runtime.doctor import Check, examine


def named(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def test_the_cpu_provider_works_here() -> None:
    check = named(examine(), "provider cpu")
    assert check.ok
    assert check.needed


def test_cuda_is_answered_even_where_it_is_not_there() -> None:
    check = named(examine(), "provider cuda")
    assert not check.needed
    assert check.ok or check.remedy


def test_both_wheels_at_once_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed_version", lambda package: "1.32.0")
    check = named(examine(), "onnxruntime")
    assert not check.ok
    assert "overwritten" in check.detail
    assert "pip uninstall" in check.remedy


def test_a_missing_onnxruntime_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    check = named(examine(), "provider cpu")
    assert not check.ok
    assert "cannot be imported" in check.detail
    assert check.remedy.startswith("pip install onnxruntime")


def test_a_provider_that_computes_wrongly_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        class inference:  # noqa: N801
            @staticmethod
            def run(names: None, feeds: dict[str, object]) -> list[object]:
                import numpy as np

                return [np.zeros((1, 1, 8, 8))]

    monkeypatch.setattr(doctor, "build_session", lambda *arguments: Wrong)
    check = named(examine(), "provider cpu")
    assert not check.ok
    assert "wrong result" in check.detail
