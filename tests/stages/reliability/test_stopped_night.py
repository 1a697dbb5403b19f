"""The next night logs and reports the scans that a night scored before it was stopped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import ReviewPolicy, Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.run_records import PENDING
from pipeline.errors import ConfigError
from pipeline.stages.detect import score as scoring
from pipeline.stages.detect.score import find_detectors_to_run, list_unreported, score
from pipeline.stages.operations.night_report import build_night_report
from pipeline.tracking.logged_runs import list_logged_runs


@pytest.fixture
def ward(trained: Any, tmp_path: Path) -> Settings:
    """A copy of the trained workspace, whose six unlabelled studies nobody has scored."""
    shutil.copytree(trained.settings.workspace, tmp_path / "ward")
    return Settings(workspace=tmp_path / "ward", review=ReviewPolicy(sample_share=1))


def test_what_was_not_logged_or_reported_is_by_the_next_night(ward: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = find_detectors_to_run(ward)

    def gone(*_: Any, **__: Any) -> None:
        raise ConfigError("MLflow cannot open its store (OperationalError).")

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "track", gone)
        with pytest.raises(ConfigError, match="MLflow"):
            score(run, ward, for_report=True)
    (unreported,) = list_unreported(ward, ())
    assert unreported["studies"] == 6
    nothing = score(run, ward, for_report=True)
    assert nothing.studies == 0
    logged = {one["name"]: one for one in list_logged_runs(ward) if one["name"].startswith("score-")}
    assert logged[unreported["run_id"]]["status"] == "FINISHED"
    assert logged[unreported["run_id"]]["metrics"]["studies"] == 6
    report = build_night_report(ward, [], [nothing.to_json()], [])
    assert [one["studies"] for one in report["scored"]] == [6, 0] and len(report["flagged"]) == 2
    assert list_unreported(ward, ()) == []
    with Catalogue.open(ward) as catalogue:
        assert catalogue.run(unreported["run_id"]).summary[PENDING] == []
