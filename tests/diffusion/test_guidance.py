"""Classifier-free guidance: closed form on Gaussians, one pass where one is enough, trained by hiding conditions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.diffusion.guidance import guided
from pipeline.diffusion.sampling import denoise, power, time_grid
from pipeline.methods.ddpm import DdpmConfig
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState, train
from pipeline.types import Batch

ALPHA_BAR = torch.linspace(0.999, 0.002, 1000, dtype=torch.float64)
STD = 0.3


def exact(x_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
    """E[eps | x_t] for data N(c, STD^2), c [B, 1]."""
    a = power(ALPHA_BAR, t, x_t)
    return (1 - a).sqrt() * (x_t - a.sqrt() * c) / (a * STD**2 + 1 - a)


@pytest.mark.parametrize("weight", [-1.0, 0.0, 0.5, 3.0])
def test_guidance_of_gaussians_moves_the_mean_by_its_weight(weight: float) -> None:
    # Equal spreads: (1 + w) eps_c - w eps_0 is the exact denoiser of N(c + w (c - c_0), STD^2).
    c, nothing = torch.full((3, 1), 0.8, dtype=torch.float64), torch.full((3, 1), 0.2, dtype=torch.float64)
    start = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)
    ends = denoise(guided(exact, c, nothing, weight), ALPHA_BAR, start, time_grid(999, 1000), Rng([1, 2, 3]))
    assert_close(ends[1, 0], torch.tensor(0.8 + weight * 0.6).double(), rtol=0, atol=0.05)
    assert_close((ends[2] - ends[0])[0] / 2, torch.tensor(STD).double(), rtol=0.02, atol=0)


def test_other_rows_are_not_mixed_in() -> None:
    c, nothing = torch.tensor([[0.8], [-0.5]]).double(), torch.zeros(2, 1).double()
    x, t = torch.tensor([[0.3], [0.4]]).double(), torch.tensor([100, 700])
    both = guided(exact, c, nothing, 2.0)(x, t)
    for i in range(2):
        rows = slice(i, i + 1)
        assert_close(guided(exact, c[rows], nothing[rows], 2.0)(x[rows], t[rows]), both[rows])


def test_one_pass_where_one_is_enough() -> None:
    seen = []

    def spy(x_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        seen.append((len(x_t), float(c[0, 0])))
        return x_t

    x, t, one, zero = torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64), torch.ones(4, 1), torch.zeros(4, 1)
    for weight in (0.0, -1.0, 1.0):
        guided(spy, one, zero, weight)(x, t)
    assert seen == [(4, 1.0), (4, 0.0), (8, 1.0)]


@pytest.mark.parametrize("kind", [pytest.param("unet", marks=pytest.mark.slow), "dit"])
def test_a_trained_model_tells_its_conditions_apart_and_guidance_widens_the_gap(kind: str) -> None:
    # Men are bright and women dark. Unknown lies between; guidance goes further the way that the condition points.
    small = {"unet": {"patch": 1, "widths": (16,), "attention": (False,)}, "dit": {"width": 32, "depth": 2, "heads": 2}}
    config = DdpmConfig(
        denoiser={"kind": kind, **small[kind]}, noise="gaussian", prediction="v", lr=3e-3, guidance=0.0,
        conditions={"use": ("sex",), "drop": 0.2, "drop_all": 0.0},
    )  # fmt: skip
    sexes = ("M", "F") * 8
    images = torch.stack([torch.full((1, 16, 16), 0.5 if s == "M" else -0.5) for s in sexes])
    data = [
        {"image": image, "body": torch.ones(1, 16, 16, dtype=torch.bool), "id": str(i), "about": {"sex": sexes[i]}}
        for i, image in enumerate(images)
    ]
    state = TrainState(config.build(16), TrainingConfig(batch_size=16, images=16 * 150, ema_decay=0.9))
    list(train(state, data, 16 * 150))
    model, rng = state.ema, list(range(8))
    means = {s: model.sample(Rng(rng), steps=20, eta=0.0, about=[{"sex": s}] * 8).mean() for s in ("M", "F")}
    assert means["M"] > 0.25 and means["F"] < -0.25
    x = torch.zeros(8, 1, 16, 16)
    about = [{"sex": "M"}] * 8
    plain = model.reconstruct(x, Rng(rng), about=about).mean()
    model.config = config.model_copy(update={"guidance": 2.0})
    assert model.reconstruct(x, Rng(rng), about=about).mean() > plain + 0.02
    assert abs(model.reconstruct(x, Rng(rng)).mean()) < abs(plain)  # no condition, so no guidance


def test_the_loss_hides_conditions_by_the_rows_own_stream() -> None:
    config = DdpmConfig(
        denoiser={"patch": 1, "widths": (8,), "attention": (False,)}, conditions={"use": ("sex",), "drop": 0.5}
    )
    method = config.build(16)
    torch.nn.init.normal_(method.network.network.out[2].conv.weight)
    body = torch.ones(2, 1, 16, 16, dtype=torch.bool)
    batch = Batch(torch.zeros(2, 1, 16, 16), body, ("a", "b"), ({"sex": "M"}, {"sex": "F"}))
    first, second = (method.loss(batch, "train", Rng([5, 6]))["total"] for _ in range(2))
    assert torch.equal(first, second)
