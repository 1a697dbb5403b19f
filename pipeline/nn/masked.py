"""Means within the body, per image."""

from __future__ import annotations

from torch import Tensor


def within_body(error: Tensor, body: Tensor) -> Tensor:
    """Return the mean over images of the mean over each body; an image without a body counts 0.

    Args:
        error: float [B, 1, *spatial].
        body: bool [B, 1, *spatial].
    """
    inside = body.flatten(1).to(error.dtype)
    return ((error.flatten(1) * inside).sum(dim=1) / inside.sum(dim=1).clamp_min(1)).mean()


def soft_dice_loss(p: Tensor, lesion: Tensor) -> Tensor:
    """Return the mean over images of 1 - (2 sum p g + 1) / (sum p + sum g + 1).

    The 1 makes an image without a lesion cost according to the sum of p, and 0 if p is 0. Milletari et al. square p and
    g in the denominator; here, as is now usual, they are not squared.

    Args:
        p: float [B, 1, *spatial] in [0, 1].
        lesion: float [B, 1, *spatial], 0 or 1: g.
    """
    p, g = p.flatten(1), lesion.flatten(1)
    return (1 - (2 * (p * g).sum(dim=1) + 1) / (p.sum(dim=1) + g.sum(dim=1) + 1)).mean()
