"""Perceptual distance of two images in the features of a frozen backbone: as a loss, and as a map."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Config
from pipeline.nn.backbone import Backbone, BackboneConfig, enlarged

TINY = 1e-8


class PerceptualConfig(Config):
    """Features to compare, and their distance."""

    backbone: BackboneConfig = Field(BackboneConfig(depths=(1, 2, 3)), description="the frozen network and its depths")
    kind: Literal["relative_l1", "unit_l2"] = Field(
        "relative_l1", description="relative_l1: |f - f_hat| over the image's mean |f|; unit_l2: LPIPS without weights"
    )


class Perceptual(nn.Module):
    """Perceptual distance of x and x_hat, mean over the backbone's depths.

    `relative_l1` is Tuluptceva et al. 2020 (arXiv:2006.13265), equation 2, which MedIAnomaly's AE-PL trains on:
    ||f(x) - f(x_hat)||_1 / ||f(x)||_1 for each depth f. `unit_l2` is LPIPS (arXiv:1801.03924, equation 1) with equal
    weights: features are scaled to length 1 at each position, and squared differences summed over channels.
    Deviations: features are those of EfficientNet-lite0, not VGG19's, and are not standardised per channel.

    Args:
        config: features and distance.
        spatial_dims: 2 or 3.
    """

    def __init__(self, config: PerceptualConfig, spatial_dims: int = 2) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone, spatial_dims)

    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Return the distance of each pair, float32 [B] >= 0; gradients reach both images."""
        return torch.stack([d.flatten(1).mean(dim=1) for d in self._distances(x, x_hat)]).mean(dim=0)

    def maps(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Return the map of differences, float32 [B, 1, *spatial] >= 0: the mean over depths upsampled to the image."""
        return torch.stack([enlarged(d, x.shape) for d in self._distances(x, x_hat)]).mean(dim=0)

    def _distances(self, x: Tensor, x_hat: Tensor) -> list[Tensor]:
        pairs = zip(self.backbone(x.float()), self.backbone(x_hat.float()), strict=True)
        return [feature_distance(f, f_hat, self.config.kind) for f, f_hat in pairs]


def feature_distance(f: Tensor, f_hat: Tensor, kind: Literal["relative_l1", "unit_l2"]) -> Tensor:
    """Return the distance of two feature maps [B, C, *grid] at each position: [B, 1, *grid]; see `Perceptual`."""
    if kind == "relative_l1":
        spatial = tuple(range(2, f.ndim))
        size = f.abs().sum(dim=1, keepdim=True).mean(dim=spatial, keepdim=True)
        return (f - f_hat).abs().sum(dim=1, keepdim=True) / size.clamp_min(TINY)
    difference = f / (f.norm(dim=1, keepdim=True) + TINY) - f_hat / (f_hat.norm(dim=1, keepdim=True) + TINY)
    return difference.square().sum(dim=1, keepdim=True)


@lru_cache(maxsize=2)
def perceptual(config: PerceptualConfig, spatial_dims: int = 2) -> Perceptual:
    """Return the distance of a configuration, loaded once, for callers without a module of their own.

    Its weights are not saved with the caller: they must have the SHA-256 named by the configuration or the package.
    A random backbone uses seed 0.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Perceptual(config, spatial_dims).eval()
