"""Grid of scores computed from one model's outputs: residual x median x erosion x adjacent x hysteresis x aggregate.

The score matters more than the model: the same autoencoder rescored with SSIM at a wide Gaussian gained 18 points of
AUROC (Cai et al. 2025). So every step after the forward pass is tried, from stored outputs, without another forward
pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from pipeline.config import Config
from pipeline.detection.aggregate import AggregateConfig, aggregate_maps
from pipeline.detection.config import DetectionConfig
from pipeline.detection.residual import ResidualConfig, across, clean, counted_body, residual

Kind = Literal["l1", "l2", "ssim", "signed", "perceptual"]


class GridConfig(Config):
    """Values to try. All lists are crossed with each other, as far as they apply."""

    kinds: tuple[Kind, ...] = Field(
        ("l1", "l2", "signed", "ssim"),
        min_length=1,
        description="residuals; `perceptual` costs one pass of the backbone each",
    )
    directions: tuple[Literal["positive", "negative"], ...] = Field(
        ("positive", "negative"), min_length=1, description="directions of `signed`"
    )
    sigma_fractions: tuple[float, ...] = Field((1.5 / 64, 3 / 64, 6 / 64), min_length=1, description="sigmas of `ssim`")
    low_passes: tuple[float, ...] = Field((0.0,), min_length=1, description="sigmas of the low pass on x - x_hat")
    medians: tuple[int, ...] = Field((1, 5), min_length=1, description="edges of the median filter")
    erosions: tuple[int, ...] = Field((0, 2), min_length=1, description="pixels eroded from the body")
    adjacents: tuple[float, ...] = Field(
        (0.0, 1.0),
        min_length=1,
        description="weights of adjacent slices' maps, 0 to 1, if series have several slices",
    )
    hystereses: tuple[float, ...] = Field(
        (1.0,), min_length=1, description="ratios of hysteresis, 1 or more; above 1, whole series are read"
    )
    maps: tuple[Literal["mean", "top_fraction", "max_smoothed"], ...] = Field(
        ("mean", "top_fraction", "max_smoothed"), min_length=1, description="aggregations from map to slice"
    )
    fractions: tuple[float, ...] = Field((0.01, 0.05), min_length=1, description="fractions of `top_fraction`")
    transforms: tuple[Literal["none", "two_sided"], ...] = Field(
        ("none", "two_sided"), min_length=1, description="transforms of a slice's score"
    )

    @field_validator("adjacents")
    @classmethod
    def _weights(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if odd := [value for value in values if not 0 <= value <= 1]:
            raise ValueError(f"{odd[0]:g} is not a weight of adjacent slices. Give values from 0 to 1")
        return values

    @field_validator("hystereses")
    @classmethod
    def _ratios(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if low := [value for value in values if value < 1]:
            raise ValueError(f"{low[0]:g} is not a ratio of hysteresis. Give 1, which is off, or more")
        return values

    @property
    def whole(self) -> bool:
        """Whether some value needs whole series."""
        return max(self.adjacents) > 0 or max(self.hystereses) > 1


@dataclass(frozen=True, slots=True)
class MapCell:
    """One cleaned map of the grid, with its erosions, weights of adjacent slices and hystereses.

    `erode`, `adjacent` and `hysteresis` of `residual` are not used.
    """

    residual: ResidualConfig
    erosions: tuple[int, ...]
    adjacents: tuple[float, ...]
    hystereses: tuple[float, ...]

    def configs(self) -> list[ResidualConfig]:
        """Return the residual's configuration for each erosion, weight and hysteresis."""
        names = ("erode", "adjacent", "hysteresis")
        crossed = product(self.erosions, self.adjacents, self.hystereses)
        return [self.residual.model_copy(update=dict(zip(names, values, strict=True))) for values in crossed]


