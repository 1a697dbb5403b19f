"""From maps to scores to studies: golden numbers, order and neighbours, empty bodies."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from pipeline.detection.aggregate import AggregateConfig, aggregate_maps, aggregate_series, aggregate_study, over
from pipeline.errors import ConfigError, Rejected
from pipeline.types import SliceScore


def score(series: str, number: int, value: float) -> SliceScore:
    return SliceScore(f"i{number}", 0, series, "study", "patient", value)


def ramp() -> tuple[torch.Tensor, torch.Tensor]:
    """A 4 x 4 map 0..15 whose last row, 12..15, is outside the body: 12 pixels, 0..11."""
    maps = torch.arange(16.0).reshape(1, 1, 4, 4)
    return maps, maps < 12


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (AggregateConfig(map="mean"), 5.5),
        (AggregateConfig(map="top_fraction", fraction=0.25), 10.0),  # ceil(3) pixels: 9, 10, 11
        (AggregateConfig(map="top_fraction", fraction=0.26), 9.5),  # ceil(3.12) pixels: 8..11
        (AggregateConfig(map="top_fraction", fraction=0.001), 11.0),  # at least one
        (AggregateConfig(map="top_fraction", fraction=1.0), 5.5),
    ],
)
def test_golden_aggregates(config: AggregateConfig, expected: float) -> None:
    assert aggregate_maps(*ramp(), config).tolist() == [expected]


def test_max_smoothed_is_normalised_within_the_body() -> None:
    rng = np.random.default_rng(0)
    values, body = rng.normal(size=(20, 20)).astype(np.float32), rng.random((20, 20)) < 0.7
    blurred = [gaussian_filter(a.astype(float), 2.0, mode="nearest", truncate=3.5) for a in (values * body, body)]
    expected = (blurred[0] / blurred[1])[body].max()
    maps, bodies = torch.from_numpy(values)[None, None], torch.from_numpy(body)[None, None]
    smoothed = aggregate_maps(maps, bodies, AggregateConfig(map="max_smoothed", smooth_fraction=0.1))
    assert smoothed.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("how", ["mean", "top_fraction", "max_smoothed"])
def test_scores_are_not_clamped_and_air_does_not_count(how: str) -> None:
    maps, body = ramp()
    low = aggregate_maps(maps - 100, body, AggregateConfig(map=how))
    torch.testing.assert_close(low, aggregate_maps(maps, body, AggregateConfig(map=how)) - 100, atol=1e-3, rtol=1e-4)
    assert low < -80
    loud = torch.where(body, maps, 1e6)
    torch.testing.assert_close(aggregate_maps(loud, body, AggregateConfig(map=how)), low + 100, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("how", ["mean", "top_fraction", "max_smoothed"])
@pytest.mark.parametrize("shape", [(5, 1, 12, 12), (5, 1, 6, 6, 6)])
def test_a_row_depends_on_itself(how: str, shape: tuple[int, ...]) -> None:
    maps, body = torch.randn(shape), torch.rand(shape) < 0.5
    body[2] = False
    config = AggregateConfig(map=how, fraction=0.1)
    whole = aggregate_maps(maps, body, config)
    assert whole.dtype == torch.float64
    assert math.isnan(whole[2])
    alone = torch.cat([aggregate_maps(maps[i : i + 1], body[i : i + 1], config) for i in range(5)])
    torch.testing.assert_close(alone, whole, equal_nan=True, atol=1e-6, rtol=1e-6)
    order = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(aggregate_maps(maps[order], body[order], config), whole[order], equal_nan=True)


def test_over_is_bitwise_free_of_order() -> None:
    values = [0.1, 1e16, -1e16, 0.3, 2.5, 1e-9]
    for how in ("max", "mean", "top_k_mean"):
        assert len({over(p, how, 4) for p in itertools.permutations(values)}) == 1
    assert over(values, "top_k_mean", 2) == pytest.approx(5e15)
    assert over([3.0, 1.0, 2.0], "top_k_mean", 2) == 2.5
    assert over([3.0], "top_k_mean", 5) == 3.0


def test_series_leaves_out_slices_without_a_body_and_refuses_none() -> None:
    assert aggregate_series([1.0, math.nan, 3.0], AggregateConfig(slices="mean")) == 2.0
    for empty in ([], [math.nan, math.nan]):
        with pytest.raises(Rejected) as caught:
            aggregate_series(empty, AggregateConfig())
        assert caught.value.code == "empty-foreground"


def test_study_keeps_evidence_and_does_not_mind_order() -> None:
    config = AggregateConfig(slices="mean", series="max")
    slices = [
        score("a", 1, 1.0),
        score("a", 2, 3.0),
        score("b", 3, 2.5),
        score("b", 4, math.nan),
        score("c", 5, math.nan),
    ]
    value, evidence = aggregate_study(slices, config)
    assert value == 2.5  # a: 2.0, b: 2.5, c has no body and is left out
    assert [item.score for item in evidence] == [3.0, 2.5, 1.0]
    shuffled = random.Random(1).sample(slices, len(slices))
    assert aggregate_study(shuffled, config) == (value, evidence)


def test_study_without_bodies_or_of_two_studies_is_refused() -> None:
    with pytest.raises(Rejected, match="empty-foreground"):
        aggregate_study([score("a", 1, math.nan)], AggregateConfig())
    with pytest.raises(Rejected, match="empty-foreground"):
        aggregate_study([], AggregateConfig())
    with pytest.raises(ConfigError, match="2 studies"):
        aggregate_study([score("a", 1, 1.0), SliceScore("x", 0, "s", "other", "p", 1.0)], AggregateConfig())
