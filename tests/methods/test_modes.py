"""Adversarial methods find every mode of a mixture: images that are dark or bright, and never in between."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.methods import METHODS
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState, train

SHADES = (-0.5, 0.5)
SMALL = {
    "f_anogan": {"latent": 4, "critic_steps": 2, "gan_share": 0.9, "lr": 2e-3},
    "alpha_gan": {"latent": 4, "code_hidden": 32, "lr": 1e-3},
}


class Mixture:
    """600 images of 8 pixels: a mixture of two Gaussians whose means are constant images."""

    def __init__(self) -> None:
        noise = 0.05 * Rng(range(600)).normal(1, 8, 8)
        self.images = noise + torch.tensor(SHADES).repeat(300).reshape(-1, 1, 1, 1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": self.images[i], "body": torch.ones(1, 8, 8, dtype=torch.bool), "id": str(i)}


def levels(name: str, steps: int) -> torch.Tensor:
    """Return the brightness of 600 generated images after so many steps."""
    method, images = METHODS[name](widths=(16, 32), **SMALL[name]).build(8), 64 * steps
    # the budget ends with the GAN's share: its encoder is not needed here
    state = TrainState(method, TrainingConfig(batch_size=64, images=images * 10 // 9 + 64, ema_decay=0.99))
    list(train(state, Mixture(), images))
    with torch.no_grad():
        return state.ema.eval().generator(Rng(range(600)).normal(4)).flatten(1).mean(dim=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_both_modes_are_generated_and_little_between(name: str) -> None:
    generated = levels(name, 2000)
    dark, bright = ((generated - shade).abs() < 0.25 for shade in SHADES)
    # A generator of every shade from -0.75 to 0.75 would put a third near each, one that knows a single mode all there.
    assert min(dark.float().mean(), bright.float().mean()) > 0.3
    assert (dark | bright).float().mean() > 0.8
