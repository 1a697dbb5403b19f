"""AUROC between units alike in a control: near 0.5 for a score that reads it, unchanged for one that does not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.errors import ConfigError
from pipeline.evaluation.build import build_report
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.matched import GIVEN, IN_STRATA, quantile_strata
from pipeline.evaluation.metrics import evaluate_images

CONFIG = EvaluationConfig(resamples=100, matched=("noise",), matched_strata=10)
STRATA, RESIDUAL = f"{IN_STRATA}noise", f"{GIVEN}noise"


def confounded(score: str, units: int = 600, seed: int = 3) -> pd.DataFrame:
    """Return units whose classes differ by noise (AUROC about 0.8), with a score of the named kind."""
    rng = np.random.default_rng(seed)
    abnormal = rng.random(units) < 0.6
    noise = rng.normal(size=units) + 1.2 * abnormal
    own = rng.normal(size=units) + 1.0 * abnormal
    scores = {
        "noise": np.exp(noise),
        "less noise": -noise,
        "noisy": noise + 0.3 * rng.normal(size=units),
        "independent": own,
        "both": own + noise,
    }
    labels = np.where(abnormal, "abnormal", "normal")
    ids = [f"u{i}" for i in range(units)]
    return pd.DataFrame(
        {"unit_id": ids, "patient_id": ids, "label": labels, "score": scores[score], "control:noise": noise}
    )


@pytest.mark.parametrize("score", ["noise", "less noise", "noisy"])
def test_a_score_that_only_reads_the_noise_is_near_chance(score: str) -> None:
    metrics = evaluate_images(confounded(score), CONFIG).row("score").metrics
    assert abs(metrics["AUROC"].value - 0.5) > 0.25
    assert abs(metrics[STRATA].value - 0.5) < 0.07
    assert abs(metrics[RESIDUAL].value - 0.5) < (0.04 if score == "noisy" else 1e-9)


def test_a_score_independent_of_the_noise_keeps_its_value_within_its_interval() -> None:
    metrics = evaluate_images(confounded("independent"), CONFIG).row("score").metrics
    for name in (STRATA, RESIDUAL):
        estimate = metrics[name]
        assert abs(estimate.value - metrics["AUROC"].value) < 0.04
        assert estimate.low is not None and estimate.high is not None and 0.6 < estimate.low < estimate.high < 0.9


def test_what_a_score_finds_beyond_the_noise_is_between_both() -> None:
    both, own = (evaluate_images(confounded(kind), CONFIG).row("score").metrics for kind in ("both", "independent"))
    assert both["AUROC"].value > own["AUROC"].value + 0.05
    assert abs(both[STRATA].value - own["AUROC"].value) < 0.08
    assert abs(both[RESIDUAL].value - own["AUROC"].value) < 0.08


def test_strata_pool_their_pairs_and_residuals_are_those_of_ranks_by_hand() -> None:
    frame = confounded("both", units=80)
    score, noise = (frame[name].to_numpy() for name in ("score", "control:noise"))
    ill = (frame["label"] == "abnormal").to_numpy()
    metrics = evaluate_images(frame, EvaluationConfig(resamples=100, matched=("noise",), matched_strata=4))
    won = pairs = 0.0
    for code in range(4):
        inside = quantile_strata(noise, 4) == code
        difference = score[inside & ill][:, None] - score[inside & ~ill]
        won, pairs = won + (difference > 0).sum(), pairs + difference.size
    assert metrics.row("score").metrics[STRATA].value == pytest.approx(won / pairs)
    shared = (noise >= max(noise[ill].min(), noise[~ill].min())) & (noise <= min(noise[ill].max(), noise[~ill].max()))
    x, y = (np.argsort(np.argsort(values[shared])).astype(float) for values in (noise, score))
    slope = np.polyfit(x[~ill[shared]], y[~ill[shared]], 1)[0]
    expected = roc_auc_score(ill[shared], y - slope * x)
    assert metrics.row("score").metrics[RESIDUAL].value == pytest.approx(expected)


def test_the_report_prints_them_beside_the_controls_and_the_tracker_gets_them() -> None:
    report = build_report(confounded("both"), CONFIG, name="dae", set_name="develop")
    assert report.tables[0].row("noise").metrics[RESIDUAL].value == 0.5
    assert {
        "all_slices/dae/auroc_given_noise",
        "all_slices/dae/auroc_in_strata_of_noise_low",
    } <= report.summary().keys()
    assert RESIDUAL in report.to_markdown()


def test_an_unknown_control_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="sharpness") as refusal:
        evaluate_images(confounded("both"), EvaluationConfig(matched=("sharpness",)))
    assert "noise" in str(refusal.value)
