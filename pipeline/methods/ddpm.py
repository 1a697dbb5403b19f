"""`ddpm`: a denoising diffusion model, arXiv:2006.11239; an image is noised to several times and walked back by DDIM.

Notation of the paper: x_0 the image, t the time in 0 .. T-1, eps the noise, alpha_bar the cumulative signal power.
Training minimises L_simple (eq. 14). Reconstruction: q(x_t0 | x_0) of eq. 4 for each start time t0, then DDIM
(arXiv:2010.02502, eq. 12 with sigma = 0) to x_0, and the mean over the start times. Coarse and simplex noise
(AnoDDPM, Wyatt et al. 2022) erase lesions that Gaussian noise of the same strength leaves standing.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDPMScheduler
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.diffusion.noise import NoiseKind, draw_noise
from pipeline.diffusion.sampling import denoise, time_grid
from pipeline.errors import ConfigError
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.rng import Rng
from pipeline.types import Batch


class DdpmConfig(MethodConfig):
    """Configuration of `ddpm`."""

    name: Literal["ddpm"] = "ddpm"
    widths: tuple[int, ...] = Field((32, 64, 64), min_length=1, description="channels per level, multiples of 8")
    attention: tuple[bool, ...] = Field((False, False, True), description="self-attention per level")
    residual_blocks: int = Field(1, ge=1, description="residual blocks per level")
    times: int = Field(1000, ge=2, description="T, the number of diffusion times")
    schedule: Literal["linear_beta", "scaled_linear_beta", "cosine"] = Field("linear_beta", description="MONAI's name")
    noise: NoiseKind = Field("simplex", description="gaussian, simplex or coarse")
    noise_grid: int = Field(16, ge=2, description="cells of the coarse noise along one edge")
    start_times: tuple[int, ...] = Field((150, 250, 350), min_length=1, description="times t0 that a scan is noised to")
    steps: int = Field(10, ge=1, description="DDIM steps from each t0 to 0")
    lr: float = Field(2e-4, gt=0, description="learning rate of Adam")

    @model_validator(mode="after")
    def _fits(self) -> DdpmConfig:
        if len(self.attention) != len(self.widths):
            raise ValueError(f"attention has {len(self.attention)} levels and widths {len(self.widths)}; give as many")
        if any(width % 8 for width in self.widths):
            raise ValueError(f"widths {self.widths} must be multiples of 8 (group norm)")
        if not all(0 <= t < self.times for t in self.start_times):
            raise ValueError(f"start_times {self.start_times} must lie in 0 .. {self.times - 1}")
        return self

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> DiffusionModel:
        multiple = 2 ** (len(self.widths) - 1)
        require_size(self.name, image_size, multiple, 4 * multiple)
        return DiffusionModel(self, image_size, channels, spatial_dims)


class DiffusionModel(Method):
    """Predicts the noise in x_t; reconstructs and samples by walking it back."""

    def __init__(self, config: DdpmConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.network = DiffusionModelUNet(
            spatial_dims, channels, channels, config.residual_blocks, config.widths, config.attention,
            norm_num_groups=8, num_head_channels=8,
        )  # fmt: skip
        self.schedule = DDPMScheduler(config.times, config.schedule)
        self.phases = (Phase("train", lr=config.lr),)

    def noise(self, rng: Rng) -> Tensor:
        """Draw this model's noise: [B, C, *spatial]."""
        return draw_noise(self.config.noise, rng, self.image_shape, self.config.noise_grid)

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """L_simple, eq. 14: the mean squared error of the predicted noise at a uniform time."""
        t = rng.integers(0, self.config.times)
        eps = self.noise(rng)
        x_t = self.schedule.add_noise(batch.images, eps, t)
        error = F.mse_loss(self.network(x_t, t).float(), eps)
        return {"total": error, "noise": error}

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return the mean over `start_times` of the image noised to t0 and walked back; random by the row's key."""
        with self.inference():
            self.check(x)
            return torch.stack([self._from(x, t0, rng.fork(t0)) for t0 in self.config.start_times]).mean(dim=0)

    def _from(self, x: Tensor, t0: int, rng: Rng) -> Tensor:
        t = torch.full((len(x),), t0, dtype=torch.int64, device=x.device)
        x_t = self.schedule.add_noise(x, self.noise(rng), t)
        return self._walk(x_t, t0, self.config.steps, rng, eta=0.0).to(x.dtype)

    def sample(self, rng: Rng, steps: int | None = None, eta: float = 1.0) -> Tensor:
        """Return new images [B, C, *spatial], one a row of `rng`; `steps` None takes all T, eta 0 is DDIM.

        Raises:
            ConfigError: eta > 0 for a noise other than Gaussian, whose steps do not compose.
        """
        if eta > 0 and self.config.noise != "gaussian":
            raise ConfigError(
                f"Ancestral sampling needs Gaussian noise, and this model has {self.config.noise}: use eta=0."
            )
        with self.inference():
            return self._walk(self.noise(rng), self.config.times - 1, steps or self.config.times, rng, eta)

    def _walk(self, x_t: Tensor, start: int, steps: int, rng: Rng, eta: float) -> Tensor:
        alpha_bar = self.schedule.alphas_cumprod.to(x_t.device)
        return denoise(self.network, alpha_bar, x_t, time_grid(start, steps), rng, eta, limit=1.0)
