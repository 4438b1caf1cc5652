"""A generator of the user's own takes the memory of its weights, not of the square of its latent."""

from pathlib import Path

import pytest
import torch
from torch import nn

import sefa
from sefa import ArgumentError
from sefa.custom.wrapping import MAX_LATENT
from support.resource_use import readings

IMPORTS = """
import sefa, torch
from torch import nn

class Generator(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.fc = nn.Linear(size, 12)

    def forward(self, z):
        return torch.tanh(self.fc(z)).reshape(-1, 3, 2, 2)

torch.manual_seed(0)
sefa.factorize(sefa.wrap(Generator(16), latent_dim=16, layers=["fc"]))
"""


def test_a_latent_of_ten_thousand_values_takes_no_square_of_it(tmp_path: Path) -> None:
    call = "sefa.factorize(sefa.wrap(Generator(10_000), latent_dim=10_000, layers=['fc']), top=20)"
    (reading,) = readings(IMPORTS, call, [tmp_path])
    assert (reading.error, reading.message) == ("", "")
    assert reading.peak_mb < 200  # The square is 400 MB in float32, 800 in float64.


@pytest.mark.parametrize(("latent_dim", "num_classes"), [(MAX_LATENT + 1, 0), (10**12, 0), (4, 10**12)])
def test_sizes_that_would_fill_the_memory_are_refused(latent_dim: int, num_classes: int) -> None:
    module = nn.Sequential(nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2)))
    assert sefa.wrap(module, latent_dim=4, layers=["0"]).z_dim == 4
    with pytest.raises(ArgumentError, match="latent_dim and num_classes must be at most 131072"):
        sefa.wrap(module, latent_dim=latent_dim, layers=["0"], num_classes=num_classes)


def test_weights_are_found_for_latents_beyond_one_chunk() -> None:
    first = nn.Linear(150, 12)
    nn.init.normal_(first.weight, std=0.01, generator=torch.Generator().manual_seed(0))
    module = nn.Sequential(first, nn.Tanh(), nn.Unflatten(1, (3, 2, 2)))
    (A,) = sefa.wrap(module, latent_dim=150, layers=["0"]).affines()
    torch.testing.assert_close(A, first.weight.detach(), atol=1e-5, rtol=0)
