"""`conditioned_ddpm`: what its network sees in training and at scoring, and its draws."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.corruption import LesionConfig, ShapeConfig, Tinted
from pipeline.methods.conditioned_ddpm import ConditionedDdpmConfig
from pipeline.nn.rng import Rng
from pipeline.types import Batch

SMALL = {"widths": (8, 16), "attention": (False, False)}
LESIONS = LesionConfig(healthy=0, shape=ShapeConfig(radius=(0.1, 0.2)), textures=(Tinted(contrast=(0.3, 0.8)),))


class Listens(nn.Module):
    """Records its inputs; answers with the image to repair."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.inputs.append((x, t))
        return x[:, 1:2]


def listening(**values: object) -> tuple[nn.Module, Listens]:
    method = ConditionedDdpmConfig(denoiser=SMALL, lesions=LESIONS, gated=False, mirrored=True, **values).build(32)
    method.network = Listens()
    return method, method.network


def test_training_noises_the_clean_image_and_shows_the_painted_one_and_its_mirror_image(batch: Batch) -> None:
    method, network = listening()
    method.loss(batch, "train", Rng(range(16)))
    (seen, t), painted = network.inputs[0], method.config.lesson(batch, Rng(range(16))).painted.images
    assert torch.equal(seen[:, 1:2], painted) and torch.equal(seen[:, 2:], painted.flip(-1))
    stream = Rng(range(16)).fork("noise")
    assert torch.equal(t, stream.integers(0, 1000))
    eps = method.process.noise(stream)
    signal = method.process.alpha_bar[t].reshape(-1, 1, 1, 1)
    assert_close(seen[:, :1], signal.sqrt() * batch.images + (1 - signal).sqrt() * eps)


def test_scoring_costs_draws_times_steps_passes_and_starts_from_noise(batch: Batch) -> None:
    method, network = listening(draws=3, steps=2)
    x_hat = method.reconstruct(batch.images, Rng(range(16)))
    assert_close(x_hat, batch.images)
    assert [int(t[0]) for _, t in network.inputs] == [999, 499] * 3
    starts = torch.stack([x[:, 0] for x, t in network.inputs if int(t[0]) == 999])
    assert starts.std() > 0.9 and (starts[0] - starts[1]).std() > 1.2  # each draw has its own noise
