"""Train the generator.

    python -m letters.train DATA RUN
    torchrun --nproc-per-node 2 -m letters.train DATA RUN

begins, or goes on where it stopped. RUN holds state.pt, from which it goes on; log.jsonl, a line of figures every few
minutes; sheets of samples; and generators in half precision, averaged over training, for `sefa.load`.

On a CPU, one process per core with one thread each is faster than threads, which wait for each other in every operator.
Each step's random numbers depend on its index alone, so a run that was stopped goes on as if it had not been.

Losses: non-saturating logistic (Goodfellow et al., 2014); R1 (Mescheder et al., 2018), every 16th step.
"""

import argparse
import copy
import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from letters.dataset import Glyphs, balanced_labels
from letters.discriminator import GROUP, Discriminator, limit
from letters.generator import Generator, Sizes, save_generator
from letters.glyphs import CHARACTERS, as_coverage, sheet

R1_INTERVAL = 16
REPORT_SECONDS = 120.0
SAVE_SECONDS = 300.0
SHEET_SECONDS = 900.0
SHEET_SEEDS = 16


@dataclass(frozen=True)
class Settings:
    """What decides the result, apart from the data.

    Attributes:
        images: Real images to show in all.
        batch: Images of a step, over all processes.
        rate: Learning rate of both networks.
        final_rate: What it falls to, linearly, in the last part of training.
        decay: How large that part is.
        r1: Weight γ of the gradient penalty γ/2·|∇D|².
        ema_images: Half-life of the generator's average, in images.
        ema_rampup: Most that the half-life may be, as a share of the images seen.
        seed: Seed of everything random.
    """

    images: int = 4_000_000
    batch: int = 64
    rate: float = 2e-3
    final_rate: float = 2e-4
    decay: float = 0.3
    r1: float = 1.0
    ema_images: int = 20_000
    ema_rampup: float = 0.05
    seed: int = 0

    def rate_at(self, images: int) -> float:
        """Return the learning rate after so many images."""
        left = (self.images - images) / (self.decay * self.images)
        return self.final_rate + (self.rate - self.final_rate) * min(max(left, 0.0), 1.0)

    def ema_weight(self, images: int) -> float:
        """Return how much of the average a step replaces."""
        half_life = min(self.ema_images, self.ema_rampup * max(images, 1))
        return float(1 - 0.5 ** (self.batch / half_life))


