"""`nightread benchmark modes`: GANs on 25 Gaussians in the plane, of which a GAN that collapses makes only some.

The methods are those of the registry, with their own losses, turns and optimisers, in the loop that trains on images;
only their networks are others, of a few linear layers, and an image has one pixel and two channels: the coordinates.
The means are those of PacGAN (arXiv:1712.04086, section 4.1): -4, -2, 0, 2 and 4 in both coordinates; the standard
deviation is 0.1, twice as wide as there, to be learned in less time. A sample is of high quality within three
standard deviations of the nearest mean. A mode counts if it has at least a quarter of the samples that it should have,
all of high quality; a single one, as is often required, would credit a cloud without structure with most modes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipeline.methods.base import Method
from pipeline.methods.capabilities import Sampler
from pipeline.methods.dcgan import Dcgan, DcganConfig
from pipeline.methods.infogan import InfoGan, InfoGanConfig
from pipeline.methods.inverted_gan import Networks
from pipeline.methods.wgan import Wgan, WganConfig
from pipeline.methods.wgan_gp import WganGp, WganGpConfig
from pipeline.nn.adversarial import FeatureJudge
from pipeline.nn.rng import Rng, row_key
from pipeline.training import TrainingConfig, TrainState, train

STEPS = (-4.0, -2.0, 0.0, 2.0, 4.0)
STD = 0.1
SCALE = 8**0.5  # standard deviation of the grid, by which the networks' points are divided
NEAR = 3  # standard deviations
SAMPLES = 2500
REAL = 10_000
LATENT = 2
LR = 1e-3
HIDDEN = 128
BATCH = 64
GAN_SHARE = 0.99
POINT = {"image_size": 1, "channels": 2, "spatial_dims": 2}


@dataclass(frozen=True, slots=True)
class ModeRow:
    """One row of the table.

    Attributes:
        row: method, or what it is compared with.
        seed: of weights and training.
        modes: modes found, of 25.
        high_quality: share of the samples near a mode.
        points: points seen in training, counting repetitions and every network's turn.
        cpu_seconds: of the training.
    """

    row: str
    seed: int
    modes: int
    high_quality: float
    points: int
    cpu_seconds: float


def grid_means() -> Tensor:
    """Return the means of the 25 Gaussians, [25, 2]."""
    return torch.cartesian_prod(torch.tensor(STEPS), torch.tensor(STEPS))


def draw_grid(count: int, seed: int) -> Tensor:
    """Draw points [count, 2], as many of each Gaussian where the count allows it."""
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(row_key(seed, "grid")))
    return grid_means()[torch.arange(count) % len(STEPS) ** 2] + STD * noise


def count_modes(points: Tensor) -> tuple[int, float]:
    """Return the modes that points [N, 2] are of, and the share of points of high quality."""
    distance, nearest = torch.cdist(points, grid_means()).min(dim=1)
    good = distance < NEAR * STD
    each = torch.bincount(nearest[good], minlength=len(STEPS) ** 2)
    return int((each >= 0.25 * len(points) / len(each)).sum()), float(good.float().mean())


class Points:
    """Points of the grid as images of one pixel and two channels."""

    def __init__(self, seed: int) -> None:
        self.images = (draw_grid(REAL, seed) / SCALE)[:, :, None, None]
        self.body = torch.ones(1, 1, 1, dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "body": self.body, "id": ""}


def point_networks(code_length: int) -> Networks:
    """Return networks of linear layers for points, of which the encoder is not trained here."""
    generator = nn.Sequential(*_layers(code_length), nn.Linear(HIDDEN, 2), nn.Unflatten(1, (2, 1, 1)))
    judge = FeatureJudge(nn.Sequential(nn.Flatten(), *_layers(2)), nn.Linear(HIDDEN, 1))
    return Networks(generator, judge, nn.Sequential(nn.Flatten(), nn.Linear(2, code_length)))


def _layers(inputs: int) -> list[nn.Module]:
    sizes = (inputs, HIDDEN, HIDDEN, HIDDEN)
    return [part for a, b in zip(sizes, sizes[1:], strict=False) for part in (nn.Linear(a, b), nn.LeakyReLU(0.2))]


def _dcgan(**changes: Any) -> Dcgan:
    config = DcganConfig(latent=LATENT, gan_share=GAN_SHARE, lr=LR, **changes)
    return Dcgan(config, **POINT, networks=point_networks(config.code_length))


def _wgan() -> Wgan:
    config = WganConfig(latent=LATENT, gan_share=GAN_SHARE, clip=0.1, critic_steps=2, lr=LR)
    return Wgan(config, **POINT, networks=point_networks(config.code_length))


def _wgan_gp() -> WganGp:
    config = WganGpConfig(latent=LATENT, gan_share=GAN_SHARE, penalty=0.1, critic_steps=2, lr=LR)
    return WganGp(config, **POINT, networks=point_networks(config.code_length))


def _infogan() -> InfoGan:
    config = InfoGanConfig(latent=LATENT, gan_share=GAN_SHARE, lr=LR, categories=5)
    return InfoGan(config, **POINT, networks=point_networks(config.code_length))


GANS: dict[str, Callable[[], Method]] = {
    "dcgan, minimax": lambda: _dcgan(generator_loss="minimax"),
    "dcgan": _dcgan,
    "infogan": _infogan,
    "wgan": _wgan,
    "wgan_gp": _wgan_gp,
}


def measure_modes(points: int, seeds: Sequence[int], names: Sequence[str] = tuple(GANS)) -> list[ModeRow]:
    """Train each GAN on `points` points and count the modes; the real grid and one Gaussian are rows beside them."""
    rows = [_row("real points", 0, draw_grid(SAMPLES, 1)), _row("one Gaussian", 0, _gaussian())]
    return rows + [_train_row(name, points, seed) for name in names for seed in seeds]


def _gaussian() -> Tensor:
    return SCALE * torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(0))


def _row(row: str, seed: int, samples: Tensor, points: int = 0, cpu_seconds: float = 0.0) -> ModeRow:
    modes, share = count_modes(samples)
    return ModeRow(row, seed, modes, round(share, 3), points, round(cpu_seconds, 1))


def train_on_grid(name: str, points: int, seed: int) -> TrainState:
    """Train one of `GANS` on `points` points of the grid, counting repetitions and every network's turn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method: Any = GANS[name]()
    # the budget of the configuration ends after the GAN's share: its encoder is not needed here
    config = TrainingConfig(images=int(points / GAN_SHARE) + BATCH, batch_size=BATCH, seed=seed, schedule="cosine")
    state = TrainState(method, config)
    for _ in train(state, Points(seed), points):
        pass
    return state


def sample_points(state: TrainState, seed: int) -> Tensor:
    """Return points [SAMPLES, 2] that a trained GAN draws with its averaged weights."""
    samples = cast(Sampler, state.ema).sample(Rng([row_key(seed, "sample", row) for row in range(SAMPLES)]))
    return SCALE * samples.flatten(1)


def _train_row(name: str, points: int, seed: int) -> ModeRow:
    began = time.process_time()
    state = train_on_grid(name, points, seed)
    seconds = time.process_time() - began
    return _row(name, seed, sample_points(state, seed), state.images_seen, seconds)
