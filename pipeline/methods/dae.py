"""`dae`: a denoising autoencoder that removes coarse noise, painted lesions, or both, and with them real lesions.

Kascenas et al., "Denoising autoencoders for unsupervised anomaly detection in brain MRI", MIDL 2022: noise on a coarse
grid, enlarged, rolled and confined to the body, is added to normal images; the network returns the clean image, and
the error is taken within the body. No noise is added to a scan to be scored. Deviations: the network is MONAI's
BasicUNet and predicts the correction (x_hat = x + f(x)), so that it starts at the identity; the strength of the noise
varies from image to image if `added_noise.vary_strength` is set.

With `corruption: lesions`, synthetic lesions replace the noise (`pipeline.corruption`); with `both`, noise
is added on top of them. With `network: bottleneck`, there are no skip connections, and everything passes a narrow code.
"""

from __future__ import annotations

from typing import Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline.corruption import PaintingFields
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.masked import within_body
from pipeline.nn.rng import Rng
from pipeline.nn.unet import GROUPS, HALVINGS, UNetFields
from pipeline.types import Batch


class DaeConfig(PaintingFields, UNetFields, MethodConfig):
    """Configuration of `dae`."""

    name: Literal["dae"] = "dae"
    network: Literal["unet", "bottleneck"] = Field(
        "unet", description="a U-Net with skip connections, or a narrow code"
    )
    code: int = Field(16, ge=8, multiple_of=8, description="channels of the bottleneck's code, at image size / 16")
    corruption: Literal["lesions", "noise", "both"] = Field("noise", description="what the method learns to remove")
    residual: bool = Field(True, description="the network predicts the correction instead of the image")
    l1: float = Field(0.0, ge=0, description="weight of the absolute error in the loss")
    l2: float = Field(1.0, ge=0, description="weight of the squared error")
    ssim: float = Field(0.0, ge=0, description="weight of 1 - SSIM (Gaussian window, sigma 1.5 pixels)")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.network == "bottleneck" and self.residual:
            raise ValueError("network: bottleneck predicts the image itself; set residual: false")
        if self.network == "bottleneck" and (self.mirrored or self.patch > 1):
            raise ValueError("patch and mirrored apply to the U-Net only; remove them with network: bottleneck")
        if not self.l1 + self.l2 + self.ssim:
            raise ValueError("one of the weights l1, l2 and ssim must be above 0")
        return self

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> DenoisingAutoencoder:
        require_size(self.name, image_size, self.multiple, 2 * self.multiple)
        return DenoisingAutoencoder(self, image_size, channels, spatial_dims)


class DenoisingAutoencoder(Method):
    """Corrupted normal image in, clean image out."""

    config: DaeConfig
    channels_last = True

    def __init__(self, config: DaeConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        from monai.losses import SSIMLoss

        super().__init__(config, image_size, channels, spatial_dims)
        if config.network == "unet":
            self.network: nn.Module = config.unet(spatial_dims, channels, channels)
        else:
            self.network = _bottleneck(spatial_dims, channels, config)
        self._ssim = SSIMLoss(spatial_dims, data_range=2.0, reduction="none") if config.ssim else None
        self.phases = (Phase("train", lr=config.lr),)

    def forward(self, x: Tensor) -> Tensor:
        """Return the clean image [B, C, *spatial]."""
        clean = self.network(x)
        return x + clean.to(x.dtype) if self.config.residual else clean.to(x.dtype)

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the mean over the images of l1 |x_hat - x| + l2 (x_hat - x)^2 within the body, + ssim (1 - SSIM)."""
        lesson = self.config.lesson(batch, rng)
        x, body = lesson.clean, lesson.body
        difference = self(lesson.painted.images).float() - x
        terms = {}
        if self.config.l2:
            terms["reconstruction"] = within_body(difference.square().mean(dim=1, keepdim=True), body)
        if self.config.l1:
            terms["absolute"] = within_body(difference.abs().mean(dim=1, keepdim=True), body)
        if self._ssim is not None:
            terms["dissimilarity"] = self._dissimilarity(x + difference * body, x)
        weights = {"reconstruction": self.config.l2, "absolute": self.config.l1, "dissimilarity": self.config.ssim}
        return {"total": torch.stack([weights[name] * term for name, term in terms.items()]).sum(), **terms}

    def _dissimilarity(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Return 1 - SSIM; outside the body both images equal x."""
        with torch.autocast(x.device.type, enabled=False):
            return cast(nn.Module, self._ssim)(x_hat, x).mean()

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return x_hat of the image as it is; no randomness."""
        with self.inference():
            return self(self.check(x))


def _bottleneck(spatial_dims: int, channels: int, config: DaeConfig) -> nn.Module:
    """Return MONAI's AutoEncoder: strided convolutions down to a code of few channels, and the mirror image."""
    from monai.networks.nets import AutoEncoder

    levels = config.widths[:HALVINGS]
    return AutoEncoder(
        spatial_dims,
        channels,
        channels,
        channels=(*levels, config.code),
        strides=(*[2] * HALVINGS, 1),
        norm=("group", {"num_groups": GROUPS}),
    )
