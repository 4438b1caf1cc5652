import sys
from pathlib import Path

import pytest
import torch

from sefa.peak_memory import peak_memory

MIB = 2**20
CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_memory_that_was_freed_again_counts_and_what_was_there_before_does_not() -> None:
    held = torch.ones(40 * MIB, dtype=torch.uint8)
    with peak_memory(CPU) as large:
        taken = torch.ones(60 * MIB, dtype=torch.uint8)
        del taken
    with peak_memory(CPU) as small:
        taken = torch.ones(20 * MIB, dtype=torch.uint8)
        del taken
    assert large.bytes is not None
    assert small.bytes is not None
    assert 55 * MIB < large.bytes < 75 * MIB
    assert 15 * MIB < small.bytes < 35 * MIB
    assert held[0] == 1


def test_a_system_that_does_not_tell_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sefa.peak_memory.CLEAR", Path("/nowhere/at/all"))
    with peak_memory(CPU) as peak:
        pass
    assert peak.bytes is None
