"""Truncation of DeepMind's BigGAN-deep chooses batch-norm statistics."""

import math

import numpy as np
import pytest
import torch

from sefa.errors import ArgumentError
from sefa.generators.biggan_deep import select_statistics


def test_truncation_picks_rows_as_double_precision_rounds() -> None:
    for hundredths in range(1, 101):
        truncation = hundredths / 100
        fraction, row = math.modf(truncation / 0.02)
        expected = np.zeros(52)
        expected[int(row)] = fraction or 1
        expected[int(row) + 1] = 1 - fraction if fraction else 0
        np.testing.assert_allclose(select_statistics(truncation, 51)[0], expected[:51], atol=1e-7)
    # As an input, truncation comes in float32, which rounds 0.4 up: that would be the next row.
    tenths = [index / 10 for index in range(1, 11)]
    together = select_statistics(torch.tensor(tenths), 51)
    assert torch.equal(together, torch.cat([select_statistics(truncation, 51) for truncation in tenths]))


@pytest.mark.parametrize("truncation", [0.0, -0.5, 1.5, math.nan])
def test_truncation_must_name_statistics(truncation: float) -> None:
    with pytest.raises(ArgumentError, match="above 0 and at most 1"):
        select_statistics(truncation, 51)
