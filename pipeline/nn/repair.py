"""Output of a network that repairs images: a new image, or a gate and a correction; and what it costs to be wrong."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.nn.masked import soft_dice_loss, within_body


class Repaired(NamedTuple):
    """An image after repair.

    Attributes:
        images: x_hat, float32 [B, C, *spatial].
        logit: of the gate, float32 [B, 1, *spatial]; None without a gate.
        log_variance: of the error that the network expects at each pixel, float32 [B, 1, *spatial]; None without one.
    """

    images: Tensor
    logit: Tensor | None
    log_variance: Tensor | None = None


class RepairFields(Config):
    """Fields of a method's configuration that describe how its network answers, and the loss of the answer."""

    gated: bool = Field(
        True, description="the network gives a gate g and a correction d, x_hat = x + g d; false: x_hat itself"
    )
    gate: float = Field(1.0, gt=0, description="weight of the gate's cross-entropy and Dice beside the absolute error")
    painted_weight: float = Field(
        1.0, ge=1, description="weight of a painted pixel's absolute error; an unpainted one has 1"
    )

    def outputs(self, channels: int) -> int:
        """Return the number of channels that the network must give for images of `channels`."""
        return channels + self.gated

    def repaired(self, x: Tensor, output: Tensor) -> Repaired:
        """Return the answer that a network's output [B, outputs, *spatial] means for images x."""
        return gated(x, output) if self.gated else Repaired(output.float(), None)

    def repair_terms(self, repaired: Repaired, clean: Tensor, lesion: Tensor, body: Tensor) -> dict[str, Tensor]:
        """Return the terms of the loss, and as "repair" their weighted sum, means over the images.

        Args:
            repaired: the answer for painted images.
            clean: the images before painting.
            lesion: float32 [B, 1, *spatial], 1 in painted pixels, or their coverage.
            body: bool [B, 1, *spatial]; errors elsewhere do not count.
        """
        error = (repaired.images - clean).abs().mean(dim=1, keepdim=True)
        terms = {"absolute": within_body(error * (1 + (self.painted_weight - 1) * lesion), body)}
        if repaired.logit is None:
            return {"repair": terms["absolute"], **terms}
        terms |= mask_terms(repaired.logit, lesion, body)
        return {"repair": terms["absolute"] + self.gate * (terms["cross_entropy"] + terms["dice"]), **terms}


def gated(x: Tensor, output: Tensor) -> Repaired:
    """Return x + g d, where the output [B, 1 + C, *spatial] is the logit of the gate g and the correction d."""
    logit, d = output.float().tensor_split([1], dim=1)
    return Repaired(x.float() + logit.sigmoid() * d, logit)


def mask_terms(logit: Tensor, lesion: Tensor, body: Tensor) -> dict[str, Tensor]:
    """Return cross-entropy and 1 - soft Dice (Milletari et al., arXiv:1606.04797) of a mask, means over the images.

    Args:
        logit: float32 [B, 1, *spatial].
        lesion: float32 [B, 1, *spatial] in [0, 1].
        body: bool [B, 1, *spatial]; pixels outside the body do not count.
    """
    surprise = F.binary_cross_entropy_with_logits(logit, lesion, reduction="none")
    return {"cross_entropy": within_body(surprise, body), "dice": soft_dice_loss(logit.sigmoid() * body, lesion)}


def lesion_terms(logit: Tensor, lesion: Tensor, body: Tensor, dice: float) -> dict[str, Tensor]:
    """Return `mask_terms`, and as "total" the cross-entropy + dice x (1 - soft Dice): the loss of a segmenting head."""
    terms = mask_terms(logit, lesion, body)
    return {"total": terms["cross_entropy"] + dice * terms["dice"], **terms}


def lesion_surprise(logit: Tensor) -> Tensor:
    """Return -log P(healthy) for the logit of "lesion": at least 0, and no ties where P is near 1."""
    return F.softplus(logit)


def mean_of_draws(draws: list[Tensor]) -> Tensor:
    """Return the mean of several answers [B, C, *spatial]."""
    return torch.stack(draws).mean(dim=0)
