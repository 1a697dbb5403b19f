"""Textures of painted lesions of any organ: a tint with a texture, cavities, foreign, displaced or smoothed tissue.

Each kind is a configuration that computes its content: `content(x, coverage, ...)` returns the image as if the lesion
covered everything, and the painter blends it in. (Only displacement depends on the coverage: tissue moves most in the
middle and not at all at the border, as when something pushes it.)
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.corruption.canvas import Canvas, TextureConfig, mean_under
from pipeline.corruption.chest_textures import Consolidation, Effusion, Nodule, Opacity
from pipeline.corruption.displace import displace
from pipeline.corruption.random_fields import Range, between, blur, log_between, smooth_field
from pipeline.corruption.ultrasound_textures import Hypoechoic
from pipeline.nn.rng import Rng

SOFT = 0.1  # width of a cavity's border, in standard deviations of the field that shapes it


class Tinted(TextureConfig):
    """Tissue made brighter or darker, with a texture of its own; part of the original detail is wiped out."""

    kind: Literal["tinted"] = "tinted"
    contrast: Range = Field((0.1, 0.8), description="change of the mean, in units of [-1, 1]")
    brighter: float = Field(0.8, ge=0, le=1, description="share of lesions that are brighter than their surroundings")
    rough: Range = Field((0.0, 0.6), description="standard deviation of the lesion's own texture / contrast")
    grain: Range = Field((0.015, 0.06), description="length of that texture / image edge, log-uniform")
    wipe: Range = Field((0.0, 1.0), description="share of the tissue's detail that is replaced by its local mean")

    def content(self, canvas: Canvas, rng: Rng) -> Tensor:
        """Return [B, C, *spatial]: tissue, wiped towards its mean there, plus contrast x (sign + texture)."""
        x, one = canvas.images, [1] * (canvas.images.ndim - 1)
        contrast, wipe = between(rng, self.contrast, *one), between(rng, self.wipe, *one)
        sign = torch.where(rng.uniform(*one) < self.brighter, 1.0, -1.0)
        texture = smooth_field(rng, x.shape[2:], log_between(rng, self.grain))
        tint = contrast * (sign + between(rng, self.rough, *one) * texture)
        return x + wipe * (mean_under(x, canvas.coverage) - x) + tint


class Cystic(TextureConfig):
    """Bright tissue with dark cavities: fluid or necrosis, which is darker than its surroundings on FLAIR."""

    kind: Literal["cystic"] = "cystic"
    contrast: Range = Field((0.1, 0.8), description="increase in brightness of the tissue, in units of [-1, 1]")
    depth: Range = Field((0.1, 0.6), description="decrease in brightness of the cavities")
    share: Range = Field((0.1, 0.7), description="share of the lesion that is cavity")
    length: Range = Field((0.25, 0.7), description="length of the field that shapes the cavities, in radii")
    wipe: Range = Field((0.0, 1.0), description="share of the tissue's detail that is replaced by its local mean")

    def content(self, canvas: Canvas, rng: Rng) -> Tensor:
        """Return [B, C, *spatial]: mean - depth where a random field is high, else tissue + contrast elsewhere."""
        x, one = canvas.images, [1] * (canvas.images.ndim - 1)
        mean = mean_under(x, canvas.coverage)
        tissue = x + between(rng, self.wipe, *one) * (mean - x) + between(rng, self.contrast, *one)
        field = smooth_field(rng, x.shape[2:], between(rng, self.length) * canvas.radius)
        # The field is standard normal at every pixel, so the requested share lies above this quantile.
        level = math.sqrt(2) * torch.erfinv(1 - 2 * between(rng, self.share, *one))
        cavity = ((field - level) / SOFT).sigmoid()
        return tissue.lerp((mean - between(rng, self.depth, *one)).expand_as(x), cavity.expand_as(x))


class Foreign(TextureConfig):
    """A patch of another image of the batch, interpolated with the tissue (FPI, Tan et al., arXiv:2011.04197, eq. 1).

    Deviations: a smooth outline instead of a square, and a random shift of the other image. An image's loss in
    training then depends on its neighbour in the batch; a score never does.
    """

    kind: Literal["foreign"] = "foreign"
    mix: Range = Field((0.3, 1.0), description="share of the foreign image")
    shift: float = Field(0.15, ge=0, le=0.5, description="largest roll of the foreign image, as a share of the edge")

    def content(self, canvas: Canvas, rng: Rng) -> Tensor:
        """Return [B, C, *spatial]: (1 - mix) tissue + mix foreign."""
        x = canvas.images
        return x.lerp(_rolled(canvas.others, self.shift, rng), between(rng, self.mix, *[1] * (x.ndim - 1)))


class Disentangled(TextureConfig):
    """Texture of another image, and a change of brightness that is drawn for each kind of tissue by itself.

    DAG (Naval Marimont et al., arXiv:2407.06635, "DISYRE v2", section 2.2) draws shape, texture and intensity apart.
    The shape is that of every lesion here. Texture: the detail of another image, without its brightness, replaces a
    share of the tissue's own. Intensity: tissues are soft classes of brightness, each with a change of its own, so that
    grey matter may brighten where white matter stays. Deviations: classes lie at random brightnesses of the image
    instead of clusters, and the painter clips to [-1, 1].
    """

    kind: Literal["disentangled"] = "disentangled"
    mix: Range = Field((0.0, 1.0), description="share of the tissue's detail that comes from the other image")
    shift: float = Field(0.15, ge=0, le=0.5, description="largest roll of the other image, as a share of the edge")
    detail: float = Field(0.03, gt=0, le=1, description="length below which variation is detail / image edge")
    tissues: int = Field(3, ge=1, description="number of classes of brightness")
    softness: Range = Field((0.1, 0.4), description="width of a class, in units of [-1, 1]; the smallest is above 0")
    bias: Range = Field((0.1, 0.6), description="standard deviation of a class's change, in units of [-1, 1]")
    brighter: float = Field(0.5, ge=0, le=1, description="share of lesions whose tissues all brighten; others vary")

    def content(self, canvas: Canvas, rng: Rng) -> Tensor:
        """Return [B, C, *spatial]: mean of the tissue + mixed detail + the change of its class."""
        x, one = canvas.images, [1] * (canvas.images.ndim - 1)
        base = self._smooth(x, canvas.body)
        others = _rolled(canvas.others, self.shift, rng)
        foreign = others - self._smooth(others, torch.ones_like(canvas.body))
        detail = torch.lerp(x - base, foreign, between(rng, self.mix, *one).expand_as(x))
        return base + detail + self._change(base.mean(dim=1, keepdim=True), canvas.body, rng)

    def _smooth(self, images: Tensor, body: Tensor) -> Tensor:
        length, inside = torch.full((len(images),), self.detail, device=images.device), body.float()
        return blur(images * inside, length) / blur(inside, length).clamp_min(1e-3)

    def _change(self, brightness: Tensor, body: Tensor, rng: Rng) -> Tensor:
        """Return each pixel's change [B, 1, *spatial]: the mean over classes, weighted by how well it fits each."""
        one = [1] * (brightness.ndim - 2)
        inside = torch.where(body, brightness, torch.inf).flatten(1).sort(dim=1).values
        places = rng.uniform(self.tissues) * (body.flatten(1).sum(dim=1, keepdim=True) - 1).clamp_min(0)
        centres = inside.gather(1, places.round().long()).nan_to_num(posinf=0.0)
        changes = between(rng, self.bias, 1) * rng.normal(self.tissues)
        changes = torch.where(rng.uniform(1) < self.brighter, changes.abs(), changes)
        width = between(rng, self.softness, 1, *one).clamp_min(1e-3)
        fit = (-0.5 * ((brightness - centres.reshape(-1, self.tissues, *one)) / width).square()).softmax(dim=1)
        return (fit * changes.reshape(-1, self.tissues, *one)).sum(dim=1, keepdim=True)


