"""`dae`: where and how strong the corruption is, what the loss counts, and that a scan to be read gets none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.methods.dae import DaeConfig, DenoisingAutoencoder, within_body
from pipeline.nn.rng import Rng
from pipeline.types import Batch

WIDTHS = (8, 8, 8, 8, 8, 8)


class Zero(nn.Module):
    """A network that corrects nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


@pytest.fixture
def idle() -> DenoisingAutoencoder:
    method = DaeConfig(widths=WIDTHS, added_noise={"std": 0.3}).build(32)
    method.network = Zero()
    return method


def half_bodies(count: int) -> Batch:
    body = torch.zeros(count, 1, 32, 32, dtype=torch.bool)
    body[..., :16] = True
    return Batch(torch.zeros(count, 1, 32, 32), body, tuple(map(str, range(count))))


def test_noise_stays_within_the_body_and_has_the_stated_strength(idle: DenoisingAutoencoder) -> None:
    batch = half_bodies(400)
    noise = idle.config.corrupt(batch.images, batch.body, Rng(range(400))).images
    assert noise[..., 16:].abs().max() == 0
    assert abs(noise[..., :16].std() - 0.3) < 0.01


def test_the_loss_of_an_idle_network_is_the_noise_variance(idle: DenoisingAutoencoder) -> None:
    # x_hat = x + noise, so the error within the body is noise^2 with expectation 0.3^2, however small the body.
    terms = idle.loss(half_bodies(400), "train", Rng(range(400)))
    assert abs(terms["total"] - 0.09) < 0.004


def test_the_error_is_averaged_per_body() -> None:
    error = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]], [[[8.0, 0.0], [0.0, 0.0]]], [[[5.0, 5.0], [5.0, 5.0]]]])
    body = torch.tensor([[[[1, 1], [0, 0]]], [[[1, 0], [0, 0]]], [[[0, 0], [0, 0]]]]).bool()
    assert within_body(error, body) == (1.5 + 8.0 + 0.0) / 3


def test_a_scan_to_be_read_is_not_corrupted() -> None:
    method = DaeConfig(widths=WIDTHS).build(32).eval()
    x = Rng([1]).normal(1, 32, 32)
    assert_close(method.reconstruct(x, Rng([1])), (x + method.network(x)).detach())
    direct = DaeConfig(widths=WIDTHS, residual=False).build(32).eval()
    assert_close(direct.reconstruct(x, Rng([1])), direct.network(x).detach())


def test_strength_varies_from_image_to_image_when_asked() -> None:
    method = DaeConfig(widths=WIDTHS, added_noise={"vary_strength": True, "std": 1.0}).build(32)
    batch = half_bodies(400)
    stds = method.config.corrupt(batch.images, batch.body, Rng(range(400))).images[..., :16].flatten(1).std(dim=1)
    assert stds.min() < 0.1 and stds.max() > 0.9 and abs(stds.mean() - 0.5) < 0.05


def test_a_trained_one_removes_a_blob_and_keeps_the_rest(discs: Any) -> None:
    from pipeline.training import TrainingConfig, TrainState, train

    method = DaeConfig(widths=(8, 8, 16, 16, 16, 8)).build(32)
    state = TrainState(method, TrainingConfig(batch_size=8, images=1200, ema_decay=0.95))
    list(train(state, discs, 1200))
    x = discs[10]["image"][None].clone()
    x[0, 0, 12:17, 16:21] += 0.8
    residual = (x - state.ema.reconstruct(x, Rng([0])))[0, 0]
    lesion = torch.zeros(32, 32, dtype=torch.bool)
    lesion[12:17, 16:21] = True
    assert residual[lesion].mean() > 0.4
    assert residual[discs.body[0] & ~lesion].abs().mean() < 0.15


def test_widths_that_the_norm_cannot_group_are_refused() -> None:
    with pytest.raises(ValidationError, match="multiples of 8"):
        DaeConfig(widths=(8, 8, 8, 12, 8, 8))


def test_a_built_network_lies_in_memory_as_it_is_fastest_and_says_the_same() -> None:
    method = DaeConfig(widths=WIDTHS).build(32)
    x, rng = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)), Rng(range(2), torch.device("cpu"))
    weights = [p for p in method.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
    assert weights and all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    fast = method.reconstruct(x, rng)
    assert_close(method.to(memory_format=torch.contiguous_format).reconstruct(x, rng), fast, rtol=0, atol=1e-5)
