"""A prior over a grid of codes by a decoder-only transformer, as in VQGAN (arXiv:2012.09841, section 3.2).

The codes in raster order are a sequence; MONAI's `DecoderOnlyTransformer` reads it shifted by one position, so that
each position sees those before it, and the first one sees a start token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from pipeline.config import Config
from pipeline.nn.code_prior import CodePrior


class CodeTransformerConfig(Config):
    """Size of the transformer."""

    width: int = Field(64, ge=4, description="channels, a multiple of heads")
    layers: int = Field(4, ge=1, description="blocks of attention and perceptron")
    heads: int = Field(4, ge=1, description="heads of each attention")
    lr: float = Field(5e-4, gt=0, description="learning rate of Adam")

    @model_validator(mode="after")
    def _divides(self) -> CodeTransformerConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


class CodeTransformer(CodePrior):
    """p(codes) over a grid, without a condition."""

    def __init__(self, entries: int, grid: Sequence[int], config: CodeTransformerConfig) -> None:
        from monai.networks.nets import DecoderOnlyTransformer

        super().__init__(entries, grid)
        self.network = DecoderOnlyTransformer(
            entries + 1, math.prod(grid), config.width, config.layers, config.heads, use_flash_attention=True
        )

    def forward(self, codes: Tensor, coarse: Tensor | None = None) -> Tensor:
        """Return logits [B, K, *grid] of codes [B, *grid] given those before; `coarse` is not used."""
        before = F.pad(codes.flatten(1)[:, :-1], (1, 0), value=self.entries)
        logits = self.network(before)[..., : self.entries]
        return logits.movedim(-1, 1).unflatten(2, self.grid).float()

    def logits_at(self, codes: Tensor, place: int, coarse: Tensor | None = None) -> Tensor:
        """Return logits [B, K] of one position; the transformer reads only the codes before it."""
        before = F.pad(codes.flatten(1)[:, :place], (1, 0), value=self.entries)
        return self.network(before)[:, -1, : self.entries].float()
