"""Thresholds by group through the stages: calibrated, scored, reproduced, and said in report, card, audit and words."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Settings, load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.detection.conformal import Calibration
from pipeline.detection.detector_file import read_detector
from pipeline.stages.audit.audit_trail import read_audit_trail, write_trail
from pipeline.stages.audit.reproduce import reproduce
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.detect.score import score
from pipeline.stages.detect.train import train
from pipeline.stages.operations.flagged_list import in_words
from pipeline.stages.operations.model_card import read_model_card
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder

CHANGES = ("method={name: pca, directions: 4}", "detection.groups={by: [scanner], margin: 0}")


def test_a_night_ranks_each_scan_in_its_own_group_or_says_that_it_is_pooled(
    trained: Any, phantom_night: Any, tmp_path: Path
) -> None:
    shutil.copytree(trained.settings.workspace, tmp_path / "copy")
    settings = Settings(workspace=tmp_path / "copy", workers=1)
    report = calibrate(train(load_config(phantom_night.config, RunConfig, CHANGES), settings), settings, False)
    detector = read_detector(RunFolder.open(report.run).detector, report.run.sha256)
    calibration = Calibration.model_validate(detector.spec["calibration"])
    assert sum(row["n"] for row in report.groups) == calibration.n
    assert calibrate(report.run, settings, False) == report, "the stored report"
    assert all(row["group"].startswith("scanner ") for row in report.groups)
    own = {one.name: one.scores for one in calibration.groups if len(one.scores) >= report.group_least}
    assert own and report.group_least == round(1 / report.alpha) - 1
    assert "Groups with thresholds of their own" in report.sentence()
    score(report.run, settings)
    with Catalogue.open(settings) as catalogue:
        rows = [row for row in catalogue.list_findings() if row.model_sha256 == report.run.sha256]
        assert len(rows) == 6
        for row in rows:
            name = row.guarantee.removeprefix("conformal within ")
            scores = own.get(name, calibration.scores)
            assert name in own or "pooled over all groups: scanner " in row.guarantee
            assert row.p_value == pytest.approx((1 + sum(one >= row.score for one in scores)) / (len(scores) + 1))
            assert row.n_calibration == len(scores)
            assert ("(scanner " in in_words(row.p_value, row.n_calibration, row.guarantee)) is (name in own)
        assert any("within" in row.guarantee for row in rows)
        trail = read_audit_trail(catalogue, settings, rows[0])
        assert [one["group"] for one in trail["threshold"]["groups"]] == [row["group"] for row in report.groups]
        assert rows[0].guarantee in "\n".join(write_trail(trail))
        card = read_model_card(catalogue, settings, report.run.sha256)
        assert card is not None and len(card["calibration"]["groups"]) == len(report.groups)
    again = reproduce(settings, str(rows[0].id))
    assert again.agrees and again.p_computed == rows[0].p_value


def test_groups_need_independent_patients(phantom_night: Any) -> None:
    with pytest.raises(Exception, match="independent patients"):
        load_config(phantom_night.config, RunConfig, [*CHANGES, "unit=slice"])
