"""`diff_ae`: diffusion autoencoders, Preechakul et al., arXiv:2111.15640: a semantic code and a stochastic code.

Notation: z = Enc(x_0) the semantic code, x_T the stochastic code, eps(x_t, t, z) a denoiser conditioned on z. Both are
learnt together by L_simple (eq. 6). Reconstruction: x_T by DDIM run backwards from x_0 with z (eq. 8), then DDIM
forward again (eq. 5 and 7): x_T holds everything that z does not, so a scan is reconstructed almost exactly, including
its lesions. This is too good for detection; `stochastic: drawn` therefore uses fresh noise (eq. 4 of arXiv:2006.11239)
instead of the inverted x_t, so that only z, and the remaining signal at time t0, carry information about the scan. To
edit an image, z is moved along a direction and x_T is kept (section 5.1).
Deviations: z is added to the embedding of the time (MONAI's U-Net has no adaptive group norm with scaling), and the
encoder is a plain convolutional one.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.diffusion.denoiser import DenoiserConfig, UnetConfig, build_denoiser
from pipeline.diffusion.noise import NoiseKind
from pipeline.diffusion.process import Process, ProcessConfig
from pipeline.diffusion.sampling import Denoiser, denoise, invert, time_grid
from pipeline.methods.base import Method, MethodConfig, Phase, levels_between, require_size, widths
from pipeline.nn.bottleneck import halving
from pipeline.nn.rng import Rng
from pipeline.types import Batch


class DiffAeConfig(MethodConfig, ProcessConfig):
    """Configuration of `diff_ae`."""

    name: Literal["diff_ae"] = "diff_ae"
    widths: tuple[int, ...] = Field(
        (16, 32, 64, 64), min_length=2, description="channels per level of the encoder, the last repeated"
    )
    latent: int = Field(32, ge=1, description="length of the semantic code z")
    denoiser: DenoiserConfig = Field(UnetConfig(), description="the network: kind unet or dit")
    noise: NoiseKind = Field("gaussian", description="gaussian, simplex or coarse")
    stochastic: Literal["inverted", "drawn"] = Field(
        "inverted", description="x_t0 from inverted DDIM, or from fresh noise"
    )
    start_times: tuple[int, ...] = Field((999,), min_length=1, description="times t0 that a scan is taken to")
    steps: int = Field(20, ge=1, description="DDIM steps in each direction")
    lr: float = Field(5e-4, gt=0, description="learning rate of Adam")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> DiffusionAutoencoder:
        multiple = max(self.denoiser.multiple, 2 ** len(self.widths))
        if multiple % min(self.denoiser.multiple, 2 ** len(self.widths)):
            multiple = self.denoiser.multiple * 2 ** len(self.widths)
        require_size(self.name, image_size, multiple, 2 * multiple)
        return DiffusionAutoencoder(self, image_size, channels, spatial_dims)


class DiffusionAutoencoder(Method):
    """x_0 -> (z, x_T) -> x_hat."""

    config: DiffAeConfig
    channels_last = True

    def __init__(self, config: DiffAeConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        levels = levels_between(image_size, bottom=4, at_least=len(config.widths))
        sizes = widths(config.widths, levels)
        flat = sizes[-1] * (image_size // 2**levels) ** spatial_dims
        self.encoder = nn.Sequential(
            halving(spatial_dims, [channels, *sizes]), nn.Flatten(), nn.Linear(flat, config.latent)
        )
        self.network = build_denoiser(config.denoiser, image_size, channels, spatial_dims, config.latent)
        self.process = Process(config, self.image_shape, limit=1.0)
        self.phases = (Phase("train", lr=config.lr),)

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return L_simple of a denoiser conditioned on z (eq. 6); encoder and denoiser learn together."""
        x_t, t, target = self.process.lesson(batch.images, rng)
        error = F.mse_loss(self.network(x_t, t, self.encoder(batch.images)).float(), target)
        return {"total": error, self.config.prediction: error}

    @property
    def passes(self) -> int:
        """Every step of every start time, twice where the image is inverted first; the encoder is not counted."""
        return len(self.config.start_times) * self.config.steps * (1 if self.config.stochastic == "drawn" else 2)

    def embed(self, x: Tensor) -> Tensor:
        """Return the semantic codes z [B, latent]; no randomness."""
        with self.inference():
            return self.encoder(self.check(x)).float()

    def denoiser(self, z: Tensor) -> Denoiser:
        """Return the noise predictor conditioned on z [B, latent]."""
        return self.process.eps_of(lambda x_t, t: self.network(x_t, t, z))

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return the mean over `start_times` of the decoded (z, x_t0); random only if x_t0 is drawn."""
        with self.inference():
            z = self.encoder(self.check(x))
            return self._decode(x, z, z, rng)

    def edit(self, x: Tensor, direction: Tensor, strength: Tensor, rng: Rng) -> Tensor:
        """Return x decoded from z + strength * direction and its own x_t0 (section 5.1): x_t0 holds what is kept."""
        with self.inference():
            z = self.encoder(self.check(x))
            return self._decode(x, z, z + strength[:, None] * direction, rng)

    def _decode(self, x: Tensor, own: Tensor, z: Tensor, rng: Rng) -> Tensor:
        """Return the images of z [B, latent] and of the x_t0 to which x, whose code is `own`, is taken."""
        encode, decode = self.denoiser(own), self.denoiser(z)
        images = [self._from(encode, decode, x, start, rng.fork(start)) for start in self.config.start_times]
        return torch.stack(images).mean(dim=0).to(x.dtype)

    def _from(self, encode: Denoiser, decode: Denoiser, x: Tensor, start: int, rng: Rng) -> Tensor:
        grid, alpha_bar = time_grid(start, self.config.steps), self.process.alpha_bar.to(x.device)
        if self.config.stochastic == "drawn":
            t = torch.full((len(x),), start, dtype=torch.int64, device=x.device)
            x_t = self.process.noised(x, self.process.noise(rng), t)
            return denoise(decode, alpha_bar, x_t, grid, rng, limit=self.process.limit)
        # not clipped in between, since a clipped step has no inverse
        return denoise(decode, alpha_bar, invert(encode, alpha_bar, x, grid), grid, rng).clamp(-1, 1)
