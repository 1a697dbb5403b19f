"""Precision of retrieval: shares by hand, and intervals over the patients of the queries."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import EmptySelection
from pipeline.evaluation.retrieval_quality import compare_precision, share_relevant


def test_a_missing_neighbour_is_not_relevant() -> None:
    np.testing.assert_allclose(share_relevant([[True, False], [True], []], 2), [0.5, 0.5, 0.0])


def test_ways_are_compared_on_the_same_resamples() -> None:
    pixels = np.array([0.0, 1.0, 0.5, 0.5, 0.0, 1.0])
    patients = ["a", "a", "b", "b", "c", "c"]
    plain, better = compare_precision({"pixels": pixels, "codes": pixels + 0.25}, patients, ["pixels"])
    assert plain.over == {}
    assert plain.precision.value == pytest.approx(0.5)
    assert better.precision.value == pytest.approx(0.75)
    gain = better.over["pixels"]  # the same for every patient, so that its interval has no width
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.25, 0.25, 0.25))


def test_one_patient_has_no_interval() -> None:
    with pytest.raises(EmptySelection):
        compare_precision({"pixels": np.array([0.5, 1.0])}, ["a", "a"], ["pixels"])
