import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sefa.method_comparison.peak_memory import peak_memory

# In a process of its own: what other tests leave behind may be freed at any moment.
PROGRAM = """
import torch
from sefa.method_comparison.peak_memory import peak_memory

held = torch.ones(40 * 2**20, dtype=torch.uint8)
for mib in (60, 20):
    with peak_memory(torch.device("cpu")) as peak:
        taken = torch.ones(mib * 2**20, dtype=torch.uint8)
        del taken
    print(peak.bytes / 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_memory_that_was_freed_again_counts_and_what_was_there_before_does_not() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    large, small = map(float, result.stdout.split())
    assert 55 < large < 75
    assert 15 < small < 35


def test_a_system_that_does_not_tell_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sefa.method_comparison.peak_memory.CLEAR", Path("/nowhere/at/all"))
    with peak_memory(torch.device("cpu")) as peak:
        pass
    assert peak.bytes is None
