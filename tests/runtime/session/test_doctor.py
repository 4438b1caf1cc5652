import numpy as np
import onnxruntime
import pytest

from sefa_runtime.machine import packages
from sefa_runtime.session import doctor
from sefa_runtime.session.doctor import Check, examine


def named(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def test_the_cpu_provider_works_here() -> None:
    check = named(examine(), "provider cpu")
    assert check.ok
    assert check.needed


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "openvino"])
def test_a_provider_that_people_look_for_is_answered_even_where_it_is_not_there(provider: str) -> None:
    check = named(examine(), f"provider {provider}")
    assert not check.needed
    assert check.ok or check.remedy


def test_both_wheels_at_once_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}
    monkeypatch.setattr(packages, "installed_version", found.get)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    checks = examine()
    check = named(checks, "onnxruntime")
    assert not check.ok
    assert check.needed
    assert "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are installed together" in check.detail
    assert check.remedy.startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime; with")
    # Told once.
    assert named(checks, "provider cuda").detail.startswith("the installed onnxruntime")


def test_a_missing_onnxruntime_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    check = named(examine(), "provider cpu")
    assert not check.ok
    assert "cannot be imported" in check.detail
    assert "pip install onnxruntime, or with an NVIDIA GPU" in check.remedy


def test_a_provider_that_computes_wrongly_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        @staticmethod
        def run(feeds: dict[str, object]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
            return np.zeros((1, 1, 8, 8))

    monkeypatch.setattr(doctor, "build_session", lambda *arguments: Wrong)
    check = named(examine(), "provider cpu")
    assert not check.ok
    assert "wrong result" in check.detail
