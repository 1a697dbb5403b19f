"""`regression_unet`: a U-Net that undoes a degradation by the mean absolute error; the baseline of all that restores.

It minimises E |x - f(y)| over images x that were degraded artificially to y, with the ways of degrading drawn in
training (`degradations`). Its answer is the median of all images that y could come from: none has a better absolute
error, and where much is lost it is blurred. As a detector it restores a scan that was degraded first (`asked`): what
degradation removes and normal images do not have is not put back.

Notation: x the image, y what is seen of it, m the mask of missing pixels, which is a further input channel. The network
predicts a correction, x_hat = y + f(y, m). Source: the regression of SR3 (Saharia et al., arXiv:2104.07636, section 4)
and of YODA (arXiv:2505.02048), here on MONAI's BasicUNet with the L1 error that arXiv:1511.08861 found better than L2.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from pipeline.methods.base import Phase
from pipeline.methods.direct_restorer import DirectRestorer, DirectRestorerConfig
from pipeline.nn.rng import Rng
from pipeline.types import Batch


class RegressionUnetConfig(DirectRestorerConfig):
    """Configuration of `regression_unet`."""

    name: Literal["regression_unet"] = "regression_unet"

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> RegressionUnet:
        self.check_images(image_size, spatial_dims)
        return RegressionUnet(self, image_size, channels, spatial_dims)


class RegressionUnet(DirectRestorer):
    """Degraded image and mask in, image out, by the absolute error."""

    config: RegressionUnetConfig

    def __init__(self, config: RegressionUnetConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.phases = (Phase("train", lr=config.lr),)

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the mean absolute error of the images restored."""
        lesson = self.config.study(batch, rng)
        error = F.l1_loss(self(lesson.seen), lesson.clean)
        return {"total": error, "absolute": error}
