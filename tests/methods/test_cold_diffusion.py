"""`cold_diffusion`: a lesion fades in with the time, and the answers of all times are averaged."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.corruption import LesionConfig, ShapeConfig, Tinted
from pipeline.methods.cold_diffusion import ColdDiffusionConfig
from pipeline.nn.rng import Rng
from pipeline.types import Batch

WIDTHS = (8, 8, 8, 8, 8, 8)
LESIONS = LesionConfig(healthy=0, shape=ShapeConfig(radius=(0.1, 0.2)), textures=(Tinted(contrast=(0.3, 0.8)),))


class Listens(nn.Module):
    """Records its inputs; answers with the strength channel."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.inputs.append(x)
        return x[:, 1:]


def test_a_scan_is_taken_for_every_time_and_the_answers_are_averaged(batch: Batch) -> None:
    """Without a gate the network answers with a_t = (t + 1) / T: the mean of 0.25 and 1 is 0.625."""
    method = ColdDiffusionConfig(widths=WIDTHS, gated=False, times=4, ask_times=(0, 3)).build(32)
    method.network = Listens()
    x_hat = method.reconstruct(batch.images, Rng(range(16)))
    assert_close(x_hat, torch.full_like(x_hat, 0.625))
    assert all(torch.equal(x[:, :1], batch.images) for x in method.network.inputs)


def test_training_images_carry_the_lesion_at_the_strength_that_the_network_receives(batch: Batch) -> None:
    method = ColdDiffusionConfig(widths=WIDTHS, gated=False, lesions=LESIONS).build(32)
    method.network = Listens()
    method.loss(batch, "train", Rng(range(16)))
    full = method.config.lesson(batch, Rng(range(16))).painted.images
    x_t, a_t = method.network.inputs[0].tensor_split([1], dim=1)
    assert_close(x_t, batch.images + a_t * (full - batch.images))
    assert len(a_t[:, 0, 0, 0].unique()) > 8 and a_t.min() > 0 and a_t.max() <= 1


@pytest.mark.parametrize("times", [(0, 100), (3, 3), (-1, 2)])
def test_times_that_do_not_exist_or_repeat_are_refused(times: tuple[int, int]) -> None:
    with pytest.raises(ValidationError):
        ColdDiffusionConfig(ask_times=times)
