"""Corruption as an option of any method: fields that configure it, and the pair of images that it makes of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.corruption.added_noise import AddedNoiseConfig, add_noise
from pipeline.corruption.findings import PastingConfig, paste
from pipeline.corruption.intensity_jitter import IntensityConfig, jitter
from pipeline.corruption.lesions import LesionConfig, Painted, masked, paint, visible
from pipeline.corruption.pose import PoseConfig, pose
from pipeline.errors import ConfigError
from pipeline.nn.rng import Rng
from pipeline.types import Batch


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a method that repairs learns from: a clean image, and the same image with lesions, noise or both.

    Attributes:
        clean: float32 [B, C, *spatial] in [-1, 1], moved and jittered.
        body: bool [B, 1, *spatial], moved in the same way.
        painted: the corrupted images, and the masks of what changed visibly.
        target: float32 [B, 1, *spatial], what a head must answer: the mask or, with `soft`, the visible coverage.
    """

    clean: Tensor
    body: Tensor
    painted: Painted
    target: Tensor


class PaintingFields(Config):
    """Fields of a method's configuration that describe what is painted on its images."""

    corruption: Literal["lesions", "noise", "both"] = Field("lesions", description="what the method learns to remove")
    lesions: LesionConfig = Field(LesionConfig(), description="lesions to paint; they determine what the method finds")
    validated_on: LesionConfig | None = Field(
        None, description="other lesions, painted on validate normals for early stopping; null: those it learns from"
    )
    soft: bool = Field(False, description="a head learns a lesion's coverage instead of its mask of 0 and 1")
    added_noise: AddedNoiseConfig = Field(AddedNoiseConfig(), description="noise to add, unless corruption: lesions")
    intensity: IntensityConfig = Field(IntensityConfig(), description="jitter of the clean image, before painting")
    pose: PoseConfig = Field(PoseConfig(), description="movement of the clean image, before the jitter")
    pasting: PastingConfig | None = Field(
        None, description="paste findings of an earlier model in unlabelled scans; a run needs `unlabelled` for them"
    )

    def vary(self, batch: Batch, rng: Rng) -> tuple[Tensor, Tensor]:
        """Return the images and bodies of a batch, moved and jittered; its own are unchanged."""
        images, body = pose(batch.images, batch.body, self.pose, rng)
        return jitter(images, body, self.intensity, rng), body

    def lesson(self, batch: Batch, rng: Rng) -> Lesson:
        """Return the batch moved, jittered and corrupted; its own images are unchanged."""
        clean, body = self.vary(batch, rng)
        lesions = self.validated_on if batch.held_out and self.validated_on is not None else self.lesions
        painted = self.corrupt(clean, body, rng, lesions)
        if self.pasting is not None and not batch.held_out:  # validation must not reward findings learned by heart
            painted = self._pasted(clean, body, painted, self._findings(batch), rng.fork("pasting"))
        return Lesson(clean, body, painted, self.target(painted, clean))

    def target(self, painted: Painted, clean: Tensor) -> Tensor:
        """Return what a head must answer for painted images: float32 [B, 1, *spatial] in [0, 1]."""
        if not self.soft:
            return painted.mask.float()
        return painted.coverage * visible(painted.images - clean, self.lesions.visible)

    def _findings(self, batch: Batch) -> Tensor:
        """Return another row's finding for each row, so that an image meets a new one in every epoch."""
        if batch.findings is None:
            raise ConfigError(
                "The method pastes findings (`pasting`), but its data has none. Set `unlabelled` in the run's "
                "configuration, or remove `pasting`."
            )
        return batch.findings.roll(1, 0)

    def _pasted(self, clean: Tensor, body: Tensor, painted: Painted, findings: Tensor, rng: Rng) -> Painted:
        """Return the painted images, with a finding instead of painted lesions on some of them."""
        config = cast(PastingConfig, self.pasting)
        with torch.autocast(clean.device.type, enabled=False):
            images, coverage = paste(clean, body, findings, config, rng)
        pasted = masked(images, clean, coverage, self.lesions.visible)
        here = rng.uniform(*[1] * (clean.ndim - 1)) < config.share
        return Painted(
            images.where(here, painted.images),
            coverage.where(here, painted.coverage),
            pasted.mask.where(here, painted.mask),
        )

    def corrupt(self, clean: Tensor, body: Tensor, rng: Rng, lesions: LesionConfig | None = None) -> Painted:
        """Return images [B, C, *spatial] with lesions, noise or both within their bodies, and what changed visibly.

        `lesions` may be others than the method's own.
        """
        lesions = self.lesions if lesions is None else lesions
        if self.corruption == "lesions":
            return paint(clean, body, lesions, rng)
        images = clean if self.corruption == "noise" else paint(clean, body, lesions, rng).images
        images = add_noise(images, body, self.added_noise, rng)
        return Painted(images, body.float(), visible(images - clean, lesions.visible) & body)


class RepairingFields(Config):
    """Fields of a textbook method's configuration that let it repair; by default it copies what it sees."""

    painting: PaintingFields | None = Field(
        None, description="painted on what it learns from, while it must give the clean image; null: it learns to copy"
    )
    mirrored: bool = Field(False, description="it also sees the mirrored image (last axis)")

    def pair(self, batch: Batch, rng: Rng) -> tuple[Tensor, Tensor]:
        """Return the images that the method learns from, and those that it must give, both [B, C, *spatial]."""
        if self.painting is None:
            return batch.images, batch.images
        lesson = self.painting.lesson(batch, rng.fork("painting"))
        return lesson.painted.images, lesson.clean

    def seen(self, x: Tensor) -> Tensor:
        """Return what the network sees of images x: [B, C, *spatial], or [B, 2 C, *spatial] with the mirrored ones."""
        return torch.cat([x, x.flip(-1)], dim=1) if self.mirrored else x

    def inputs(self, channels: int) -> int:
        """Return the channels of `seen` for images of `channels`."""
        return channels * (1 + self.mirrored)
