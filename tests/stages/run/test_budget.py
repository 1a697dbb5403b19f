"""A training that its cap of CPU time ended says so in run, report, card and list of runs."""

from __future__ import annotations

from typing import Any

import pytest

from flows.night_log import cut_lines
from pipeline.cli.lists import _row
from pipeline.config import load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.errors import ArtefactError
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.detect.evaluate import evaluate, headline
from pipeline.stages.detect.train import train
from pipeline.stages.operations.model_card import _facts
from pipeline.stages.operations.night_report import build_night_report
from pipeline.stages.run.budget import CUT_SHORT, describe_cut, list_cuts
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder


def test_a_cap_that_ends_a_training_is_named_everywhere(hospital: Any) -> None:
    said: list[str] = []
    asked = ["training.images=1000000", "training.max_seconds=0.01", "training.seed=5"]
    run = train(load_config(hospital.run_file, RunConfig, asked), hospital.settings, say=said.append)
    folder = RunFolder.open(run)
    cut = describe_cut(folder)
    seen = folder.read("budget.json")["images_seen"]
    assert 0 < seen < 1_000_000 and said[-1] == cut
    assert f"{seen:,} of 1,000,000".replace(",", " ") in cut and "0.01 CPU seconds" in cut
    report = calibrate(run, hospital.settings, to_registry=False)
    assert report.cut_short == cut and cut in report.sentence()
    assert ("Training", cut) in list(_facts(folder)) and list_cuts(folder) == [cut]
    measured = evaluate(report.run, hospital.settings)
    assert measured.facts["training"] == CUT_SHORT and cut in measured.notes and CUT_SHORT in headline(measured)
    with Catalogue.open(hospital.settings) as catalogue:
        run_id = catalogue.start_run("score", report.route, hospital.settings.relative(folder.path))
    night = build_night_report(hospital.settings, [], [{"run_id": run_id, "route": report.route, "statement": ""}], [])
    assert night["cut_short"] == {report.route: [cut]} and cut in night["markdown"]
    assert cut_lines(night["cut_short"]) == [f"{report.route}: {cut}"]
    with Catalogue.open(hospital.settings) as catalogue:
        assert "cut short" in _row(catalogue.run(folder.run_id), {}, False)["summary"]
    (folder.path / "budget.json").write_text('{"stopped": "im')
    with pytest.raises(ArtefactError, match="budget.json"):
        describe_cut(folder)


def test_a_whole_training_says_nothing_of_a_cap(trained_run: Any) -> None:
    folder = RunFolder.open(trained_run)
    assert folder.read("budget.json")["stopped"] == "images" and describe_cut(folder) == ""
