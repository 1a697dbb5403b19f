"""Independent codes: a histogram of codes per position, the plainest prior, which a learned one has to beat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from pipeline.nn.code_prior import CodePrior

PriorKind = Literal["learned", "independent"]
STRENGTH = 16.0  # number of codes that the usage over all positions counts for at one position


def smoothed(counts: Tensor, strength: float) -> Tensor:
    """Return p(k | place) [places, K] of counts n of that shape; no probability is zero.

    p(k | place) = (n(k, place) + strength q(k)) / (n(place) + strength), where q(k) = (n(k) + 1) / (n + K) is the usage
    over all places.
    """
    usage = counts.sum(dim=0) + 1
    usage = usage / usage.sum()
    return (counts + strength * usage) / (counts.sum(dim=1, keepdim=True) + strength)


class CodeHistogram(CodePrior):
    """p(codes) as a product over positions; it has no parameters, and counts the codes that it sees in training."""

    counts: Tensor

    def __init__(self, entries: int, grid: Sequence[int]) -> None:
        super().__init__(entries, grid)
        # Not an integer, since processes that train together average it, as the moving average of the weights does.
        self.register_buffer("counts", torch.zeros(math.prod(grid), entries))

    def forward(self, codes: Tensor, coarse: Tensor | None = None) -> Tensor:
        """Return logits [B, K, *grid]; neither other codes nor `coarse` matter."""
        return self._log_p().T.reshape(1, self.entries, *self.grid).expand(len(codes), -1, *self.grid)

    def logits_at(self, codes: Tensor, place: int, coarse: Tensor | None = None) -> Tensor:
        """Return logits [B, K] of one position."""
        return self._log_p()[place].expand(len(codes), -1)

    @torch.no_grad()
    def observe(self, codes: Tensor) -> Tensor:
        """Return the mean -log p of codes [B, *grid], in nats per code; in training mode, count them afterwards."""
        nll = self.nll(codes).mean()
        if self.training:
            places = torch.arange(len(self.counts), device=codes.device) * self.entries
            flat = (codes.flatten(1) + places).flatten()
            self.counts += torch.bincount(flat, minlength=self.counts.numel()).reshape(self.counts.shape)
        return nll

    def _log_p(self) -> Tensor:
        return smoothed(self.counts, STRENGTH).log()
