"""Configuration of training: budgets, learning rate, precision and checkpoints."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from pipeline.config import Config
from pipeline.training.precision import Precision


class TrainingConfig(Config):
    """Budgets are counted in images; a batch is one optimiser step."""

    images: int = Field(20_000, ge=1, description="images to train on, counting repetitions")
    batch_size: int = Field(16, ge=1, description="images per step, over all processes")
    seed: int = Field(0, ge=0, description="seed of the data order and of every random draw")
    ema_decay: float = Field(
        0.999, ge=0, lt=1, description="decay of the averaged weights per step; less at the start: (1 + n) / (10 + n)"
    )
    precision: Precision = Field(
        "fp32",
        description=(
            "bf16 is autocast, weights stay fp32; far slower on a CPU without bf16 units. auto is bf16 where the "
            "processor has them (avx512_bf16, amx_bf16, or a GPU's), so that the weights depend on the machine"
        ),
    )
    device: Literal["cpu", "auto"] = Field("cpu", description="auto uses an accelerator if there is one")
    schedule: Literal["constant", "cosine"] = Field("constant", description="learning rate over `images`")
    warmup_images: int = Field(0, ge=0, description="images over which the learning rate rises linearly")
    clip_norm: float | None = Field(None, gt=0, description="largest gradient norm; larger gradients are scaled down")
    validate_every_images: int = Field(
        2_000, ge=1, description="images between validations, each with a record and a checkpoint"
    )
    validate_images: int = Field(256, ge=1, description="held-out normals used per validation, evenly spread")
    patience: int | None = Field(10, ge=1, description="validations without improvement before stopping; null never")
    checkpoint_every_images: int | None = Field(None, ge=1, description="images between additional checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="checkpoints kept in the folder")
    max_seconds: float | None = Field(
        None, gt=0, description="limit of the CPU time of the training process, all threads"
    )

    def rate(self, images_seen: int, after: float = 0.0, until: float = 1.0) -> float:
        """Return the factor by which to multiply the learning rate of a phase that runs from `after` to `until` of
        `images`.
        """
        seen, images = max(0.0, images_seen - after * self.images), (until - after) * self.images
        rise = min(1.0, (seen + 1) / self.warmup_images) if self.warmup_images else 1.0
        if self.schedule == "constant":
            return rise
        return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, seen / images)))
