"""Base of methods that compare a frozen network's features with those of the training images; nothing is trained."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator

import torch
from pydantic import Field
from torch import Tensor

from pipeline.corruption.intensity_jitter import IntensityConfig
from pipeline.corruption.varied_normals import varied
from pipeline.errors import ArtefactError, EmptySelection
from pipeline.methods.base import Method, MethodConfig, require_size
from pipeline.nn.backbone import Backbone, BackboneConfig, Odd, enlarged, local_features, touching
from pipeline.nn.rng import Rng
from pipeline.types import Batch

SMALLEST = 8

Places = tuple[
    Tensor, Tensor
]  # features float32 [B, F, *grid], and the positions that touch the body, bool [B, *grid] on the CPU


class FrozenFeaturesConfig(MethodConfig):
    """Fields of every method of frozen features."""

    backbone: BackboneConfig = Field(BackboneConfig(depths=(3, 4)), description="the frozen network and its depths")
    patch: Odd = Field(3, ge=1, description="edge of the neighbourhood that features are averaged over; odd")
    passes: int = Field(1, ge=1, description="times that the images are seen; the first as they are, then jittered")
    intensity: IntensityConfig = Field(IntensityConfig(), description="jitter of the passes after the first")

    def require_size(self, image_size: int) -> None:
        """Refuse an image size that the backbone cannot take (ConfigError)."""
        require_size(self.name, image_size, self.backbone.multiple, max(SMALLEST, self.backbone.multiple))


class FrozenFeatures(Method):
    """A method whose map is the distance of each position's features to what `fit` took from the training images."""

    config: FrozenFeaturesConfig
    projection: Tensor
    seed: Tensor
    fitted: Tensor

    def __init__(
        self, config: FrozenFeaturesConfig, image_size: int, channels: int, spatial_dims: int, projection: int
    ) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.backbone = Backbone(config.backbone, spatial_dims)
        self.width = channels * sum(self.backbone.widths)
        # Random parts are drawn once, with the weights, and saved with them.
        self.register_buffer("projection", torch.randn(self.width, min(projection, self.width)))
        self.register_buffer("seed", torch.randint(2**31, ()))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.int64))

    @abstractmethod
    def fit(self, places: Iterator[Places]) -> int:
        """Take what the method needs from the features of all passes; return how many positions or entries it has."""

    @abstractmethod
    def distance(self, features: Tensor) -> Tensor:
        """Return the distance [B, *grid] of features [B, F, *grid] to the training images'."""

    def features(self, x: Tensor) -> Tensor:
        """Return locally aware features, float32 [B, F, *grid] (PatchCore, arXiv:2106.08265, equations 1 to 3)."""
        return local_features(self.backbone, x, self.config.patch)

    def finish(self, batches: Iterable[Batch]) -> None:
        """Fit on the training images; random by the seed that the method was built with.

        Raises:
            EmptySelection: no image has a body.
        """
        with self.inference():
            self.fitted.fill_(self.fit(self._places(batches)))
        if not int(self.fitted):
            raise EmptySelection("No training image has a body, so there are no features. Check the body mask.")

    def _places(self, batches: Iterable[Batch]) -> Iterator[Places]:
        for batch in varied(batches, self.config.intensity, self.config.passes, int(self.seed)):
            features = self.features(self.check(batch.images).to(self.projection.device))
            yield features, touching(batch.body, features.shape[2:]).cpu()

    def anomaly_map(self, x: Tensor, rng: Rng) -> Tensor:
        """Return the distance at each position, float32 [B, 1, *spatial]; no randomness.

        Raises:
            ArtefactError: `finish` has not been called.
        """
        if not int(self.fitted):
            raise ArtefactError(
                f"{self.config.name} has nothing to compare with yet: its memory is filled at the end of training. "
                "Train it first."
            )
        with self.inference(), torch.autocast(x.device.type, enabled=False):
            return enlarged(self.distance(self.features(self.check(x).float()))[:, None], x.shape)
