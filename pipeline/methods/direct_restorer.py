"""Base of methods that restore an image in one pass of a U-Net, which predicts a correction of what is seen.

Notation: x the image, y what is seen of it, m the mask of missing pixels, a further input channel; x_hat = y + f(y, m).
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from pipeline.corruption.degrade_fields import RestoringFields, check_missing, see
from pipeline.methods.base import Method, MethodConfig, require_size
from pipeline.nn.rng import Rng
from pipeline.nn.unet import UNetFields


class DirectRestorerConfig(RestoringFields, UNetFields, MethodConfig):
    """Configuration of these methods."""

    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")

    def check_images(self, image_size: int, spatial_dims: int, smallest: int = 0) -> None:
        """Refuse images that the network or a degradation does not fit (ConfigError)."""
        require_size(self.name, image_size, self.multiple, max(2 * self.multiple, smallest))
        self.check_ways(image_size, spatial_dims)


class DirectRestorer(Method):
    """Degraded image and mask in, image out."""

    config: DirectRestorerConfig
    channels_last = True

    def __init__(self, config: DirectRestorerConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.network = config.unet(spatial_dims, channels + 1, channels)

    @property
    def passes(self) -> int:
        """One, or two if tiles of both colours are hidden in turn."""
        return self.config.times_asked

    def forward(self, seen: Tensor) -> Tensor:
        """Return x_hat [B, C, *spatial] for the degraded images and masks [B, C + 1, *spatial]."""
        return seen[:, : self.channels].float() + self.network(seen).float()

    def restore(self, worse: Tensor, rng: Rng, condition: Tensor | None = None) -> Tensor:
        """Return better images [B, C, *spatial]; no randomness.

        Args:
            worse: [B, C, *spatial].
            rng: not used.
            condition: mask [B, 1, *spatial], 1 where pixels are missing; None if none are.
        """
        with self.inference():
            return self(see(self.check(worse), check_missing(self.config.name, worse, condition)))

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return x degraded (`asked`) and restored; randomness comes from the row's key."""
        return self.config.repair_by(self.restore, self.check(x), rng)
