"""Mutual information gap: 1 for a code that separates the factors, 0 for one that mixes them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from pipeline.errors import ConfigError
from pipeline.evaluation.disentanglement import mutual_information_gap

N = 20_000
RANDOM = np.random.default_rng(0)
FACTORS = {"position": RANDOM.integers(0, 5, N), "shade": RANDOM.integers(0, 4, N)}
POSITION, SHADE = (FACTORS[name].astype(float) for name in FACTORS)
NOISE = RANDOM.normal(size=N)


def test_a_code_with_a_dimension_for_each_factor_has_a_gap_of_one() -> None:
    result = mutual_information_gap(np.stack([NOISE, 3 * SHADE, -POSITION], axis=1), FACTORS)
    assert result.gap == pytest.approx(1.0, abs=0.01)
    assert result.dimension == {"position": 2, "shade": 1}


def test_a_code_that_mixes_the_factors_has_none() -> None:
    # Turned by 45 degrees, both dimensions know as much of each factor.
    turned = np.stack([POSITION / 4 + SHADE / 3, POSITION / 4 - SHADE / 3], axis=1)
    assert mutual_information_gap(turned, FACTORS).gap < 0.05
    twice = np.stack([POSITION, POSITION, SHADE], axis=1)
    assert mutual_information_gap(twice, FACTORS).of_factor == pytest.approx({"position": 0.0, "shade": 1.0}, abs=0.01)
    assert mutual_information_gap(np.stack([NOISE, NOISE[::-1]], axis=1), FACTORS).gap < 0.01


def test_a_gap_by_hand_and_by_another_library() -> None:
    # The first dimension knows the position but for a fifth of the images, the second one knows its parity.
    blurred = np.where(RANDOM.random(N) < 0.2, 0, POSITION)
    codes = np.stack([blurred, POSITION % 2], axis=1)
    shared = [mutual_info_score(FACTORS["position"], column) for column in codes.T]
    expected = (max(shared) - min(shared)) / mutual_info_score(POSITION, POSITION)
    result = mutual_information_gap(codes, {"position": FACTORS["position"]})
    assert result.gap == pytest.approx(expected, abs=1e-9) and 0.1 < expected < 0.9


@pytest.mark.parametrize(
    ("codes", "factors"),
    [
        (np.zeros((4, 1)), {"a": np.arange(4)}),
        (np.zeros((4, 2)), {"a": np.arange(3)}),
        (np.zeros((4, 2)), {"a": np.ones(4)}),
    ],
)
def test_input_without_a_gap_is_refused(codes: np.ndarray, factors: dict[str, np.ndarray]) -> None:
    with pytest.raises(ConfigError):
        mutual_information_gap(codes, factors)
