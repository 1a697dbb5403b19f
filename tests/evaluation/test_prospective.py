"""Rates of a detector in use: by hand, against weights, and covered by their intervals where the truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from pipeline.errors import EmptySelection
from pipeline.evaluation import prospective
from pipeline.evaluation.agreement import kappas, patient_tables, reader_agreement
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.prospective import ProspectiveRates, ReadScans, estimate_prospective_rates

CONFIG = EvaluationConfig(resamples=300)


def scans(abnormal: int, total: int, weight: float = 1.0, first: int = 0) -> ReadScans:
    """`abnormal` of `total` scans, each from another patient."""
    return ReadScans(np.arange(total) < abnormal, np.full(total, weight), np.arange(first, first + total))


def test_by_hand() -> None:
    """20 of 50 flagged are abnormal; 2 of 40 sampled of 2 000: 100 missed. 20 / 120, and 30 / 1 930."""
    rates = estimate_prospective_rates(scans(20, 50), scans(2, 40, 50.0, 100), (50, 2000), CONFIG)
    assert rates.sensitivity is not None and rates.fpr is not None and rates.ppv is not None
    assert rates.sensitivity.value == pytest.approx(20 / 120)
    assert rates.fpr.value == pytest.approx(30 / 1930)
    assert rates.ppv.value == pytest.approx(0.4)
    assert rates.sensitivity.low < 20 / 120 < rates.sensitivity.high


def test_weights_are_inverse_probabilities_not_counts() -> None:
    """One missed among few of a long night weighs more than one among all of a short one."""
    sampled = ReadScans(np.array([1, 0, 0, 0], bool), np.array([10.0, 10.0, 1.0, 1.0]), np.arange(4))
    rates = estimate_prospective_rates(scans(5, 10, first=9), sampled, (10, 22), CONFIG)
    assert rates.missed is not None and rates.missed.value == pytest.approx(10 / 22)
    assert rates.sensitivity is not None and rates.sensitivity.value == pytest.approx(5 / (5 + 10))


def test_without_a_sample_only_the_ppv_and_why() -> None:
    nobody = scans(0, 0)
    rates = estimate_prospective_rates(scans(3, 10), nobody, (10, 500), CONFIG)
    assert rates.ppv is not None and rates.ppv.value == pytest.approx(0.3)
    assert rates.sensitivity is rates.fpr is None
    assert "No sampled scan was decided" in rates.note and "sample_share" in rates.note
    with pytest.raises(EmptySelection, match="nightread review"):
        estimate_prospective_rates(nobody, nobody, (10, 500), CONFIG)


def test_finding_none_in_the_sample_proves_nothing() -> None:
    """0 of 100: sensitivity 1 is possible, and so is much less; more reading brings the bound up."""
    few, many = (
        estimate_prospective_rates(scans(20, 50), scans(0, n, 2000 / n, 100), (50, 2000), CONFIG) for n in (30, 1000)
    )
    assert few.sensitivity is not None and many.sensitivity is not None
    assert few.sensitivity.value == few.sensitivity.high == 1
    assert few.sensitivity.low < 0.4 < many.sensitivity.low


def test_scans_of_one_patient_are_not_independent() -> None:
    abnormal, weight = np.repeat(np.arange(20) < 5, 5), np.ones(100)
    assert ReadScans(abnormal, weight, np.arange(100)).effective == pytest.approx(99, abs=1.5)
    assert ReadScans(abnormal, weight, np.repeat(np.arange(20), 5)).effective == pytest.approx(19, abs=1.5)


SETTINGS: dict[str, dict[str, Any]] = {
    "few-missed": {"nights": 20, "scans": 100, "prevalence": 0.05, "sensitivity": 0.8, "fpr": 0.05, "share": 0.02},
    "many-read": {"nights": 20, "scans": 200, "prevalence": 0.1, "sensitivity": 0.7, "fpr": 0.05, "share": 0.2},
    "clustered": {
        "nights": 20,
        "scans": 200,
        "prevalence": 0.1,
        "sensitivity": 0.7,
        "fpr": 0.05,
        "share": 0.3,
        "each": 4,
    },
    "unread": {"nights": 40, "scans": 60, "prevalence": 0.1, "sensitivity": 0.6, "fpr": 0.1, "share": 0.1, "read": 0.7},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_intervals_cover_the_truth(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 simulated hospitals: 95 % intervals cover at least 92 % (a true 95 % falls below with probability 0.01).

    Point estimates are unbiased for the false-positive rate, and within 0.03 for sensitivity, a ratio of few.
    """
    monkeypatch.setattr(prospective, "DRAWS", 2_000)
    truth, rng = SETTINGS[name], np.random.default_rng(1)
    results = [hospital(rng, **truth) for _ in range(300)]
    for rate in ("sensitivity", "fpr"):
        estimates = [getattr(rates, rate) for rates in results]
        covered = np.mean([e.low <= truth[rate] <= e.high for e in estimates])
        assert covered >= 0.92, (rate, covered)
        assert np.mean([e.value for e in estimates]) == pytest.approx(truth[rate], abs=0.03)


