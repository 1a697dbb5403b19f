"""Scoring by several processes at once: nothing lost, nothing twice, whoever is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import Settings
from pipeline.data.catalogue import scoring_claims
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.operations_schema import ScoringClaim
from pipeline.data.catalogue.schema import Patient, Study
from pipeline.data.catalogue.scoring_claims import Claims, join_run
from pipeline.stages.detect import score as stage
from pipeline.stages.detect.score import find_detectors_to_run, score
from pipeline.stages.detect.score_shard import ShardScorer

SHA = "a" * 64


@pytest.fixture
def studies(any_settings: Settings) -> tuple[Catalogue, list[str]]:
    """A catalogue with twelve studies."""
    names = [f"{number:032x}" for number in range(12)]
    with Catalogue.open(any_settings) as catalogue:
        with catalogue.session() as session:
            session.add_all(Patient(patient_id=name, draw=0.5) for name in names)
            session.flush()
            session.add_all(Study(study_id=name, patient_id=name) for name in names)
        yield catalogue, names


def test_two_workers_share_the_studies_of_one_run(studies: Any) -> None:
    catalogue, names = studies
    first, second = (join_run(catalogue, "ct", "runs/x", SHA, names) for _ in range(2))
    assert first.run_id == second.run_id
    taken = Counter()
    while shares := [worker.take().studies for worker in (first, second)]:
        taken.update(study for share in shares for study in share)
        for worker, share in zip((first, second), shares, strict=True):
            worker.complete({study: {"by": worker.worker} for study in share})
        if not any(shares):
            break
    assert taken == Counter(names)  # each once
    assert first.count_left() == 0
    assert {result["by"] for result in first.read_results().values()} == {first.worker, second.worker}


def test_a_dead_worker_loses_nothing_and_a_late_one_is_refused(studies: Any, monkeypatch: Any) -> None:
    catalogue, names = studies
    monkeypatch.setattr(scoring_claims, "LEASE_SECONDS", 0.0)  # every lease has lapsed when it is looked at
    dead = join_run(catalogue, "ct", "runs/x", SHA, names[:3])
    held = dead.take().studies
    time.sleep(0.01)
    monkeypatch.setattr(scoring_claims, "LEASE_SECONDS", 60.0)
    alive = join_run(catalogue, "ct", "runs/x", SHA, names[:3])
    taken: list[str] = []
    while share := alive.take().studies:
        taken += share
        if taken[-1] not in held:
            alive.complete({study: {"by": "alive"} for study in share})
    assert sorted(taken) == sorted(names[:3]) and taken[-1] in held  # what somebody died with comes last
    assert dead.complete({study: {"by": "dead"} for study in held}) == 0
    assert alive.complete({study: {"by": "alive"} for study in held}) == len(held)
    assert {result["by"] for result in alive.read_results().values()} == {"alive"}


def test_a_study_that_kills_every_worker_is_given_up(studies: Any, monkeypatch: Any) -> None:
    catalogue, names = studies
    monkeypatch.setattr(scoring_claims, "LEASE_SECONDS", 0.0)
    deaths = 0
    while True:
        time.sleep(0.01)
        taken = join_run(catalogue, "ct", "runs/x", SHA, names[:1]).take()
        if taken.given_up:
            break
        deaths += len(taken.studies)
    assert taken.given_up == (names[0],)
    assert deaths == scoring_claims.DEATHS + 1  # the first was perhaps another study's fault


def test_a_run_ends_once(studies: Any) -> None:
    catalogue, names = studies
    first, second = (join_run(catalogue, "ct", "runs/x", SHA, names[:1]) for _ in range(2))
    with first.closing(0) as ending:
        assert ending is None  # a study is left
    assert first.complete(dict.fromkeys(first.take().studies, {})) == 1
    with first.closing(0) as ending:
        assert ending is None  # it came since the results were read
    with first.closing(1) as ending:
        assert ending is not None
    with second.closing(1) as ending:
        assert ending is None
    with catalogue.reading() as session:
        assert session.query(ScoringClaim).count() == 0
    assert join_run(catalogue, "ct", "runs/x", SHA, names).run_id != first.run_id


@pytest.fixture
def hospital(trained: Any, tmp_path: Path) -> Settings:
    """A copy of the trained workspace; nobody has scored its six new studies."""
    shutil.copytree(trained.settings.workspace, tmp_path / "workspace")
    return Settings(workspace=tmp_path / "workspace")


@pytest.fixture
def alone(trained: Any, tmp_path: Path) -> dict[str, Any]:
    """What one worker finds, by study."""
    shutil.copytree(trained.settings.workspace, tmp_path / "alone")
    settings = Settings(workspace=tmp_path / "alone")
    score(find_detectors_to_run(settings)[0], settings)
    return outcome(settings)


def outcome(settings: Settings) -> dict[str, Any]:
    with Catalogue.open(settings) as catalogue:
        return {row.study_id: (row.score, row.p_value, row.flagged, row.rule) for row in catalogue.list_findings()}


def heatmaps(settings: Settings) -> dict[str, dict[str, np.ndarray]]:
    return {file.name: dict(np.load(file)) for file in settings.runs.glob("*/heatmaps/*.npz")}


def test_a_worker_that_stops_midway_is_continued_by_the_next(
    hospital: Settings, alone: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = find_detectors_to_run(hospital)[0], []
    whole = ShardScorer.score_next

    def stop(self: ShardScorer, *more: Any) -> int | None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(self, *more)

    monkeypatch.setattr(ShardScorer, "score_next", stop)
    with pytest.raises(KeyboardInterrupt):
        score(run, hospital)
    assert outcome(hospital) == {}
    with Catalogue.open(hospital) as catalogue:
        (failed,) = catalogue.list_runs("score")
        assert failed.state == "failed"
    report = score(run, hospital)
    assert report.run_id == failed.run_id and report.studies == 6
    assert outcome(hospital) == alone
    ours, theirs = heatmaps(hospital), heatmaps(Settings(workspace=tmp_path / "alone"))
    assert ours.keys() == theirs.keys() and len(ours) == report.flagged
    for name, arrays in ours.items():
        for key, values in arrays.items():
            np.testing.assert_array_equal(values, theirs[name][key])
    assert not list(hospital.runs.glob("*/scoring/*"))


def test_a_worker_reports_what_another_ended(hospital: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    run, reports = find_detectors_to_run(hospital)[0], []
    work = stage._work

    def overtaken(*arguments: Any) -> None:
        monkeypatch.setattr(stage, "_work", work)
        reports.append(score(run, hospital))
        work(*arguments)

    monkeypatch.setattr(stage, "_work", overtaken)
    reports.append(score(run, hospital))
    assert reports[0] == reports[1] and reports[0].studies == 6


WORKER = """
import sys, time
from pathlib import Path
from pipeline.config import Settings
from pipeline.data.catalogue import scoring_claims
from pipeline.stages.detect.score import find_detectors_to_run, score
from pipeline.stages.detect.score_shard import ShardScorer

