"""AUCp: what it is, and the two ways in which it fails, both of which must be said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.stages.choose.aucp import Sides, auroc, chance, check_aucp
from pipeline.types import SliceRef


class Slices:
    """A data set of noise at a given level, all of one scanner."""

    def __init__(self, count: int, scanner: str, level: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        made = {"scanner": scanner, "site": "one"}
        self.slices = tuple(
            SliceRef(f"{scanner}{seed}{i}", 0, f"s{i}", f"t{i}", f"p{seed}-{i}", "k", made, 0.5) for i in range(count)
        )
        self.images = rng.normal(level, 0.1, (count, 1, 16, 16)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "body": np.ones((1, 16, 16), bool), "id": self.slices[index].slice_id}

    @property
    def patients(self) -> list[str]:
        return [ref.patient_id for ref in self.slices]


def checked(scores: np.ndarray, normals: Slices, incoming: Slices) -> Any:
    return check_aucp([sides(scores, normals, incoming)], normals, incoming)  # type: ignore[arg-type]


def sides(scores: np.ndarray, normals: Slices, incoming: Slices) -> Sides:
    return Sides(scores, np.arange(len(scores)) >= len(normals), [*normals.patients, *incoming.patients])


def test_auroc_counts_ties_as_half() -> None:
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 5, 200).astype(float), rng.random(200) < 0.3
    assert auroc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))
    assert np.isnan(auroc(scores, np.ones(200, bool)))


def test_aucp_follows_the_true_auroc_when_the_mixture_is_the_same() -> None:
    # With a share q of anomalies among the incoming, AUCp = q AUROC + (1 - q) / 2.
    rng = np.random.default_rng(1)
    normals, sick = rng.normal(0, 1, 4000), rng.normal(2, 1, 1200)
    incoming = np.r_[rng.normal(0, 1, 2800), sick]
    truth = auroc(np.r_[normals, sick], np.arange(5200) >= 4000)
    found = auroc(np.r_[normals, incoming], np.arange(8000) >= 4000)
    assert found == pytest.approx(0.3 * truth + 0.35, abs=0.02)


def test_nothing_is_said_against_a_sound_choice() -> None:
    normals, incoming = Slices(60, "A", 0.0, 1), Slices(60, "A", 0.0, 2)
    rng = np.random.default_rng(3)
    report = checked(np.r_[rng.normal(0, 1, 60), rng.normal(1.5, 1, 60)], normals, incoming)
    assert report.usable, report.warnings
    assert report.low > 0.5 and report.shift == {"site": 0, "scanner": 0}


def test_absent_anomalies_are_noticed() -> None:
    normals, incoming = Slices(60, "A", 0.0, 1), Slices(60, "A", 0.0, 2)
    report = checked(np.random.default_rng(4).normal(0, 1, 120), normals, incoming)
    assert not report.usable
    assert any("anomalies may be absent" in warning for warning in report.warnings)


def test_the_luckiest_of_many_scores_is_noticed_to_be_lucky() -> None:
    """60 scores that know nothing, alike as a grid's are: at 5 % one choice in twenty may pass, and one in five did."""
    normals, incoming = Slices(40, "A", 0.0, 1), Slices(60, "A", 0.0, 2)
    passed = {"chance": 0, "interval": 0}
    for night in range(60):
        rng = np.random.default_rng((6, night))
        shared = rng.normal(size=100)
        tried = [sides(shared + rng.normal(size=100), normals, incoming) for _ in range(60)]
        passed["chance"] += chance(tried, permutations=200) <= 0.05
        passed["interval"] += check_aucp(tried, normals, incoming).low > 0.5  # type: ignore[operator,arg-type]
    assert passed["chance"] <= 7  # P(Binomial(60, 0.05) > 7) < 1 %
    assert passed["interval"] > 10  # why the interval of the best is no test


def test_chance_by_hand_and_anomalies_are_not_luck() -> None:
    # Two against two, all four in order: one of the six ways to take two of four is as high.
    four = Sides(np.arange(4.0), np.array([False, False, True, True]), list("abcd"))
    assert chance([four], 3000) == pytest.approx(1 / 6, abs=0.02)
    # Units of one patient change sides together: two patients have two ways.
    assert chance([four._replace(patients=list("aabb"))], 3000) == pytest.approx(1 / 2, abs=0.03)
    normals, incoming = Slices(40, "A", 0.0, 1), Slices(60, "A", 0.0, 2)
    rng = np.random.default_rng(7)
    found = [rng.normal(size=100) for _ in range(59)] + [np.r_[rng.normal(size=40), rng.normal(1, 1, 60)]]
    report = check_aucp([sides(one, normals, incoming) for one in found], normals, incoming)  # type: ignore[arg-type]
    assert report.scores == 60 and report.chance < 0.01 and report.usable


def test_another_scanner_is_noticed_and_so_is_what_it_does_to_the_picture() -> None:
    normals, incoming = Slices(60, "A", 0.0, 1), Slices(60, "B", 0.5, 2)
    rng = np.random.default_rng(5)
    report = checked(np.r_[rng.normal(0, 1, 60), rng.normal(2, 1, 60)], normals, incoming)
    assert not report.usable
    assert report.shift["scanner"] == 1
    assert report.controls["mean_intensity"] > 0.99
    assert "another scanner" in report.sentence and "mean_intensity tells incoming" in report.sentence


def test_no_incoming_scans_give_no_choice() -> None:
    normals, nobody = Slices(20, "A", 0.0, 1), Slices(0, "A", 0.0, 2)
    report = checked(np.arange(20.0), normals, nobody)
    assert report.value is None and not report.usable
    assert "no unlabelled incoming scans" in report.sentence
