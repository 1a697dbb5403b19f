"""Sampling from p(x_0 | y) for y = A x_0 + noise with any unconditional diffusion model; nothing is trained for the
task.

`guided` is diffusion posterior sampling: DPS (Chung et al., arXiv:2209.14687, eq. 7) adds the score of the likelihood,
grad log p(y | x_t), to that of the model. It takes x_0 given x_t to be one point, and needs a step size found by trial.
Here it is a Gaussian about the predicted clean image m(x_t), so that y given x_t has the covariance s^2 I + A C A^T,
and the score is

    g = J^T A^T (s^2 I + A C A^T)^-1 (y - A m),    J = dm / dx_t,

solved by conjugate gradients. C is r^2 I with the r of PiGDM (Song et al., ICLR 2023, eq. 7), which is exact for data
with covariance `spread`^2 I, or, with `covariance: jacobian`, Tweedie's (1 - a) / sqrt(a) J (arXiv:2310.06721, eq. 10),
exact for Gaussian data of any covariance, at one more backward pass per iteration. A step of any sampler then uses eps
- sqrt(1 - a) g in place of eps.

`repaint` is RePaint (Lugmayr et al., arXiv:2201.09865, algorithm 1) for masks: known pixels are noised to the time of
each step and put back, and every step is repeated, with noise put back in between, so that both parts come to agree.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.diffusion.process import Process
from pipeline.diffusion.sampling import Denoiser, power, row_times, stride, time_grid
from pipeline.errors import ConfigError
from pipeline.nn.rng import Rng

SMALLEST = 1e-12  # below this squared length a residual of conjugate gradients is 0
NOISE_FLOOR = 0.01  # s where nothing but rounding is known of y


class Linear(Protocol):
    """A linear map A with its adjoint."""

    def forward(self, x: Tensor) -> Tensor:
        """Return A x."""
        ...

    def adjoint(self, y: Tensor) -> Tensor:
        """Return A^T y."""
        ...


class PosteriorConfig(Config):
    """How a diffusion model that was trained without a task answers one."""

    steps: int = Field(50, ge=1, description="steps from noise to the image")
    eta: float = Field(1.0, ge=0, le=1, description="1 adds noise in every step (DDPM), 0 is DDIM")
    repeats: int = Field(5, ge=1, description="repaint: how often each step is taken")
    spread: float = Field(0.5, gt=0, description="guided: standard deviation of the images that the model learned")
    covariance: Literal["isotropic", "jacobian"] = Field(
        "isotropic",
        description="guided: of the clean image given the noisy one: PiGDM's, or Tweedie's from the network",
    )
    iterations: int = Field(10, ge=1, description="guided: steps of conjugate gradients")
    fresh: float = Field(0.85, ge=0, le=1, description="ddrm: eta, the share of each step's noise that is new")
    trust: float = Field(1.0, ge=0, le=1, description="ddrm: eta_b, the weight of what was measured above its noise")


def guided(
    process: Process, predict: Denoiser, operator: Linear, y: Tensor, std: float, config: PosteriorConfig
) -> Denoiser:
    """Return the noise predictor of p(x_0 | y): eps - sqrt(1 - a) g.

    Args:
        process: the forward process.
        predict: the noise predictor of p(x_0), differentiable.
        operator: A.
        y: the measurement, a row per image.
        std: s, the standard deviation of its noise.
        config: covariance, spread, iterations.
    """

    def conditional(x_t: Tensor, t: Tensor) -> Tensor:
        """Return eps - sqrt(1 - a) g at times t [B]."""
        signal = power(process.alpha_bar.to(x_t.device), t, x_t)
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            eps = predict(x_t, t)
            mean = (x_t - (1 - signal).sqrt() * eps) / signal.sqrt()

        def back(u: Tensor) -> Tensor:
            """Return J^T u."""
            return torch.autograd.grad(mean, x_t, u, retain_graph=True)[0]

        def covariance(v: Tensor) -> Tensor:
            """Return (s^2 I + A C A^T) v."""
            u = operator.adjoint(v)
            if config.covariance == "jacobian":
                u = (1 - signal) / signal.sqrt() * back(u)
            else:
                u = (1 - signal) / (signal + (1 - signal) / config.spread**2) * u
            return std**2 * v + operator.forward(u)

        misfit = y - operator.forward(mean.detach())
        score = back(operator.adjoint(solve(covariance, misfit, config.iterations)))
        return (eps - (1 - signal).sqrt() * score).detach()

    return conditional


def solve(matrix: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """Return x with matrix(x) = b for each row, by conjugate gradients from 0; the matrix is symmetric.

    A row that is solved, or along which the matrix is not positive (a network's Jacobian may be so), stays as it is.
    """
    x, residual = torch.zeros_like(b), b
    direction, length = residual, _dot(residual, residual)
    for _ in range(iterations):
        image = matrix(direction)
        curvature = _dot(direction, image)
        moving = (length > SMALLEST) & (curvature > SMALLEST)
        step = torch.where(moving, length / curvature.clamp_min(SMALLEST), 0.0)
        x, residual = x + step * direction, residual - step * image
        after = _dot(residual, residual)
        direction = residual + torch.where(moving, after / length.clamp_min(SMALLEST), 0.0) * direction
        length = torch.where(moving, after, 0.0)
    return x


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product of each row, shaped to broadcast."""
    return (a * b).flatten(1).sum(dim=1).reshape(-1, *[1] * (a.ndim - 1))


def draw_posterior(
    process: Process,
    predict: Denoiser,
    operator: Linear,
    y: Tensor,
    std: float,
    rng: Rng,
    config: PosteriorConfig | None = None,
) -> Tensor:
    """Return one draw from p(x_0 | y) per row, [B, C, *spatial].

    Args:
        process: the forward process; its noise must be Gaussian.
        predict: the noise predictor of p(x_0), differentiable.
        operator: A.
        y: the measurement, a row per image.
        std: standard deviation of its noise; one below 0.01 is raised to it, since what is exact cannot be guided.
        rng: one stream per row.
        config: steps and the rest; None takes the defaults.

    Raises:
        ConfigError: noise other than Gaussian, whose score the network does not give.
    """
    config = config or PosteriorConfig()
    require_gaussian(process)
    towards = guided(process, predict, operator, y, max(std, NOISE_FLOOR), config)
    start = process.noise(rng.fork("start"))
    return process.walk(towards, start, process.config.times - 1, config.steps, rng.fork("steps"), config.eta)


def repaint(
    process: Process, predict: Denoiser, x: Tensor, missing: Tensor, rng: Rng, config: PosteriorConfig | None = None
) -> Tensor:
    """Return x with its missing pixels drawn to fit the others, which stay as they are.

    Args:
        process: the forward process; its noise must be Gaussian.
        predict: the noise predictor of p(x_0).
        x: [B, C, *spatial]; what it holds in missing pixels has no influence.
        missing: bool [B, 1, *spatial].
        rng: one stream per row.
        config: steps and repeats; None takes the defaults.

    Raises:
        ConfigError: noise other than Gaussian, which cannot be put back in parts.
    """
    config = config or PosteriorConfig()
    require_gaussian(process)
    alpha_bar = process.alpha_bar.to(x.device)
    x_t, rng = process.noise(rng.fork("start")), rng.fork("steps")
    grid = row_times(time_grid(process.config.times - 1, config.steps), len(x)).to(x.device)
    for now, after in pairwise(grid):
        signal, signal_after = power(alpha_bar, now, x), power(alpha_bar, after, x)
        last = bool((after < 0).all())
        for repeat in range(1 if last else config.repeats):
            x_s = stride(x_t, predict(x_t, now), signal, signal_after, None if last else rng, 1.0, process.limit)
            as_noisy = signal_after.sqrt() * x + (1 - signal_after).sqrt() * process.noise(rng)
            x_s = torch.where(missing, x_s, as_noisy)
            if repeat < config.repeats - 1 and not last:
                share = signal / signal_after
                x_t = share.sqrt() * x_s + (1 - share).sqrt() * process.noise(rng)
        x_t = x_s
    return torch.where(missing, x_t, x)


def require_gaussian(process: Process) -> None:
    """Refuse a process whose noise is not Gaussian (ConfigError)."""
    if process.config.noise != "gaussian":
        raise ConfigError(
            f"Posterior sampling needs a diffusion model of Gaussian noise, but this one uses {process.config.noise}. "
            "Train it with -s run.method.noise=gaussian."
        )