scoring_claims.LEASE_SECONDS = 2.0
settings, ready = Settings.load(sys.argv[1]), Path(sys.argv[2])
score_share = ShardScorer._score

def slow(self, *arguments):
    ready.touch()
    time.sleep(float(sys.argv[3]))
    return score_share(self, *arguments)

ShardScorer._score = slow
print(score(find_detectors_to_run(settings)[0], settings).run_id)
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a worker in a process of its own, which touches a file when it has taken studies."""

    def run(settings: Settings, ready: Path, seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER, str(settings.workspace), str(ready), str(seconds)]
        where = {"cwd": Path(__file__).parents[3], "env": os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}}
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **where)

    return run


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(hospital: Settings, alone: dict[str, Any], start: Any, tmp_path: Path) -> None:
    victim = start(hospital, tmp_path / "first", 600)
    while not (tmp_path / "first").exists():
        assert victim.poll() is None
        time.sleep(0.05)
    other = start(hospital, tmp_path / "second", 0.1)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert other.wait(timeout=300) == 0
    assert outcome(hospital) == alone
    with Catalogue.open(hospital) as catalogue:
        assert [run.state for run in catalogue.list_runs("score")] == ["done"]


def test_claims_name_workers_apart(studies: Any) -> None:
    catalogue, names = studies
    one, other = (join_run(catalogue, "ct", "runs/x", SHA, names) for _ in range(2))
    assert isinstance(one, Claims) and one.worker != other.worker
