"""The night's page: series that wait for a model are named, and earlier news is not repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.ingest.ingest import ingest
from pipeline.dicom.phantom.folder import write_phantoms
from pipeline.stages.operations.night_report import build_night_report, count_without_model, in_words


def test_studies_without_a_model_are_on_the_page(settings: Settings, tmp_path: Path) -> None:
    """They arrived, nobody reads them, and no run lists them: only the page mentions them."""
    assert count_without_model(settings) == {} and in_words({}) == ""
    write_phantoms(tmp_path / "ct", 2, "CT", 0, 1, size=32)
    write_phantoms(tmp_path / "mr", 1, "MR", 0, 2, size=32)
    ingest([tmp_path / "ct", tmp_path / "mr"], settings)
    assert count_without_model(settings) == {"phantom-ct": 2, "phantom-mr": 1}
    report = build_night_report(settings, [], [], [])
    assert report["without_model"] == {"phantom-ct": 2, "phantom-mr": 1}
    assert "no model yet: phantom-ct (2), phantom-mr (1). Train one" in report["markdown"]


def test_the_night_says_whether_scores_drift(scored: Any) -> None:
    with Catalogue.open(scored.settings) as catalogue:
        p_values = np.array([row.p_value for row in catalogue.list_findings(scored.run_id)])
    night = [{"run_id": scored.run_id, "route": "phantom-mr", "statement": ""}]
    report = build_night_report(scored.settings, [], night, [])
    tail = float((p_values <= 0.1).mean())
    assert len(p_values) == 6 and report["drift"] == {"phantom-mr": tail}
    assert f"{tail:.0%} of 6 studies have a p-value of 0.1 or less" in report["markdown"]
    assert build_night_report(scored.settings, [], [], [])["drift"] == {}
