"""A deadline ends a night at the border of a study: its results are stored, and the next one takes the rest."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.operations_schema import ScoringClaim
from pipeline.data.catalogue.schema import now
from pipeline.data.catalogue.scoring_claims import join_run
from pipeline.stages.detect.score import find_detectors_to_run, score
from pipeline.stages.operations.drift import read_night
from pipeline.stages.operations.night_report import build_night_report
from pipeline.stages.watch.clock import Tick
from pipeline.stages.watch.nights import find_deadline, is_over, last_night, record_night, register_schedules, summarise
from pipeline.stages.watch.schedule import Schedule
from pipeline.stages.watch.site_config import WatchConfig
from pipeline.stages.watch.status import night_sentence
from pipeline.stages.watch.troubles import judge_night


@pytest.fixture
def ward(trained: Any, tmp_path: Path) -> Settings:
    """A copy of the trained workspace; nobody has scored its six new studies."""
    shutil.copytree(trained.settings.workspace, tmp_path / "ward")
    return Settings(workspace=tmp_path / "ward")


def after(count: int) -> Callable[[], bool]:
    """Return a deadline that has come once it has been asked so many times."""
    asked = itertools.count()
    return lambda: next(asked) >= count


def findings(settings: Settings) -> dict[str, tuple[Any, ...]]:
    with Catalogue.open(settings) as catalogue:
        return {row.study_id: (row.score, row.p_value) for row in catalogue.list_findings()}


def claims(settings: Settings) -> int:
    with Catalogue.open(settings) as catalogue, catalogue.reading() as session:
        return session.query(ScoringClaim).count()


def test_what_is_left_is_scored_by_the_next_night_and_nothing_twice(ward: Settings, tmp_path: Path) -> None:
    shutil.copytree(ward.workspace, tmp_path / "whole")
    whole = Settings(workspace=tmp_path / "whole")
    (run,) = find_detectors_to_run(ward)
    score(run, whole)
    first = score(run, ward, stop=after(4))
    assert 0 < first.studies < 6 and first.left == 6 - first.studies and claims(ward) == 0
    assert f"{first.left} studies are left to the next run" in first.sentence()
    second = score(run, ward)
    assert second.run_id != first.run_id and (second.studies, second.left) == (first.left, 0)
    assert findings(ward) == findings(whole)


def test_a_share_ends_with_the_study_in_hand(ward: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.catalogue.scoring_claims.Claims.take", take_all)
    (run,) = find_detectors_to_run(ward)
    report = score(run, ward, stop=after(3))
    # Asked before the share, then after each study's only series: the third of six was the last one.
    assert (report.studies, report.left) == (3, 3) and len(findings(ward)) == 3


def take_all(self: Any) -> Any:
    from pipeline.data.catalogue.scoring_claims import OPEN, TAKEN, Taken

    with self.catalogue.session() as session:
        rows = session.query(ScoringClaim).filter_by(run_id=self.run_id, state=OPEN).order_by(ScoringClaim.id).all()
        for row in rows:
            row.state, row.worker, row.expires_at = TAKEN, self.worker, now() + timedelta(minutes=2)
        return Taken(tuple(row.study_id for row in rows))


def test_a_deadline_that_came_before_scoring_leaves_everything_and_a_kill_does_not_keep_it(ward: Settings) -> None:
    (run,) = find_detectors_to_run(ward)
    report = score(run, ward, stop=lambda: True)
    assert (report.studies, report.left) == (0, 6) and "6 studies are left" in report.statement
    assert "nothing new" not in report.statement
    with Catalogue.open(ward) as catalogue:  # killed after it has left its studies, and before its end
        studies = [f"{study}" for study in list_studies(catalogue)][:3]
        one = join_run(catalogue, report.route, "runs/x", "a" * 64, studies)
        one.leave()
        assert (one.count_left(), one.count_left_to_later()) == (0, 3)
        assert one.take().studies == ()
        again = join_run(catalogue, report.route, "runs/x", "a" * 64, studies)
        assert again.run_id == one.run_id and again.count_left() == 3 and again.take().studies


def list_studies(catalogue: Catalogue) -> list[str]:
    from pipeline.data.catalogue.schema import Study

    with catalogue.reading() as session:
        return [row.study_id for row in session.query(Study)]


def test_a_stop_waits_for_what_another_worker_holds(ward: Settings) -> None:
    (run,) = find_detectors_to_run(ward)
    with Catalogue.open(ward) as catalogue:
        first = score(run, ward, stop=lambda: True)
        left = list_studies(catalogue)
        one, other = (join_run(catalogue, first.route, "runs/x", "b" * 64, left) for _ in range(2))
        held = other.take().studies
        one.leave()
        assert one.count_left() == len(held) > 0
        with one.closing(0) as ending:
            assert ending is None
        other.complete(dict.fromkeys(held, {}))
        with one.closing(len(held)) as ending:
            assert ending is not None


def test_status_report_page_and_alert_say_how_many_are_left(ward: Settings) -> None:
    (run,) = find_detectors_to_run(ward)
    with record_night(ward, "nightly") as night:
        report = build_night_report(ward, [], [score(run, ward, stop=lambda: True).to_json()], [], (), ["1 training"])
        night.summary = summarise(report)
    sentence = "Left to the next one: 6 studies without a score, 1 training."
    assert sentence in report["markdown"] and night.summary["left"] == 6
    with Catalogue.open(ward) as catalogue:
        row = last_night(catalogue, "nightly")
        page = read_night(catalogue, now().date())
    assert row is not None
    late = [one for one in judge_night(row, Schedule(), WatchConfig(), now()) if one.key == "late:nightly"]
    assert [one.severity for one in late] == ["warning"] and sentence in late[0].sentence
    began = {"schedule": "nightly", "started_at": "2026-01-31 01:30", "state": row.state, "seconds": 1.0}
    assert "6 left to the next night" in night_sentence({**began, **row.summary})
    assert "6 studies are left to the next run" in page["runs"][-1]["statement"]
    with record_night(ward, "nightly") as night:
        night.summary = summarise(build_night_report(ward, [], [score(run, ward).to_json()], []))
    with Catalogue.open(ward) as catalogue:
        row = last_night(catalogue, "nightly")
    assert row is not None and row.summary["left"] == 0 and "left" not in night_sentence({**began, **row.summary})
    assert not [one for one in judge_night(row, Schedule(), WatchConfig(), now()) if one.key == "late:nightly"]


def test_the_deadline_is_that_of_the_schedule_and_a_jump_of_the_clock_does_not_move_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_deadline(settings, Schedule()) is None and not is_over(None)
    assert find_deadline(settings, Schedule(deadline_hours=3)) is not None  # a request that states it
    assert find_deadline(settings, Schedule(cron="0 1 * * *")) is not None  # a schedule file: six hours
    register_schedules(settings, [Schedule(deadline_hours=2)])
    deadline = find_deadline(settings, Schedule(deadline_hours=3))
    assert deadline is not None and not is_over(deadline.to_json())
    at = Tick.now()
    moments = {hours: replace(at, steady=at.steady + 3600 * hours) for hours in (1.9, 2.1)}
    moments |= {"jumped": replace(at, wall=at.wall + 1e6)}
    moments |= {f"elsewhere {hours}": Tick("another", at.wall + 3600 * hours, 0.0) for hours in (1.9, 2.1)}
    over = {}
    for name, moment in moments.items():
        monkeypatch.setattr(Tick, "now", classmethod(lambda _, moment=moment: moment))
        over[name] = is_over(deadline.to_json())
    assert over == {1.9: False, 2.1: True, "jumped": False, "elsewhere 1.9": False, "elsewhere 2.1": True}
