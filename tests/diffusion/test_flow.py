"""Rectified flow: exact on Gaussian data in the limit, each solver of its order, equal to MONAI step by step."""

from __future__ import annotations

import pytest
import torch
from monai.networks.schedulers import RFlowScheduler
from torch import Tensor
from torch.testing import assert_close

from pipeline.diffusion.flow import Flow, FlowConfig, Solver, follow, on_path
from pipeline.diffusion.guidance import guided
from pipeline.errors import ConfigError
from pipeline.nn.rng import Rng

MEAN = torch.tensor([0.7, -0.4]).double()
COVARIANCE = torch.tensor([[0.5, 0.3], [0.3, 0.4]]).double()


def exact(x_t: Tensor, t: Tensor) -> Tensor:
    """E[x - eps | x_t] for data N(MEAN, COVARIANCE), by the conditional mean of a Gaussian."""
    rest, noise = 1 - t[0], t[0]
    total = rest**2 * COVARIANCE + noise**2 * torch.eye(2, dtype=torch.float64)
    gain = rest * COVARIANCE - noise * torch.eye(2, dtype=torch.float64)
    return MEAN + (x_t - rest * MEAN) @ (gain @ torch.linalg.inv(total)).T


def pushed_forward(steps: int, solver: Solver, scale: float = 1.0, shift: float = 1.0) -> tuple[Tensor, Tensor]:
    """The flow is an affine map: read it off three points, and push N(0, I) through it exactly."""
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    start = torch.ones(3, dtype=torch.float64)
    ends = follow(lambda x, t: scale * exact(x, t), points, start, steps, solver, shift)
    matrix = ends[1:] - ends[0]
    return ends[0], matrix.T @ matrix


@pytest.mark.parametrize(("solver", "steps", "error"), [("euler", 1000, 2e-3), ("heun", 100, 1e-3)])
def test_both_solvers_reproduce_mean_and_covariance_of_gaussian_data(solver: Solver, steps: int, error: float) -> None:
    mean, covariance = pushed_forward(steps, solver)
    assert_close(mean, MEAN, rtol=0, atol=error)
    assert_close(covariance, COVARIANCE, rtol=0, atol=error)
    assert (pushed_forward(steps, solver, scale=0.8)[1] - COVARIANCE).abs().max() > 10 * error


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_each_solver_has_its_order(solver: Solver, order: int) -> None:
    first, second = ((pushed_forward(n, solver)[1] - COVARIANCE).abs().max() for n in (80, 160))
    assert first / second == pytest.approx(2**order, rel=0.15)


def test_shifted_steps_begin_slowly_and_end_at_the_same_law() -> None:
    # eq. 23 with s = 3: the middle of four equal steps, u = 0.5, becomes 1.5 / 2
    times: list[float] = []
    follow(lambda x, t: times.append(float(t)) or x, torch.zeros(1, 2), torch.ones(1), 4, shift=3.0)
    assert times == pytest.approx([1.0, 0.9, 0.75, 0.5])
    mean, covariance = pushed_forward(200, "heun", shift=3.0)
    assert_close(mean, MEAN, rtol=0, atol=1e-3)
    assert_close(covariance, COVARIANCE, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("least", "weight"), [(0.05, 100.0), (0.5, 4.0)])
def test_the_weight_of_an_image_s_error_is_limited(least: float, weight: float) -> None:
    flow = Flow(FlowConfig(prediction="x0", least_weighed=least), (1, 2, 2))
    error = flow.error(torch.ones(3, 1, 2, 2), torch.zeros(3, 1, 2, 2), torch.full((3,), 0.1))
    assert error.item() == pytest.approx(weight)


def test_guided_velocities_move_the_mean_by_their_weight() -> None:
    # Equal spreads: (1 + w) v_c - w v_0 is the exact velocity for N(c + w (c - c_0), spread), as for noise.
    def velocity(x_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return exact(x_t - (1 - t[0]) * (c - MEAN), t) + c - MEAN

    c, nothing = torch.full((1, 2), 0.8).double(), torch.full((1, 2), 0.2).double()
    start = torch.zeros(1, 2).double()
    end = follow(guided(velocity, c, nothing, 1.5), start, torch.ones(1).double(), 100, "heun")
    assert_close(end, torch.full((1, 2), 0.8 + 1.5 * 0.6).double(), rtol=0, atol=1e-3)


def test_one_step_from_noise_is_the_mean_of_the_data() -> None:
    # At t = 1 nothing is known of the image: v = m - eps, so that one Euler step ends at m whatever the noise.
    ends = follow(exact, Rng([1, 2, 3]).normal(2).double(), torch.ones(3).double(), 1)
    assert_close(ends, MEAN.expand(3, 2))


@pytest.mark.parametrize("steps", [1, 8, 10])
def test_euler_equals_monai(steps: int) -> None:
    theirs = RFlowScheduler(1000, use_discrete_timesteps=False)
    theirs.set_timesteps(steps)
    x = start = Rng([1, 2, 3]).normal(1, 2, 2)

    def velocity(x_t: Tensor, t: Tensor) -> Tensor:
        return torch.sin(3 * x_t) - t[0]

    for t, after in zip(theirs.timesteps.tolist(), [*theirs.timesteps.tolist()[1:], 0.0], strict=True):
        x, _ = theirs.step(velocity(x, torch.tensor([t / 1000])), t, x, after)
    assert_close(follow(velocity, start, torch.ones(3), steps), x, rtol=1e-4, atol=1e-5)


def test_the_path_equals_monai() -> None:
    x, eps, t = Rng([1, 2]).normal(1, 4, 4), Rng([3, 4]).normal(1, 4, 4), torch.tensor([0.25, 0.9])
    assert_close(on_path(x, eps, t), RFlowScheduler().add_noise(x, eps, 1000 * t))
    lesson = Flow(FlowConfig(), (1, 4, 4)).lesson(x, Rng([5, 6]))
    assert_close(lesson[0] + lesson[1].reshape(-1, 1, 1, 1) * lesson[2], x)  # x_t + t v is the image


def test_logit_normal_times_have_their_law_and_equal_monais() -> None:
    config = FlowConfig(time_law="logit_normal", time_mean=0.5, time_std=0.8)
    ours = Flow(config, (1, 2, 2)).times(Rng(range(3000)))
    logits = torch.logit(ours)
    assert logits.mean().item() == pytest.approx(0.5, abs=4 * 0.8 / 3000**0.5)
    assert logits.std().item() == pytest.approx(0.8, rel=4 / 6000**0.5)
    torch.manual_seed(0)
    theirs = RFlowScheduler(1, use_discrete_timesteps=False, sample_method="logit-normal", loc=0.5, scale=0.8)
    times = theirs.sample_timesteps(torch.zeros(3000, 1, 2, 2))
    levels = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    assert_close(ours.quantile(levels), times.quantile(levels), rtol=0, atol=0.03)


def test_uniform_times_fill_the_interval() -> None:
    times = Flow(FlowConfig(), (1, 2, 2)).times(Rng(range(2000))).sort().values
    assert (times - torch.linspace(0, 1, 2000)).abs().max() < 1.63 / 2000**0.5  # Kolmogorov-Smirnov at 1 %


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 1001}, {"solver": "midpoint"}])
def test_options_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Flow(FlowConfig(), (1, 2, 2)).draw(lambda x, t: x, Rng([1]), **{"steps": 2, "solver": "euler"} | wrong)


@pytest.mark.parametrize("times", [(0.0,), (1.2,), (0.3, 0.3), ()])
def test_start_times_that_do_not_fit_are_refused(times: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="start_times"):
        FlowConfig(start_times=times)
