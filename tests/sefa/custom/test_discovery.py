"""What is found out of a module that nothing is known of: its latent, classes, random numbers, range and layers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sefa import ArgumentError
from sefa.custom.discovery import Discovery, discover


class Net(nn.Module):
    def __init__(self, size: int = 10) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(size, 16), nn.Linear(16, 3 * 64)

    def image(self, x: Tensor) -> Tensor:
        return torch.tanh(self.last(torch.relu(self.first(x)))).view(-1, 3, 8, 8)

    def forward(self, z: Tensor) -> Any:
        return self.image(z)


class Embedded(Net):
    def __init__(self) -> None:
        super().__init__(10 + 5)
        self.embedding = nn.Embedding(7, 5)

    def forward(self, z: Tensor, y: Tensor) -> Any:  # type: ignore[override]
        return {"sample": self.image(torch.cat([z, self.embedding(y)], 1))}


class Optional(Net):
    def forward(self, z: Tensor, c: Tensor | None) -> Any:  # type: ignore[override]
        return self.image(z if c is None else z + c)


class Noisy(Net):
    def forward(self, z: Tensor) -> Any:
        return torch.sigmoid(self.image(z + 0.1 * torch.randn_like(z)))


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Sequential(nn.ConvTranspose2d(12, 8, 4), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh())

    def forward(self, z: Tensor) -> Any:
        return self.main(z)


class Own(Net):
    """A layer of one's own kind, and a mapping network."""

    def __init__(self) -> None:
        super().__init__(16)
        self.z_dim, self.mapping = 9, nn.Sequential(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
        self.gain = nn.Linear(16, 1)

    def forward(self, z: Tensor) -> Any:
        w = self.mapping(z)
        return self.image(w) * self.gain(w).tanh()[:, :, None, None]


def found(module: nn.Module, **given: Any) -> Discovery:
    torch.manual_seed(0)
    return discover(module, given)


@pytest.mark.parametrize(
    ("module", "given", "options", "names"),
    [
        (Net(), {}, {"latent_dim": 10}, ["first"]),
        (Net(), {"latent_dim": 10, "image_range": (-1, 1)}, {}, ["first"]),
        (Embedded(), {}, {"latent_dim": 10, "num_classes": 7}, ["first"]),
        (Embedded(), {"call": "z, y=label"}, {"latent_dim": 10, "num_classes": 7}, ["first"]),
        (Embedded(), {"num_classes": 7}, {"latent_dim": 10}, ["first"]),
        (Optional(), {}, {"latent_dim": 10}, ["first"]),
        (Noisy(), {}, {"latent_dim": 10, "freeze_noise": 0, "image_range": (0, 1)}, ["first"]),
        (Noisy(), {"freeze_noise": 3}, {"latent_dim": 10, "image_range": (0, 1)}, ["first"]),
        (Convolutional(), {}, {"latent_dim": 12}, ["main.0"]),
        (Own(), {}, {"latent_dim": 9}, ["first", "gain"]),
    ],
)
def test_what_it_needs_is_found(
    module: nn.Module, given: dict[str, Any], options: dict[str, Any], names: list[str]
) -> None:
    discovery = found(module, **given)
    assert discovery.options == options
    assert [layer.name for layer in discovery.layers.layers if layer.shape] == names
    assert discovery.layers.reads == ("w" if isinstance(module, Own) else "z")
    assert discovery.layers.mapping == ("mapping" if isinstance(module, Own) else "")
    low, high = discovery.values
    assert -1 <= low < high <= 1


def test_the_likeliest_reason_is_given() -> None:
    with pytest.raises(ArgumentError, match=r"Several gives several outputs .*: --output-key 0"):
        found(Several())
    with pytest.raises(ArgumentError, match=r"what ReLU reads cannot be found out: say how long its latent is"):
        found(nn.ReLU())
    with pytest.raises(ArgumentError, match=r"Net cannot be called for z \[3, 11\]"):
        found(Net(), latent_dim=11)


class Several(Net):
    def forward(self, z: Tensor) -> Any:
        return self.image(z), -self.image(z)
