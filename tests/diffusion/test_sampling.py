"""Samplers: exact on Gaussian data, equal to diffusers and MONAI step by step, independent of neighbours."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler as DiffusersDdim
from diffusers import DDPMScheduler as DiffusersDdpm
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor
from torch.testing import assert_close

from pipeline.diffusion.sampling import Denoiser, denoise, stride, time_grid
from pipeline.nn.rng import Rng

ALPHA_BAR = DDPMScheduler(1000, "linear_beta").alphas_cumprod
MEAN = torch.tensor([0.7, -0.4])
COVARIANCE = torch.tensor([[0.5, 0.3], [0.3, 0.4]])


def exact(x_t: Tensor, t: Tensor) -> Tensor:
    """E[eps | x_t] for data N(MEAN, COVARIANCE): sqrt(1-a) (a S + (1-a) I)^-1 (x_t - sqrt(a) m)."""
    a = ALPHA_BAR.double()[t[0]]
    inverse = torch.linalg.inv(a * COVARIANCE.double() + (1 - a) * torch.eye(2))
    return ((1 - a).sqrt() * (x_t.double() - a.sqrt() * MEAN) @ inverse).to(x_t.dtype)


def pushed_forward(predict: Denoiser, steps: int) -> tuple[Tensor, Tensor]:
    """DDIM with this predictor is an affine map: read it off three points, and push N(0, I) through it exactly."""
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    ends = denoise(predict, ALPHA_BAR.double(), points, time_grid(999, steps), Rng([0, 1, 2]))
    matrix = ends[1:] - ends[0]
    return ends[0], matrix.T @ matrix


def test_ddim_reproduces_mean_and_covariance_of_gaussian_data() -> None:
    mean, covariance = pushed_forward(exact, 1000)
    assert_close(mean, MEAN.double(), rtol=0, atol=0.01)
    assert_close(covariance, COVARIANCE.double(), rtol=0, atol=0.01)


def test_the_error_of_ddim_falls_with_the_steps() -> None:
    errors = [(pushed_forward(exact, n)[1] - COVARIANCE).abs().max().item() for n in (10, 50, 250)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_a_wrong_denoiser_is_noticed() -> None:
    _, covariance = pushed_forward(lambda x, t: 0.97 * exact(x, t), 1000)
    assert (covariance - COVARIANCE).abs().max() > 0.02


def test_ancestral_sampling_reproduces_mean_and_covariance() -> None:
    count = 4000
    keys = Rng(range(count))
    samples = denoise(exact, ALPHA_BAR, keys.normal(2), time_grid(999, 250), keys, eta=1.0)
    # Standard errors at n = 4000: 0.011 of the mean, below 0.012 of the covariance; four of them, and 0.02 of stride.
    assert_close(samples.mean(dim=0), MEAN, rtol=0, atol=0.045)
    assert_close(torch.cov(samples.T), COVARIANCE, rtol=0, atol=0.065)


@pytest.mark.parametrize("steps", [10, 50, 1000])
def test_ddim_equals_diffusers(steps: int) -> None:
    theirs = DiffusersDdim(1000, 1e-4, 0.02, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    assert theirs.timesteps.tolist() == time_grid(999, steps)
    x = start = Rng([1, 2, 3]).normal(2)
    for t in theirs.timesteps:
        x = theirs.step(exact(x, t.repeat(3)), t, x).prev_sample
    assert_close(denoise(exact, ALPHA_BAR, start, time_grid(999, steps), Rng([1, 2, 3])), x, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("t", [999, 500, 37, 0])
def test_one_ancestral_step_equals_diffusers(t: int) -> None:
    theirs = DiffusersDdpm(1000, 1e-4, 0.02, clip_sample=True, variance_type="fixed_small")
    x, eps = Rng([4]).normal(1, 6, 6), Rng([5]).normal(1, 6, 6)
    expected = theirs.step(eps, t, x, generator=torch.Generator().manual_seed(9)).prev_sample
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(9))
    after = ALPHA_BAR[t - 1] if t else torch.ones(())
    ours = stride(x, eps, ALPHA_BAR[t], after, None, eta=1.0, limit=1.0)
    sigma = ((1 - after) / (1 - ALPHA_BAR[t]) * (1 - ALPHA_BAR[t] / after)).sqrt()
    assert_close(ours + sigma * noise, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("t", "after"), [(999, 998), (500, 499), (1, 0), (500, 250)])
def test_ddim_at_eta_1_takes_the_step_of_ddpm(t: int, after: int) -> None:
    # q(x_s | x_t, x_0) of arXiv:2006.11239, eq. 6 and 7, with alpha = abar_t / abar_s and beta = 1 - alpha.
    a_t, a_s, n = ALPHA_BAR[t], ALPHA_BAR[after], 20_000
    alpha, x_t, eps = a_t / a_s, torch.tensor(0.7), torch.tensor(-0.4)
    x_0 = (x_t - (1 - a_t).sqrt() * eps) / a_t.sqrt()
    mean = a_s.sqrt() * (1 - alpha) / (1 - a_t) * x_0 + alpha.sqrt() * (1 - a_s) / (1 - a_t) * x_t
    variance = (1 - a_s) / (1 - a_t) * (1 - alpha)
    steps = stride(x_t.expand(n, 1), eps.expand(n, 1), a_t, a_s, Rng(range(n)), eta=1.0, limit=None)
    assert steps.mean().item() == pytest.approx(float(mean), abs=4 * float(variance / n) ** 0.5 + 1e-5)
    assert steps.var().item() == pytest.approx(float(variance), rel=4 * (2 / n) ** 0.5)


@pytest.mark.parametrize("t", [980, 500, 20, 0])
@pytest.mark.parametrize("clip", [True, False])
def test_one_ddim_step_equals_monai(t: int, clip: bool) -> None:
    theirs = DDIMScheduler(1000, "linear_beta", clip_sample=False)
    theirs.set_timesteps(50)
    x, eps = Rng([4]).normal(1, 6, 6), Rng([5]).normal(1, 6, 6)
    after = ALPHA_BAR[t - 20] if t >= 20 else torch.ones(())
    if not clip:
        expected, _ = theirs.step(eps, t, x)
        assert_close(stride(x, eps, ALPHA_BAR[t], after, None, eta=0.0, limit=None), expected, rtol=1e-4, atol=1e-5)
        return
    # With clipping our direction follows from the clipped image; by default MONAI and diffusers keep the unclipped.
    theirs = DiffusersDdim(1000, 1e-4, 0.02, clip_sample=True, timestep_spacing="leading")
    theirs.set_timesteps(50)
    expected = theirs.step(eps, t, x, use_clipped_model_output=True).prev_sample
    assert_close(stride(x, eps, ALPHA_BAR[t], after, None, eta=0.0, limit=1.0), expected, rtol=1e-3, atol=1e-4)


def test_time_grids_by_hand() -> None:
    assert time_grid(249, 5) == [249, 199, 149, 99, 49]
    assert time_grid(3, 10) == [3, 2, 1, 0]
    assert time_grid(0, 1) == [0]
    assert time_grid(999, 1000) == list(range(999, -1, -1))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_row_is_sampled_the_same_in_any_company(eta: float) -> None:
    def sample(keys: list[int]) -> Tensor:
        rng = Rng(keys)
        return denoise(exact, ALPHA_BAR, rng.normal(2), time_grid(999, 20), rng, eta)

    assert_close(sample([3])[0], sample([1, 2, 3])[2], rtol=1e-4, atol=1e-5)
