"""`gated_dae`: a lesion remover that predicts where to change the image, and changes nothing else.

As `dae` with painted lesions (Kascenas et al., MIDL 2022; the painting as in FPI, arXiv:2011.04197), but the network
outputs two images, a gate g in (0, 1) and a correction d, and the reconstruction is x_hat = x + g d. The loss is the
absolute error of x_hat within the body, plus cross-entropy and soft Dice (Milletari et al., arXiv:1606.04797) of the
gate against the painted mask. A plain remover spreads its error over all detail that it cannot copy, and that noise
hides faint lesions; with a gate, the residual |x_hat - x| = g |d| is nearly 0 where it finds nothing. Highway networks
(Srivastava et al., arXiv:1505.00387) gate with the same product.
"""

from __future__ import annotations

from typing import Literal, cast

from pydantic import Field
from torch import Tensor

from pipeline.corruption import PaintingFields
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.masked import within_body
from pipeline.nn.repair import Repaired, gated, mask_terms
from pipeline.nn.rng import Rng
from pipeline.nn.unet import UNetFields
from pipeline.types import Batch


class GatedDaeConfig(PaintingFields, UNetFields, MethodConfig):
    """Configuration of `gated_dae`."""

    name: Literal["gated_dae"] = "gated_dae"
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

    def forward(self, x: Tensor) -> Repaired:
        """Return the clean image [B, C, *spatial] and the logit of the gate [B, 1, *spatial], float32."""
        return gated(x, self.network(x))

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return |x_hat - x| + gate x (cross-entropy + 1 - soft Dice), within the body, means over the images."""
        lesson = self.config.lesson(batch, rng)
        repaired = self(lesson.painted.images)
        error = (repaired.images - lesson.clean).abs().mean(dim=1, keepdim=True)
        terms = {
            "absolute": within_body(error, lesson.body),
            **mask_terms(cast(Tensor, repaired.logit), lesson.target, lesson.body),
        }
        total = terms["absolute"] + self.config.gate * (terms["cross_entropy"] + terms["dice"])
        return {"total": total, **terms}

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return x_hat of the image as it is; no randomness."""
        with self.inference():
            return self(self.check(x)).images.to(x.dtype)
