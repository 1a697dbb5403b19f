"""Pose of a whole image: how patients lie and differ in shape, and what is therefore no lesion."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.corruption.random_fields import between, smooth_field
from pipeline.nn.rng import Rng

WARP_LENGTH = (0.15, 0.3)  # of the warp's field, fractions of the edge: anatomy bends, texture does not


class PoseConfig(Config):
    """How far an image is moved, turned, stretched and bent; the defaults change nothing."""

    mirror: bool = Field(False, description="half of the images are mirrored along their last axis")
    rotate_degrees: float = Field(0.0, ge=0, le=180, description="turn in the plane of the last two axes, at most")
    scale: float = Field(0.0, ge=0, lt=1, description="size factor, drawn within 1 +- scale")
    shift: float = Field(0.0, ge=0, lt=0.5, description="translation along each axis at most, fraction of the edge")
    warp: float = Field(0.0, ge=0, lt=0.2, description="highest sd of a smooth displacement, fraction of the edge")

    @property
    def resamples(self) -> bool:
        """Whether anything but mirroring happens."""
        return any((self.rotate_degrees, self.scale, self.shift, self.warp))


def pose(images: Tensor, body: Tensor, config: PoseConfig, rng: Rng) -> tuple[Tensor, Tensor]:
    """Return images [B, C, *spatial] and bodies bool [B, 1, *spatial], each pair moved alike, row by row.

    Images are read bilinearly, and beyond the frame as at its border; bodies end at the frame.
    """
    rng = rng.fork("pose")
    if config.mirror:
        turned = rng.uniform(*[1] * (images.ndim - 1)) < 0.5
        images, body = images.where(~turned, images.flip(-1)), body.where(~turned, body.flip(-1))
    if not config.resamples:
        return images, body
    with torch.autocast(images.device.type, enabled=False):
        places = _places(images, config, rng)
        moved = F.grid_sample(images.float(), places, padding_mode="border", align_corners=False)
        inside = F.grid_sample(body.float(), places, padding_mode="zeros", align_corners=False) > 0.5
    return moved.to(images.dtype), inside


def _places(images: Tensor, config: PoseConfig, rng: Rng) -> Tensor:
    """Return [B, *spatial, dims]: where each pixel is read, -1..1 over the edge, the last axis first."""
    dims = images.ndim - 2
    places = F.affine_grid(_matrices(dims, config, rng), list(images.shape), align_corners=False)
    if config.warp:
        strength = 2 * between(rng, (0.0, config.warp), *[1] * (dims + 1))
        bend = [smooth_field(rng, images.shape[2:], between(rng, WARP_LENGTH)) for _ in range(dims)]
        places = places + (strength * torch.cat(bend, dim=1)).movedim(1, -1)
    return places


def _matrices(dims: int, config: PoseConfig, rng: Rng) -> Tensor:
    """Return [B, dims, dims + 1]: turn within the last two axes, scale and shift."""
    angle = rng.uniform(low=-1.0, high=1.0) * math.radians(config.rotate_degrees)
    size = 1 + config.scale * rng.uniform(low=-1.0, high=1.0)
    shift = 2 * config.shift * rng.uniform(dims, low=-1.0, high=1.0)
    turn = torch.eye(dims, device=angle.device).repeat(len(angle), 1, 1)
    turn[:, 0, 0], turn[:, 0, 1] = angle.cos(), -angle.sin()
    turn[:, 1, 0], turn[:, 1, 1] = angle.sin(), angle.cos()
    return torch.cat([turn / size[:, None, None], shift[:, :, None]], dim=2)
