"""From a night's scores over readers' decisions to rates: the stage and the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.cli import group
from pipeline.config import ReviewPolicy, Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.errors import EmptySelection
from pipeline.review.decisions import Form
from pipeline.review.permissions import Actor
from pipeline.review.services import Review
from pipeline.review.worklist import WorklistQuery
from pipeline.stages.detect.prospective import estimate_prospective
from pipeline.stages.detect.score import find_detectors_to_run, score
from pipeline.types import RunRef

pytest.importorskip("argon2", reason="argon2-cffi (extra `review`) is not installed")


def scored(trained: Any, tmp_path: Path, policy: ReviewPolicy) -> tuple[Settings, RunRef]:
    workspace = tmp_path / "workspace"
    shutil.copytree(trained.settings.workspace, workspace)
    settings = Settings(workspace=workspace, review=policy)
    (run,) = find_detectors_to_run(settings)
    score(run, settings, again=True)
    return settings, run


def decide(settings: Settings, outcome_of: dict[bool, str], readers: tuple[str, ...] = ("ann",)) -> list[int]:
    """Decide every row of the list by whether it was flagged; the second reader says the same, but of the first row."""
    with Catalogue.open(settings) as catalogue:
        review = Review(catalogue, settings)
        flagged = {row.id: bool(row.flagged) for row in catalogue.list_findings()}
        rows = [row.finding_id for row in review.worklist.read_page(WorklistQuery()).rows]
        for number, finding in enumerate(rows):
            for reader in readers:
                outcome = outcome_of[flagged[finding]]
                if reader != readers[0] and number == 0:
                    outcome = "dismissed" if outcome == "confirmed" else "confirmed"
                seen = review.worklist.read_row(finding).decision_id
                form = Form(finding, outcome, seen, f"token-{finding}-{reader}")
                review.decisions.decide(form, Actor(reader, "reader"))
    return rows


def test_the_night_is_read_and_measured(trained: Any, tmp_path: Path) -> None:
    """2 of 6 flagged, all confirmed; all 4 others sampled and dismissed: sensitivity 1, false-positive rate 0."""
    settings, run = scored(trained, tmp_path, ReviewPolicy(sample_share=1))
    with pytest.raises(EmptySelection, match="nightread review"):
        estimate_prospective(run, settings)
    rows = decide(settings, {True: "confirmed", False: "dismissed"}, ("ann", "ben"))
    report = estimate_prospective(run, settings)
    rates = report.rates
    assert (rates.flagged, rates.unflagged, rates.flagged_read, rates.sampled_read) == (
        2,
        len(rows) - 2,
        2,
        len(rows) - 2,
    )
    assert report.agreement.scans == len(rows) and report.agreement.same == len(rows) - 1
    assert rates.ppv is not None and rates.sensitivity is not None
    assert report.undecided == 0
    assert report.knowing == len(rows) - 2  # the second readings were not blinded
    assert (Path(run.path) / "evaluation" / "prospective" / "report.md").exists()


def test_the_command_prints_ppv_only_without_a_sample(trained: Any, tmp_path: Path) -> None:
    settings, _ = scored(trained, tmp_path, ReviewPolicy(sample_share=0, sample_least=0))
    decide(settings, {True: "dismissed"})
    done = CliRunner().invoke(group, ["-w", str(settings.workspace), "evaluate", "--prospective"])
    assert done.exit_code == 0, done.output
    assert "| sensitivity                       | -" in done.output
    assert "No sampled scan was decided" in done.output
    as_json = CliRunner().invoke(group, ["-w", str(settings.workspace), "evaluate", "--prospective", "--json"])
    (report,) = json.loads(as_json.output)
    assert report["rates"]["ppv"]["value"] == 0 and report["rates"]["sensitivity"] is None
    both = CliRunner().invoke(group, ["-w", str(settings.workspace), "evaluate", "--prospective", "--open-test", "x"])
    assert both.exit_code == 2
