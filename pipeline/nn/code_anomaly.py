"""Anomalies made of codes: entries of a codebook put where they do not belong (DSR, arXiv:2208.01512, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.nn.rng import Rng

ALIKE = 8  # entries, counted from the nearest, that a coherent region mixes


def entries_by_distance(codebook: Tensor) -> Tensor:
    """Return int64 [K, K]: for each entry of a codebook [K, D] all entries, nearest first, so itself first."""
    codebook = codebook.detach().float()
    return torch.cdist(codebook, codebook).argsort(dim=1, stable=True)


def replace_codes(codes: Tensor, region: Tensor, order: Tensor, reach: Tensor, coherent: Tensor, rng: Rng) -> Tensor:
    """Return codes with those in a region replaced by other entries.

    Args:
        codes: int64 [B, *grid], entries 0 .. K - 1.
        region: bool [B, *grid].
        order: int64 [K, K], of `entries_by_distance`.
        reach: [B] in [0, 1], the share of the nearest entries that the others are drawn from, never the code itself.
        coherent: bool [B], draw from the nearest entries of one code of another image instead.
        rng: one stream per row; with `coherent` a row depends on its neighbour in the batch too.
    """
    entries, one = len(order), [-1, *[1] * (codes.ndim - 1)]
    u = rng.uniform(*codes.shape[1:])
    ranks = (1 + u * (reach.reshape(one) * (entries - 1)).clamp_min(1)).long().clamp_max(entries - 1)
    scattered = order[codes, ranks]
    others = codes.roll(1, 0).flatten(1)
    place = (rng.fork("source").uniform(1) * others.shape[1]).long().clamp_max(others.shape[1] - 1)
    source = others.gather(1, place).reshape(one).expand_as(codes)
    alike = order[source, (u * min(ALIKE, entries)).long().clamp_max(entries - 1)]
    return torch.where(region, torch.where(coherent.reshape(one), alike, scattered), codes)