def map_cells(config: GridConfig, own: DetectionConfig, reconstructs: bool) -> list[MapCell]:
    """Return every distinct map: all residuals for a reconstruction, only the cleaning for a method's own map.

    The run's own setting always comes first.
    """
    kinds: list[dict[str, object]] = [{}]
    if reconstructs:
        kinds = [{"kind": kind} for kind in config.kinds if kind in ("l1", "l2", "perceptual")]
        kinds += [{"kind": "signed", "direction": d} for d in config.directions if "signed" in config.kinds]
        kinds += [{"kind": "ssim", "sigma_fraction": s} for s in config.sigma_fractions if "ssim" in config.kinds]
    erosions = tuple(dict.fromkeys((own.residual.erode, *config.erosions)))
    adjacents = tuple(dict.fromkeys((own.residual.adjacent, *config.adjacents)))
    hystereses = tuple(dict.fromkeys((own.residual.hysteresis, *config.hystereses)))
    shared: dict[str, object] = {"perceptual": own.residual.perceptual}
    low_passes = config.low_passes if reconstructs else (0.0,)
    tried = [
        ResidualConfig(**{**shared, **kind, "low_pass": low, "median": median})
        for kind, low, median in product(kinds, low_passes, config.medians)
    ]
    distinct: dict[tuple[object, ...], ResidualConfig] = {}
    for residual_config in (own.residual.model_copy(update={"erode": 0}), *tried):
        distinct.setdefault(_what_counts(residual_config, reconstructs), residual_config)
    return [MapCell(residual_config, erosions, adjacents, hystereses) for residual_config in distinct.values()]


def _what_counts(config: ResidualConfig, reconstructs: bool) -> tuple[object, ...]:
    """Return the fields that change the map: for example, an L1 residual does not depend on a sigma."""
    kind = config.kind if reconstructs else "own map"
    direction = config.direction if kind == "signed" else None
    sigma = config.sigma_fraction if kind == "ssim" else None
    low_pass = config.low_pass if reconstructs else None
    return kind, direction, sigma, low_pass, config.median, config.smooth_fraction


def aggregates(config: GridConfig, own: AggregateConfig) -> list[AggregateConfig]:
    """Return every way from map to slice; the run's own comes first, and the aggregation of slices to studies is
    unchanged.
    """
    tried: list[dict[str, Any]] = [{"map": kind} for kind in config.maps if kind != "top_fraction"]
    tried += [{"map": "top_fraction", "fraction": f} for f in config.fractions if "top_fraction" in config.maps]
    candidates = [own, *(own.model_copy(update=update) for update in tried)]
    seen: dict[tuple[object, ...], AggregateConfig] = {}
    for one in candidates:
        seen.setdefault((one.map, one.fraction if one.map == "top_fraction" else None), one)
    return list(seen.values())


def cleaned_maps(answer: Tensor, x: Tensor, config: ResidualConfig, reconstructs: bool) -> Tensor:
    """Return float32 [B, 1, *spatial] before masking, from x_hat or from the method's own map."""
    if not reconstructs:
        return clean(answer, config)
    everywhere = torch.ones((len(x), 1, *x.shape[2:]), dtype=torch.bool)
    return residual(x, answer, everywhere, config.model_copy(update={"erode": 0}))


def counted_maps(maps: Tensor, body: Tensor, config: ResidualConfig) -> tuple[Tensor, Tensor]:
    """Return cleaned maps as a detector counts them, and the counted body.

    Args:
        maps: float32 [N, 1, *spatial], of `cleaned_maps`; with `adjacent` above 0 of one whole series, in order.
        body: bool [N, 1, *spatial].
    """
    counted = counted_body(body, config)
    return across(maps.masked_fill(~counted, 0.0), counted, config), counted


def slice_scores(maps: Tensor, counted: Tensor, configs: list[AggregateConfig]) -> Tensor:
    """Return float64 [A, B]: every aggregate of every map."""
    return torch.stack([aggregate_maps(maps, counted, config) for config in configs])
