"""Blocks of autoencoders with a flat code: halving and doubling convolutions and the layers between them.

The recipe is that of MedIAnomaly (Cai et al., Medical Image Analysis 2025): 4x4 convolutions of stride 2 with batch
norm and ReLU, a fully connected layer of `hidden`, the code, and the mirrored decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

SQUEEZE = 3  # layers of `squeeze`


def halving(spatial_dims: int, sizes: Sequence[int]) -> nn.Sequential:
    """Return convolutions of stride 2 that lead from `sizes[0]` channels to `sizes[-1]`, one per pair."""
    return nn.Sequential(*[_halve(spatial_dims, a, b) for a, b in pairwise(sizes)])


def doubling(spatial_dims: int, sizes: Sequence[int]) -> nn.Sequential:
    """Return transposed convolutions of stride 2 through `sizes`; the last one is linear."""
    last = len(sizes) - 2
    return nn.Sequential(*[_double(spatial_dims, a, b, i == last) for i, (a, b) in enumerate(pairwise(sizes))])


def squeeze(flat: int, hidden: int, latent: int) -> list[nn.Module]:
    """Return the layers [B, flat] -> [B, latent]."""
    return [nn.Linear(flat, hidden), nn.ReLU(), nn.Linear(hidden, latent)]


def spread(latent: int, hidden: int, flat: int) -> list[nn.Module]:
    """Return the layers [B, latent] -> [B, flat]."""
    return [nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, flat)]


def on_grid(z: Tensor, spatial_dims: int) -> Tensor:
    """Return a flat code [B, latent] on a grid of size 1: [B, latent, 1, 1], with a third 1 in three dimensions."""
    return z.unflatten(1, (-1, *[1] * spatial_dims))


def _halve(spatial_dims: int, a: int, b: int) -> nn.Module:
    from monai.networks.blocks import Convolution

    return Convolution(spatial_dims, a, b, strides=2, kernel_size=4, padding=1, act="relu", norm="batch")


def _double(spatial_dims: int, a: int, b: int, last: bool) -> nn.Module:
    from monai.networks.blocks import Convolution

    return Convolution(
        spatial_dims, a, b, strides=2, kernel_size=4, padding=1, output_padding=0, is_transposed=True,
        act="relu", norm="batch", conv_only=last,
    )  # fmt: skip
