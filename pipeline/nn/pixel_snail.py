"""Prior over a grid of codes by masked convolutions and causal attention.

PixelCNN (arXiv:1601.06759, 1606.05328) with the attention of PixelSNAIL (arXiv:1712.09763), which also sees the blind
spot of masked convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Config
from pipeline.nn.code_prior import CodePrior


class PixelSnailConfig(Config):
    """Size of the prior's network."""

    width: int = Field(48, ge=4, multiple_of=4, description="channels")
    blocks: int = Field(3, ge=1, description="gated blocks before the attention")
    heads: int = Field(4, ge=1, description="heads of the attention, a divisor of width")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")


class CausalConv(nn.Module):
    """A convolution of edge `kernel` that sees the positions before one in raster order, and with `here` also
    its own.
    """

    mask: Tensor

    def __init__(self, spatial_dims: int, width: int, out: int, kernel: int, here: bool) -> None:
        super().__init__()
        shape = (kernel,) * spatial_dims
        self.convolve = F.conv2d if spatial_dims == 2 else F.conv3d
        self.padding = kernel // 2
        self.weight = nn.Parameter(torch.empty(out, width, *shape))
        self.bias = nn.Parameter(torch.zeros(out))
        centre = math.prod(shape) // 2
        seen = torch.arange(math.prod(shape)) < centre + here
        self.register_buffer("mask", seen.float().reshape(shape), persistent=False)
        nn.init.normal_(self.weight, std=1 / math.sqrt(width * max(int(seen.sum()), 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, out, *grid]."""
        return self.convolve(x, self.weight * self.mask, self.bias, padding=self.padding)


class _GatedBlock(nn.Module):
    """Residual: two causal convolutions and a gate (arXiv:1606.05328, eq. 2), with the condition added in between."""

    def __init__(self, spatial_dims: int, width: int) -> None:
        super().__init__()
        self.first = CausalConv(spatial_dims, width, width, 3, here=True)
        self.second = CausalConv(spatial_dims, width, 2 * width, 3, here=True)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        inner = self.first(F.elu(h)) + condition
        value, gate = self.second(F.elu(inner)).chunk(2, dim=1)
        return h + value * gate.sigmoid()


class _CausalAttention(nn.Module):
    """Residual: each position attends to the features and codes of earlier positions, and to a null position at the
    start.

    Features alone are not enough: those of a position know the codes before it, but not its own.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries = nn.Linear(width, width)
        self.keys_values = nn.Linear(2 * width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor, embedded: Tensor) -> Tensor:
        q = self.queries(_sequence(F.elu(h)))
        before = F.pad(_sequence(torch.cat([F.elu(h), embedded], dim=1)), (0, 0, 1, 0))[:, :-1]
        k, v = self.keys_values(before).chunk(2, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return h + self.out(attended).transpose(1, 2).reshape(h.shape)


def _sequence(x: Tensor) -> Tensor:
    """Return [B, positions in raster order, width]."""
    return x.flatten(2).transpose(1, 2)


class PixelSnail(CodePrior):
    """p(codes | condition) over a grid.

    Args:
        entries: K, codes are 0 .. K - 1.
        grid: positions along each dimension (two or three).
        config: size of the network.
        coarse_entries: entries of the coarser grid of codes that is the condition; None for no condition.
    """

    def __init__(
        self, entries: int, grid: Sequence[int], config: PixelSnailConfig, coarse_entries: int | None = None
    ) -> None:
        super().__init__(entries, grid)
        width, dims = config.width, len(grid)
        self.embed = nn.Embedding(entries, width)
        self.place = nn.Parameter(0.1 * torch.randn(width, *grid))
        self.enter = CausalConv(dims, width, width, 5, here=False)
        self.blocks = nn.ModuleList([_GatedBlock(dims, width) for _ in range(config.blocks)])
        self.attention = _CausalAttention(width, config.heads)
        self.last = _GatedBlock(dims, width)
        self.out = nn.Linear(width, entries)
        if coarse_entries is not None:
            convolution = nn.Conv2d if dims == 2 else nn.Conv3d
            self.embed_coarse = nn.Embedding(coarse_entries, width)
            self.spread_coarse = convolution(width, width, 3, padding=1)

    def forward(self, codes: Tensor, coarse: Tensor | None = None) -> Tensor:
        """Return logits [B, K, *grid] of codes [B, *grid] given those before, and given `coarse` [B, *coarser grid]."""
        return self.logits(self.embed(codes).movedim(-1, 1), coarse)

    def logits_at(self, codes: Tensor, place: int, coarse: Tensor | None = None) -> Tensor:
        """Return logits [B, K] of one position; the network sees the rows of the grid up to its own."""
        rows = place // math.prod(self.grid[1:]) + 1
        return self.logits(self.embed(codes[:, :rows]).movedim(-1, 1), coarse).flatten(2)[..., place]

    def logits(self, embedded: Tensor, coarse: Tensor | None = None) -> Tensor:
        """Return logits [B, K, *grid] of embedded codes [B, width, *grid], or of the grid's first rows."""
        condition = self.place[None] + (0 if coarse is None else self._spread(coarse))
        condition = condition[:, :, : embedded.shape[2]]
        h = self.enter(embedded) + condition
        for block in self.blocks:
            h = block(h, condition)
        h = self.last(self.attention(h, embedded), condition)
        return self.out(F.elu(h).movedim(1, -1)).movedim(-1, 1).float()

    def _spread(self, coarse: Tensor) -> Tensor:
        embedded = self.embed_coarse(coarse).movedim(-1, 1)
        return self.spread_coarse(F.interpolate(embedded, size=self.grid, mode="nearest"))
