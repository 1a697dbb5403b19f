"""Residual quantisation on several scales with one codebook, as in VAR (arXiv:2404.02905, algorithms 1 and 2).

Notation of the paper: f the encoder's features, f_hat what the codes so far give back, K scales with grids of 1 to the
grid of f, r_k the codes of scale k, phi_k a convolution that repairs the enlargement. At each scale the rest f - f_hat
is averaged down to its grid and quantised; its codes, enlarged and refined, are added to f_hat:

    r_k = Q((down(f - f_hat) - m_k) / s_k),  f_hat <- f_hat + phi_k(up(m_k + s_k lookup(r_k))),
    phi_k(z) = (1 - q) z + q conv_k(z)

In the paper m_k = 0 and s_k = 1, and the coarse scales collapse: the 1 x 1 scale has one vector per image, all of them
nearly the same and far smaller in spread than those of the finest scale, so that one entry serves it. Here each scale
is standardised by moving averages of the mean m_k and the standard deviation s_k of its rests, so that all scales use
the whole codebook, and every scale counts equally in the codebook's moving averages and when dead entries are revived.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.nn.quantise import CodebookConfig, VectorQuantiser
from pipeline.nn.rng import Rng

DECAY = 0.95  # of the moments, per step: faster than the codebook, since the encoder's mean moves most at first
SMALLEST = 1e-8  # variance of rests that are all the same


class Refined(NamedTuple):
    """Output of `ResidualQuantiser`: f_hat [B, D, *grid], indices of each scale [B, *scale], and two losses.

    `codebook_loss` is the mean over the scales of |f_hat_k - sg[f]|^2, with f_hat_k the sum after scale k; it moves
    codebook and convolutions only. `commitment_loss` is |sg[f_hat] - f|^2 of all scales together, and moves the encoder
    only: in the authors' code it is a mean over the scales too, but f_hat_1 is a constant image, and f shrinks towards
    it. The gradient of later layers passes from f_hat to f unchanged.
    """

    codes: Tensor
    indices: list[Tensor]
    codebook_loss: Tensor
    commitment_loss: Tensor


class ResidualQuantiser(nn.Module):
    """f -> codes of K scales -> f_hat.

    Args:
        spatial_dims: 2 or 3.
        grid: edge of f's grid; the scales are 1, 2, 4 and so on, up to it.
        entries, width: of the codebook.
        codebook: how it learns.
        refine: q, the share of the convolution in phi; 0 leaves the enlarged codes as they are.
    """

    mean: Tensor
    variance: Tensor
    noted_mean: Tensor
    noted_variance: Tensor

    def __init__(
        self, spatial_dims: int, grid: int, entries: int, width: int, codebook: CodebookConfig, refine: float = 0.5
    ) -> None:
        super().__init__()
        self.scales, self.spatial_dims, self.width, self.refine = doublings(grid), spatial_dims, width, refine
        self.quantiser = VectorQuantiser(entries, width, codebook)
        self.register_buffer("mean", torch.zeros(len(self.scales), width))
        self.register_buffer("variance", torch.ones(len(self.scales)))
        # Buffers rather than attributes, since processes that train together average them before the step.
        self.register_buffer("noted_mean", torch.zeros(len(self.scales), width), persistent=False)
        self.register_buffer("noted_variance", torch.ones(len(self.scales)), persistent=False)
        kind = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        self.phi = nn.ModuleList(_identity(kind(width, width, 3, padding=1)) for _ in self.scales if refine)

    @property
    def counts(self) -> list[int]:
        """Number of tokens of each scale, coarsest first."""
        return [edge**self.spatial_dims for edge in self.scales]

    def grid_of(self, scale: int) -> tuple[int, ...]:
        """Return the shape of a scale's grid."""
        return (self.scales[scale],) * self.spatial_dims

    def forward(self, f: Tensor, rng: Rng | None = None) -> Refined:
        """Quantise f [B, D, *grid]; in training mode and with `rng`, initialise the codebook and record its usage."""
        with torch.autocast(f.device.type, enabled=False):
            f = f.float()
            self._begin(f, rng)
            f_hat, rests, indices, codebook = torch.zeros_like(f), [], [], []
            for scale in range(len(self.scales)):
                rests.append(self.down((f - f_hat).detach(), scale))
                indices.append(self.nearest(rests[-1], scale))
                f_hat = f_hat + self.enlarged(indices[-1], scale)
                codebook.append(F.mse_loss(f_hat, f.detach()))
            self._note(rests, indices, rng)
            commitment = F.mse_loss(f, f_hat.detach())
            return Refined(f + (f_hat - f).detach(), indices, torch.stack(codebook).mean(), commitment)

    def nearest(self, rest: Tensor, scale: int) -> Tensor:
        """Return the index of the nearest entry for rests [B, D, *scale] of a scale."""
        return self.quantiser.nearest(self._standard(rest, scale).movedim(1, -1))

    def down(self, f: Tensor, scale: int) -> Tensor:
        """Return f averaged down to the grid of a scale."""
        return F.interpolate(f, size=self.grid_of(scale), mode="area")

    def enlarged(self, indices: Tensor, scale: int) -> Tensor:
        """Return what the codes of a scale add to f_hat: [B, D, *grid] for indices [B, *scale]."""
        mean, deviation = self._moments(scale)
        z = self.quantiser.embed(indices) * deviation + mean
        if self.scales[scale] < self.scales[-1]:
            mode = "bicubic" if self.spatial_dims == 2 else "trilinear"
            z = F.interpolate(z, size=self.grid_of(-1), mode=mode)
        return z if not self.refine else (1 - self.refine) * z + self.refine * self.phi[scale](z)

    def split(self, tokens: Tensor) -> list[Tensor]:
        """Return the indices of each scale, [B, *scale], of tokens [B, L], coarsest first."""
        parts = tokens.split(self.counts, dim=1)
        return [part.reshape(-1, *self.grid_of(scale)) for scale, part in enumerate(parts)]

    def embed(self, tokens: Tensor) -> Tensor:
        """Return f_hat [B, D, *grid] of tokens [B, L], coarsest first."""
        return torch.stack([self.enlarged(one, scale) for scale, one in enumerate(self.split(tokens))]).sum(dim=0)

    def contexts(self, tokens: Tensor) -> Tensor:
        """Return what is known at each token before its scale: f_hat of the coarser scales on its grid, [B, L, D].

        For the first scale it is 0.
        """
        f_hat, parts = None, []
        for scale, indices in enumerate(self.split(tokens)):
            change = self.enlarged(indices, scale)
            f_hat = torch.zeros_like(change) if f_hat is None else f_hat
            parts.append(self.context(f_hat, scale))
            f_hat = f_hat + change
        return torch.cat(parts, dim=1)

    def entries_of(self, tokens: Tensor) -> Tensor:
        """Return the codebook's entries of tokens [B, L], as a sequence [B, L, D]."""
        return F.embedding(tokens, self.quantiser.codebook)

    def context(self, f_hat: Tensor, scale: int) -> Tensor:
        """Return f_hat on the grid of a scale as a sequence, [B, N, D], centred and with a spread of about 1."""
        centred = self.down(f_hat, scale).flatten(2).transpose(1, 2) - self.mean.sum(dim=0)
        return centred / self.variance.sum().clamp_min(SMALLEST).sqrt()

    @torch.no_grad()
    def update(self) -> None:
        """Update the codebook, and mean and variance of the scales, after the optimiser's step."""
        if self.quantiser.noted:
            self.mean.lerp_(self.noted_mean, 1 - DECAY)
            self.variance.lerp_(self.noted_variance, 1 - DECAY)
        self.quantiser.update()

    def _begin(self, f: Tensor, rng: Rng | None) -> None:
        """Initialise mean, variance and codebook in the first training step, as if every vector had an entry."""
        if self.training and rng is not None and not self.quantiser.placed:
            levels = [self.down(f.detach(), scale) for scale in range(len(self.scales))]
            finer = [b - F.interpolate(a, size=b.shape[2:]) for a, b in pairwise(levels)]
            rests = [levels[0], *finer]
            mean, variance = moments(rests)
            self.mean.copy_(mean)
            self.variance.copy_(variance)
            self.quantiser.begin(self._balanced(self._all_standard(rests)), rng)

    def _note(self, rests: list[Tensor], indices: list[Tensor], rng: Rng | None) -> None:
        chosen = self._balanced([one[:, None].float() for one in indices])[:, 0].long()
        self.quantiser.note(self._balanced(self._all_standard(rests)), chosen, rng)
        if self.quantiser.noted:
            mean, variance = moments(rests)
            self.noted_mean.copy_(mean)
            self.noted_variance.copy_(variance)

    def _moments(self, scale: int) -> tuple[Tensor, Tensor]:
        """Return m_k [D, 1, ..] and s_k of a scale."""
        return self.mean[scale].reshape(-1, *[1] * self.spatial_dims), self.variance[scale].clamp_min(SMALLEST).sqrt()

    def _standard(self, rest: Tensor, scale: int) -> Tensor:
        mean, deviation = self._moments(scale)
        return (rest - mean) / deviation

    def _all_standard(self, rests: list[Tensor]) -> list[Tensor]:
        return [self._standard(rest, scale) for scale, rest in enumerate(rests)]

    def _balanced(self, levels: Sequence[Tensor]) -> Tensor:
        """Return vectors of all scales as [B, D, K N], each repeated so that every scale has as many."""
        size = self.grid_of(-1)
        return torch.cat([F.interpolate(one, size=size).flatten(2) for one in levels], dim=2)


def moments(rests: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the mean [K, D] of the rests of each scale, and their mean squared deviation from it [K]."""
    vectors = [rest.movedim(1, -1).flatten(0, -2) for rest in rests]
    mean = torch.stack([one.mean(dim=0) for one in vectors])
    return mean, torch.stack([(one - m).square().mean() for one, m in zip(vectors, mean, strict=True)])


def doublings(grid: int) -> tuple[int, ...]:
    """Return the edges of the scales up to `grid`: 1, 2, 4 and so on; halves are rounded down."""
    edges = [grid]
    while edges[-1] > 1:
        edges.append(edges[-1] // 2)
    return tuple(reversed(edges))


def _identity(conv: nn.Conv2d | nn.Conv3d) -> nn.Module:
    """Let a convolution begin as the identity, so that phi does, and return it."""
    nn.init.dirac_(conv.weight)
    nn.init.zeros_(cast(Tensor, conv.bias))
    return conv
