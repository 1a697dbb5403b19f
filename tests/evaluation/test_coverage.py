"""Do the intervals cover what they promise? Simulations with stated power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, norm

from pipeline.evaluation.bootstrap import PatientBootstrap
from pipeline.evaluation.compare import auroc_covariance
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.ranking import Ranking, roc_area

WORLDS = 400


def world(rng: np.random.Generator, patients: int, units: int, shift: float) -> tuple[np.ndarray, ...]:
    """Binormal scores, 40 % of the variance shared within a patient; classes mixed within patients."""
    patient = np.repeat(np.arange(patients), units)
    abnormal = rng.random(len(patient)) < 0.4
    shared = rng.normal(size=patients)[patient] * np.sqrt(0.4)
    return patient, abnormal, shared + rng.normal(size=len(patient)) * np.sqrt(0.6) + shift * abnormal


@pytest.mark.slow
@pytest.mark.parametrize(("patients", "units", "shift"), [(40, 8, 0.8), (40, 8, 2.0), (80, 3, 1.2)])
def test_the_patient_bootstrap_covers(patients: int, units: int, shift: float) -> None:
    # 400 worlds: a true coverage of 95 % gives fewer than 364 hits (91 %) with probability 0.0003; a true coverage of
    # 88 % passes with probability 0.035, one of 86 % with 0.002.
    rng, hits, truth = np.random.default_rng(7), 0, norm.cdf(shift / np.sqrt(2))
    for seed in range(WORLDS):
        patient, abnormal, scores = world(rng, patients, units, shift)
        strata = (np.bincount(patient, abnormal) > 0).astype(int)
        drawn = PatientBootstrap.draw(strata, EvaluationConfig(resamples=600, seed=seed))
        ranking = Ranking.of(scores, abnormal, patient)
        sampled = drawn.sample(lambda w, r=ranking: roc_area(r.curve(w))[:, None], len(scores))
        (estimate,) = drawn.estimates(sampled)
        hits += estimate.low <= truth <= estimate.high
    assert binom.cdf(hits, WORLDS, 0.95) > 0.0005, hits


def test_obuchowski_keeps_its_level_and_delong_on_clusters_does_not() -> None:
    # Two scores of equal AUROC with a patient effect of their own each: the null is true, 5 % of the tests reject.
    # 400 worlds: more than 34 rejections (8.5 %) have probability 0.001 at 5 %; DeLong rejects far more often.
    rng, rejected, naive = np.random.default_rng(3), 0, 0
    for _ in range(WORLDS):
        patient, abnormal, first = world(rng, 60, 8, 1.0)
        effect = rng.normal(size=(2, 60))[:, patient] * (abnormal - 0.4) * 1.5
        scores = first + effect
        for clusters, name in ((patient, "clustered"), (np.arange(len(patient)), "naive")):
            areas, covariance = auroc_covariance(scores, abnormal, clusters)
            error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
            reject = abs(areas[0] - areas[1]) > 1.96 * error
            rejected, naive = rejected + (reject and name == "clustered"), naive + (reject and name == "naive")
    assert rejected <= 34
    assert naive > 60
