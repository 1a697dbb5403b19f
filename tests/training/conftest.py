"""A two-player toy with dropout, a few images, and children that may be killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from pipeline.methods import METHODS
from pipeline.methods.base import Method, MethodConfig, Phase
from pipeline.nn.rng import Rng
from pipeline.training import FitResult
from pipeline.types import Batch

SMALL: dict[str, dict[str, Any]] = {
    "ae": {"widths": (4, 8), "hidden": 16, "latent": 4},
    "vae": {"widths": (4, 8), "latent": 4},
    "dae": {"widths": (8, 8, 8, 8, 8, 8)},
    "wgan_gp": {"widths": (8, 16, 16), "latent": 8},
    "f_anogan": {"widths": (8, 16, 16), "latent": 8},
    "stylegan2": {"widths": (8, 16), "latent": 8, "mapping": 2},
    "vq_vae": {"widths": (4, 8), "entries": 8, "code_width": 4},
    "ddpm": {"denoiser": {"widths": (8, 8), "attention": (False, False)}, "noise": "coarse"},
}


class ToyConfig(MethodConfig):
    """Configuration of the toy."""

    name: Literal["toy"] = "toy"
    lr: float = 1e-2

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> Toy:
        return Toy(self, image_size, channels, spatial_dims)


class Toy(Method):
    """A generator of one number against a critic: two phases, unequal turns, dropout, an integer buffer."""

    def __init__(self, config: ToyConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.critic = nn.Sequential(nn.Dropout(0.3), nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
        self.generator = nn.Linear(2, 1)
        self.register_buffer("turns", torch.zeros((), dtype=torch.int64))
        self.phases = (
            Phase("critic", ("critic",), lr=config.lr, betas=(0.5, 0.9), repeats=2),
            Phase("generator", ("generator",), lr=config.lr, every=2),
        )

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        real = batch.images.flatten(1).mean(dim=1, keepdim=True)
        fake = self.generator(rng.normal(2))
        gap = self.critic(fake).mean() - self.critic(real).mean()
        return {"total": gap if phase == "critic" else -gap, "gap": gap}

    def after_step(self, phase: str) -> None:
        self.turns += 1


class Pictures:
    """`count` smooth images of `size` pixels."""

    def __init__(self, count: int, size: int = 32) -> None:
        wave = torch.linspace(0, 6, size)
        self.images = [
            (torch.sin(wave[:, None] + i) * torch.cos(wave[None] * (1 + 0.1 * i)))[None] for i in range(count)
        ]
        self.body = torch.ones(1, size, size, dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": self.images[i], "body": self.body, "id": f"picture-{i}"}


@pytest.fixture
def pictures() -> Callable[..., Pictures]:
    """Make a data set: pictures(count, size=32)."""
    return Pictures


@pytest.fixture
def build() -> Callable[..., Method]:
    """Build a small method of a name, or the toy: build("dae", seed=0)."""

    def make(name: str, seed: int = 0) -> Method:
        config = ToyConfig() if name == "toy" else METHODS[name](**SMALL[name])
        return config.build(32, seed=seed)

    return make


@pytest.fixture
def in_child() -> Callable[..., int]:
    """Run a function in a forked child; return its exit status, -9 when it was killed."""

    def run(function: Callable[[], None], kill_after: float | None = None) -> int:
        child = os.fork()
        if child == 0:
            try:
                function()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        return os.waitstatus_to_exitcode(_wait(child, kill_after))

    return run


def _wait(child: int, kill_after: float | None) -> int:
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


@pytest.fixture
def digest() -> Callable[[FitResult, Path], str]:
    """Return a function: the SHA-256 of all that a training ends with (weights, state, terms of every validation)."""

    def of(result: FitResult, folder: Path) -> str:
        hasher = hashlib.sha256()
        for name, value in sorted(result.method.state_dict().items()):
            hasher.update(name.encode() + value.contiguous().numpy().tobytes())
        newest = sorted(path for path in folder.iterdir() if path.name[0].isdigit())[-1]
        hasher.update((newest / "state.safetensors").read_bytes())
        hasher.update(json.dumps([[r.images_seen, r.training, r.validation, r.best] for r in result.history]).encode())
        return hasher.hexdigest()

    return of
