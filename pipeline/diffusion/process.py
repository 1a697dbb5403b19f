"""Forward process and sampling that all diffusion methods share: noise, target, several start times at once.

Notation of arXiv:2006.11239: x_0 the clean image (or code), t the time in 0 .. T-1, eps the noise, alpha_bar the
cumulative signal power.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.config import Config
from pipeline.diffusion.noise import NoiseKind, draw_noise
from pipeline.diffusion.prediction import Prediction, target, to_eps
from pipeline.diffusion.sampling import Denoiser, denoise, denoise_until_still, power, time_grid
from pipeline.errors import ConfigError
from pipeline.nn.rng import Rng
from pipeline.nn.sampling_options import require_between

STEPS = 50  # default number for a new image


class ProcessConfig(Config):
    """Configuration of the forward process and of denoising."""

    times: int = Field(1000, ge=2, description="T, the number of diffusion times")
    schedule: Literal["linear_beta", "scaled_linear_beta", "cosine"] = Field("linear_beta", description="MONAI's name")
    prediction: Prediction = Field("epsilon", description="output of the network: epsilon, x0 or v")
    noise: NoiseKind = Field("simplex", description="gaussian, simplex or coarse")
    noise_grid: int = Field(16, ge=2, description="cells of the coarse noise along one edge")
    start_times: tuple[int, ...] = Field((150, 250, 350), min_length=1, description="times t0 that a scan is noised to")
    steps: int = Field(5, ge=1, description="DDIM steps from each t0 to 0")

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        if not all(0 <= t < self.times for t in self.start_times):
            raise ValueError(f"start_times {self.start_times} must lie in 0 .. {self.times - 1}")
        if len(set(self.start_times)) < len(self.start_times):
            raise ValueError(f"start_times {self.start_times} must be distinct")
        if self.steps > min(self.start_times) + 1:
            raise ValueError(
                f"{self.steps} steps are too many from time {min(self.start_times)}; use at most "
                f"{min(self.start_times) + 1}"
            )
        return self


class Process:
    """The forward process and its samplers.

    Args:
        config: times, schedule, noise, prediction.
        shape: shape of one image or code, (C, *spatial).
        limit: predicted clean images are clipped to [-limit, limit]; None for codes, whose range is unbounded.
    """

    def __init__(self, config: ProcessConfig, shape: Sequence[int], limit: float | None) -> None:
        from monai.networks.schedulers import DDPMScheduler

        self.config = config
        self.shape = tuple(shape)
        self.limit = limit
        self.alpha_bar: Tensor = DDPMScheduler(config.times, config.schedule).alphas_cumprod

    def noise(self, rng: Rng) -> Tensor:
        """Draw eps: [B, C, *spatial]."""
        return draw_noise(self.config.noise, rng, self.shape, self.config.noise_grid)

    def noised(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return x_t = sqrt(a) x_0 + sqrt(1 - a) eps (eq. 4) at times t [B]."""
        signal = power(self.alpha_bar.to(x_0.device), t, x_0)
        return signal.sqrt() * x_0 + (1 - signal).sqrt() * eps

    def lesson(self, x_0: Tensor, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
        """Draw a time and a noise per row; return x_t, t and the target of the network (eq. 14)."""
        t = rng.integers(0, self.config.times)
        eps = self.noise(rng)
        signal = power(self.alpha_bar.to(x_0.device), t, x_0)
        return self.noised(x_0, eps, t), t, target(self.config.prediction, x_0, eps, signal)

    def eps_of(self, network: Denoiser) -> Denoiser:
        """Return the noise predictor of a network whose output is `config.prediction`; float32."""

        def predict(x_t: Tensor, t: Tensor) -> Tensor:
            signal = power(self.alpha_bar.to(x_t.device), t, x_t)
            return to_eps(self.config.prediction, network(x_t, t).float(), x_t, signal)

        return predict

    def walk(self, predict: Denoiser, x_t: Tensor, start: int, steps: int, rng: Rng, eta: float = 0.0) -> Tensor:
        """Denoise x_t from time `start` to the clean image in `steps` steps."""
        alpha_bar = self.alpha_bar.to(x_t.device)
        return denoise(predict, alpha_bar, x_t, time_grid(start, steps), rng, eta, self.limit)

    def draw(self, network: Denoiser, rng: Rng, steps: int | None, eta: float) -> Tensor:
        """Return new images or codes [B, C, *spatial], one per row of `rng`, from noise at the last time.

        Args:
            network: predicts `config.prediction`.
            rng: one stream per row.
            steps: 1 to T; None takes 50, or T if that is fewer.
            eta: 0 is DDIM, 1 the ancestral sampler of DDPM.

        Raises:
            ConfigError: an option out of range, or eta > 0 for a noise other than Gaussian, whose steps do not compose.
        """
        times = self.config.times
        steps = min(STEPS, times) if steps is None else steps
        require_between("steps", steps, 1, times)
        require_between("eta", eta, 0, 1)
        if eta > 0 and self.config.noise != "gaussian":
            raise ConfigError(
                f"Ancestral sampling needs Gaussian noise, but this model uses {self.config.noise}. Set eta=0."
            )
        return self.walk(self.eps_of(network), self.noise(rng), times - 1, steps, rng, eta)

    def from_starts(self, predict: Denoiser, x_0: Tensor, rng: Rng, still: float | None = None) -> Tensor:
        """Noise each image to every start time and denoise all of them in one batch: [T0, B, C, *spatial].

        Args:
            predict: the noise predictor, for T0 x B rows, start time by start time.
            x_0: [B, C, *spatial].
            rng: each start time draws its own noise from a fork of the row's stream.
            still: rows stop once they change by less (`denoise_until_still`); None takes all steps.
        """
        starts = self.config.start_times
        eps = torch.cat([self.noise(rng.fork(start)) for start in starts])
        many = x_0.repeat(len(starts), *[1] * (x_0.ndim - 1))
        times = self.start_grid(len(x_0)).to(x_0.device)
        x_t, alpha_bar = self.noised(many, eps, times[0]), self.alpha_bar.to(x_0.device)
        if still is None:
            x_hat = denoise(predict, alpha_bar, x_t, times, rng, 0.0, self.limit)
        else:
            x_hat, _ = denoise_until_still(predict, alpha_bar, x_t, times, still, self.limit)
        return x_hat.reshape(len(starts), *x_0.shape)

    def start_grid(self, rows: int) -> Tensor:
        """Return the times of every start: int64 [steps, T0 * rows]."""
        grids = [time_grid(start, self.config.steps) for start in self.config.start_times]
        return torch.tensor(grids, dtype=torch.int64).T.repeat_interleave(rows, dim=1)
