"""`gated_dae`: a lesion remover that predicts where to change the image, and changes nothing else.

As `dae` with painted lesions (Kascenas et al., MIDL 2022; the painting as in FPI, arXiv:2011.04197), but the network
outputs two images, a gate g in (0, 1) and a correction d, and the reconstruction is x_hat = x + g d. The loss is the
absolute error of x_hat within the body, plus cross-entropy and soft Dice (Milletari et al., arXiv:1606.04797) of the
gate against the painted mask. A plain remover spreads its error over all detail that it cannot copy, and that noise
hides faint lesions; with a gate, the residual |x_hat - x| = g |d| is nearly 0 where it finds nothing. Highway networks
(Srivastava et al., arXiv:1505.00387) gate with the same product.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.corruption import IntensityConfig, LesionConfig, PoseConfig, jitter, paint, pose
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.masked import soft_dice_loss, within_body
from pipeline.nn.rng import Rng
from pipeline.nn.unet import UNetFields
from pipeline.types import Batch


class GatedDaeConfig(UNetFields, MethodConfig):
    """Configuration of `gated_dae`."""

    name: Literal["gated_dae"] = "gated_dae"
    lesions: LesionConfig = Field(LesionConfig(), description="lesions to paint; they determine what is removed")
    intensity: IntensityConfig = Field(IntensityConfig(), description="jitter of the clean image, before painting")
    pose: PoseConfig = Field(PoseConfig(), description="movement of the clean image, before the jitter")
    gate: float = Field(1.0, gt=0, description="weight of the gate's cross-entropy and Dice beside the absolute error")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> GatedDae:
        require_size(self.name, image_size, self.multiple, 2 * self.multiple)
        return GatedDae(self, image_size, channels, spatial_dims)


class GatedDae(Method):
    """Normal image with painted lesions in; clean image and change mask out."""

    config: GatedDaeConfig
    channels_last = True

    def __init__(self, config: GatedDaeConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.network = config.unet(spatial_dims, channels, 1 + channels)
        self.phases = (Phase("train", lr=config.lr),)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logit of the gate [B, 1, *spatial] and the clean image [B, C, *spatial], float32."""
        logit, d = self.network(x).float().tensor_split([1], dim=1)
        return logit, x.float() + logit.sigmoid() * d

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return |x_hat - x| + gate x (cross-entropy + 1 - soft Dice), within the body, means over the images."""
        images, body = pose(batch.images, batch.body, self.config.pose, rng)
        x = jitter(images, body, self.config.intensity, rng)
        painted = paint(x, body, self.config.lesions, rng)
        logit, x_hat = self(painted.images)
        lesion = painted.mask.float()
        terms = {
            "absolute": within_body((x_hat - x).abs().mean(dim=1, keepdim=True), body),
            "cross_entropy": within_body(F.binary_cross_entropy_with_logits(logit, lesion, reduction="none"), body),
            "dice": soft_dice_loss(logit.sigmoid() * body, lesion),
        }
        total = terms["absolute"] + self.config.gate * (terms["cross_entropy"] + terms["dice"])
        return {"total": total, **terms}

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return x_hat of the image as it is; no randomness."""
        with self.inference():
            return self(self.check(x))[1].to(x.dtype)
