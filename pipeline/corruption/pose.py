"""Pose of a whole image: variation in position and shape of patients that must not count as a lesion."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.corruption.random_fields import between, smooth_field
from pipeline.nn.rng import Rng

WARP_LENGTH = (0.15, 0.3)  # length of the warp field as a fraction of the edge: bends anatomy but not texture


class PoseConfig(Config):
    """Range of translation, rotation, scaling and warping of an image; the defaults change nothing."""

    mirror: bool = Field(False, description="mirror half of the images along their last axis")
    rotate_degrees: float = Field(0.0, ge=0, le=180, description="largest rotation in the plane of the last two axes")
    scale: float = Field(0.0, ge=0, lt=1, description="size factor, drawn within 1 +- scale")
    shift: float = Field(
        0.0, ge=0, lt=0.5, description="largest translation along each axis, as a fraction of the edge"
    )
    warp: float = Field(
        0.0, ge=0, lt=0.2, description="highest standard deviation of a smooth displacement, as a fraction of the edge"
    )

    @property
    def resamples(self) -> bool:
        """Whether images are resampled (anything except mirroring)."""
        return any((self.rotate_degrees, self.scale, self.shift, self.warp))


def pose(images: Tensor, body: Tensor, config: PoseConfig, rng: Rng) -> tuple[Tensor, Tensor]:
    """Return images [B, C, *spatial] and bodies bool [B, 1, *spatial], each pair moved in the same way, row by row.

    Images are sampled bilinearly with the border value beyond the frame; bodies end at the frame.
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
    """Return [B, *spatial, dims]: the sampling position of each pixel, -1..1 over the edge, last axis first."""
    dims = images.ndim - 2
    places = F.affine_grid(pose_matrices(dims, config, rng), list(images.shape), align_corners=False)
    if config.warp:
        strength = 2 * between(rng, (0.0, config.warp), *[1] * (dims + 1))
        bend = [smooth_field(rng, images.shape[2:], between(rng, WARP_LENGTH)) for _ in range(dims)]
        places = places + (strength * torch.cat(bend, dim=1)).movedim(1, -1)
    return places


def pose_matrices(dims: int, config: PoseConfig, rng: Rng) -> Tensor:
    """Return [B, dims, dims + 1]: rotation within the last two axes, scale and shift, of sampling positions."""
    angle = rng.uniform(low=-1.0, high=1.0) * math.radians(config.rotate_degrees)
    size = 1 + config.scale * rng.uniform(low=-1.0, high=1.0)
    shift = 2 * config.shift * rng.uniform(dims, low=-1.0, high=1.0)
    turn = torch.eye(dims, device=angle.device).repeat(len(angle), 1, 1)
    turn[:, 0, 0], turn[:, 0, 1] = angle.cos(), -angle.sin()
    turn[:, 1, 0], turn[:, 1, 1] = angle.sin(), angle.cos()
    return torch.cat([turn / size[:, None, None], shift[:, :, None]], dim=2)
