"""`gaussian_features`: PaDiM, arXiv:2011.08785. A Gaussian of normal features per position; far from it is unusual.

Features are those of a frozen backbone, as in `knn_features`, projected to fewer dimensions; the anomaly of a position
is the Mahalanobis distance to its Gaussian (equation 2). Nothing is trained: moments are summed in one pass.
Deviations: a random orthonormal projection instead of a random choice of channels; mean and covariance are shrunk
towards those of all positions, instead of adding a constant (`pipeline.nn.local_gaussian`), so that few images are
enough; patches entirely outside the body are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.corruption.intensity_jitter import IntensityConfig
from pipeline.corruption.varied_normals import varied
from pipeline.errors import ArtefactError, EmptySelection
from pipeline.methods.base import Method, MethodConfig, require_size
from pipeline.nn.backbone import Backbone, BackboneConfig, Odd, enlarged, local_features, touching
from pipeline.nn.local_gaussian import Moments, mahalanobis, whitening
from pipeline.nn.rng import Rng
from pipeline.types import Batch

SMALLEST = 8


class GaussianFeaturesConfig(MethodConfig):
    """Configuration of `gaussian_features`."""

    name: Literal["gaussian_features"] = "gaussian_features"
    backbone: BackboneConfig = Field(BackboneConfig(depths=(3, 4)), description="the frozen network and its depths")
    patch: Odd = Field(3, ge=1, description="edge of the neighbourhood that features are averaged over; odd")
    projection: int = Field(64, ge=1, description="features per position, after a random projection")
    positions: bool = Field(
        True, description="a Gaussian per position; false: one for all, where scans are not aligned"
    )
    prior_images: float = Field(
        100.0, gt=0, description="images' worth of the shared covariance that each position's own is shrunk towards"
    )
    passes: int = Field(1, ge=1, description="times that the images are seen; the first as they are, then jittered")
    intensity: IntensityConfig = Field(IntensityConfig(), description="jitter of the passes after the first")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> GaussianFeatures:
        require_size(self.name, image_size, self.backbone.multiple, max(SMALLEST, self.backbone.multiple))
        return GaussianFeatures(self, image_size, channels, spatial_dims)


class GaussianFeatures(Method):
    """Mahalanobis distance of features to the Gaussian of their position."""

    config: GaussianFeaturesConfig
    projection: Tensor
    seed: Tensor
    mean: Tensor
    white: Tensor
    fitted: Tensor

    def __init__(self, config: GaussianFeaturesConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.backbone = Backbone(config.backbone, spatial_dims)
        width = channels * sum(self.backbone.widths)
        size = min(config.projection, width)
        places = config.backbone.grid(image_size) ** spatial_dims if config.positions else 1
        # Random parts are drawn once, with the weights, and saved with them.
        self.register_buffer("projection", torch.linalg.qr(torch.randn(width, size))[0])
        self.register_buffer("seed", torch.randint(2**31, ()))
        self.register_buffer("mean", torch.zeros(places, size))
        self.register_buffer("white", torch.zeros(places, size, size))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.int64))

    def vectors(self, x: Tensor) -> tuple[Tensor, torch.Size]:
        """Return projected features float32 [B, L, F] of the positions of a grid, and the grid."""
        features = local_features(self.backbone, x, self.config.patch)
        return features.flatten(2).transpose(1, 2) @ self.projection, features.shape[2:]

    def finish(self, batches: Iterable[Batch]) -> None:
        """Fit means and covariances on the training images; the jittered passes are random by the method's seed.

        Raises:
            EmptySelection: no image has a body.
        """
        moments = Moments()
        with self.inference():
            for batch in varied(batches, self.config.intensity, self.config.passes, int(self.seed)):
                vectors, grid = self.vectors(self.check(batch.images).to(self.mean.device))
                moments.add(vectors.cpu(), touching(batch.body, grid).flatten(1).cpu())
            if not len(moments.count) or not moments.count.sum():
                raise EmptySelection("No training image has a body, so there are no features. Check the body mask.")
            mean, covariance = self._estimates(moments)
            self.mean.copy_(mean)
            self.white.copy_(whitening(covariance, moments.shared()[1]))
            self.fitted.fill_(1)

    def _estimates(self, moments: Moments) -> tuple[Tensor, Tensor]:
        """Return means [L, F] and covariances [L, F, F]; L = 1 if all positions share one Gaussian."""
        if self.config.positions:
            return moments.shrunk(self.config.prior_images * self.config.passes)
        mean, covariance = moments.shared()
        return mean[None], covariance[None]

    def anomaly_map(self, x: Tensor, rng: Rng) -> Tensor:
        """Return the Mahalanobis distance at each position, float32 [B, 1, *spatial]; no randomness.

        Raises:
            ArtefactError: there are no Gaussians: `finish` has not been called.
        """
        if not int(self.fitted):
            raise ArtefactError(
                f"{self.config.name} has no Gaussians, which are fitted at the end of training. Train it first."
            )
        with self.inference(), torch.autocast(x.device.type, enabled=False):
            vectors, grid = self.vectors(self.check(x).float())
            distance = mahalanobis(vectors, self.mean, self.white)
            return enlarged(distance.reshape(len(x), 1, *grid), x.shape)
