"""AUCp: what it is, and the two ways in which it fails, both of which must be said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.stages.aucp import auroc, check_aucp
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
    side = np.arange(len(scores)) >= len(normals)
    return check_aucp(scores, side, [*normals.patients, *incoming.patients], normals, incoming)  # type: ignore[arg-type]


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
