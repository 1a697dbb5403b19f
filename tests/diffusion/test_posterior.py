"""Posterior sampling in closed form: data, noise and measurement are Gaussian, and the denoiser is the exact one."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from pipeline.corruption.degrade_operators import Hidden, InPlane
from pipeline.diffusion.posterior import PosteriorConfig, draw_posterior, repaint, solve
from pipeline.diffusion.process import Process, ProcessConfig
from pipeline.diffusion.sampling import power
from pipeline.errors import ConfigError
from pipeline.nn.rng import Rng, row_key

EDGE, ROWS = 3, 300


@dataclass(frozen=True)
class GaussianData:
    """x_0 ~ N(mean, covariance) on a 3 x 3 grid, with the exact noise predictor."""

    mean: Tensor
    covariance: Tensor

    def predictor(self, process: Process):
        def predict(x_t: Tensor, t: Tensor) -> Tensor:
            a = power(process.alpha_bar, t, x_t).flatten()[0]
            spread = a * self.covariance + (1 - a) * torch.eye(EDGE**2)
            distance = x_t.flatten(1) - a.sqrt() * self.mean
            return ((1 - a).sqrt() * torch.linalg.solve(spread, distance.T).T).reshape(x_t.shape)

        return predict

    def given(self, matrix: Tensor, y: Tensor, std: float) -> tuple[Tensor, Tensor]:
        """Return the mean and covariance of x_0 given y = A x_0 + std n: the Kalman formulas."""
        s = matrix @ self.covariance @ matrix.T + std**2 * torch.eye(len(matrix))
        gain = torch.linalg.solve(s, matrix @ self.covariance).T
        return self.mean + gain @ (y - matrix @ self.mean), self.covariance - gain @ matrix @ self.covariance


def make_data(correlated: bool) -> GaussianData:
    places = torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0))
    near = torch.exp(-0.25 * torch.cdist(places, places).square()) + 0.05 * torch.eye(EDGE**2)
    covariance = 0.5 * near if correlated else 0.36 * torch.eye(EDGE**2)
    return GaussianData(0.3 * torch.linspace(-1, 1, EDGE**2), covariance)


@pytest.fixture
def process() -> Process:
    config = ProcessConfig(noise="gaussian", start_times=(999,), steps=1)
    return Process(config, (1, EDGE, EDGE), limit=None)


def blur() -> InPlane:
    one = torch.tensor([[0.7, 0.3, 0.0], [0.2, 0.6, 0.2], [0.0, 0.3, 0.7]])
    return InPlane(one[:2], one)


def hidden() -> Hidden:
    missing = torch.zeros(1, 1, EDGE, EDGE)
    missing[..., 0, :] = missing[..., 1, 1] = 1
    return Hidden(missing.expand(ROWS, -1, -1, -1))


def as_matrix(operator: InPlane) -> Tensor:
    basis = torch.eye(EDGE**2).reshape(-1, 1, EDGE, EDGE)
    return operator.forward(basis).flatten(1).T


class Fast(Rng):
    """All rows from one generator: these tests have thousands, and do not ask whether rows are independent."""

    def fork(self, name: int | str) -> Fast:
        return Fast([row_key(self.keys[0], name), *self.keys[1:]])

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(len(self), *shape, generator=self._generators[0])


class FixedStart(Process):
    """A process that begins with given noise."""

    start: Tensor

    def noise(self, rng: Rng) -> Tensor:
        return self.start


@pytest.mark.parametrize("correlated", [False, True])
def test_guided_sampling_has_the_exact_mean_and_covariance(process: Process, correlated: bool) -> None:
    """By DDIM an exact sampler is affine, x = M z + b, so that M M^T and b are seen in ten draws, without chance."""
    data, std, matrix = make_data(correlated), 0.2, as_matrix(blur())
    y = matrix @ data.mean + torch.tensor([0.5, -0.4, 0.3, 0.2, -0.6, 0.1])
    fixed = FixedStart(process.config, process.shape, limit=None)
    fixed.start = torch.cat([torch.zeros(1, EDGE**2), torch.eye(EDGE**2)]).reshape(-1, 1, EDGE, EDGE)
    kind, rows = ("jacobian" if correlated else "isotropic"), EDGE**2 + 1
    config = PosteriorConfig(steps=150, eta=0, spread=0.6, covariance=kind, iterations=8)
    measured = y.reshape(1, 1, 2, 3).expand(rows, -1, -1, -1)
    predict = data.predictor(process)
    drawn = draw_posterior(fixed, predict, blur(), measured, std, Rng(range(rows)), config).flatten(1)
    b, m = drawn[0], (drawn[1:] - drawn[0]).T
    mean, covariance = data.given(matrix, y, std)
    torch.testing.assert_close(b, mean, atol=0.01, rtol=0)
    torch.testing.assert_close(m @ m.T, covariance, atol=0.02, rtol=0)
    assert (mean - data.mean).abs().max() > 0.2, "the measurement matters"


def test_repaint_agrees_with_the_conditional_of_a_gaussian_only_if_steps_are_repeated(process: Process) -> None:
    data, operator = make_data(correlated=True), hidden()
    gone = operator.missing[0].flatten() > 0
    x = (data.mean + torch.linspace(0.8, -0.6, EDGE**2)).reshape(1, 1, EDGE, EDGE).expand(ROWS, -1, -1, -1)
    matrix = torch.eye(EDGE**2)[~gone]
    mean, covariance = data.given(matrix, matrix @ x[0].flatten(), 1e-4)
    error = {}
    for repeats in (1, 20):
        config = PosteriorConfig(steps=60, repeats=repeats)
        drawn = repaint(process, data.predictor(process), x, operator.missing > 0, Fast(range(ROWS)), config)
        assert torch.equal(drawn.flatten(1)[:, ~gone], x.flatten(1)[:, ~gone])
        error[repeats] = float((drawn.flatten(1).mean(dim=0) - mean)[gone].abs().max())
    assert error[20] < 0.13 and error[1] > 0.2
    spread = torch.cov(drawn.flatten(1)[:, gone].T)
    torch.testing.assert_close(spread, covariance[gone][:, gone], atol=0.08, rtol=0)


def test_conjugate_gradients_solve_each_row_alone() -> None:
    roots = torch.randn(4, 5, 5, generator=torch.Generator().manual_seed(1))
    matrices = roots @ roots.mT + torch.eye(5)
    b = torch.randn(4, 5, generator=torch.Generator().manual_seed(2))
    b[1] = 0
    x = solve(lambda v: torch.einsum("bij,bj->bi", matrices, v), b, 5)
    torch.testing.assert_close(x, torch.linalg.solve(matrices, b), atol=1e-3, rtol=1e-3)
    alone = solve(lambda v: torch.einsum("bij,bj->bi", matrices[2:3], v), b[2:3], 5)
    torch.testing.assert_close(alone[0], x[2], atol=1e-5, rtol=1e-5)


def test_noise_that_is_not_gaussian_is_refused() -> None:
    other = Process(ProcessConfig(noise="coarse", start_times=(999,), steps=1), (1, EDGE, EDGE), limit=None)
    x = torch.zeros(2, 1, EDGE, EDGE)
    with pytest.raises(ConfigError, match="coarse"):
        repaint(other, lambda x_t, t: x_t, x, x > 0, Rng(range(2)))
