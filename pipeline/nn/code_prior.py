"""Base of autoregressive priors over a grid of codes: likelihood, sampling and resampling from logits.

p(codes) = prod_i p(code_i | codes before i, condition) in raster order, in two or three dimensions: every arrangement
of the codes has a likelihood, and the likelihoods of all arrangements sum to one. The networks are in
`pipeline.nn.pixel_snail` and `pipeline.nn.code_transformer`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.nn.draw_codes import draw_code, require_drawing
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

    def logits_at(self, codes: Tensor, place: int, coarse: Tensor | None = None) -> Tensor:
        """Return logits [B, K] of the code at a position, counted in raster order; later codes are not looked at."""
        return self(codes, coarse).flatten(2)[..., place]

    @torch.no_grad()
    def resample(
        self,
        codes: Tensor,
        where: Tensor,
        rng: Rng,
        coarse: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
    ) -> Tensor:
        """Resample the codes at `where` [B, *grid] in raster order, each given those before it; keep the others.

        Randomness: one uniform number per position from each row's stream, used or not, so that rows are independent.

        Args:
            codes, where, coarse: as above; `where` is bool.
            rng: one stream per row.
            temperature: divides the logits; above 0, and 1 is the prior itself.
            top_k: only the most likely entries are drawn; 0 for all.
        """
        flat, positions, u = codes.flatten(1).clone(), where.flatten(1), rng.uniform(*self.grid).flatten(1)
        for place in range(flat.shape[1]):
            rows = positions[:, place].nonzero()[:, 0]
            if len(rows):
                given = flat[rows].reshape(-1, *self.grid)
                logits = self.logits_at(given, place, None if coarse is None else coarse[rows])
                flat[rows, place] = draw_code(logits, u[rows, place], temperature, top_k)
        return flat.reshape(codes.shape)

    def sample(self, rng: Rng, coarse: Tensor | None = None, temperature: float = 1.0, top_k: int = 0) -> Tensor:
        """Draw codes [B, *grid] from the prior, one per row of `rng`.

        Raises:
            ConfigError: `temperature` is not above 0, or `top_k` is negative.
        """
        require_drawing(temperature, top_k, 1.0)
        blank = torch.zeros(len(rng), *self.grid, dtype=torch.int64, device=rng.device)
        return self.resample(blank, torch.ones_like(blank, dtype=torch.bool), rng, coarse, temperature, top_k)


def nearest_count_most(x: Tensor, images: Tensor, sharpness: float) -> Tensor:
    """Return the mean of restorations `images` [S, B, ...] with weights softmax(sharpness / mean |x - image|) over S.

    Source: Marimont and Tarroni, arXiv:2012.06765, who average the residuals.
    """
    distance = (images - x).abs().flatten(2).mean(dim=2)
    weights = (sharpness / distance.clamp_min(1e-6)).softmax(dim=0)
    return (weights.reshape(*weights.shape, *[1] * (x.ndim - 1)) * images).sum(dim=0)


def touched(missing: Tensor, grid: Sequence[int]) -> Tensor:
    """Return the cells of a grid of codes that missing pixels [B, 1, *spatial] are in: bool [B, *grid]."""
    largest = F.adaptive_max_pool2d if len(grid) == 2 else F.adaptive_max_pool3d
    return largest(missing.float(), tuple(grid))[:, 0] > 0
