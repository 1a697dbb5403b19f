"""Drift of a workspace: a scanner that changes is named, with its attribute and a notice."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.charts.evidence_chart import draw_evidence
from pipeline.cli import group
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.notices import list_notices
from pipeline.data.catalogue.operations_schema import ScanMeasures
from pipeline.data.catalogue.schema import FindingRow, Patient, RunRow, Series, Study
from pipeline.monitoring.config import DriftPolicy
from pipeline.stages.operations.drift_watch import (
    DriftWatch,
    read_policy,
    read_scans,
    recall_watch,
    update_drift,
    watch_drift,
)

POLICY = DriftPolicy()
FIRST, A_NIGHT, CHANGE = datetime(2026, 1, 1, 2), 12, 25


def fill(settings: Settings, nights: int, changed: bool, alter: str = "M-2 v2") -> None:
    """Write nights of findings into the catalogue; after `CHANGE` one of two scanners scores higher and is renamed."""
    rng = np.random.default_rng(0)
    with Catalogue.open(settings) as catalogue, catalogue.session() as session:
        for night in range(nights):
            run_id, at = f"score-{night:03d}", FIRST + timedelta(night)
            session.add(RunRow(run_id=run_id, kind="score", route="mr", folder="", state="done", started_at=at))
            for number in range(A_NIGHT):
                name, second = f"{night:03d}-{number}", number % 2 == 1
                new = changed and second and night >= CHANGE
                facts = {"scanner": (alter if new else "M-2") if second else "M-1", "description": ["flair"]}
                for row in (
                    Patient(patient_id=f"p{name}", draw=float(rng.random())),
                    Study(study_id=f"t{name}", patient_id=f"p{name}"),
                    Series(series_id=f"s{name}", study_id=f"t{name}", modality="MR", attributes=facts),
                ):
                    session.add(row)
                    session.flush()
                score = float(rng.gamma(3.0) + 4.0 * new)
                session.add(
                    FindingRow(
                        study_id=f"t{name}",
                        patient_id=f"p{name}",
                        route="mr",
                        model_sha256="m",
                        run_id=run_id,
                        score=score,
                        p_value=0.5,
                        evidence=[{"series_id": f"s{name}"}],
                        scored_at=at,
                    )  # fmt: skip
                )
                noise = {"noise": float(rng.normal() + 2.0 * new)}
                session.add(ScanMeasures(study_id=f"t{name}", route="mr", model_sha256="m", measures=noise))


def _watch(settings: Settings) -> DriftWatch:
    with Catalogue.open(settings) as catalogue:
        return update_drift(catalogue, POLICY)


def test_steady_nights_raise_nothing(settings: Settings) -> None:
    fill(settings, 30, changed=False)
    watch = _watch(settings)
    assert watch.changed == () and len(watch.streams) == 4  # the route, two scanners, one protocol
    assert "4 streams are watched" in watch.sentences()[0] and len(watch.sentences()) == 1
    with Catalogue.open(settings) as catalogue:
        assert list_notices(catalogue) == []


def test_a_changed_scanner_is_dated_and_attributed(settings: Settings) -> None:
    fill(settings, 45, changed=True, alter="M-2")  # an upgrade that keeps the scanner's name
    watch = _watch(settings)
    streams = {one.group: one for one in watch.changed}
    assert "scanner M-2" in streams and "scanner M-1" not in streams
    second = streams["scanner M-2"]
    assert second.evidence.since is not None
    assert abs((second.evidence.since - FIRST.date()).days - CHANGE) <= 3
    assert [one.stream for one in second.moved] == ["noise"]
    noise = next(one for one in watch.statistics if one.statistic == "noise")
    assert noise.signals and (noise.signals[0] - FIRST.date()).days >= CHANGE
    assert any("CUSUM of noise" in line and "on average" in line for line in watch.sentences())
    with Catalogue.open(settings) as catalogue:
        (notice,) = list_notices(catalogue)
        assert notice.key == "drift:mr" and "since about" in notice.sentence
        assert watch_drift(catalogue, POLICY).to_json() == watch.to_json()  # the same findings, the same answer
        assert recall_watch(catalogue, POLICY) is recall_watch(catalogue, POLICY)
        assert recall_watch(catalogue, POLICY, ["score-000"]) != watch
        assert len(list_notices(catalogue)) == 1
    svg = draw_evidence(second.chart(), "one")
    assert "with an alarm on" in svg and svg.startswith("<svg")


def test_a_renamed_scanner_is_attributed_to_its_name(settings: Settings) -> None:
    fill(settings, 50, changed=True)
    route = next(one for one in _watch(settings).changed if not one.group)
    assert {"scanner", "noise"} == {one.stream for one in route.moved}


def test_a_patient_counts_once_and_hidden_runs_not_at_all(settings: Settings) -> None:
    fill(settings, 3, changed=False)
    with Catalogue.open(settings) as catalogue:
        with catalogue.session() as session:
            session.add(Study(study_id="again", patient_id="p000-0"))
            session.flush()
            later = FIRST + timedelta(2)
            session.add(
                FindingRow(
                    study_id="again",
                    patient_id="p000-0",
                    route="mr",
                    model_sha256="m",
                    run_id="score-002",
                    score=9.0,
                    evidence=[],
                    scored_at=later,
                )  # fmt: skip
            )
        assert len(read_scans(catalogue)) == 3 * A_NIGHT
        assert len(read_scans(catalogue, ["score-001"])) == 2 * A_NIGHT


def test_an_empty_workspace_has_no_streams(settings: Settings) -> None:
    watch = _watch(settings)
    assert watch.streams == () and watch.sentences() == []


def test_the_workspace_may_have_its_own_policy(settings: Settings) -> None:
    assert read_policy(settings) == POLICY
    Path(settings.workspace).mkdir(parents=True, exist_ok=True)
    (settings.workspace / "drift.yaml").write_text("alpha: 0.05\n")
    assert read_policy(settings).alpha == pytest.approx(0.05)


def test_an_unknown_route_is_named_beside_those_there_are(settings: Settings) -> None:
    done = CliRunner().invoke(group, ["-w", str(settings.workspace), "drift", "--route", "phantom-rm"])
    assert done.exit_code == 2
    assert "The route 'phantom-rm' is unknown" in done.output and ", phantom-mr," in done.output
