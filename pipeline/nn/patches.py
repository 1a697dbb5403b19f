"""Square patches as channels, in two and three dimensions, and back."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor


def fold(x: Tensor, patch: int) -> Tensor:
    """Return [B, C * patch^d, *spatial / patch] of x [B, C, *spatial]: the pixels of a patch become channels."""
    if patch == 1:
        return x
    if x.ndim == 5:
        return rearrange(x, "b c (d r) (h p) (w q) -> b (c r p q) d h w", r=patch, p=patch, q=patch)
    return rearrange(x, "b c (h p) (w q) -> b (c p q) h w", p=patch, q=patch)


def unfold(x: Tensor, patch: int) -> Tensor:
    """Undo `fold`."""
    if patch == 1:
        return x
    if x.ndim == 5:
        return rearrange(x, "b (c r p q) d h w -> b c (d r) (h p) (w q)", r=patch, p=patch, q=patch)
    return rearrange(x, "b (c p q) h w -> b c (h p) (w q)", p=patch, q=patch)
