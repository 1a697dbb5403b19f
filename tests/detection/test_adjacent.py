"""Maps that depend on adjacent slices (averages, hysteresis): closed form, whole series only, no score without."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.data.images.normalise import FixedRange, Normaliser
from pipeline.detection.aggregate import AggregateConfig, aggregate_maps
from pipeline.detection.config import DetectionConfig
from pipeline.detection.connected import hysteresis
from pipeline.detection.detector import Detector
from pipeline.detection.filters import across_slices
from pipeline.detection.residual import ResidualConfig, counted_body
from pipeline.errors import ConfigError
from pipeline.methods import parse_method
from pipeline.methods.stored_model import Model
from pipeline.types import Batch

PLAIN = ResidualConfig(kind="l1", erode=1)


def detector(adjacent: float = 0.0, across: dict[str, Any] | None = None, **fields: Any) -> Detector:
    method = parse_method({"name": "ae", "widths": [8, 16], "hidden": 16, "latent": 4}).build(32).eval()
    config = DetectionConfig(
        residual=PLAIN.model_copy(update={"adjacent": adjacent, **(across or {})}),
        aggregate=AggregateConfig(map="top_fraction", fraction=0.05),
        **fields,
    )
    return Detector(Model(method, Normaliser(FixedRange(image_size=32))), config, "somewhere")


@pytest.fixture
def series() -> Batch:
    torch.manual_seed(0)
    body = torch.zeros(7, 1, 32, 32, dtype=torch.bool)
    body[..., 4:28, 4:28] = True
    return Batch(torch.randn(7, 1, 32, 32).clamp(-1, 1), body, tuple(map(str, range(7))))


def test_the_average_by_hand() -> None:
    maps = torch.tensor([0.0, 6.0, 0.0, 12.0]).reshape(4, 1, 1, 1)
    expected = torch.tensor([(0 + 3) / 1.5, (6 + 0) / 2, (0 + 3 + 6) / 2, (12 + 0) / 1.5]).reshape(4, 1, 1, 1)
    assert_close(across_slices(maps, 0.5), expected)
    assert torch.equal(across_slices(maps, 0.0), maps)
    assert torch.equal(across_slices(maps[:1], 1.0), maps[:1])  # a single slice has no neighbour
    assert torch.equal(across_slices(maps.flip(0), 0.3), across_slices(maps, 0.3).flip(0))


def test_a_series_is_scored_on_averaged_maps(series: Batch) -> None:
    alone, across = detector(0.0).score_batch(series), detector(0.7).score_batch(series)
    counted = counted_body(series.body, PLAIN)
    expected = across_slices(alone.maps, 0.7).masked_fill(~counted, 0)
    assert_close(across.maps, expected)
    assert_close(across.scores, aggregate_maps(expected, counted, AggregateConfig(map="top_fraction", fraction=0.05)))
    assert_close(across.reconstructions, alone.reconstructions)


def test_hysteresis_comes_after_the_average(series: Batch) -> None:
    rule = {"hysteresis": 2.0}
    averaged, lowered = detector(0.7).score_batch(series), detector(0.7, rule).score_batch(series)
    expected = hysteresis(averaged.maps, 2.0)
    assert torch.equal(lowered.maps, expected) and not torch.equal(expected, averaged.maps)
    counted = counted_body(series.body, PLAIN)
    assert_close(lowered.scores, aggregate_maps(expected, counted, AggregateConfig(map="top_fraction", fraction=0.05)))
    assert detector(0.7, rule).residual.alone() == PLAIN


def test_a_long_series_is_computed_in_parts_with_the_same_result(series: Batch) -> None:
    whole, parts = detector(0.7), detector(0.7, batch_size=2)
    sizes: list[int] = []
    asked = parts.method.reconstruct
    parts.method.reconstruct = lambda x, *more: (sizes.append(len(x)), asked(x, *more))[1]
    assert_close(parts.score_batch(series).maps, whole.score_batch(series).maps)
    assert max(sizes) == 2 and sum(sizes) == 7


@pytest.mark.parametrize("rule", [{"adjacent": 0.7}, {"hysteresis": 2.0}])
def test_only_whole_series_are_taken(series: Batch, rule: dict[str, Any]) -> None:
    class Loose:
        def __len__(self) -> int:
            return 7

        def __getitem__(self, i: int) -> dict[str, Tensor | str]:
            return {"image": series.images[i], "body": series.body[i], "id": series.ids[i]}

    assert len(list(detector(0.0).score_slices(Loose()))) == 7
    with pytest.raises(ConfigError, match="whole series"):
        list(detector(across=rule).score_slices(Loose()))


def test_a_method_without_maps_is_refused() -> None:
    class Number(type(detector(0.0).method)):
        reconstruct = None

        def score(self, x: Tensor, rng: Any) -> Tensor:
            return x.flatten(1).mean(dim=1)

    method = detector(0.0).method
    method.__class__ = Number
    for plain in (detector(0.7), detector(across={"hysteresis": 2.0})):
        with pytest.raises(ConfigError, match="adjacent"):
            replace(plain, model=replace(plain.model, method=method))
