"""Base of autoregressive priors over a grid of codes: likelihood, sampling and resampling from logits.

p(codes) = prod_i p(code_i | codes before i, condition) in raster order, in two or three dimensions: every arrangement
of the codes has a likelihood, and the likelihoods of all arrangements sum to one. The networks are in
`pipeline.nn.pixel_snail` and `pipeline.nn.code_transformer`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.nn.rng import Rng


class CodePrior(nn.Module, ABC):
    """p(codes | condition) over a grid of codes 0 .. `entries` - 1."""

    def __init__(self, entries: int, grid: Sequence[int]) -> None:
        super().__init__()
        self.entries, self.grid = entries, tuple(grid)

    @abstractmethod
    def forward(self, codes: Tensor, coarse: Tensor | None = None) -> Tensor:
        """Return logits [B, K, *grid] of codes [B, *grid] given those before, and given `coarse` [B, *coarser grid]."""

    def nll(self, codes: Tensor, coarse: Tensor | None = None) -> Tensor:
        """Return -log p(code_i | codes before i, coarse) at every position, in nats, [B, *grid]."""
        return F.cross_entropy(self(codes, coarse), codes, reduction="none")

    @torch.no_grad()
    def resample(self, codes: Tensor, where: Tensor, rng: Rng, coarse: Tensor | None = None) -> Tensor:
        """Resample the codes at `where` [B, *grid] in raster order, each given those before it; keep the others.

        Randomness: one uniform number per position from each row's stream, used or not, so that rows are independent.
        """
        codes, u = codes.clone(), rng.uniform(*self.grid)
        for place in product(*map(range, self.grid)):
            at: tuple[Any, ...] = (slice(None), *place)
            rows: Any = where[at].nonzero()[:, 0]
            if len(rows):
                logits = self(codes[rows], None if coarse is None else coarse[rows])
                codes[(rows, *place)] = _inverse_cdf(logits[(slice(None), slice(None), *place)], u[(rows, *place)])
        return codes

    def sample(self, rng: Rng, coarse: Tensor | None = None) -> Tensor:
        """Draw codes [B, *grid] from the prior, one per row of `rng`."""
        blank = torch.zeros(len(rng), *self.grid, dtype=torch.int64, device=rng.device)
        return self.resample(blank, torch.ones_like(blank, dtype=torch.bool), rng, coarse)


def _inverse_cdf(logits: Tensor, u: Tensor) -> Tensor:
    """Return the category [B] at the quantile u [B] in [0, 1) of the distribution."""
    cdf = logits.double().softmax(dim=1).cumsum(dim=1)
    return torch.searchsorted(cdf, u[:, None].double(), right=True)[:, 0].clamp_max(logits.shape[1] - 1)


def nearest_count_most(x: Tensor, images: Tensor, sharpness: float) -> Tensor:
    """Return the mean of restorations `images` [S, B, ...] with weights softmax(sharpness / mean |x - image|) over S.

    Source: Marimont and Tarroni, arXiv:2012.06765, who average the residuals.
    """
    distance = (images - x).abs().flatten(2).mean(dim=2)
    weights = (sharpness / distance.clamp_min(1e-6)).softmax(dim=0)
    return (weights.reshape(*weights.shape, *[1] * (x.ndim - 1)) * images).sum(dim=0)
