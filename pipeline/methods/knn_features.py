"""`knn_features`: PatchCore, arXiv:2106.08265. Memory of normal patches; a patch far from all of them is unusual.

Patch features are those of a frozen backbone at middle depths, averaged over a neighbourhood (equations 1 to 3), then
resampled to the finest grid and concatenated. A coreset of the training images' patches is the memory (algorithm 1).
The anomaly of a position is the distance to its nearest entry (equation 6), with `reweight` times the weight of
equation 7.
Nothing is trained. Deviations: patches entirely outside the body are left out; the coreset is drawn from a
uniform sample of `candidates` patches, so that memory does not grow with the data; features are not pooled to 1024; the
weight of equation 7 is applied at every position, not only at the highest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from pipeline.corruption.intensity_jitter import IntensityConfig
from pipeline.corruption.varied_normals import varied
from pipeline.errors import ArtefactError, EmptySelection
from pipeline.methods.base import Method, MethodConfig, require_size
from pipeline.nn.backbone import Backbone, BackboneConfig, Odd, enlarged, local_features, touching
from pipeline.nn.feature_memory import Reservoir, k_centres, nearest
from pipeline.nn.rng import Rng
from pipeline.types import Batch

SMALLEST = 8


class KnnFeaturesConfig(MethodConfig):
    """Configuration of `knn_features`."""

    name: Literal["knn_features"] = "knn_features"
    backbone: BackboneConfig = Field(BackboneConfig(depths=(3, 4)), description="the frozen network and its depths")
    patch: Odd = Field(3, ge=1, description="edge of the neighbourhood that features are averaged over; odd")
    entries: int = Field(2048, ge=1, description="size of the memory")
    candidates: int = Field(40_000, ge=1, description="uniform sample of patches from which the memory is chosen")
    projection: int = Field(128, ge=1, description="width of the random projection used for choosing")
    neighbours: int = Field(1, ge=1, description="nearest entries whose distances are averaged")
    passes: int = Field(1, ge=1, description="times that the images are seen; the first as they are, then jittered")
    intensity: IntensityConfig = Field(IntensityConfig(), description="jitter of the passes after the first")
    reweight: int = Field(0, ge=0, description="b of equation 7, 2 or more; 0 leaves the weight out")

    @field_validator("reweight")
    @classmethod
    def _several(cls, value: int) -> int:
        if value == 1:
            raise ValueError("must be 0 or at least 2: with one entry the weight is 0 everywhere")
        return value

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> KnnFeatures:
        require_size(self.name, image_size, self.backbone.multiple, max(SMALLEST, self.backbone.multiple))
        return KnnFeatures(self, image_size, channels, spatial_dims)


class KnnFeatures(Method):
    """Distance to the nearest patch of the memory."""

    config: KnnFeaturesConfig
    bank: Tensor
    projection: Tensor
    used: Tensor
    seed: Tensor

    def __init__(self, config: KnnFeaturesConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.backbone = Backbone(config.backbone, spatial_dims)
        width = channels * sum(self.backbone.widths)
        # Random parts are drawn once, with the weights, and saved with them.
        self.register_buffer("projection", torch.randn(width, min(config.projection, width)))
        self.register_buffer("seed", torch.randint(2**31, ()))
        self.register_buffer("bank", torch.zeros(config.entries, width))
        self.register_buffer("used", torch.zeros((), dtype=torch.int64))

    def patches(self, x: Tensor) -> Tensor:
        """Return locally aware patch features, float32 [B, F, *grid] (equations 1 to 3)."""
        return local_features(self.backbone, x, self.config.patch)

    def finish(self, batches: Iterable[Batch]) -> None:
        """Fill the memory from the training images.

        Random by the seed that the method was built with; the result depends on the order of the images.

        Raises:
            EmptySelection: no image has a body.
        """
        sample = Reservoir(self.config.candidates, int(self.seed))
        with self.inference():
            for batch in varied(batches, self.config.intensity, self.config.passes, int(self.seed)):
                sample.add(self._inside(batch))
            candidates = sample.vectors().to(self.bank.device)
            if len(candidates) == 0:
                raise EmptySelection("No training image has a body, so the memory would be empty. Check the body mask.")
            chosen = k_centres(candidates @ self.projection, self.config.entries)
            self.bank.zero_()
            self.bank[: len(chosen)] = candidates[chosen]
            self.used.fill_(len(chosen))

    def _inside(self, batch: Batch) -> Tensor:
        """Return the patch features [N, F] that touch the body, on the CPU."""
        features = self.patches(self.check(batch.images).to(self.bank.device))
        return features.movedim(1, -1).cpu()[touching(batch.body, features.shape[2:])]

    def anomaly_map(self, x: Tensor, rng: Rng) -> Tensor:
        """Return the distance to the memory at each position, float32 [B, 1, *spatial]; no randomness.

        Raises:
            ArtefactError: the memory is empty: `finish` has not been called.
        """
        if not int(self.used):
            raise ArtefactError(
                f"{self.config.name} has an empty memory, which is filled at the end of training. Train it first."
            )
        with self.inference(), torch.autocast(x.device.type, enabled=False):
            features = self.patches(self.check(x).float())
            vectors = features.movedim(1, -1)
            scores = self._distances(vectors.flatten(0, -2)).reshape(len(x), 1, *features.shape[2:])
            return enlarged(scores, x.shape)

    def _distances(self, vectors: Tensor) -> Tensor:
        bank = self.bank[: int(self.used)]
        distance, indices = nearest(vectors, bank, self.config.neighbours)
        if not self.config.reweight:
            return distance.mean(dim=1)
        return distance.mean(dim=1) * novelty(vectors, distance[:, 0], indices[:, 0], bank, self.config.reweight)


def novelty(vectors: Tensor, distance: Tensor, index: Tensor, bank: Tensor, b: int) -> Tensor:
    """Return the weight of equation 7, [N] in [0, 1): near 1 if the nearest entry is itself far from its neighbours.

    1 - exp|x - m*| / sum over the b entries m nearest to m* (itself among them) of exp|x - m|.

    Args:
        vectors: x, [N, F].
        distance: |x - m*|, [N].
        index: of m* in the bank, [N].
        bank: [K, F].
        b: number of entries around m*.
    """
    entries, where = index.unique(return_inverse=True)
    around = nearest(bank[entries], bank, b)[1][where]
    total = torch.stack([(vectors - bank[column]).norm(dim=1) for column in around.unbind(dim=1)])
    return 1 - (distance - total.logsumexp(dim=0)).exp()
