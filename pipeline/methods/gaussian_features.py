"""`gaussian_features`: PaDiM, arXiv:2011.08785. A Gaussian of normal features per position; far from it is unusual.

Features are those of a frozen backbone, as in `knn_features`, projected to fewer dimensions; the anomaly of a position
is the Mahalanobis distance to its Gaussian (equation 2). Nothing is trained: moments are summed in one pass.
Deviations: a random orthonormal projection instead of a random choice of channels; mean and covariance are shrunk
towards those of all positions, instead of adding a constant (`pipeline.nn.local_gaussian`), so that few images are
enough; patches entirely outside the body are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.methods.frozen_features import FrozenFeatures, FrozenFeaturesConfig, Places
from pipeline.nn.local_gaussian import Moments, mahalanobis, whitening


class GaussianFeaturesConfig(FrozenFeaturesConfig):
    """Configuration of `gaussian_features`."""

    name: Literal["gaussian_features"] = "gaussian_features"
    projection: int = Field(64, ge=1, description="features per position, after a random projection")
    positions: bool = Field(
        True, description="a Gaussian per position; false: one for all, where scans are not aligned"
    )
    prior_images: float = Field(
        100.0, gt=0, description="images' worth of the shared covariance that each position's own is shrunk towards"
    )

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> GaussianFeatures:
        self.require_size(image_size)
        return GaussianFeatures(self, image_size, channels, spatial_dims)


class GaussianFeatures(FrozenFeatures):
    """Mahalanobis distance of features to the Gaussian of their position."""

    config: GaussianFeaturesConfig
    mean: Tensor
    white: Tensor

    def __init__(self, config: GaussianFeaturesConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims, config.projection)
        self.projection = torch.linalg.qr(self.projection)[0]
        size = self.projection.shape[1]
        places = config.backbone.grid(image_size) ** spatial_dims if config.positions else 1
        self.register_buffer("mean", torch.zeros(places, size))
        self.register_buffer("white", torch.zeros(places, size, size))

    def vectors(self, features: Tensor) -> Tensor:
        """Return projected features float32 [B, L, F] of the L positions of a grid."""
        return features.flatten(2).transpose(1, 2) @ self.projection

    def fit(self, places: Iterator[Places]) -> int:
        """Fit means and covariances; return the number of vectors."""
        moments = Moments()
        for features, inside in places:
            moments.add(self.vectors(features).cpu(), inside.flatten(1))
        count = int(moments.count.sum())
        if count:
            mean, covariance = self._estimates(moments)
            self.mean.copy_(mean)
            self.white.copy_(whitening(covariance, moments.shared()[1]))
        return count

    def _estimates(self, moments: Moments) -> tuple[Tensor, Tensor]:
        """Return means [L, F] and covariances [L, F, F]; L = 1 if all positions share one Gaussian."""
        if self.config.positions:
            return moments.shrunk(self.config.prior_images * self.config.passes)
        mean, covariance = moments.shared()
        return mean[None], covariance[None]

    def distance(self, features: Tensor) -> Tensor:
        """Return the Mahalanobis distance of each position, [B, *grid]."""
        distance = mahalanobis(self.vectors(features), self.mean, self.white)
        return distance.reshape(len(features), *features.shape[2:])
