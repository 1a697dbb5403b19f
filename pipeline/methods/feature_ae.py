"""`feature_ae`: an autoencoder of features, not of pixels. The features of a frozen backbone are compressed and
decoded.

Structural feature autoencoder (FAE): Meissen et al. 2022, arXiv:2208.10992. Feature maps of several depths of a frozen
ImageNet network are brought to one grid and concatenated; a small convolutional autoencoder with a narrow bottom learns
them on normal images, with 1 - SSIM as its loss (the first to do so, with squared error: DFR, arXiv:2012.07122). The
anomaly at a position is this same loss, averaged over the channels and upsampled to the image. Deviations: the features
come from EfficientNet-lite0 instead of ResNet-18, by default without the finest depth, which makes it four times faster
on a CPU; each channel is standardised by running statistics, so that the constants of SSIM mean the same for all; the
convolutions are those of `ae` (4x4 instead of 5x5), without dropout.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.backbone import Backbone, BackboneConfig, Odd, aligned, enlarged
from pipeline.nn.bottleneck import doubling, halving
from pipeline.nn.rng import Rng
from pipeline.types import Batch

RANGE = 4.0  # of standardised features, two deviations to each side: the L of SSIM
SIGMA = 1.5
SMALLEST = 8  # smallest image that is upsampled first, in pixels


class FeatureAeConfig(MethodConfig):
    """Configuration of `feature_ae`."""

    name: Literal["feature_ae"] = "feature_ae"
    backbone: BackboneConfig = Field(BackboneConfig(depths=(2, 3)), description="the frozen network and its depths")
    widths: tuple[int, ...] = Field(
        (64, 96, 128, 128), min_length=1, description="channels per level of the autoencoder"
    )
    error: Literal["ssim", "l2"] = Field("ssim", description="how features are compared, in training and in scoring")
    window: Odd = Field(5, ge=3, description="edge of the Gaussian window of `ssim` in feature positions; odd")
    lr: float = Field(2e-3, gt=0, description="learning rate of Adam")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> FeatureAutoencoder:
        first, last = self.backbone.depths[0], self.backbone.depths[-1]
        seen = 2 ** max(
            last, first + len(self.widths)
        )  # of the backbone's input: it must be divisible at every halving
        if self.backbone.input_size is None:
            require_size(self.name, image_size, seen, seen)
        else:
            require_size(self.name, image_size, 1, SMALLEST)
            require_size(f"{self.name} with backbone.input_size", self.backbone.input_size, seen, seen)
        return FeatureAutoencoder(self, image_size, channels, spatial_dims)


class FeatureAutoencoder(Method):
    """x -> features f -> code -> f_hat; the map is the difference of f and f_hat."""

    config: FeatureAeConfig
    channels_last = True

    def __init__(self, config: FeatureAeConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.backbone = Backbone(config.backbone, spatial_dims)
        width = channels * sum(self.backbone.widths)
        norm = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[spatial_dims]
        self.normalise = norm(width, affine=False)
        self.encoder = halving(spatial_dims, [width, *config.widths])
        self.decoder = doubling(spatial_dims, [*reversed(config.widths), width])
        self.phases = (Phase("train", lr=config.lr),)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return standardised features f and their reconstruction f_hat, [B, F, *grid]."""
        with torch.no_grad():
            f = self.normalise(aligned(self.backbone(x)))
        return f, self.decoder(self.encoder(f)).float()

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the mean of the error over images, channels and positions."""
        error = self._error(*self(batch.images)).mean()
        return {"total": error, self.config.error: error}

    def anomaly_map(self, x: Tensor, rng: Rng) -> Tensor:
        """Return the error at each position, float32 [B, 1, *spatial]; no randomness."""
        with self.inference():
            return enlarged(self._error(*self(self.check(x))), x.shape)

    def _error(self, f: Tensor, f_hat: Tensor) -> Tensor:
        if self.config.error == "l2":
            return (f - f_hat).square().mean(dim=1, keepdim=True)
        with torch.autocast(f.device.type, enabled=False):  # variances are small differences of large numbers
            return dissimilarity(f, f_hat, self.config.window).mean(dim=1, keepdim=True)


def dissimilarity(f: Tensor, f_hat: Tensor, window: int) -> Tensor:
    """Return 1 - SSIM at each position and channel, [B, F, *grid]; with replicate padding."""
    from monai.metrics.regression import compute_ssim_and_cs

    dims = f.ndim - 2
    padded = [F.pad(m, (window // 2,) * 2 * dims, mode="replicate") for m in (f_hat, f)]
    return 1 - compute_ssim_and_cs(*padded, dims, [window] * dims, [SIGMA] * dims, data_range=RANGE)[0]
