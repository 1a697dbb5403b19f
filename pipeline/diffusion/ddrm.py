"""DDRM: restoration by any unconditional diffusion model, in the basis of the degradation's singular vectors.

Kawar et al., arXiv:2201.11793. Notation: y = A x_0 + s_y n with A = U S V^T; x-bar = V^T x, y-bar = S^+ U^T y, and s
are the singular values. Images are noised as x_0 + sigma_t n, so that sigma = sqrt((1 - a) / a) for a process of signal
power a. With the clean image m that the network predicts from x_(t+1), a coordinate of x-bar_t is drawn from (eq. 7, 8)

    N(m + sqrt(1 - eta^2) sigma_t (x-bar_(t+1) - m) / sigma_(t+1), eta^2 sigma_t^2)          not measured: s = 0
    N(m + sqrt(1 - eta^2) sigma_t (y-bar - m) s / s_y,             eta^2 sigma_t^2)          sigma_t < s_y / s
    N((1 - eta_b) m + eta_b y-bar,                                 sigma_t^2 - eta_b^2 s_y^2 / s^2)   else

No gradient is taken, so that a step costs one forward pass. What was measured without noise is kept to rounding. For
Gaussian data whose coordinates in V are independent, and without noise, eta = 0 is exact. Otherwise it is not, unlike
`guided` posterior sampling: no step takes back what an earlier one decided without the measurement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pipeline.diffusion.posterior import PosteriorConfig, require_gaussian
from pipeline.diffusion.process import Process
from pipeline.diffusion.sampling import Denoiser, power, row_times, split, time_grid
from pipeline.nn.rng import Rng

SMALLEST = 1e-4  # singular values below this share of 1 count as 0: dividing by them would only raise noise


@dataclass(frozen=True, slots=True)
class Spectrum:
    """A degradation in the basis of its singular vectors.

    Attributes:
        values: s of each coordinate, 0 where nothing is measured; it broadcasts against `rotate(x)`.
        rotate: x [B, C, *spatial] -> V^T x, which may be complex.
        back: V x-bar.
        read: y -> S^+ U^T y, on the grid of x-bar, 0 where nothing is measured.
    """

    values: Tensor
    rotate: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]
    read: Callable[[Tensor], Tensor]


def draw_ddrm(
    process: Process,
    predict: Denoiser,
    spectrum: Spectrum,
    y: Tensor,
    std: float,
    rng: Rng,
    config: PosteriorConfig | None = None,
) -> Tensor:
    """Return one draw per row of images that would be measured as y, [B, C, *spatial].

    Args:
        process: the forward process; its noise must be Gaussian.
        predict: the noise predictor of p(x_0).
        spectrum: the degradation.
        y: the measurement, a row per image.
        std: s_y, the standard deviation of its noise.
        rng: one stream per row.
        config: steps, and as `fresh` and `trust` eta and eta_b; None takes the defaults.

    Raises:
        ConfigError: noise other than Gaussian.
    """
    config = config or PosteriorConfig()
    require_gaussian(process)
    alpha_bar = process.alpha_bar.to(y.device)
    seen = spectrum.read(y)
    times = row_times(time_grid(process.config.times - 1, config.steps), len(y)).to(y.device)
    steps, noise = _Steps(spectrum.values.to(y.device), std, config), rng.fork("steps")
    z = spectrum.rotate(process.noise(rng.fork("start")))
    sigma = _spread(power(alpha_bar, times[0], z.real))
    x = steps.begin(seen, z, sigma)
    for now, after in pairwise(times):
        signal = power(alpha_bar, now, z.real)
        x_t = signal.sqrt() * spectrum.back(x)
        clean, _ = split(x_t, predict(x_t, now), signal, process.limit)
        mean, sigma_after = spectrum.rotate(clean), _spread(power(alpha_bar, after, z.real))
        x = steps.step(x, mean, seen, spectrum.rotate(process.noise(noise)), _spread(signal), sigma_after)
    return spectrum.back(x)


def _spread(signal: Tensor) -> Tensor:
    return ((1 - signal) / signal).clamp_min(0).sqrt()


class _Steps:
    """The drawing of x-bar_t: see the module."""

    def __init__(self, values: Tensor, std: float, config: PosteriorConfig) -> None:
        self.config = config
        self.measured = values > SMALLEST
        self.spread = std / values.clamp_min(SMALLEST)  # s_y / s

    def begin(self, seen: Tensor, z: Tensor, sigma: Tensor) -> Tensor:
        """Return x-bar_T."""
        usable = self.measured & (self.spread <= sigma)
        return torch.where(usable, seen + (sigma**2 - self.spread**2).clamp_min(0).sqrt() * z, sigma * z)

    def step(self, x: Tensor, mean: Tensor, seen: Tensor, z: Tensor, sigma: Tensor, sigma_after: Tensor) -> Tensor:
        """Return x-bar_t from x-bar_(t+1)."""
        fresh, trust = self.config.fresh, self.config.trust
        old = (1 - fresh**2) ** 0.5 * sigma_after
        unseen = mean + old * (x - mean) / sigma + fresh * sigma_after * z
        vague = mean + old * (seen - mean) / self.spread.clamp_min(1e-12) + fresh * sigma_after * z
        rest = (sigma_after**2 - (trust * self.spread) ** 2).clamp_min(0).sqrt()
        sharp = (1 - trust) * mean + trust * seen + rest * z
        return torch.where(self.measured, torch.where(sigma_after < self.spread, vague, sharp), unseen)
