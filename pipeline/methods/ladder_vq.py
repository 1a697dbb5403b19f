"""`ladder_vq`: a discrete autoencoder that repairs, with quantised codes on every level of a U-Net.

As `ladder_vae`, but each level's code is quantised: by a codebook (VQ, arXiv:1711.00937, learned by moving averages by
default) or by rounding each channel (FSQ, arXiv:2309.15505). It learns from painted lesions in, the clean image out:
the decoder sees entries of normal tissue only, and gives the image (QBAE's idea of a code on every skip), or a gate
and a correction. The loss is the repair's error, plus for VQ beta x commitment (eq. 3 of arXiv:1711.00937), summed over
the levels.
"""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.corruption.painting import PaintingFields
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.ladder import LEVELS, LadderUNet
from pipeline.nn.quantise import CodebookConfig, Quantised, VectorQuantiser, perplexity
from pipeline.nn.repair import Repaired, RepairFields
from pipeline.nn.rng import Rng
from pipeline.nn.scalar_quantise import ScalarQuantiser
from pipeline.nn.unet import UNetFields
from pipeline.types import Batch

Values = Annotated[int, Field(ge=2)]


class LadderVqConfig(RepairFields, PaintingFields, UNetFields, MethodConfig):
    """Configuration of `ladder_vq`."""

    name: Literal["ladder_vq"] = "ladder_vq"
    quantiser: Literal["vq", "fsq"] = Field("vq", description="nearest entry of a codebook, or rounded channels")
    entries: int = Field(256, ge=2, description="vq: codebook entries K of each level")
    code: tuple[int, int, int, int, int] = Field(
        (4, 4, 8, 8, 16), description="vq: length of an entry on each level, finest first"
    )
    values: tuple[Values, ...] = Field(
        (8, 5, 5, 5),
        min_length=1,
        description="fsq: number of values of each channel of a code, on all levels",
    )
    codebook: CodebookConfig = Field(
        CodebookConfig(learn="ema", revive_below=0.02), description="vq: how the codebooks learn"
    )
    beta: float = Field(0.25, ge=0, description="vq: weight of the commitment term")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> LadderVq:
        require_size(self.name, image_size, self.multiple, 2 * self.multiple)
        return LadderVq(self, image_size, channels, spatial_dims)

    @property
    def code_widths(self) -> tuple[int, ...]:
        """Channels of each level's code, finest first."""
        return self.code if self.quantiser == "vq" else (len(self.values),) * LEVELS

    def quantisers(self) -> list[nn.Module]:
        """Return one quantiser per level, finest first."""
        if self.quantiser == "fsq":
            return [ScalarQuantiser(self.values) for _ in range(LEVELS)]
        return [VectorQuantiser(self.entries, width, self.codebook) for width in self.code]


class LadderVq(Method):
    """Image with lesions -> quantised codes on five levels -> clean image."""

    config: LadderVqConfig
    channels_last = True

    def __init__(self, config: LadderVqConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        widths = config.code_widths
        self.network = LadderUNet(spatial_dims, channels, config.outputs(channels), config, widths, widths)
        self.quantisers = nn.ModuleList(config.quantisers())
        self.phases = (Phase("train", lr=config.lr),)

    def encode(self, x: Tensor, rng: Rng | None = None) -> list[Quantised]:
        """Return each level's code, finest first; with `rng` (in training) the codebooks learn."""
        levels = self.network.encode(x)
        streams = [None if rng is None else rng.fork(f"level {level}") for level in range(len(levels))]
        return [quantise(z, stream) for quantise, z, stream in zip(self.quantisers, levels, streams, strict=True)]

    def decode(self, x: Tensor, codes: list[Tensor]) -> Repaired:
        """Return the answer for images x that codes of all levels mean."""
        return self.config.repaired(x, self.network.decode(codes))

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the repair's error + beta x commitment; the perplexity of each level (0 is the finest) is logged."""
        lesson = self.config.lesson(batch, rng)
        levels = self.encode(lesson.painted.images, rng)
        repaired = self.decode(lesson.painted.images, [level.codes for level in levels])
        terms = self.config.repair_terms(repaired, lesson.clean, lesson.target, lesson.body)
        terms["commitment"] = torch.stack([level.commitment_loss for level in levels]).sum()
        total = terms["repair"] + self.config.beta * terms["commitment"]
        if self.config.quantiser == "vq" and self.config.codebook.learn == "gradient":
            terms["codebook"] = torch.stack([level.codebook_loss for level in levels]).sum()
            total = total + terms["codebook"]
        used = {f"perplexity_{i}": perplexity(level.indices, self.vocabulary) for i, level in enumerate(levels)}
        return {"total": total, **terms, **used}

    @property
    def vocabulary(self) -> int:
        """Number of distinct codes of a level."""
        return self.config.entries if self.config.quantiser == "vq" else prod(self.config.values)

    def after_step(self, phase: str) -> None:
        """Update the codebooks' moving averages and revive dead entries."""
        for quantiser in self.quantisers:
            cast(VectorQuantiser | ScalarQuantiser, quantiser).update()

    def to_levels(self, x: Tensor) -> list[Tensor]:
        """Return the indices of each level's codes, finest first, int64 [B, *grid]."""
        with self.inference():
            return [level.indices for level in self.encode(self.check(x))]

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return x_hat; no randomness."""
        with self.inference():
            levels = self.encode(self.check(x))
            return self.decode(x, [level.codes for level in levels]).images.to(x.dtype)
