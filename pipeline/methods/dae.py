"""`dae`: a denoising U-Net that removes coarse noise, and lesions with it.

Kascenas et al., "Denoising autoencoders for unsupervised anomaly detection in brain MRI", MIDL 2022: noise on a coarse
grid, enlarged, rolled and confined to the body, is added to normal images; the network gives the clean image back, and
the error is taken within the body. A scan to be read gets no noise. Deviations: the network is MONAI's BasicUNet and
predicts the correction (x_hat = x + f(x)), so that it starts at the identity; the scale of the noise varies from image
to image up to `noise_std` where `vary_strength` is set. The default strength is the paper's: 0.2 on the knots, for a
range of 0 to 1, is 0.4 on [-1, 1], of which interpolation leaves 2/3.
"""

from __future__ import annotations

from typing import Literal

from monai.networks.nets import BasicUNet
from pydantic import Field, field_validator
from torch import Tensor

from pipeline.diffusion.noise import NoiseKind, draw_noise
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.rng import Rng
from pipeline.types import Batch


class DaeConfig(MethodConfig):
    """Configuration of `dae`."""

    name: Literal["dae"] = "dae"
    widths: tuple[int, int, int, int, int, int] = Field(
        (16, 16, 32, 64, 128, 16), description="features of the five levels and of the last upsampling"
    )
    noise: NoiseKind = Field("coarse", description="coarse, simplex or gaussian")
    noise_std: float = Field(0.25, gt=0, description="standard deviation of the noise, in units of the image [-1, 1]")
    noise_grid: int = Field(8, ge=2, description="cells of the coarse noise along one edge; 8 pixels a cell")
    vary_strength: bool = Field(False, description="scale each image's noise by a uniform factor of 0 to 1")
    residual: bool = Field(True, description="the network predicts the correction instead of the image")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")

    @field_validator("widths")
    @classmethod
    def _groups(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if any(width % 8 for width in widths):
            raise ValueError(f"widths {widths} must be multiples of 8 (group norm)")
        return widths

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> DenoisingAutoencoder:
        require_size(self.name, image_size, 16, 32)
        return DenoisingAutoencoder(self, image_size, channels, spatial_dims)


class DenoisingAutoencoder(Method):
    """Corrupted normal image in, clean image out."""

    channels_last = True

    def __init__(self, config: DaeConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.network = BasicUNet(
            spatial_dims,
            channels,
            channels,
            config.widths,
            norm=("group", {"num_groups": 8}),
            act=("leakyrelu", {"negative_slope": 0.1, "inplace": True}),
        )
        self.phases = (Phase("train", lr=config.lr),)

    def forward(self, x: Tensor) -> Tensor:
        """Return the clean image [B, C, *spatial]."""
        clean = self.network(x)
        return x + clean.to(x.dtype) if self.config.residual else clean.to(x.dtype)

    def corrupt(self, x: Tensor, body: Tensor, rng: Rng) -> Tensor:
        """Return x plus noise within the body."""
        noise = draw_noise(self.config.noise, rng, x.shape[1:], self.config.noise_grid)
        if self.config.vary_strength:
            noise = noise * rng.uniform(*[1] * (x.ndim - 1))
        return x + self.config.noise_std * noise * body

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Mean over the images of the mean squared error within the body."""
        x, body = batch.images, batch.body
        x_hat = self(self.corrupt(x, body, rng))
        error = within_body((x_hat - x).square().mean(dim=1, keepdim=True), body)
        return {"total": error, "reconstruction": error}

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return x_hat of the image as it is; no randomness."""
        with self.inference():
            return self(self.check(x))


def within_body(error: Tensor, body: Tensor) -> Tensor:
    """Return the mean over images of the mean over each body; an image without a body counts 0."""
    inside = body.flatten(1).to(error.dtype)
    return ((error.flatten(1) * inside).sum(dim=1) / inside.sum(dim=1).clamp_min(1)).mean()