def hospital(
    rng: np.random.Generator,
    nights: int,
    scans: int,
    prevalence: float,
    sensitivity: float,
    fpr: float,
    share: float,
    each: int = 1,
    read: float = 1.0,
) -> ProspectiveRates:
    """Scans of a hospital: `each` per patient, whose risks differ; flagged ones are read with probability `read`."""
    parts, counts = {True: [], False: []}, np.zeros(2, int)
    for _ in range(nights):
        people = scans // each
        risk = rng.beta(2 * prevalence, 2 - 2 * prevalence, people) if each > 1 else np.full(people, prevalence)
        abnormal = rng.random(scans) < np.repeat(risk, each)
        flagged = rng.random(scans) < np.where(abnormal, sensitivity, fpr)
        patient = np.repeat(rng.integers(1 << 60, size=people), each)
        quiet = np.flatnonzero(~flagged)
        size = min(len(quiet), max(5, int(np.ceil(share * len(quiet)))))
        chosen = rng.choice(quiet, size, replace=False)
        reviewed = np.flatnonzero(flagged & (rng.random(scans) < read))
        parts[True].append((abnormal[reviewed], np.ones(len(reviewed)), patient[reviewed]))
        parts[False].append((abnormal[chosen], np.full(size, len(quiet) / size), patient[chosen]))
        counts += [flagged.sum(), len(quiet)]
    joined = {kind: ReadScans(*map(np.concatenate, zip(*rows, strict=True))) for kind, rows in parts.items()}
    return estimate_prospective_rates(joined[True], joined[False], (int(counts[0]), int(counts[1])), CONFIG)


def test_kappa_is_sklearns_and_its_weights_are_repetitions() -> None:
    rng = np.random.default_rng(0)
    first = rng.choice(["confirmed", "dismissed", "unsure"], 60)
    second = np.where(rng.random(60) < 0.7, first, rng.permutation(first))
    patient = np.repeat(np.arange(20), 3)
    agreement = reader_agreement(list(first), list(second), list(patient), CONFIG)
    assert agreement.kappa is not None
    assert agreement.kappa.value == pytest.approx(cohen_kappa_score(first, second))
    assert agreement.kappa.low < agreement.kappa.value < agreement.kappa.high
    assert agreement.same == int((first == second).sum())
    drawn = rng.integers(20, size=20)
    rows = np.concatenate([np.flatnonzero(patient == one) for one in drawn])
    tables = patient_tables(first, second, patient, sorted(set(first)))
    weights = np.bincount(drawn, minlength=20)[None].astype(float)
    assert kappas(weights, tables)[0, 0] == pytest.approx(cohen_kappa_score(first[rows], second[rows]))


def test_kappa_says_when_it_is_undefined() -> None:
    assert "No scan was read by two" in reader_agreement([], [], [], CONFIG).note
    assert "chance agreement is 1" in reader_agreement(["dismissed"] * 3, ["dismissed"] * 3, list("abc"), CONFIG).note
