"""`synthetic_lesion`: a U-Net that learns from painted lesions to segment real ones.

Foreign patch interpolation (Tan et al., arXiv:2011.04197), NSA (Schlueter et al., arXiv:2109.15222) and the winning
entries of MOOD 2022 share one idea: corrupt normal images with known masks, and learn to predict the mask. The
loss is binary cross-entropy plus soft Dice (Milletari et al., arXiv:1606.04797), both within the body and per
image. Deviations from FPI: a smooth outline, several textures, and a mask of 0 and 1 instead of the mixing share.

The map is m = -log(1 - p) = softplus(logit): the surprisal of each pixel under "healthy". Its sum over a body is
the negative log-likelihood of "no lesion anywhere" (pixels taken as independent). It ranks pixels exactly as p and the
logit do, so pixel metrics and pixel thresholds are the same. But p saturates at 1, so that a mean over the highest
pixels ends in ties; a mean of logits is dominated by the confidence in the many healthy pixels, and the logit has no
natural value outside the body. m is 0 there, close to p where p is small, and close to the logit where p is near 1.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from pipeline.corruption import IntensityConfig, PaintingFields
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.repair import lesion_surprise, lesion_terms
from pipeline.nn.rng import Rng
from pipeline.nn.unet import UNetFields
from pipeline.types import Batch


class SyntheticLesionConfig(PaintingFields, UNetFields, MethodConfig):
    """Configuration of `synthetic_lesion`."""

    name: Literal["synthetic_lesion"] = "synthetic_lesion"
    intensity: IntensityConfig = Field(
        IntensityConfig(gamma=1.3, gain=0.1, noise=0.02),
        description="jitter of the whole image, before painting: brightness alone must not be a lesion",
    )
    dice: float = Field(1.0, ge=0, description="weight of the soft Dice beside the cross-entropy")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> SyntheticLesion:
        require_size(self.name, image_size, self.multiple, 2 * self.multiple)
        return SyntheticLesion(self, image_size, channels, spatial_dims)


class SyntheticLesion(Method):
    """Normal image with painted lesions in; their mask out."""

    config: SyntheticLesionConfig
    channels_last = True

    def __init__(self, config: SyntheticLesionConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.network = config.unet(spatial_dims, channels, 1)
        self.phases = (Phase("train", lr=config.lr),)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logit of "lesion" [B, 1, *spatial], float32."""
        return self.network(x).float()

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return cross-entropy + dice x (1 - soft Dice), within the body, means over the images."""
        lesson = self.config.lesson(batch, rng)
        return lesion_terms(self(lesson.painted.images), lesson.target, lesson.body, self.config.dice)

    def anomaly_map(self, x: Tensor, rng: Rng) -> Tensor:
        """Return -log P(healthy) [B, 1, *spatial], at least 0; no randomness."""
        with self.inference():
            return lesion_surprise(self(self.check(x)))
