"""Pixel thresholds: an exact weighted quantile beside the histogram's, equal weight per patient."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detection.pixel_threshold import RELATIVE_ERROR, PixelHistogram, PixelQuantiles
from pipeline.errors import ConfigError, Rejected, TooFewNormals


def exact(patients: list[np.ndarray], alpha: float) -> float:
    """The smallest pixel value with a weighted share of at most alpha strictly above it."""
    values = np.concatenate(patients)
    weights = np.concatenate([np.full(len(p), 1 / len(p) / len(patients)) for p in patients])
    candidates = np.unique(values)
    above = np.array([weights[values > c].sum() for c in candidates])
    return float(candidates[np.argmax(above <= alpha + 1e-12)])


def fill(patients: list[np.ndarray]) -> PixelHistogram:
    histogram = PixelHistogram()
    for number, pixels in enumerate(patients):
        histogram.add(f"p{number}", pixels)
    return histogram


@pytest.mark.parametrize("shift", [0.0, -3.0])
def test_near_the_exact_quantile_and_never_below(shift: float) -> None:
    rng = np.random.default_rng(5)
    sizes = (200, 900, 40)
    patients = [(rng.gamma(2, 0.1, n) * (i + 1) + shift).astype(np.float32) for i, n in enumerate(sizes)]
    quantiles = fill(patients).quantiles()
    for alpha in quantiles.alphas:
        value, truth = quantiles.threshold(alpha), exact(patients, alpha)
        assert truth <= value <= truth + RELATIVE_ERROR * abs(truth) + 1e-12


def test_patients_weigh_the_same_whatever_their_pixels() -> None:
    # A thousand quiet pixels of one patient, ten loud ones of another: half of all weight is loud.
    quantiles = fill([np.full(1000, 0.1), np.full(10, 8.0)]).quantiles((0.1, 0.4, 0.5, 0.6))
    assert quantiles.values == pytest.approx((8.0, 8.0, 0.1, 0.1), rel=RELATIVE_ERROR)
    assert quantiles.patients == 2


@given(
    st.lists(
        st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20).map(lambda v: np.array(v, dtype=np.float32)),
        min_size=1,
        max_size=4,
    )
)
def test_never_more_than_alpha_above(patients: list[np.ndarray]) -> None:
    for alpha, value in zip(*[(q := fill(patients).quantiles()).alphas, q.values], strict=True):
        assert np.mean([(pixels > np.float32(value)).mean() for pixels in patients]) <= alpha + 1e-9


def test_pieces_and_order_change_nothing() -> None:
    rng = np.random.default_rng(1)
    patients = [rng.normal(size=n) for n in (50, 70)]
    pieces = PixelHistogram()
    for name, part in (("p1", patients[1][30:]), ("p0", patients[0]), ("p1", patients[1][:30]), ("p2", np.zeros(0))):
        pieces.add(name, part)
    assert pieces.quantiles() == fill(patients).quantiles()


def test_round_trip_and_refusals() -> None:
    quantiles = fill([np.linspace(0, 1, 50)]).quantiles()
    assert PixelQuantiles.model_validate(json.loads(quantiles.model_dump_json())) == quantiles
    with pytest.raises(ConfigError, match=r"\b0\.123\b.*\b0\.0001\b"):
        quantiles.threshold(0.123)
    with pytest.raises(TooFewNormals):
        PixelHistogram().quantiles()
    with pytest.raises(Rejected, match="NaN"):
        PixelHistogram().add("p", np.array([np.nan]))
