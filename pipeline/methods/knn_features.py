"""`knn_features`: PatchCore, arXiv:2106.08265. Memory of normal patches; a patch far from all of them is unusual.

Patch features are those of a frozen backbone at middle depths, averaged over a neighbourhood (equations 1 to 3), then
resampled to the finest grid and concatenated. A coreset of the training images' patches is the memory (algorithm 1).
The anomaly of a position is the distance to its nearest entry (equation 6), with `reweight` times the weight of
equation 7. Nothing is trained. Deviations: patches entirely outside the body are left out; the coreset is drawn from a
uniform sample of `candidates` patches, so that memory does not grow with the data; features are not pooled to 1024; the
weight of equation 7 is applied at every position, not only at the highest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from pipeline.methods.frozen_features import FrozenFeatures, FrozenFeaturesConfig, Places
from pipeline.nn.feature_memory import Reservoir, k_centres, nearest


class KnnFeaturesConfig(FrozenFeaturesConfig):
    """Configuration of `knn_features`."""

    name: Literal["knn_features"] = "knn_features"
    entries: int = Field(2048, ge=1, description="size of the memory")
    candidates: int = Field(40_000, ge=1, description="uniform sample of patches from which the memory is chosen")
    projection: int = Field(128, ge=1, description="width of the random projection used for choosing")
    neighbours: int = Field(1, ge=1, description="nearest entries whose distances are averaged")
    reweight: int = Field(0, ge=0, description="b of equation 7, 2 or more; 0 leaves the weight out")

    @field_validator("reweight")
    @classmethod
    def _several(cls, value: int) -> int:
        if value == 1:
            raise ValueError("must be 0 or at least 2: with one entry the weight is 0 everywhere")
        return value

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> KnnFeatures:
        self.require_size(image_size)
        return KnnFeatures(self, image_size, channels, spatial_dims)


class KnnFeatures(FrozenFeatures):
    """Distance to the nearest patch of the memory, which has `fitted` entries."""

    config: KnnFeaturesConfig
    bank: Tensor

    def __init__(self, config: KnnFeaturesConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims, config.projection)
        self.register_buffer("bank", torch.zeros(config.entries, self.width))

    def fit(self, places: Iterator[Places]) -> int:
        """Fill the memory; the result depends on the order of the images. Return the number of entries."""
        sample = Reservoir(self.config.candidates, int(self.seed))
        for features, inside in places:
            sample.add(features.movedim(1, -1).cpu()[inside])
        candidates = sample.vectors().to(self.bank.device)
        if not len(candidates):
            return 0
        chosen = k_centres(candidates @ self.projection, self.config.entries)
        self.bank.zero_()
        self.bank[: len(chosen)] = candidates[chosen]
        return len(chosen)

    def distance(self, features: Tensor) -> Tensor:
        """Return the distance to the memory at each position (equations 6 and 7), [B, *grid]."""
        vectors = features.movedim(1, -1)
        return self._distances(vectors.flatten(0, -2)).reshape(vectors.shape[:-1])

    def _distances(self, vectors: Tensor) -> Tensor:
        bank = self.bank[: int(self.fitted)]
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