class Training:
    """The networks, their optimizers, and how far they have come.

    Args:
        settings: The settings.
        sizes: Sizes of the generator.
        device: Where to train.
        rank: Which of the processes this is.
        world: How many processes there are.
    """

    def __init__(self, settings: Settings, sizes: Sizes, device: torch.device, rank: int = 0, world: int = 1) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.device, self.rank, self.world = settings, device, rank, world
        self.dtype = fastest_dtype(device)
        self.generator = Generator(sizes, self.dtype).to(device)
        self.discriminator = Discriminator(sizes.num_classes, dtype=self.dtype).to(device)
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.average.synthesis.dtype = torch.float32
        self.generator_optimizer = _adam(self.generator, settings.rate)
        self.discriminator_optimizer = _adam(self.discriminator, settings.rate * R1_INTERVAL / (R1_INTERVAL + 1))
        self.step = 0
        self.seconds = 0.0

    @property
    def images(self) -> int:
        """How many real images have been shown."""
        return self.step * self.settings.batch

    def advance(self, glyphs: Glyphs) -> dict[str, float]:
        """Take one step with both networks; return its losses."""
        settings, share = self.settings, self.settings.batch // self.world
        turn = self.step * self.world + self.rank
        label = balanced_labels(share, GROUP, turn, self.generator.sizes.num_classes, settings.seed)
        real = glyphs.batch(label, np.random.default_rng([settings.seed, 1, turn])).to(self.device)
        label = label.to(self.device)
        random = torch.Generator().manual_seed((settings.seed << 40) + turn)
        z = torch.randn(share, self.generator.sizes.z_dim, generator=random).to(self.device)
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            rate = settings.rate_at(self.images)
            if optimizer is self.discriminator_optimizer:
                rate *= R1_INTERVAL / (R1_INTERVAL + 1)  # Karras et al. 2020: it takes more, smaller steps.
            optimizer.param_groups[0]["lr"] = rate

        fake = limit(self.generator(z, label))
        real_logits, fake_logits = self.discriminator(real, label), self.discriminator(fake.detach(), label)
        loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        losses = {"D": loss.item(), "real": real_logits.mean().item(), "fake": fake_logits.mean().item()}
        if self.step % R1_INTERVAL == 0:
            penalty = self.gradient_penalty(real, label)
            loss = loss + penalty * (settings.r1 / 2 * R1_INTERVAL)
            losses["R1"] = penalty.item()
        self._update(self.discriminator, self.discriminator_optimizer, loss)

        self.discriminator.requires_grad_(False)
        loss = F.softplus(-self.discriminator(fake, label)).mean()
        self.discriminator.requires_grad_(True)
        losses["G"] = loss.item()
        self._update(self.generator, self.generator_optimizer, loss)

        weight = settings.ema_weight(self.images)
        with torch.no_grad():
            for mean, current in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                mean.lerp_(current, weight)
        self.step += 1
        return losses

    def gradient_penalty(self, real: Tensor, label: Tensor) -> Tensor:
        """Return |∇D(real)|², averaged over images; in float32, as it is differentiated again."""
        real = real.detach().requires_grad_(True)
        logits = self.discriminator(real, label, torch.float32)
        (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        return gradient.square().sum(dim=(1, 2, 3)).mean()

    @torch.no_grad()
    def logits(self, glyphs: Glyphs, batches: int = 4) -> float:
        """Return the mean logit of real images, to compare faces that training sees with others."""
        random = np.random.default_rng(self.step)
        means = []
        for turn in range(batches):
            label = balanced_labels(self.settings.batch, GROUP, turn, glyphs.num_classes, self.step)
            image = glyphs.batch(label, random).to(self.device)
            means.append(float(self.discriminator(image, label.to(self.device)).mean()))
        return float(np.mean(means))

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        beside = path.with_name(path.name + ".partial")
        torch.save({name: part.state_dict() for name, part in self._parts().items()} | self._progress(), beside)
        beside.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a saved state."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.step, self.seconds = state["step"], state["seconds"]

    def _parts(self) -> dict[str, Any]:
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "average": self.average,
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }

    def _progress(self) -> dict[str, Any]:
        return {"step": self.step, "seconds": self.seconds, "settings": asdict(self.settings)}

    def _update(self, network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if self.world > 1:
            average_gradients(network.parameters())
        optimizer.step()


def fastest_dtype(device: torch.device) -> torch.dtype:
    """Return the type in which convolutions are fastest: bfloat16 wherever the hardware multiplies it."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients over all processes, in one message."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


@torch.no_grad()
def draw_sheet(generator: Generator, path: Path, device: torch.device, seeds: int = SHEET_SEEDS) -> None:
    """Draw all characters, a row for each seed."""
    classes = generator.sizes.num_classes
    z = torch.randn(seeds, generator.sizes.z_dim, generator=torch.Generator().manual_seed(1)).to(device)
    label = torch.arange(classes, device=device)
    rows = [as_coverage(generator(row.expand(classes, -1), label)[:, 0].cpu().numpy()) for row in z]
    sheet(np.concatenate(rows), classes).save(path)


def run(data: Path, out: Path, settings: Settings, device: torch.device) -> None:
    """Train until all images are seen."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if device.type == "cpu":
        torch.set_num_threads(1 if world > 1 else torch.get_num_threads())
    glyphs, others = Glyphs(data, held_out=False), Glyphs(data, held_out=True)
    training = Training(settings, Sizes(glyphs.num_classes), device, rank, world)
    out.mkdir(parents=True, exist_ok=True)
    state = out / "state.pt"
    if state.exists():
        training.load(state)
    began, before = time.monotonic(), training.seconds
    reported = saved = drawn = began
    first = training.step
    sums: dict[str, list[float]] = {}
    while training.images < settings.images:
        for name, value in training.advance(glyphs).items():
            sums.setdefault(name, []).append(value)
        now = time.monotonic()
        training.seconds = before + now - began
        if rank:
            continue
        last = training.images >= settings.images
        if now - reported >= REPORT_SECONDS or last:
            line: dict[str, float] = {"images": training.images, "seconds": round(training.seconds)}
            line["images_per_s"] = round((training.step - first) * settings.batch / (now - reported), 1)
            line |= {name: round(float(np.mean(values)), 3) for name, values in sums.items()}
            line |= {"seen": round(training.logits(glyphs), 3), "held_out": round(training.logits(others), 3)}
            with (out / "log.jsonl").open("a") as log:
                print(json.dumps(line), file=log)
            print(json.dumps(line), flush=True)
            reported, first, sums = now, training.step, {}
        if now - saved >= SAVE_SECONDS or last:
            training.save(state)
            saved = now
        if now - drawn >= SHEET_SECONDS or last or training.step == 200:
            name = f"{training.images // 1000:06}k"
            draw_sheet(training.average, out / f"sheet-{name}.png", device)
            save_generator(training.average, out / f"letters-{name}.safetensors", CHARACTERS)
            drawn = now
    if world > 1:
        distributed.destroy_process_group()


def _adam(network: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=rate, betas=(0.0, 0.99), eps=1e-8, fused=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that letters.fonts wrote")
    parser.add_argument("run", type=Path, help="folder for what training writes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"default {value}")
    given = vars(parser.parse_args())
    data, out, device = given.pop("data"), given.pop("run"), torch.device(given.pop("device"))
    run(data, out, Settings(**given), device)


if __name__ == "__main__":
    main()
