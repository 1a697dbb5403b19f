"""DDRM in closed form: the exact posterior of independent Gaussian data, and the variance of every step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.corruption.degrade_operators import FewFrequencies, Hidden, InPlane, symmetric
from pipeline.corruption.operator_spectrum import spectrum_of
from pipeline.diffusion.ddrm import _Steps, draw_ddrm
from pipeline.diffusion.posterior import PosteriorConfig
from pipeline.diffusion.process import Process, ProcessConfig
from pipeline.diffusion.sampling import power
from pipeline.errors import ConfigError
from pipeline.nn.rng import Rng

EDGE, SPREAD = 4, 0.6
BLUR = torch.tensor([[0.7, 0.3, 0.0, 0.0], [0.2, 0.6, 0.2, 0.0], [0.0, 0.1, 0.6, 0.3], [0.0, 0.0, 0.3, 0.7]])


class FixedStart(Process):
    """A process that begins with given noise; its later noise, which reaches measured coordinates only, is 0."""

    start: Tensor

    def noise(self, rng: Rng) -> Tensor:
        first, self.start = self.start, torch.zeros_like(self.start)
        return first


def operators() -> dict[str, InPlane | Hidden | FewFrequencies]:
    missing = torch.zeros(1, 1, EDGE, EDGE)
    missing[..., 1:, 2:] = 1
    lines = torch.zeros(1, 1, EDGE, EDGE, dtype=torch.bool)
    lines[..., 0, :] = lines[..., 1, :2] = True
    return {
        "smaller": InPlane(BLUR[::2], BLUR),
        "hidden": Hidden(missing),
        "frequencies": FewFrequencies(symmetric(lines)),
    }


@pytest.mark.parametrize("name", ["smaller", "hidden", "frequencies"])
def test_without_noise_ddrm_draws_from_the_exact_posterior_of_independent_gaussian_data(name: str) -> None:
    operator, mean = operators()[name], 0.3 * torch.linspace(-1, 1, EDGE**2).reshape(1, 1, EDGE, EDGE)
    process = FixedStart(ProcessConfig(noise="gaussian", start_times=(999,), steps=1), (1, EDGE, EDGE), limit=None)
    process.start = torch.cat([torch.zeros(1, EDGE**2), torch.eye(EDGE**2)]).reshape(-1, 1, EDGE, EDGE)

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        a = power(process.alpha_bar, t, x_t)
        return (1 - a).sqrt() * (x_t - a.sqrt() * mean) / (a * SPREAD**2 + 1 - a)

    y = operator.forward(mean + torch.linspace(0.5, -0.7, EDGE**2).sin().reshape(1, 1, EDGE, EDGE))
    rows = EDGE**2 + 1
    spectrum = spectrum_of(operator)
    assert spectrum is not None
    config = PosteriorConfig(steps=400, fresh=0)
    drawn = draw_ddrm(process, predict, spectrum, y.expand(rows, -1, -1, -1), 0.0, Rng(range(rows)), config)
    torch.testing.assert_close(operator.forward(drawn), y.expand(rows, -1, -1, -1), atol=1e-4, rtol=0)
    basis = torch.eye(EDGE**2).reshape(-1, 1, EDGE, EDGE)
    matrix = operator.forward(basis).flatten(1).T.double()
    gain = torch.linalg.pinv(matrix, rtol=1e-5)
    expected = mean.flatten() + gain @ (y.flatten() - matrix @ mean.flatten().double())
    free = SPREAD**2 * (torch.eye(EDGE**2) - gain @ matrix)
    linear = (drawn[1:] - drawn[0]).flatten(1).T
    torch.testing.assert_close(drawn[0].flatten(), expected.float(), atol=0.01, rtol=0)
    torch.testing.assert_close(linear @ linear.T, free.float(), atol=0.02, rtol=0)
    assert free.trace() > 0.3, "something is left to draw"


def test_every_step_has_the_variance_of_its_time() -> None:
    """Proposition 3.1: where m is the true image, x-bar_t - x-bar_0 has the variance sigma_t^2. Columns: n, z_T, z."""
    values, std, sigma = torch.tensor([0.0, 0.1, 0.5, 2.0])[:, None], 0.4, torch.tensor(3.0)
    steps = _Steps(values, std, PosteriorConfig(fresh=0.7))
    n, z_before, z = (torch.eye(3)[[one]].expand(4, -1) for one in range(3))
    seen = torch.where(values > 0, std / values.clamp_min(1e-9) * n, torch.zeros(1, 3))
    x = steps.begin(seen, z_before, sigma)
    torch.testing.assert_close(x.square().sum(dim=1), sigma.square().expand(4))
    for after in (1.5, 0.5, 0.1):
        drawn = steps.step(x, torch.zeros(4, 3), seen, z, sigma, torch.tensor(after))
        torch.testing.assert_close(drawn.square().sum(dim=1), torch.full((4,), after**2))


def test_noise_that_is_not_gaussian_is_refused() -> None:
    other = Process(ProcessConfig(noise="coarse", start_times=(999,), steps=1), (1, EDGE, EDGE), limit=None)
    spectrum = spectrum_of(operators()["smaller"])
    assert spectrum is not None
    with pytest.raises(ConfigError, match="coarse"):
        draw_ddrm(other, lambda x_t, t: x_t, spectrum, torch.zeros(2, 1, 2, EDGE), 0.0, Rng(range(2)))
