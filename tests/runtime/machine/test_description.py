from pathlib import Path

import numpy as np
import pytest

from sefa_runtime.machine.description import describe_machine, machine_in_words, read_cpu

X86 = """processor\t: 0
model name\t: AMD EPYC
flags\t\t: fpu sse sse2 smep fma avx f16c avx2 xsaves avx512f avx512_vnni
processor\t: 1
model name\t: another core
flags\t\t: sse
"""
ARM = """processor\t: 0
Features\t: fp asimd evtstrm sha2 asimddp sve i8mm bf16
CPU part\t: 0xd40
Model\t\t: Board
"""


@pytest.mark.parametrize(
    ("text", "model", "extensions"),
    [
        (X86, "AMD EPYC", ["avx", "avx2", "avx512_vnni", "avx512f", "f16c", "fma"]),
        (ARM, "Board", ["asimd", "asimddp", "bf16", "i8mm", "sve"]),
        ("processor : 0\n", None, None),
    ],
)
def test_the_first_core_tells_model_and_vector_instructions(
    tmp_path: Path, text: str, model: str | None, extensions: list[str] | None
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert read_cpu(tmp_path / "cpuinfo") == (model, extensions)


def test_a_system_without_cpuinfo(tmp_path: Path) -> None:
    assert read_cpu(tmp_path / "none") == (None, None)


def test_this_machine_has_what_numpy_finds() -> None:
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    extensions = describe_machine()["cpu_extensions"]
    if extensions is None or not found:
        pytest.skip("this system or this numpy does not tell")
    assert ("avx512f" in extensions) == any(name in found for name in ("AVX512F", "AVX512_SKX", "X86_V4"))


def test_in_words() -> None:
    machine = describe_machine() | {
        "cpu": "AMD EPYC",
        "cores": 2,
        "cores_limit": 1.5,
        "memory_gib": 23.5,
        "memory_limit_gib": None,
        "gpus": [{"name": "NVIDIA H100", "driver": "570.1", "memory": "80 GiB"}],
    }
    words = "2 cores limited to 1.5, 23.5 GiB, NVIDIA H100"
    assert machine_in_words(machine | {"cpu_extensions": ["avx2", "avx512f"]}) == f"AMD EPYC with AVX-512, {words}"
    assert machine_in_words(machine | {"cpu_extensions": ["avx", "avx2", "fma"]}) == f"AMD EPYC with AVX2, {words}"
    assert machine_in_words(machine | {"cpu_extensions": None}) == f"AMD EPYC, {words}"
