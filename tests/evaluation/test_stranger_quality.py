"""Quality of a score of strangers: numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.ranking import Ranking
from pipeline.evaluation.stranger_quality import fpr_at_recall, judge_strangers


def test_rates_by_hand() -> None:
    """Ten strangers at 1.5 but one at 0.5; of ten of the domain, three lie above 0.5 and one above 1.5."""
    scores = np.array([1.5] * 9 + [0.5] + [0.1] * 7 + [0.7, 0.8, 1.6])
    strangers = np.arange(20) < 10
    row = judge_strangers("blur", "gaussian", scores, strangers, [f"p{number}" for number in range(20)])
    assert row.fpr.value == pytest.approx(0.3), "all ten strangers are needed for 95 %"
    assert row.refused.value == pytest.approx(0.9) and row.count == 10
    assert row.auroc.value == pytest.approx((9 * 9 + 1 * 7) / 100)
    curve = Ranking.of(scores, strangers, np.arange(20)).curve(np.ones((1, 20)))
    assert fpr_at_recall(curve, 0.9)[0] == pytest.approx(0.1)
