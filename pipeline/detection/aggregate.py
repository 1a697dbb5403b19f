"""Aggregation from a map to one number, and from slices to series to study, independent of order and neighbours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.detection.filters import gaussian_blur
from pipeline.errors import ConfigError, Rejected, RejectionCode
from pipeline.types import SliceScore

Over = Literal["max", "mean", "top_k_mean"]


class AggregateConfig(Config):
    """Aggregation from map to slice score, from slices to series, and from series to study."""

    map: Literal["mean", "top_fraction", "max_smoothed"] = Field("mean", description="statistic over the body's pixels")
    fraction: float = Field(0.02, gt=0, le=1, description="for `top_fraction`: share of the body's pixels to average")
    smooth_fraction: float = Field(3 / 64, gt=0, le=1, description="for `max_smoothed`: sigma / image size")
    slices: Over = Field("max", description="from slices to series")
    series: Over = Field("max", description="from series to study")
    top_k: int = Field(3, ge=1, description="for `top_k_mean`: number of highest scores to average")


def aggregate_maps(maps: Tensor, body: Tensor, config: AggregateConfig) -> Tensor:
    """Reduce each map to one number over its body; a row depends on itself alone.

    Args:
        maps: float [B, 1, *spatial].
        body: bool [B, 1, *spatial], the pixels that count.

    Returns:
        float64 [B]; NaN exactly where the body is empty: such a slice has no score and is left out of its series.
    """
    if maps.shape != body.shape:
        raise ConfigError(f"Maps {list(maps.shape)} and bodies {list(body.shape)} must have the same shape.")
    if config.map == "mean":
        scores = _mean(maps, body)
    elif config.map == "top_fraction":
        scores = _top(maps, body, config.fraction)
    else:
        scores = _max_smoothed(maps, body, config.smooth_fraction)
    return torch.where(body.flatten(1).any(dim=1), scores, torch.nan)


def _mean(maps: Tensor, body: Tensor) -> Tensor:
    inside = maps.masked_fill(~body, 0).flatten(1).sum(dim=1, dtype=torch.float64)
    return inside / body.flatten(1).sum(dim=1).clamp(min=1)


def _top(maps: Tensor, body: Tensor, fraction: float) -> Tensor:
    """Return the mean of the ceil(fraction x n) highest of the body's n pixels."""
    pixels = body.flatten(1).sum(dim=1)
    counts = torch.ceil(fraction * pixels.double()).long()
    most = max(int(counts.max()), 1)
    highest = maps.masked_fill(~body, -torch.inf).flatten(1).topk(most, dim=1).values
    taken = torch.arange(most, device=maps.device) < counts[:, None]
    return highest.masked_fill(~taken, 0).sum(dim=1, dtype=torch.float64) / counts.clamp(min=1)


def _max_smoothed(maps: Tensor, body: Tensor, sigma_fraction: float) -> Tensor:
    """Return the highest value after a Gaussian normalised within the body, so that air does not dilute its edge."""
    weight = gaussian_blur(body.to(maps.dtype), sigma_fraction)
    smooth = gaussian_blur(maps.masked_fill(~body, 0), sigma_fraction) / weight.clamp(min=torch.finfo(maps.dtype).tiny)
    return smooth.masked_fill(~body, -torch.inf).flatten(1).amax(dim=1).double()


def over(scores: Iterable[float], how: Over, top_k: int) -> float:
    """Reduce scores to one; at least one is needed. Exact summation makes the result independent of order."""
    ordered = sorted(scores, reverse=True)
    if how == "max":
        return ordered[0]
    taken = ordered[:top_k] if how == "top_k_mean" else ordered
    return math.fsum(taken) / len(taken)


def aggregate_series(scores: Sequence[float], config: AggregateConfig) -> float:
    """Reduce one series' slice scores; slices without a score (NaN: empty body) are left out.

    Raises:
        Rejected: no slice has a score (empty-foreground).
    """
    present = [score for score in scores if not math.isnan(score)]
    if not present:
        raise Rejected(
            RejectionCode.EMPTY_FOREGROUND,
            f"None of {len(scores)} slices has a body to score. Check the body mask of the normaliser and the "
            "erosion of the residual, or take the series off the route.",
        )
    return over(present, config.slices, config.top_k)


def aggregate_study(slices: Sequence[SliceScore], config: AggregateConfig) -> tuple[float, tuple[SliceScore, ...]]:
    """Reduce the slices of one study, stack by stack, and keep them as evidence.

    Returns:
        the study's score, and its scored slices, most anomalous first (ties by ids).

    Raises:
        Rejected: no slice of any series has a score (empty-foreground).
        ConfigError: the slices belong to more than one study.
    """
    if studies := {item.study_id for item in slices} - {slices[0].study_id if slices else ""}:
        raise ConfigError(
            f"Slices of {len(studies) + 1} studies were given, but a finding is about one study. Group them first."
        )
    series: dict[str, list[float]] = {}
    for item in slices:
        if not math.isnan(item.score):
            series.setdefault(item.stack_id, []).append(item.score)
    if not series:
        aggregate_series([item.score for item in slices], config)
    score = over([aggregate_series(scores, config) for scores in series.values()], config.series, config.top_k)
    evidence = [item for item in slices if not math.isnan(item.score)]
    return score, tuple(sorted(evidence, key=lambda item: (-item.score, item.stack_id, item.instance_id, item.frame)))
