"""Differentiable augmentation of what a discriminator sees, so that it cannot learn few images by heart.

DiffAugment: Zhao et al., arXiv:2006.10738 (brightness, contrast, translation, cutout; one channel has no saturation).
ADA: Karras et al., arXiv:2006.06676: each with a probability, below 1 so that the generator need not imitate it,
which follows how sure the discriminator is of real images (section 3.1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.nn.rng import Rng


def augment(x: Tensor, probability: Tensor, rng: Rng) -> Tensor:
    """Return x [B, C, *spatial] changed at random; gradients pass. At probability 0 it is x itself.

    Args:
        x: real or generated images.
        probability: a scalar in [0, 1], of each of the four changes of each image.
        rng: one stream per image.
    """
    one = (1,) * (x.ndim - 1)
    for change in (_brighten, _stretch, _move, _cut):
        x = torch.where(rng.uniform(*one) < probability, change(x, rng), x)
    return x


def follow_confidence(probability: Tensor, sign: Tensor, target: float, step: float) -> Tensor:
    """Return the next probability: up by `step` where r_t > target, else down, within [0, 1] (section 3.1).

    Args:
        probability: of each change.
        sign: r_t, the mean sign of the discriminator's output for real images: 1 if it knows them by heart, 0 if not.
        target: of r_t.
        step: images of this step over the images in which the probability may rise from 0 to 1.
    """
    return (probability + step * torch.sign(sign - target)).clamp(0, 1)


def _brighten(x: Tensor, rng: Rng) -> Tensor:
    return x + rng.uniform(*[1] * (x.ndim - 1), low=-0.5, high=0.5)


def _stretch(x: Tensor, rng: Rng) -> Tensor:
    middle = x.mean(dim=tuple(range(1, x.ndim)), keepdim=True)
    return (x - middle) * rng.uniform(*[1] * (x.ndim - 1), low=0.5, high=1.5) + middle


def _move(x: Tensor, rng: Rng) -> Tensor:
    """Move by up to an eighth of the edge; what enters is mid grey."""
    for axis in range(2, x.ndim):
        edge, one = x.shape[axis], (1,) * (x.ndim - 2)
        reach = edge // 8
        shift = rng.integers(-reach, reach + 1, 1, *one)
        line = torch.arange(edge, device=x.device).reshape(-1, *[1] * (x.ndim - axis - 1)) + shift
        inside = (line >= 0) & (line < edge)
        x = torch.where(inside, x.gather(axis, line.clamp(0, edge - 1).expand_as(x)), 0.0)
    return x


def _cut(x: Tensor, rng: Rng) -> Tensor:
    """Make a square of half the edge mid grey; its centre is anywhere."""
    outside = torch.zeros_like(x[:, :1], dtype=torch.bool)
    for axis in range(2, x.ndim):
        edge = x.shape[axis]
        centre = rng.integers(0, edge, 1, *[1] * (x.ndim - 2))
        line = torch.arange(edge, device=x.device).reshape(-1, *[1] * (x.ndim - axis - 1))
        outside = outside | (line < centre - edge // 4) | (line >= centre + edge // 4)
    return torch.where(outside, x, 0.0)