class Smoothed(TextureConfig):
    """Tissue without its detail: a Gaussian blur within the body only."""

    kind: Literal["smoothed"] = "smoothed"
    length: Range = Field((0.02, 0.08), description="standard deviation of the blur / image edge")

    def content(self, canvas: Canvas, rng: Rng) -> Tensor:
        """Return [B, C, *spatial]."""
        length, inside = between(rng, self.length), canvas.body.float()
        return blur(canvas.images * inside, length) / blur(inside, length).clamp_min(1e-3)


class Displaced(TextureConfig):
    """Tissue pushed aside: most in the middle of the lesion, not at all at its border."""

    kind: Literal["displaced"] = "displaced"
    shift: Range = Field((0.5, 1.5), description="size of the displacement, in radii of the lesion")

    def content(self, canvas: Canvas, rng: Rng) -> Tensor:
        """Return [B, C, *spatial]: the image sampled bilinearly at x - coverage x shift."""
        x, dims = canvas.images, canvas.images.ndim - 2
        direction = F.normalize(rng.normal(dims), dim=1)
        far = direction * (between(rng, self.shift) * canvas.radius)[:, None]
        return displace(x, -2 * canvas.coverage.movedim(1, -1) * far.reshape(-1, *[1] * dims, dims))


Texture = Annotated[
    Tinted
    | Cystic
    | Foreign
    | Disentangled
    | Smoothed
    | Displaced
    | Opacity
    | Nodule
    | Consolidation
    | Effusion
    | Hypoechoic,
    Field(discriminator="kind"),
]


def _rolled(images: Tensor, share: float, rng: Rng) -> Tensor:
    """Return images [B, C, *spatial], each rolled along every axis by up to `share` of its edge."""
    spatial = images.shape[2:]
    shifts = rng.uniform(len(spatial), low=-share, high=share) * torch.tensor(spatial, device=images.device)
    pairs = zip(images, shifts.round().int().tolist(), strict=True)
    return torch.stack([image.roll(shift, list(range(1, image.ndim))) for image, shift in pairs])
